"""Hidden states -> logits over the vocabulary. `D` embed, `V` vocabulary."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.stack import param, scaled


class LanguageHead(nnx.Module):
    """Logits in float32, for as many tokens as are given: pass only those with a loss, in chunks.

    With `tied` there is no kernel: the logits are products with the rows of an embedding table.
    """

    def __init__(self, embed_dim: int, vocab_size: int, *, tied: bool = False, rngs: nnx.Rngs):
        self.kernel = (
            None
            if tied
            else param(scaled(embed_dim), rngs, (embed_dim, vocab_size), ("embed", "vocab"))
        )

    def __call__(
        self, hidden: Float[Array, "*B D"], table: Float[Array, "V D"] | None = None
    ) -> Float[Array, "*B V"]:
        """`table` is the embedding table `[V D]` of a tied head; raises ValueError if misplaced."""
        if (self.kernel is None) != (table is not None):
            raise ValueError("pass the embedding table if, and only if, the head is tied")
        kernel: Any = self.kernel if table is None else table.T
        return jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
