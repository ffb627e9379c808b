"""Flow times -> embeddings. `D` embed."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.linear import Linear
from unified.nn.position import sincos_time


class TimestepEmbedder(nnx.Module):
    """Sinusoids of the time in float32, linear, SiLU, linear; as in BAGEL."""

    def __init__(self, embed_dim: int, *, frequency_dim: int = 256, rngs: nnx.Rngs):
        self.frequency_dim = frequency_dim
        self.fc1 = Linear(frequency_dim, embed_dim, (None, "embed"), rngs=rngs)
        self.fc2 = Linear(embed_dim, embed_dim, ("embed", None), rngs=rngs)

    def __call__(self, time: Float[Array, "*B"], dtype=jnp.float32) -> Float[Array, "*B D"]:
        features = sincos_time(time, self.frequency_dim).astype(dtype)
        return self.fc2(jax.nn.silu(self.fc1(features)))
