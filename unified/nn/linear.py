"""Dense layers and embedding tables. `D` input, `F` output, `V` vocabulary."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from unified.nn.stack import Init, normal, param, scaled, zeros


class Linear(nnx.Module):
    """`x @ kernel + bias`, in the dtype of `x`."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        axes: tuple[str | None, str | None],
        *,
        bias: bool = True,
        init: Init | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = param(init or scaled(in_dim), rngs, (in_dim, out_dim), axes)
        self.bias = param(zeros, rngs, (out_dim,), axes[1:]) if bias else None

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        y = x @ self.kernel.astype(x.dtype)
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class Embedding(nnx.Module):
    """A table `[V D]` of vectors, one per id."""

    def __init__(self, vocab_size: int, embed_dim: int, *, rngs: nnx.Rngs):
        self.table = param(normal(0.02), rngs, (vocab_size, embed_dim), ("vocab", "embed"))

    def __call__(self, ids: Int[Array, "*B"], dtype=jnp.float32) -> Float[Array, "*B D"]:
        return self.table.astype(dtype)[ids]
