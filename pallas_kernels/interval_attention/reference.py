"""Interval attention in plain JAX: what the kernels mean, and what runs where there is none.

Query q sees key k iff `start[k] <= clock[q] < stop[k]`. Up to `chunk` keys the whole score matrix
is formed at once, which is fastest on a CPU; beyond that the keys are visited chunk by chunk with
an online softmax (Milakov & Gimelshein, arXiv 1805.02867) and the backward pass recomputes the
probabilities from the log-sum-exp (Dao et al., arXiv 2205.14135), so that memory grows linearly.

`B` batch, `T` queries, `S` keys, `K` key heads, `G` query heads of a key head, `H` head dim,
`V` value dim, `C` keys of a chunk. Inside this file queries are `[B K G T H]` and keys `[B K S H]`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK = 1024  # keys


class Options(NamedTuple):
    """Static facts of a call."""

    scale: float
    soft_cap: float | None
    chunk: int


class Keys(NamedTuple):
    """Keys `[... K S H]`, values `[... K S V]`, and their intervals `[... S]`."""

    k: jax.Array
    v: jax.Array
    start: jax.Array
    stop: jax.Array


def interval_attention(q, k, v, clock, start, stop, *, scale=None, soft_cap=None, chunk=CHUNK):
    """Shapes as in the package's `interval_attention`; returns the output and the lse `[B T N]`."""
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    options = Options(H**-0.5 if scale is None else scale, soft_cap, chunk)
    q_BKGTH = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    keys = Keys(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), start, stop)
    attend = _whole if chunk >= S else _chunked
    out_BKGTV, lse_BKGT = attend(options, q_BKGTH, keys, clock)
    out = out_BKGTV.transpose(0, 3, 1, 2, 4).reshape(B, T, N, -1)
    return out, lse_BKGT.transpose(0, 3, 1, 2).reshape(B, T, N)


def _scores(options: Options, q, keys: Keys, clock):
    """Capped scores `[B K G T S]` in float32, and where they are visible `[B 1 1 T S]`."""
    s = jnp.einsum("bkgth,bksh->bkgts", q, keys.k, preferred_element_type=jnp.float32)
    s = s * options.scale
    if options.soft_cap is not None:
        s = options.soft_cap * jnp.tanh(s / options.soft_cap)
    clock_T1 = clock[:, None, None, :, None]
    start_1S, stop_1S = (x[:, None, None, None, :] for x in (keys.start, keys.stop))
    return s, (start_1S <= clock_T1) & (clock_T1 < stop_1S)


def _values(p, v):
    """Sums values `[B K S V]` with weights `[B K G T S]`, in float32."""
    return jnp.einsum("bkgts,bksv->bkgtv", p.astype(v.dtype), v, preferred_element_type=jnp.float32)


def _finite(m):
    """A maximum that may be subtracted: 0 where nothing was seen."""
    return jnp.where(m == -jnp.inf, 0.0, m)


def _finish(o, m, total, dtype):
    """Output and lse from values summed with weights `exp(s - m)` that add up to `total`."""
    blind = total == 0
    safe = jnp.where(blind, 1.0, total)
    lse = jnp.where(blind, -jnp.inf, m + jnp.log(safe))
    return (o / safe[..., None]).astype(dtype), lse


def _whole(options: Options, q, keys: Keys, clock):
    """All keys at once, differentiated by JAX."""
    s, visible = _scores(options, q, keys, clock)
    s = jnp.where(visible, s, -jnp.inf)
    m = jax.lax.stop_gradient(_finite(s.max(-1)))
    p = jnp.exp(s - m[..., None])
    return _finish(_values(p, keys.v), m, p.sum(-1), q.dtype)


def _split(keys: Keys, chunk: int) -> Keys:
    """Keys as chunks on a new leading axis; the last one is filled up with keys nobody sees."""
    n = -(-keys.start.shape[1] // chunk)

    def split(x, axis):
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, n * chunk - x.shape[axis])
        shape = (*x.shape[:axis], n, chunk, *x.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(x, pad).reshape(shape), axis, 0)

    return Keys(split(keys.k, 2), split(keys.v, 2), split(keys.start, 1), split(keys.stop, 1))


def _join(chunks, length: int):
    """Inverse of `_split` for an array `[n B K C H]`."""
    n, B, K, C, H = chunks.shape
    return jnp.moveaxis(chunks, 0, 2).reshape(B, K, n * C, H)[:, :, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(options: Options, q, keys: Keys, clock):
    def visit(carry, keys: Keys):
        o, m, total = carry
        s, visible = _scores(options, q, keys, clock)
        s = jnp.where(visible, s, -jnp.inf)
        highest = jnp.maximum(m, s.max(-1))
        p = jnp.exp(s - _finite(highest)[..., None])
        decay = jnp.exp(m - _finite(highest))
        o = o * decay[..., None] + _values(p, keys.v)
        return (o, highest, total * decay + p.sum(-1)), None

    o = jnp.zeros((*q.shape[:-1], keys.v.shape[-1]), jnp.float32)
    m = jnp.full(q.shape[:-1], -jnp.inf, jnp.float32)
    carry = (o, m, jnp.zeros_like(m))
    (o, m, total), _ = jax.lax.scan(visit, carry, _split(keys, options.chunk))
    return _finish(o, m, total, q.dtype)


def _chunked_fwd(options, q, keys, clock):
    out, lse = _chunked(options, q, keys, clock)
    return (out, lse), (q, keys, clock, out, lse)


def _chunked_bwd(options, residuals, cotangents):
    q, keys, clock, out, lse = residuals
    d_out, d_lse = cotangents
    blind = lse == -jnp.inf
    ceiling = jnp.where(blind, jnp.inf, lse)[..., None]  # exp(s - inf) = 0
    slope = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)
    slope = (slope - jnp.where(blind, 0.0, d_lse))[..., None]

    def visit(d_q, keys: Keys):
        s, visible = _scores(options, q, keys, clock)
        p = jnp.exp(jnp.where(visible, s, -jnp.inf) - ceiling)
        d_p = jnp.einsum("bkgtv,bksv->bkgts", d_out, keys.v, preferred_element_type=jnp.float32)
        d_s = p * (d_p - slope) * options.scale
        if options.soft_cap is not None:
            d_s = d_s * (1 - jnp.square(s / options.soft_cap))
        d_s = d_s.astype(q.dtype)
        d_q += jnp.einsum("bkgts,bksh->bkgth", d_s, keys.k, preferred_element_type=jnp.float32)
        d_k = jnp.einsum("bkgts,bkgth->bksh", d_s, q, preferred_element_type=jnp.float32)
        d_v = jnp.einsum(
            "bkgts,bkgtv->bksv", p.astype(d_out.dtype), d_out, preferred_element_type=jnp.float32
        )
        return d_q, (d_k.astype(keys.k.dtype), d_v.astype(keys.v.dtype))

    d_q = jnp.zeros(q.shape, jnp.float32)
    d_q, (d_k, d_v) = jax.lax.scan(visit, d_q, _split(keys, options.chunk))
    length = keys.start.shape[1]
    d_keys = Keys(_join(d_k, length), _join(d_v, length), None, None)
    return d_q.astype(q.dtype), d_keys, None


_chunked.defvjp(_chunked_fwd, _chunked_bwd)
