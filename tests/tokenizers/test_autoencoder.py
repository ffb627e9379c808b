import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.interop import release
from unified.tokenizers import autoencoder, convolution
from unified.tokenizers.autoencoder import Autoencoder, AutoencoderConfig

TINY = AutoencoderConfig(
    encoder_widths=(4, 8),
    decoder_widths=(8, 8),
    encoder_blocks=1,
    decoder_blocks=2,
    latent_channels=3,
    num_groups=2,
    scale=2.0,
    shift=0.5,
)


@functools.cache
def tiny() -> Autoencoder:
    """Every parameter random, biases and the zero-initialised kernels too."""
    return randomise(Autoencoder(TINY, rngs=nnx.Rngs(0)))


def encode(x):
    return jax.jit(tiny().encode)(x)


def randomise(model: Autoencoder) -> Autoencoder:
    graphdef, params = nnx.split(model)
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    draw = lambda p: 0.2 * rng.normal(size=p.shape).astype(np.float32) + (p.ndim == 1)
    return nnx.merge(graphdef, treedef.unflatten([jnp.asarray(draw(p)) for p in leaves]))


def pixels(seed=0, shape=(2, 8, 12, 3)):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1)


def test_the_default_is_the_flux_autoencoder():
    """Names and sizes of the published weights: 244 tensors, 83,819,683 numbers."""
    model = nnx.eval_shape(lambda: Autoencoder(AutoencoderConfig(), rngs=nnx.Rngs(0)))
    params = release.flatten(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert len(params) == 244
    assert sum(math.prod(p.shape) for p in params.values()) == 83_819_683
    assert params["encoder/conv_out/kernel"].shape == (3 * 3 * 512, 32)
    assert params["encoder/down/1/block/0/nin_shortcut/kernel"].shape == (128, 256)
    assert params["decoder/up/3/block/2/conv1/kernel"].shape == (9 * 512, 512)
    assert "decoder/up/0/upsample/conv/kernel" not in params  # level 0 is the finest
    assert "encoder/down/3/downsample/conv/kernel" not in params
    assert AutoencoderConfig().stride == 8


def test_shapes_and_dtypes():
    x = jnp.zeros((2, 8, 12, 3), jnp.bfloat16)
    for part in jax.eval_shape(tiny().encode, x):
        assert (part.shape, part.dtype) == ((2, 4, 6, 3), jnp.bfloat16)
    again = jax.eval_shape(lambda x: tiny().pixels(tiny().latents(x)), x)
    assert (again.shape, again.dtype) == (x.shape, jnp.bfloat16)


def test_normalisation_goes_and_comes_back():
    mean, _ = encode(pixels())
    latents = jax.jit(tiny().latents)(pixels())
    np.testing.assert_allclose(latents, (mean - 0.5) * 2.0, rtol=1e-5, atol=1e-6)
    pictures = jax.jit(tiny().pixels)(latents)
    np.testing.assert_allclose(pictures, jax.jit(tiny().decode)(mean), atol=1e-5)


def test_a_key_draws_from_the_posterior():
    mean, logvar = jnp.full((1, 64, 64, 2), 3.0), jnp.full((1, 64, 64, 2), -2.0)
    drawn = autoencoder.sample(jax.random.key(0), mean, logvar)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [3.0, math.exp(-1)], rtol=0.02)
    latents = jax.jit(tiny().latents)
    once, again, other = (latents(pixels(), jax.random.key(i)) for i in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)


def test_kl_divergence_of_known_gaussians():
    mean, deviation = jnp.array([0.0, 2.0, 0.0]), jnp.array([1.0, 1.0, math.e])
    kl = autoencoder.kl_divergence(mean, 2 * jnp.log(deviation))
    np.testing.assert_allclose(kl, [0, 2, (math.e**2 - 3) / 2], rtol=1e-6)


def test_downsampling_pads_after_the_picture_only():
    """A kernel that reads its last row and column sees zeros there; no zero comes first."""
    level = convolution.Down(1, 1, 0, 1, True, rngs=nnx.Rngs(0))
    picture = jnp.arange(1.0, 17).reshape(1, 4, 4, 1)
    tap = lambda row, column: jnp.zeros((9, 1)).at[3 * row + column].set(1.0)
    level.downsample.conv.kernel.set_value(tap(0, 0))
    np.testing.assert_array_equal(level(picture)[0, ..., 0], [[1, 3], [9, 11]])
    level.downsample.conv.kernel.set_value(tap(2, 2))
    np.testing.assert_array_equal(level(picture)[0, ..., 0], [[11, 0], [0, 0]])


