"""Interval attention on TPUs: arguments into the shape of the kernels, and results out of it.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.interval_attention import tpu_backward, tpu_forward
from pallas_kernels.interval_attention.plan import Plan, make_plan
from pallas_kernels.interval_attention.tpu_tiles import (
    HEADS,
    HIDDEN,
    LANES,
    LOG2E,
    Tiles,
    Walk,
    bounds,
)

BLOCK = 512
MIN_QUERIES = 16  # fewer, as in decoding, would leave most of a block empty
WORDS = 1 << 17  # that one call's plan may have: half of the scalar memory


def default_plan(clock: Array, start: Array, stop: Array) -> Plan:
    """The plan with the blocks that are best on TPUs."""
    fit = lambda length: min(BLOCK, -(-length // LANES) * LANES)
    sizes = {"block_q": fit(clock.shape[1]), "block_k": fit(start.shape[1])}
    return make_plan(clock, start, stop, **sizes)


def is_best(q, k, v, plan: Plan | None, scale: float) -> bool:
    """Whether a caller who named no implementation gets these kernels on a TPU."""
    return q.shape[1] >= MIN_QUERIES


def forward(q, k, v, clock, start, stop, plan: Plan, *, scale, soft_cap, interpret):
    """Outputs `[B T N V]` and lse `[B T N]`; shapes as in the package's `interval_attention`."""
    tiles = _tiles(q, k, v, plan, scale, soft_cap, interpret)
    (B, T, N, _), V = q.shape, v.shape[-1]

    def run(plan, q, clock, *keys):
        walk, words, steps = _walk(tiles, plan)
        args = _arguments(tiles, plan, q, clock, *keys)
        return tpu_forward.forward(walk, words, steps, *args)

    out, lse = _by_rows(run, plan, q, clock, k, v, start, stop)
    lse = lse.reshape(B, N, -1).swapaxes(1, 2)
    return out.reshape(B, -1, N, tiles.value_dim)[:, :T, :, :V], lse[:, :T]


def backward(
    q, k, v, clock, start, stop, plan: Plan, out, lse, d_out, d_lse, *, scale, soft_cap, interpret
):
    """Gradients of q, k and v; `out` and `lse` as `forward` gave them."""
    tiles = _tiles(q, k, v, plan, scale, soft_cap, interpret)
    blind = lse == -jnp.inf
    d_lse = jnp.where(blind, 0.0, d_lse)
    lse = jnp.where(blind, -HIDDEN, lse * LOG2E)  # makes every probability zero

    S, d_queries, d_keys = k.shape[1], [], []
    span = tpu_backward.max_keys(tiles, k.dtype)
    dtype = jnp.float32 if span < S else q.dtype  # of parts of a sum

    def run(plan, q, clock, out, d_out, lse, d_lse, *keys):
        walk, words, steps = _walk(tiles, plan)
        args = _arguments(tiles, plan, q, clock, *keys)
        length = args[0].shape[1]
        values = (_flat(x, length, tiles.value_dim) for x in (out, d_out))
        statistics = (_statistics(tiles, x, length) for x in (lse, d_lse))
        arrays: Any = (*args, *values, *statistics)
        return tpu_backward.backward(walk, words, steps, *arrays, dtype=dtype)

    for low in range(0, S, span):
        part = plan
        keys = tuple(x[:, low : low + span] for x in (k, v, start, stop))
        if span < S:
            blocks = {"block_q": plan.block_q, "block_k": plan.block_k}
            part = make_plan(clock, *keys[2:], **blocks, capacity=plan.rows.full.shape[-1] * span)
        d_q, *d_kv = _by_rows(run, part, q, clock, out, d_out, lse, d_lse, *keys)
        d_queries.append(d_q)
        d_keys.append([_heads(d, x) for d, x in zip(d_kv, keys[:2], strict=True)])
    d_k, d_v = (jnp.concatenate(parts, 1) for parts in zip(*d_keys, strict=True))
    return _heads(functools.reduce(jnp.add, d_queries), q).astype(q.dtype), d_k, d_v


def _tiles(q, k, v, plan: Plan, scale, soft_cap, interpret) -> Tiles:
    if plan.block_q % LANES or plan.block_k % LANES:
        sizes = f"{plan.block_q} x {plan.block_k}"
        raise ValueError(f"a TPU needs blocks of multiples of {LANES}, but the plan has {sizes}")
    N, H = q.shape[2:]
    shared = N // k.shape[2]
    heads = max(n for n in range(1, min(shared, HEADS) + 1) if shared % n == 0)
    dim, value_dim = (-(-dim // LANES) * LANES for dim in (H, v.shape[-1]))
    return Tiles(
        heads,
        shared // heads,
        dim,
        value_dim,
        plan.block_q,
        plan.block_k,
        scale,
        soft_cap,
        interpret,
    )


def _walk(tiles: Tiles, plan: Plan):
    words, begin = plan.rows.words, plan.rows.begin
    return Walk(tiles, words.shape[1], plan.columns.full.shape[1]), words, begin[:, -1].max()


def _by_rows(run, plan: Plan, *args):
    """All rows of the batch at once, or one by one if their plans are too long for a call."""
    if plan.rows.words.size <= WORDS or len(plan.clock) == 1:
        return run(plan, *args)
    one = lambda row: run(*jax.tree.map(lambda x: x[None], row))
    return jax.tree.map(lambda x: x[:, 0], jax.lax.map(one, (plan, *args)))


def _arguments(tiles: Tiles, plan: Plan, q, clock, k, v, start, stop):
    """The kernels' arguments, padded to whole blocks and lanes; padding of keys is seen by none."""
    T = plan.rows.full.shape[1] * tiles.block_q
    S = plan.columns.full.shape[1] * tiles.block_k
    clock = jnp.pad(clock, ((0, 0), (0, T - clock.shape[1])), mode="edge")[:, None]
    start, stop = (jnp.pad(x, ((0, 0), (0, S - x.shape[1]))) for x in (start, stop))
    q, k, v = _flat(q, T, tiles.dim), _flat(k, S, tiles.dim), _flat(v, S, tiles.value_dim)
    return q, k, v, clock, bounds(start, stop)


def _flat(x: Array, length: int, dim: int) -> Array:
    """`[B T N H] -> [B length N*dim]`; no copy if nothing is padded."""
    B, T, N, H = x.shape
    x = jnp.pad(x, ((0, 0), (0, length - T), (0, 0), (0, dim - H)))
    return x.reshape(B, length, N * dim)


def _heads(x: Array, like: Array) -> Array:
    """The inverse of `_flat`: the padding of `[B length N*dim]` is cut off."""
    B, T, N, H = like.shape
    return x.reshape(B, x.shape[1], N, -1)[:, :T, :, :H]


def _statistics(tiles: Tiles, x: Array, length: int) -> Array:
    """`[B T N] -> [B N/heads heads length]`."""
    B, T, N = x.shape
    x = jnp.pad(x, ((0, 0), (0, length - T), (0, 0)))
    return x.swapaxes(1, 2).reshape(B, N // tiles.heads, tiles.heads, length)
