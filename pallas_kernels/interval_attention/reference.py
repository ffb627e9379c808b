"""Interval attention in plain JAX: what the kernels mean, and what runs where there is none.

Query q sees key k iff `start[k] <= clock[q] < stop[k]`. Queries are visited in blocks, each with
all keys, so that the scores of a block stay in the cache of a CPU and memory grows linearly with
length. The backward pass recomputes the probabilities from the log-sum-exp (Dao et al., arXiv
2205.14135) and keeps no scores.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `G` query heads of a key head,
`H` head dim, `V` value dim, `n` blocks of `C` queries.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SCORES = 2**19  # of one visit: 2 MB
MIN_CHUNK = 32  # queries of one visit


class Options(NamedTuple):
    """Static facts of a call. `chunk`: queries of a visit, by default as many as make `SCORES`."""

    scale: float
    soft_cap: float | None = None
    chunk: int | None = None


def interval_attention(q, k, v, clock, start, stop, *, scale=None, soft_cap=None, chunk=None):
    """Shapes as in the package's `interval_attention`; returns the output and the lse `[B T N]`."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _attend(Options(scale, soft_cap, chunk), q, k, v, clock, start, stop)


def forward(options: Options, q, k, v, clock, start, stop):
    """Outputs `[B T N V]` in the dtype of `q`, and float32 log-sum-exps `[B T N]`."""
    blocks = _Blocks.of(options, q, k)
    keys = Keys(k.swapaxes(1, 2), v.swapaxes(1, 2), start, stop)

    def visit(_, block):
        q, clock = block
        s, visible = _scores(options, q, keys, clock)
        s = jnp.where(visible, s, -jnp.inf)
        m = s.max(-1)
        m = jnp.where(m == -jnp.inf, 0.0, m)
        p = jnp.exp(s - m[..., None])
        total = p.sum(-1)
        o = jnp.einsum(
            "bkgcs,bksv->bkgcv",
            p.astype(keys.v.dtype),
            keys.v,
            preferred_element_type=jnp.float32,
        )
        o = o / jnp.where(total == 0, 1.0, total)[..., None]
        return None, (o.astype(q.dtype), m + jnp.log(total))

    _, results = _scan(visit, None, (blocks.heads(q), blocks.tokens(clock)))
    return jax.tree.map(blocks.whole, results)


def backward(options: Options, q, k, v, clock, start, stop, out, lse, d_out, d_lse):
    """Gradients of q, k and v; `out` and `lse` as `forward` gave them."""
    blocks = _Blocks.of(options, q, k)
    keys = Keys(k.swapaxes(1, 2), v.swapaxes(1, 2), start, stop)

    def visit(d_keys, block):
        clock, q, out, lse, d_out, d_lse = block
        blind = lse == -jnp.inf
        slope = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)
        slope = slope - jnp.where(blind, 0.0, d_lse)
        s, visible = _scores(options, q, keys, clock)
        p = jnp.where(visible, jnp.exp(s - jnp.where(blind, 0.0, lse)[..., None]), 0.0)
        d_p = jnp.einsum("bkgcv,bksv->bkgcs", d_out, keys.v, preferred_element_type=jnp.float32)
        d_s = p * (d_p - slope[..., None]) * options.scale
        if options.soft_cap is not None:
            d_s = d_s * (1 - jnp.square(s / options.soft_cap))
        d_s = d_s.astype(q.dtype)
        d_q = jnp.einsum("bkgcs,bksh->bkgch", d_s, keys.k, preferred_element_type=jnp.float32)
        d_k = jnp.einsum("bkgch,bkgcs->bkhs", q, d_s, preferred_element_type=jnp.float32)
        d_v = jnp.einsum(
            "bkgcv,bkgcs->bkvs", d_out, p.astype(d_out.dtype), preferred_element_type=jnp.float32
        )
        return (d_keys[0] + d_k, d_keys[1] + d_v), d_q.astype(q.dtype)

    like = (q, *keys, d_out, d_lse)
    zeros = tuple(_zeros(x.swapaxes(2, 3).shape, like) for x in (keys.k, keys.v))
    queries = (blocks.heads(x) for x in (q, out, lse, d_out, d_lse))
    (d_k, d_v), d_q = _scan(visit, zeros, (blocks.tokens(clock), *queries))
    d_k, d_v = (jnp.moveaxis(d, 3, 1).astype(x.dtype) for d, x in ((d_k, k), (d_v, v)))
    return blocks.whole(d_q), d_k, d_v


def _zeros(shape, like):
    """Float32 zeros that vary over the devices of a `shard_map` wherever one of `like` does."""
    some = sum(x.ravel()[0].astype(jnp.float32) for x in like)
    return jnp.where(False, some, jnp.zeros(shape, jnp.float32))


class Keys(NamedTuple):
    """Keys `[B K S H]`, values `[B K S V]`, and their intervals `[B S]`."""

    k: jax.Array
    v: jax.Array
    start: jax.Array
    stop: jax.Array


class _Blocks(NamedTuple):
    """How queries are cut into blocks."""

    length: int  # T
    size: int  # C
    num: int  # n
    key_heads: int

    @classmethod
    def of(cls, options: Options, q, k) -> "_Blocks":
        (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
        chunk = options.chunk or max(MIN_CHUNK, SCORES // max(B * N * S, 1))
        num = max(1, -(-T // chunk))
        return cls(T, -(-T // num), num, K)

    def tokens(self, x):
        """`[B T ...] -> [n B C ...]`, padded at the end."""
        x = jnp.pad(x, [(0, 0), (0, self.num * self.size - self.length)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(x.shape[0], self.num, self.size, *x.shape[2:]).swapaxes(0, 1)

    def heads(self, x):
        """`[B T N ...] -> [n B K G C ...]`."""
        x = self.tokens(x)
        x = x.reshape(*x.shape[:3], self.key_heads, -1, *x.shape[4:])
        return jnp.moveaxis(x, 2, 4)

    def whole(self, x):
        """`[n B K G C ...] -> [B T N ...]`."""
        x = jnp.moveaxis(x, (0, 4), (1, 2))
        B, n, C, K, G, *rest = x.shape
        return x.reshape(B, n * C, K * G, *rest)[:, : self.length]


def _scores(options: Options, q, keys: Keys, clock):
    """Capped scores `[B K G C S]` in float32, and where they are visible `[B 1 1 C S]`."""
    s = jnp.einsum("bkgch,bksh->bkgcs", q, keys.k, preferred_element_type=jnp.float32)
    s = s * options.scale
    if options.soft_cap is not None:
        s = options.soft_cap * jnp.tanh(s / options.soft_cap)
    clock_C1 = clock[:, None, None, :, None]
    start_1S, stop_1S = (x[:, None, None, None, :] for x in (keys.start, keys.stop))
    return s, (start_1S <= clock_C1) & (clock_C1 < stop_1S)


def _scan(visit, carry, blocks):
    """`jax.lax.scan`, without a loop where there is one block."""
    return jax.lax.scan(visit, carry, blocks, unroll=blocks[0].shape[0] == 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: Options, *args):
    return forward(options, *args)


def _attend_fwd(options, *args):
    results = forward(options, *args)
    return results, (*args, *results)


def _attend_bwd(options, residuals, cotangents):
    none: Any = None  # integers have no gradient
    return *backward(options, *residuals, *cotangents), none, none, none


_attend.defvjp(_attend_fwd, _attend_bwd)
