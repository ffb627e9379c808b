import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.tokenizers.quantizer import (
    Quantizer,
    QuantizerConfig,
    nearest,
    revival,
    rotated,
    unit,
)


def directions(n, dim=6, seed=0):
    return unit(jax.random.normal(jax.random.key(seed), (n, dim)))


def tiny(**fields):
    sizes = {"encoder_widths": (4, 8), "decoder_widths": (4, 8), "num_groups": 2}
    blocks = {"encoder_blocks": 1, "decoder_blocks": 1, "latent_channels": 4}
    cfg = QuantizerConfig(**{**sizes, **blocks, "codebook_size": 16, **fields})
    return Quantizer(cfg, rngs=nnx.Rngs(0))


def test_codes_are_whole_numbers_of_the_codebook_at_every_place():
    model = tiny()
    pixels = jax.random.uniform(jax.random.key(1), (2, 8, 6, 3), minval=-1)
    tokens = model.tokens(pixels)
    assert tokens.shape == (2, 4, 3) and tokens.dtype == jnp.int32
    assert tokens.min() >= 0 and tokens.max() < 16
    assert model.pixels(tokens).shape == pixels.shape
    with pytest.raises(ValueError, match="7x6 pixels: sides must be multiples of 2"):
        model.tokens(pixels[:, :7])


def test_the_nearest_code_is_that_of_least_distance():
    z, codes = directions(20), directions(7, seed=1)
    apart = jnp.linalg.norm(z[:, None] - codes, axis=-1)
    np.testing.assert_array_equal(nearest(z, codes), apart.argmin(-1))


def test_what_is_rotated_is_the_code_and_turns_gradients():
    """The Jacobian is a rotation, and takes the place to the code."""
    [z], [code] = directions(1), directions(1, seed=1)
    np.testing.assert_allclose(rotated(z, code), code, atol=1e-6)
    turn = jax.jacobian(rotated)(z, code)
    np.testing.assert_allclose(turn @ turn.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(turn @ z, code, atol=1e-5)
    assert not jax.jacobian(rotated, argnums=1)(z, code).any()


def test_dead_codes_alone_are_pulled_and_to_the_nearest_place():
    z, codes = directions(5), directions(4, seed=1)
    used = jnp.array([True, False, True, False])
    gradient = jax.grad(lambda codes: revival(z, codes, used).sum())(codes)
    assert gradient.any(-1).tolist() == [False, True, False, True]
    for k in (1, 3):
        near = z[nearest(codes[k], z)]
        np.testing.assert_allclose(gradient[k], 2 * (codes[k] - near), rtol=1e-5)
    assert not jax.grad(lambda z: revival(z, codes, used).sum())(z).any()


def test_every_code_comes_to_life():
    """Codes that begin where no place is: each is used after a while of gradient descent."""
    z = directions(400, dim=3)
    z = z.at[:, 0].set(jnp.abs(z[:, 0]))
    codebook = directions(16, dim=3, seed=1).at[8:, 0].set(-1.0)

    def used(codes):
        return jnp.zeros(len(codes), bool).at[nearest(z, codes)].set(True)

    @jax.jit
    @jax.grad
    def gradient(codebook):
        codes = unit(codebook)
        chosen = codes[nearest(z, jax.lax.stop_gradient(codes))]
        return jnp.square(z - chosen).sum(-1).mean() + revival(z, codes, used(codes)).mean()

    assert used(unit(codebook)).sum() < 12
    for _ in range(300):
        codebook -= 0.3 * gradient(codebook)
    assert used(unit(codebook)).all()


@pytest.mark.parametrize(("fields", "message"), [({"codebook_size": 1}, "codebook_size=1")])
def test_a_config_that_makes_none_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)
