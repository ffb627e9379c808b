"""Hidden states -> velocities of a flow over latents. `D` embed, `C` channels of a latent token."""

from flax import nnx
from jaxtyping import Array, Float

from unified.nn.linear import Linear
from unified.nn.stack import zeros


class FlowHead(nnx.Module):
    """One linear map in float32, which starts with velocity 0, as BAGEL's does."""

    def __init__(self, embed_dim: int, latent_dim: int, *, rngs: nnx.Rngs):
        self.out = Linear(embed_dim, latent_dim, ("embed", None), init=zeros, rngs=rngs)

    def __call__(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B C"]:
        return self.out(hidden.astype("float32"))
