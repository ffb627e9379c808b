"""Heads against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.heads.flow import FlowHead
from unified.heads.language import LanguageHead
from unified.heads.timestep import TimestepEmbedder


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_logits_are_float32_products_with_the_kernel():
    head, x = LanguageHead(8, 5, rngs=nnx.Rngs(0)), draw(2, 3, 8)
    np.testing.assert_allclose(head(x), x @ np.asarray(head.kernel[...]), atol=1e-5)
    assert head(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.float32
    assert head.kernel.axes == ("embed", "vocab")


def test_a_tied_head_has_no_weights_and_reads_the_table():
    head, x, table = LanguageHead(8, 5, tied=True, rngs=nnx.Rngs(0)), draw(2, 8), draw(5, 8)
    assert nnx.to_pure_dict(nnx.state(head, nnx.Param)) == {}
    np.testing.assert_allclose(head(x, table), x @ table.T, atol=1e-5)
    with pytest.raises(ValueError, match="if, and only if, the head is tied"):
        head(x)
    with pytest.raises(ValueError, match="if, and only if, the head is tied"):
        LanguageHead(8, 5, rngs=nnx.Rngs(0))(x, table)


def test_a_flow_starts_with_velocity_zero_and_is_computed_in_float32():
    x, kernel = draw(2, 3, 8), draw(8, 4)
    head = FlowHead(8, 4, rngs=nnx.Rngs(0))
    assert not head(x).any()
    head.out.kernel.set_value(jnp.asarray(kernel))
    half = jnp.asarray(x, jnp.bfloat16)
    velocity = head(half)
    assert velocity.dtype == jnp.float32
    np.testing.assert_allclose(velocity, half.astype("float32") @ kernel, atol=1e-5)


def test_time_embedding_is_linear_silu_linear_of_the_sinusoids():
    embed = TimestepEmbedder(6, frequency_dim=4, rngs=nnx.Rngs(0))
    t = np.array([0.0, 0.7])[:, None]
    angle = t * [1, 0.01]
    h = np.concatenate([np.cos(angle), np.sin(angle)], -1) @ np.asarray(embed.fc1.kernel[...])
    want = (h / (1 + np.exp(-h))) @ np.asarray(embed.fc2.kernel[...])
    np.testing.assert_allclose(embed(t[:, 0]), want, atol=1e-5)
