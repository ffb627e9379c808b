"""The forward pass on a TPU: an online softmax over the visited key blocks of each query block.

A step visits one block for all query heads that share its keys. Scores are kept in units of log 2,
so that the exponential is the one the hardware has (Milakov and Gimelshein, arXiv 1805.02867).
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.interval_attention.tpu_tiles import HIDDEN, LANES, LOG2E, Tiles, Walk
from pallas_kernels.interval_attention.visits import FIRST, FULL, LAST, PARTIAL

BLIND = HIDDEN / 2  # a highest score below it is that of hidden keys only


def forward(walk: Walk, words, steps, q, k, v, clock, bounds):
    """Outputs `[B T N*V]` and lse `[B N/heads heads T]` of the padded arguments, as in `Walk`."""
    tiles = walk.tiles
    B, T, width = q.shape
    N = width // tiles.dim
    rows = (tiles.heads, tiles.block_q, LANES)
    return walk.launch(
        "interval_attention_forward",
        functools.partial(_kernel, walk),
        words,
        steps,
        (q, k, v, clock, bounds),
        [
            ((B, T, N * tiles.value_dim), q.dtype),
            ((B, N // tiles.heads, tiles.heads, T), jnp.float32),
        ],
        in_specs=[
            walk.queries(tiles.dim),
            walk.keys(tiles.dim),
            walk.keys(tiles.value_dim),
            walk.clock(),
            walk.bounds(),
        ],
        out_specs=[walk.queries(tiles.value_dim), walk.statistics()],
        scratch_shapes=[
            (rows[1:], jnp.int32),
            (rows, jnp.float32),
            (rows, jnp.float32),
            ((tiles.block_q, tiles.heads * tiles.value_dim), jnp.float32),
        ],
    )


class _Refs(NamedTuple):
    q: Any  # [block_q heads*H]
    k: Any  # [block_k H]
    v: Any  # [block_k V]
    clock: Any  # [1 block_q]
    bounds: Any  # [2 block_k]
    out: Any  # [block_q heads*V]
    lse: Any  # [heads block_q]
    clocks: Any  # scratch [block_q LANES]: the clock in every lane
    top: Any  # scratch [heads block_q LANES]: highest score so far, in every lane
    total: Any  # scratch [heads block_q LANES]: sums of probabilities, to be added up over lanes
    sums: Any  # scratch [block_q heads*V]: weighted sums of values


def _kernel(walk: Walk, words, *refs):
    tiles, at = walk.tiles, _Refs(*refs)
    word = walk.word(words, pl.program_id(1), pl.program_id(2))
    pl.when(pl.program_id(2) == 0)(lambda: _start(at))
    pl.when((word & FIRST) != 0)(lambda: _turn(at))
    pl.when((word & FULL) != 0)(lambda: _visit(tiles, at, masked=False))
    pl.when((word & PARTIAL) != 0)(lambda: _visit(tiles, at, masked=True))
    pl.when((word & LAST) != 0)(lambda: _finish(tiles, at))


def _start(at: _Refs):
    at.top[...] = jnp.full_like(at.top, HIDDEN)
    at.total[...] = jnp.zeros_like(at.total)
    at.sums[...] = jnp.zeros_like(at.sums)


def _turn(at: _Refs):
    """Begins a block of queries. The sums of the one before it stay: its first visit fades them to
    zero, if they are finite.
    """
    at.clocks[...] = jnp.broadcast_to(at.clock[...], at.clocks.shape[::-1]).T


def _visit(tiles: Tiles, at: _Refs, *, masked: bool):
    k, v = at.k[...], at.v[...]
    repeat = tiles.block_k // LANES
    hidden = None
    if masked:
        is_in = jnp.tile(at.clocks[...], (1, repeat)) - at.bounds[0:1, :] < at.bounds[1:2, :]
        hidden = jnp.where(is_in, 0.0, HIDDEN)
    for head in range(tiles.heads):
        s = tiles.scores(tiles.dot(at.q[:, tiles.of(head, tiles.dim)], k, (1, 1)))
        if hidden is not None:
            s = s + hidden
        top = jnp.maximum(at.top[head], s.max(-1, keepdims=True))
        p = jnp.exp2(s - jnp.tile(top, (1, repeat)))
        fade = jnp.exp2(at.top[head] - top)
        parts = (p[:, i * LANES : (i + 1) * LANES] for i in range(repeat))
        at.total[head] = functools.reduce(lax.add, parts, at.total[head] * fade)
        at.top[head] = top
        here = tiles.of(head, tiles.value_dim)
        faded = at.sums[:, here] * jnp.tile(fade, (1, tiles.value_dim // LANES))
        at.sums[:, here] = faded + tiles.dot(p.astype(v.dtype), v, (1, 0))


def _finish(tiles: Tiles, at: _Refs):
    tops, totals = (jnp.ones(at.clocks.shape, jnp.float32) for _ in range(2))  # a head in each lane
    lane = lax.broadcasted_iota(jnp.int32, tops.shape, 1)
    for head in range(tiles.heads):
        top, total = at.top[head], at.total[head].sum(-1, keepdims=True)
        tops, totals = jnp.where(lane == head, top, tops), jnp.where(lane == head, total, totals)
        share = jnp.where(top > BLIND, _inverse(total), 0.0)
        here = tiles.of(head, tiles.value_dim)
        out = at.sums[:, here] * jnp.tile(share, (1, tiles.value_dim // LANES))
        at.out[:, here] = out.astype(at.out.dtype)
    top, total = (x.T[: tiles.heads] for x in (tops, totals))
    at.lse[...] = jnp.where(top > BLIND, top / LOG2E + jnp.log(total), -jnp.inf)
    at.top[...] = jnp.full_like(at.top, HIDDEN)


def _inverse(x):
    """`1 / x` by a step of Newton's method, in half of the time of a division."""
    reciprocal = pltpu.reciprocal if hasattr(pltpu, "reciprocal") else pl.reciprocal  # jax < 0.12
    y = reciprocal(x, approx=True)
    return y * (2 - x * y)
