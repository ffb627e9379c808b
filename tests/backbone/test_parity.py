"""The decoder is that of Qwen2 and Qwen3: tiny originals, same weights, same hidden states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.backbone import Backbone, BackboneConfig
from unified.sequence import Tokens

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

GEOMETRY = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}
HEAD_DIM = {"Qwen2": 8, "Qwen3": 12}


@pytest.fixture(params=HEAD_DIM)
def original(request):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    name = request.param
    extra = {"head_dim": HEAD_DIM[name]} if name == "Qwen3" else {}
    config = getattr(transformers, f"{name}Config")(**GEOMETRY, **extra)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}ForCausalLM")(config).model.eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.normal_(1.0 if "norm" in key else 0.0, 0.3)  # biases and scales matter too
    return name, model


def converted(state):
    """The parameters of a dense backbone from the tensors of a Qwen decoder."""
    weight = {key: np.asarray(value.detach()) for key, value in state.items()}
    num_layers = GEOMETRY["num_hidden_layers"]

    def gather(name, change=lambda w: w):
        keys = [f"layers.{i}.{name}" for i in range(num_layers)]
        return np.stack([change(weight[key]) for key in keys]) if keys[0] in weight else None

    def heads(name, num_heads):
        split = lambda w: w.T.reshape(*w.T.shape[:-1], num_heads, -1)
        entries = {
            "kernel": gather(f"self_attn.{name}_proj.weight", split),
            "bias": gather(f"self_attn.{name}_proj.bias", split),
        }
        return {key: value for key, value in entries.items() if value is not None}

    N, K = GEOMETRY["num_attention_heads"], GEOMETRY["num_key_value_heads"]
    out = lambda w: w.T.reshape(N, -1, w.shape[0])
    attention = {"query": heads("q", N), "key": heads("k", K), "value": heads("v", K)}
    attention["out"] = {"kernel": gather("self_attn.o_proj.weight", out)}
    if "layers.0.self_attn.q_norm.weight" in weight:
        attention["query_norm"] = {"scale": gather("self_attn.q_norm.weight")}
        attention["key_norm"] = {"scale": gather("self_attn.k_norm.weight")}
    mlp = {n: {"kernel": gather(f"mlp.{n}_proj.weight", np.transpose)} for n in ("gate", "up")}
    mlp["down"] = {"kernel": gather("mlp.down_proj.weight", np.transpose)}
    block = {
        "attention_norm": {"scale": gather("input_layernorm.weight")},
        "attention": attention,
        "mlp_norm": {"scale": gather("post_attention_layernorm.weight")},
        "mlp": mlp,
    }
    norm = {"scale": weight["norm.weight"]}
    return {"runs": {"0": {"shared": block}}, "final_norm": {"shared": norm}}


def test_hidden_states_equal_those_of_the_original(original):
    name, model = original
    cfg = BackboneConfig(
        streams={"text": {"embed_dim": 48, "mlp_dim": 80}},
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=HEAD_DIM[name],
        shared="all",
        qk_norm=name == "Qwen3",
        qkv_bias=name == "Qwen2",
        rope_theta=1000.0,
        norm_eps=1e-5,
    )
    abstract = jax.eval_shape(lambda: Backbone(cfg, rngs=nnx.Rngs(0)))
    tree = converted(model.state_dict())
    want_shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(abstract, nnx.Param)))
    assert jax.tree.map(jnp.shape, tree) == want_shapes
    ours = nnx.merge(nnx.graphdef(abstract), jax.tree.map(jnp.asarray, tree))

    import torch

    x = torch.randn(2, 9, 48)
    with torch.no_grad():
        want = model(inputs_embeds=x).last_hidden_state.numpy()
    place = np.broadcast_to(np.arange(9), (2, 9))
    tokens = Tokens(clock=place, start=place, stop=np.full((2, 9), 9), position=place)
    step = jax.jit(lambda m, x: m({"text": x}, {"text": tokens}).hidden["text"])
    np.testing.assert_allclose(step(ours, jnp.asarray(x.numpy())), want, atol=2e-5, rtol=2e-5)
