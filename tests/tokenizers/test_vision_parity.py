"""The vision encoder is SigLIP: a tiny random original, same weights, same features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.lanes import PatchTokens
from unified.nn.position import grid
from unified.tokenizers.vision import VisionConfig, VisionEncoder

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

CFG = VisionConfig(embed_dim=24, mlp_dim=40, num_layers=2, num_heads=3, patch=4, side=5)


@pytest.fixture
def original():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(
        hidden_size=CFG.embed_dim,
        intermediate_size=CFG.mlp_dim,
        num_hidden_layers=CFG.num_layers,
        num_attention_heads=CFG.num_heads,
        patch_size=CFG.patch,
        image_size=CFG.patch * CFG.side,
    )
    config._attn_implementation = "eager"
    model = transformers.SiglipVisionModel(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.normal_(1.0 if "norm" in key and "weight" in key else 0.0, 0.3)
    return model


def converted(state):
    """The parameters of the encoder from the tensors of SigLIP (without its pooling head)."""
    weight = {key.removeprefix("vision_model."): np.asarray(w) for key, w in state.items()}

    def gather(name, change=lambda w: w):
        keys = [f"encoder.layers.{i}.{name}" for i in range(CFG.num_layers)]
        return np.stack([change(weight[key]) for key in keys])

    split = lambda w: w.T.reshape(*w.T.shape[:-1], CFG.num_heads, -1)
    out = lambda w: w.T.reshape(CFG.num_heads, -1, w.shape[0])
    linear = lambda name, change=np.transpose, bias=lambda b: b: {
        "kernel": gather(f"{name}.weight", change),
        "bias": gather(f"{name}.bias", bias),
    }
    norm = lambda name: {"scale": gather(f"{name}.weight"), "bias": gather(f"{name}.bias")}
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    attention = {ours: linear(f"self_attn.{name}", split, split) for ours, name in names.items()}
    attention["out"] = linear("self_attn.out_proj", out)
    conv = weight["embeddings.patch_embedding.weight"]  # [D 3 p p]
    return {
        "patch_embedding": {
            "kernel": conv.transpose(2, 3, 1, 0).reshape(-1, CFG.embed_dim),
            "bias": weight["embeddings.patch_embedding.bias"],
        },
        "position": weight["embeddings.position_embedding.weight"],
        "blocks": {
            "attention_norm": norm("layer_norm1"),
            "attention": attention,
            "mlp_norm": norm("layer_norm2"),
            "mlp": {name: linear(f"mlp.{name}") for name in ("fc1", "fc2")},
        },
        "post_norm": {
            "scale": weight["post_layernorm.weight"],
            "bias": weight["post_layernorm.bias"],
        },
    }


def packed(pixels):
    """Square pictures `[N H W 3]` as packed patches of one row."""
    N, side, p = len(pixels), CFG.side, CFG.patch
    cells = pixels.reshape(N, side, p, side, p, 3).transpose(0, 1, 3, 2, 4, 5)
    begin = np.repeat(np.arange(N) * side**2, side**2)[None]
    return PatchTokens(
        tokens=None,
        patches=cells.reshape(1, N * side**2, -1),
        grid=np.tile(np.asarray(grid(side, side)), (N, 1))[None],
        first=begin,
        last=begin + side**2,
    )


def test_features_equal_those_of_the_original(original):
    import torch

    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8)
    normal = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        want = original(pixel_values=(normal - 0.5) / 0.5).last_hidden_state.numpy()

    abstract = jax.eval_shape(lambda: VisionEncoder(CFG, rngs=nnx.Rngs(0)))
    tree = jax.tree.map(jnp.asarray, converted(original.state_dict()))
    ours = nnx.merge(nnx.graphdef(abstract), tree)
    got = jax.jit(lambda m, x: m(x))(ours, packed(pixels))
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=3e-5, rtol=3e-5)