def test_upsampling_repeats_the_nearest_pixel():
    level = convolution.Up(1, 1, 0, 1, True, rngs=nnx.Rngs(0))
    level.upsample.conv.kernel.set_value(jnp.zeros((9, 1)).at[4].set(1.0))
    picture = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    want = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    np.testing.assert_array_equal(level(picture)[0, ..., 0], want)


def test_group_norm_takes_each_group_of_each_picture_alone():
    norm = convolution.GroupNorm(4, 2, rngs=nnx.Rngs(0))
    x = 5 + jax.random.normal(jax.random.key(0), (2, 3, 3, 4)) * jnp.array([1, 2, 30, 40])
    y = np.asarray(norm(x)).reshape(2, 9, 2, 2)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 3)), 1, rtol=1e-4)


def test_residual_blocks_start_as_the_identity():
    block = convolution.ResidualBlock(4, 4, 2, rngs=nnx.Rngs(0))
    attention = convolution.Attention(4, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    np.testing.assert_array_equal(jax.jit(lambda x: attention(block(x)))(x), x)


def test_pictures_of_a_batch_do_not_meet():
    """The second is the same beside another first."""
    pair = pixels()
    beside_other = encode(pair.at[0].set(-pair[0]))[0]
    np.testing.assert_array_equal(encode(pair)[0][1], beside_other[1])
    assert not np.allclose(encode(pair)[0][0], beside_other[0])


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="same number of levels"):
        AutoencoderConfig(encoder_widths=(32, 64))
    with pytest.raises(ValueError, match="does not divide width 48"):
        AutoencoderConfig(encoder_widths=(32, 48), decoder_widths=(32, 64))
    with pytest.raises(ValueError, match="multiples of 2"):
        tiny().encode(pixels(shape=(1, 7, 8, 3)))


def from_published(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """A tensor of the original (OIHW, or a linear layer's [out in]) as ours."""
    *path, leaf = name.split(".")
    if leaf == "weight" and tensor.ndim > 1:
        spatial = tensor.reshape(*tensor.shape[:2], -1)  # out, in, row and column
        return "/".join([*path, "kernel"]), spatial.transpose(2, 1, 0).reshape(-1, len(tensor))
    norm = "norm" in path[-1] and leaf == "weight"
    return "/".join([*path, "scale" if norm else leaf]), tensor


def from_diffusers(name: str, levels: int) -> str:
    """Diffusers' names -> the published ones: its decoder counts levels from the coarsest."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for i in range(levels):
        name = name.replace(f"down_blocks.{i}.", f"down.{i}.")
        name = name.replace(f"up_blocks.{i}.", f"up.{levels - 1 - i}.")
    for theirs, published in (
        ("resnets.", "block."),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("mid_block.block.0", "mid.block_1"),
        ("mid_block.block.1", "mid.block_2"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
    ):
        name = name.replace(theirs, published)
    return name


@pytest.mark.parity
def test_equals_diffusers():
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    original = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    cfg = AutoencoderConfig((8, 16, 16), (8, 16, 16), 2, 3, 4, 4)
    graphdef, params = nnx.split(Autoencoder(cfg, rngs=nnx.Rngs(0)), nnx.Param)
    named = {from_diffusers(k, 3): v.numpy() for k, v in original.state_dict().items()}
    loaded = release.unflatten(dict(from_published(k, v) for k, v in named.items()))
    nnx.replace_by_pure_dict(params, release.merge(nnx.to_pure_dict(params), loaded))
    model = nnx.merge(graphdef, params)

    x = np.asarray(pixels(shape=(2, 16, 24, 3)))
    nchw = lambda a: torch.from_numpy(np.array(a).transpose(0, 3, 1, 2))
    nhwc = lambda a: a.numpy().transpose(0, 2, 3, 1)
    with torch.no_grad():
        posterior = original.encode(nchw(x)).latent_dist
        mean, logvar = jax.jit(model.encode)(x)
        close(mean, nhwc(posterior.mean))
        close(logvar, nhwc(posterior.logvar))
        close(jax.jit(model.decode)(mean), nhwc(original.decode(posterior.mean).sample))


def close(got, want):
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
