"""Interval attention in plain JAX: what the kernels mean, and what runs where there is none.

Query q sees key k iff `start[k] <= clock[q] < stop[k]`. Queries are visited in blocks, each with
all keys, so that the scores of a block stay in the cache of a CPU and memory grows linearly with
length. The backward pass recomputes the probabilities from the log-sum-exp (Dao et al., arXiv
2205.14135) and keeps no scores.

`B` batch, `T` queries, `S` keys, `K` key heads, `G` query heads of a key head, `H` head dim,
`V` value dim, `n` blocks of `C` queries. Inside this file queries are `[n B K G C H]` and keys
`[B K S H]`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SCORES = 2**19  # of one visit: 2 MB
MIN_CHUNK = 32  # queries of one visit


class Options(NamedTuple):
    """Static facts of a call."""

    scale: float
    soft_cap: float | None


class Keys(NamedTuple):
    """Keys `[B K S H]`, values `[B K S V]`, and their intervals `[B S]`."""

    k: jax.Array
    v: jax.Array
    start: jax.Array
    stop: jax.Array


def interval_attention(q, k, v, clock, start, stop, *, scale=None, soft_cap=None, chunk=None):
    """Shapes as in the package's `interval_attention`; returns the output and the lse `[B T N]`.

    `chunk`: queries visited at a time, by default as many as make `SCORES` scores.
    """
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    chunk = chunk or max(MIN_CHUNK, SCORES // max(B * N * S, 1))
    n = max(1, -(-T // chunk))
    C = -(-T // n)

    def split(x):
        x = jnp.pad(x, [(0, 0), (0, n * C - T)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(B, n, C, *x.shape[2:])

    out, lse = _attend(
        Options(H**-0.5 if scale is None else scale, soft_cap),
        split(q.reshape(B, T, K, N // K, H)).transpose(1, 0, 3, 4, 2, 5),
        Keys(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), start, stop),
        split(clock).transpose(1, 0, 2),
    )
    out = out.transpose(1, 0, 4, 2, 3, 5).reshape(B, n * C, N, -1)
    lse = lse.transpose(1, 0, 4, 2, 3).reshape(B, n * C, N)
    return out[:, :T], lse[:, :T]


def _scores(options: Options, q, keys: Keys, clock):
    """Capped scores `[B K G C S]` in float32, and where they are visible `[B 1 1 C S]`."""
    s = jnp.einsum("bkgch,bksh->bkgcs", q, keys.k, preferred_element_type=jnp.float32)
    s = s * options.scale
    if options.soft_cap is not None:
        s = options.soft_cap * jnp.tanh(s / options.soft_cap)
    clock_C1 = clock[:, None, None, :, None]
    start_1S, stop_1S = (x[:, None, None, None, :] for x in (keys.start, keys.stop))
    return s, (start_1S <= clock_C1) & (clock_C1 < stop_1S)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: Options, q, keys: Keys, clock):
    """Outputs `[n B K G C V]` and log-sum-exps `[n B K G C]`."""

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

    return _scan(visit, None, (q, clock))[1]


def _scan(visit, carry, blocks):
    """`jax.lax.scan`, without a loop where there is one block."""
    return jax.lax.scan(visit, carry, blocks, unroll=blocks[0].shape[0] == 1)


def _attend_fwd(options, q, keys, clock):
    out, lse = _attend(options, q, keys, clock)
    return (out, lse), (q, keys, clock, out, lse)


def _attend_bwd(options, residuals, cotangents):
    q, keys, clock, out, lse = residuals

    def visit(d_keys, block):
        q, clock, out, lse, d_out, d_lse = block
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

    zeros = tuple(jnp.zeros(x.swapaxes(2, 3).shape, jnp.float32) for x in keys[:2])
    (d_k, d_v), d_q = _scan(visit, zeros, (q, clock, out, lse, *cotangents))
    d_k, d_v = (d.swapaxes(2, 3).astype(x.dtype) for d, x in zip((d_k, d_v), keys[:2], strict=True))
    none: Any = None  # integers have no gradient
    return d_q, Keys(d_k, d_v, none, none), none


_attend.defvjp(_attend_fwd, _attend_bwd)
