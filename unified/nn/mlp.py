"""Networks that work on each token alone. `B` batch, `T` position, `D` embed, `F` mlp,
`E` output."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.linear import Linear
from unified.nn.stack import scaled
from unified.sharding import constrain


class GatedMLP(nnx.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202) without biases, as in Llama and Qwen."""

    def __init__(self, embed_dim: int, mlp_dim: int, out_gain: float = 1.0, *, rngs: nnx.Rngs):
        D, F = embed_dim, mlp_dim
        self.gate = Linear(D, F, ("embed", "mlp"), bias=False, rngs=rngs)
        self.up = Linear(D, F, ("embed", "mlp"), bias=False, rngs=rngs)
        init = scaled(F, out_gain)
        self.down = Linear(F, D, ("mlp", "embed"), bias=False, init=init, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        h_BTF = jax.nn.silu(self.gate(x)) * self.up(x)
        return self.down(constrain(h_BTF, "batch", "length", "mlp"))


class MLP(nnx.Module):
    """Linear, tanh-GELU, linear, with biases, as in SigLIP and in BAGEL's connector, which gives
    another width (`out_dim`; default: that of the input)."""

    def __init__(
        self,
        in_dim: int,
        mlp_dim: int,
        out_gain: float = 1.0,
        *,
        out_dim: int | None = None,
        rngs: nnx.Rngs,
    ):
        self.fc1 = Linear(in_dim, mlp_dim, ("embed", "mlp"), rngs=rngs)
        init = scaled(mlp_dim, out_gain)
        self.fc2 = Linear(mlp_dim, out_dim or in_dim, ("mlp", "embed"), init=init, rngs=rngs)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        h_BTF = jax.nn.gelu(self.fc1(x), approximate=True)
        return self.fc2(constrain(h_BTF, "batch", "length", "mlp"))


MLPS = {"swiglu": GatedMLP, "gelu": MLP}  # by name: (embed_dim, mlp_dim, out_gain, rngs=)
