"""Normalisation with statistics in float32; the result has the dtype of the input. `D` embed."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.stack import ones, param, zeros


class RMSNorm(nnx.Module):
    """Zhang and Sennrich, arXiv 1910.07467, as in Qwen2: `x / rms(x) * scale`."""

    def __init__(self, dim: int, epsilon: float, axis: str | None = "embed", *, rngs: nnx.Rngs):
        self.scale = param(ones, rngs, (dim,), (axis,))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x32 = x.astype(jnp.float32)
        square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(square + self.epsilon) * self.scale).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Ba et al., arXiv 1607.06450, with scale and bias."""

    def __init__(self, dim: int, epsilon: float, axis: str | None = "embed", *, rngs: nnx.Rngs):
        self.scale = param(ones, rngs, (dim,), (axis,))
        self.bias = param(zeros, rngs, (dim,), (axis,))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(square + self.epsilon) * self.scale + self.bias).astype(x.dtype)
