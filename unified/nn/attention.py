"""Projections around attention, and attention over several groups of keys.

`B` batch, `T` position, `S` key position, `D` embed, `N` query heads, `K` key heads, `H` head dim.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from pallas_kernels.interval_attention import Plans, context, interval_attention, make_plans
from unified.nn.linear import contract
from unified.nn.norm import RMSNorm
from unified.nn.position import Rope, rotate
from unified.nn.stack import param, scaled, zeros
from unified.sharding import constrain, placement


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """`embed_dim -> num_heads x head_dim` queries over `num_kv_heads` keys and values, and back.

    `qk_norm`: RMS norm of every query and key head before RoPE (Qwen3, BAGEL). `qkv_bias` as in
    Qwen2, `out_bias` as in vision transformers. `out_gain` scales the initial output projection.
    """

    embed_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    norm_eps: float = 1e-6
    out_gain: float = 1.0


class HeadsIn(nnx.Module):
    """`[B T D] -> [B T N H]`."""

    def __init__(self, cfg: AttentionConfig, num_heads: int, axis: str, *, rngs: nnx.Rngs):
        D, H = cfg.embed_dim, cfg.head_dim
        axes = ("embed", axis, "head_dim")
        self.kernel = param(scaled(D), rngs, (D, num_heads, H), axes)
        self.bias = param(zeros, rngs, (num_heads, H), axes[1:]) if cfg.qkv_bias else None
        self.axis = axis

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        y = contract(x, self.kernel.astype(x.dtype))
        if self.bias is not None:
            y = y + self.bias.astype(x.dtype)
        return constrain(y, "batch", "length", self.axis, "head_dim")


class HeadsOut(nnx.Module):
    """`[B T N H] -> [B T D]`."""

    def __init__(self, cfg: AttentionConfig, *, rngs: nnx.Rngs):
        D, N, H = cfg.embed_dim, cfg.num_heads, cfg.head_dim
        axes = ("heads", "head_dim", "embed")
        self.kernel = param(scaled(N * H, cfg.out_gain), rngs, (N, H, D), axes)
        self.bias = param(zeros, rngs, (D,), ("embed",)) if cfg.out_bias else None

    def __call__(self, x: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        y = contract(x, self.kernel.astype(x.dtype), 2)
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class Attention(nnx.Module):
    """The four projections; `interval_attention` between them is the caller's, who has the keys."""

    def __init__(self, cfg: AttentionConfig, *, rngs: nnx.Rngs):
        self.query = HeadsIn(cfg, cfg.num_heads, "heads", rngs=rngs)
        self.key = HeadsIn(cfg, cfg.num_kv_heads, "kv_heads", rngs=rngs)
        self.value = HeadsIn(cfg, cfg.num_kv_heads, "kv_heads", rngs=rngs)
        self.out = HeadsOut(cfg, rngs=rngs)
        norm = lambda: RMSNorm(cfg.head_dim, cfg.norm_eps, "head_dim", rngs=rngs)
        self.query_norm = norm() if cfg.qk_norm else None
        self.key_norm = norm() if cfg.qk_norm else None

    def project(self, x: Float[Array, "B T D"], rope: Rope | None = None):
        """Queries `[B T N H]`, keys `[B T K H]` and values `[B T K H]`, normed and rotated."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return q, k, v


class Mask(NamedTuple):
    """Who sees whom: query clocks `[B T]`, the clocks `[B S]` in which keys are visible, and the
    blocks that kernels visit."""

    clock: Int[Array, "B T"]
    start: Int[Array, "B S"]
    stop: Int[Array, "B S"]
    plans: Plans

    @classmethod
    def of(cls, clock, start, stop) -> "Mask":
        """Good for every layer: make it outside of a scan over layers."""
        over = _over(clock.shape)
        make = functools.partial(context.make_plans, sharding=over) if over else make_plans
        return cls(clock, start, stop, make(clock, start, stop))


class Keys(NamedTuple):
    """A group of keys and their values."""

    k: Float[Array, "B S K H"]
    v: Float[Array, "B S K H"]


def join(groups: Sequence[Keys]) -> Keys:
    """Groups of keys, one after another."""
    if len(groups) == 1:
        return groups[0]
    joined = (jnp.concatenate(arrays, axis=1) for arrays in zip(*groups, strict=True))
    return Keys(*(constrain(x, "batch", "length", "kv_heads", "head_dim") for x in joined))


def attend(
    q: Float[Array, "B T N H"], groups: Sequence[Keys], masks: Sequence[Mask]
) -> Float[Array, "B T N H"]:
    """Attention over all groups of keys. Groups are not copied together: each is attended to by
    itself, and the outputs are weighted by their share of the softmax."""
    parts = [_attend(q, group, mask) for group, mask in zip(groups, masks, strict=True)]
    outs, lses = zip(*parts, strict=True)
    if len(outs) == 1:
        return outs[0]
    lse = jnp.stack(lses)
    highest = jax.lax.stop_gradient(lse.max(0))
    share = jnp.exp(lse - jnp.where(highest == -jnp.inf, 0.0, highest))
    total = share.sum(0)
    share = share / jnp.where(total == 0, 1.0, total)
    return sum(w[..., None] * o for w, o in zip(share, outs, strict=True)).astype(q.dtype)


def _attend(q, group: Keys, mask: Mask) -> Any:
    over = _over(group.k.shape)
    args = (q, *group, *mask[:3])
    if over is None:
        return interval_attention(*args, plan=mask.plans, return_lse=True)
    return context.interval_attention(*args, sharding=over, plan=mask.plans, return_lse=True)


def _over(shape: Sequence[int]) -> context.Sharding | None:
    """How queries, keys and clocks lie on the devices, each of which attends to its own part."""
    names = ("batch", "length", "kv_heads")[: len(shape)]
    place = placement(shape[:3], *names)
    return None if place is None else context.Sharding(place[0], *place[1])
