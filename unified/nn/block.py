"""A decoder block as in Qwen2 and Qwen3: pre-norm attention and an MLP.

The block comes in two halves, because between them a stream's keys meet those of other streams.

`B` batch, `T` position, `D` embed, `N` query heads, `H` head dim.
"""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from unified.nn.attention import Attention, AttentionConfig
from unified.nn.mlp import MLPS
from unified.nn.norm import RMSNorm
from unified.nn.position import Rope


@dataclasses.dataclass(frozen=True)
class BlockConfig(AttentionConfig):
    """Attention and an MLP of width `mlp_dim`, of a kind among `MLPS`; `out_gain` scales both
    branches at the start."""

    mlp_dim: int = 0
    mlp: str = "swiglu"


class Block(nnx.Module):
    def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(cfg.embed_dim, cfg.norm_eps, rngs=rngs)
        self.attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg.embed_dim, cfg.norm_eps, rngs=rngs)
        self.mlp = MLPS[cfg.mlp](cfg.embed_dim, cfg.mlp_dim, cfg.out_gain, rngs=rngs)

    def project(self, x: Float[Array, "B T D"], rope: Rope | None):
        """Queries, keys and values of the tokens."""
        return self.attention.project(self.attention_norm(x), rope)

    def update(
        self, x: Float[Array, "B T D"], attended: Float[Array, "B T N H"]
    ) -> Float[Array, "B T D"]:
        """The residual stream after the attended values and the MLP."""
        x = x + self.attention.out(attended)
        return x + self.mlp(self.mlp_norm(x))
