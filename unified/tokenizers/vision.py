"""Pictures to read: a SigLIP-style encoder over packed patches, and a connector to a backbone.

Pictures of any size lie patch by patch in one row (`PatchTokens`); `first` and `last` say where
each begins and ends, which is all that attention needs.

`B` rows, `n` slots, `P` numbers of a patch in the order (row, column, channel), `D` embed.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from unified.lanes import PatchTokens
from unified.nn.attention import Attention, AttentionConfig, Keys, Mask, attend
from unified.nn.linear import Linear
from unified.nn.mlp import MLP
from unified.nn.norm import LayerNorm
from unified.nn.position import sincos_2d
from unified.nn.stack import normal, param, scan, stack
from unified.sharding import constrain
from unified.tokenizers.pixels import to_float


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Geometry of the encoder; the head dim is `embed_dim / num_heads`.

    `position`: "table" learns a vector for each of `side * side` places, row by row (SigLIP,
    BAGEL), so pictures may have at most `side` patches a side; "sincos" has no limit.
    """

    embed_dim: int
    mlp_dim: int
    num_layers: int
    num_heads: int
    patch: int = 16
    side: int = 14
    position: Literal["table", "sincos"] = "table"
    norm_eps: float = 1e-6

    def __post_init__(self):
        for name in ("embed_dim", "mlp_dim", "num_layers", "num_heads", "patch", "side"):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide embed_dim={self.embed_dim}")
        if self.position not in ("table", "sincos"):
            raise ValueError(f"position={self.position!r}: choose 'table' or 'sincos'")
        if self.position == "sincos" and self.embed_dim % 4:
            raise ValueError(f"position='sincos' needs 4 to divide embed_dim={self.embed_dim}")

    def fits(self, height: int, width: int) -> bool:
        """Whether pictures of this many pixels have a position for every patch."""
        return self.position == "sincos" or max(height, width) <= self.side * self.patch

    @property
    def attention(self) -> AttentionConfig:
        return AttentionConfig(
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            head_dim=self.embed_dim // self.num_heads,
            qkv_bias=True,
            out_bias=True,
            out_gain=(2 * self.num_layers) ** -0.5,
        )


class EncoderBlock(nnx.Module):
    """Pre-norm attention without positions, and an MLP; biases everywhere."""

    def __init__(self, cfg: VisionConfig, *, rngs: nnx.Rngs):
        D, gain = cfg.embed_dim, cfg.attention.out_gain
        self.attention_norm = LayerNorm(D, cfg.norm_eps, rngs=rngs)
        self.attention = Attention(cfg.attention, rngs=rngs)
        self.mlp_norm = LayerNorm(D, cfg.norm_eps, rngs=rngs)
        self.mlp = MLP(D, cfg.mlp_dim, gain, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B n D"],
        mask: Mask,
    ) -> Float[Array, "B n D"]:
        x = constrain(x, "batch", "length", None)
        q, *keys = self.attention.project(self.attention_norm(x))
        x = x + self.attention.out(attend(q, [Keys(*keys)], [mask]))
        return x + self.mlp(self.mlp_norm(x))


class VisionEncoder(nnx.Module):
    """Patches -> features, bidirectional within each picture, blind to the others (SigLIP,
    arXiv 2303.15343; packed as in NaViT, arXiv 2307.06304)."""

    def __init__(self, cfg: VisionConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        D = cfg.embed_dim
        self.patch_embedding = Linear(cfg.patch**2 * 3, D, (None, "embed"), rngs=rngs)
        self.position = (
            param(normal(0.5), rngs, (cfg.side**2, D), (None, "embed"))  # as large as patches
            if cfg.position == "table"
            else None
        )
        make = lambda r: EncoderBlock(cfg, rngs=r)
        self.blocks = stack(make, cfg.num_layers, "layers", rngs=rngs)
        self.post_norm = LayerNorm(D, cfg.norm_eps, rngs=rngs)

    def __call__(
        self,
        patches: PatchTokens,
        dtype=jnp.float32,
        *,
        remat: str = "nothing_saveable",
        unroll: int | bool = 1,
    ) -> Float[Array, "B n D"]:
        """Features of every slot, computed in `dtype`; those of padding mean nothing."""
        x = self.patch_embedding(to_float(patches.patches).astype(dtype))
        x = x + self.positions(patches.grid).astype(dtype)
        slots = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        mask = Mask.of(slots, patches.first, patches.last)
        layer = lambda x, block: (block(x, mask), None)
        x, _ = scan(layer, x, self.blocks, remat=remat, unroll=unroll)
        return self.post_norm(x)

    def positions(self, grid: Int[Array, "B n 2"]) -> Float[Array, "B n D"]:
        if self.position is None:
            return sincos_2d(grid, self.cfg.embed_dim)
        return self.position[grid[..., 0] * self.cfg.side + grid[..., 1]]


class Connector(nnx.Module):
    """Features -> backbone embeddings: an MLP, plus 2-D sinusoids of the patch's place (BAGEL)."""

    def __init__(self, in_dim: int, embed_dim: int, theta: float = 10_000.0, *, rngs: nnx.Rngs):
        self.theta = theta
        self.mlp = MLP(in_dim, embed_dim, out_dim=embed_dim, rngs=rngs)

    def __call__(
        self, features: Float[Array, "B n D"], grid: Int[Array, "B n 2"]
    ) -> Float[Array, "B n E"]:
        y = self.mlp(features)
        return y + sincos_2d(grid, y.shape[-1], self.theta).astype(y.dtype)
