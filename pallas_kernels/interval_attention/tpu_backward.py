"""The backward pass on a TPU: all three gradients in one walk over the visited blocks.

Scores are recomputed from the log-sum-exp (Dao et al., arXiv 2205.14135), keys by queries, so that
a query's numbers lie along the lanes and only one of the five products has a transposed operand.
The gradient of the queries is summed while their block lasts, those of the keys in fast memory that
holds all keys of a head: as many as `max_blocks` says, beyond which they go in stretches.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels.interval_attention.tpu_tiles import HIDDEN, LANES, LOG2E, Tiles, Walk
from pallas_kernels.interval_attention.visits import FIRST, FULL, LAST, PARTIAL, minor

KEY_BYTES = 34 * 2**20  # of fast memory for the gradients of keys and values
SPAN = KEY_BYTES // (2 * LANES * 8)  # keys whose gradients fit if none is wide, in 16 bits


def max_blocks(tiles: Tiles, dtype) -> int:
    """Blocks of keys whose gradients fit: sums in float32, and two copies on their way out."""
    each = (tiles.dim + tiles.value_dim) * (4 + 2 * _out_dtype(tiles, dtype).itemsize)
    return max(1, KEY_BYTES // each // tiles.block_k)


def backward(
    walk: Walk, words, steps, q, k, v, clock, bounds, out, d_out, lse, d_lse, *, blocks, dtype
):
    """Gradients of the padded arguments, as in `Walk`; those of the queries in `dtype`.

    `blocks`: a range of the blocks of keys, that the words stay within. Only its keys get
    gradients, and those of the queries are its part of the sum.
    `lse`, in units of log 2, and `d_lse`: `[B N/heads heads T]`.
    """
    tiles = walk.tiles
    B, groups, keys = k.shape[0], lse.shape[1], len(blocks) * tiles.block_k
    written = _out_dtype(tiles, k.dtype)
    whole = lambda dim: pl.BlockSpec((None, keys, dim), lambda h, b, t, words: (b, 0, h))
    d_q, d_k, d_v = walk.launch(
        "interval_attention_backward",
        functools.partial(_kernel, walk, blocks.start),
        words,
        steps,
        (q, k, v, clock, bounds, out, d_out, lse, d_lse),
        [
            (q.shape, dtype),
            ((B, keys, groups * tiles.dim), written),
            ((B, keys, groups * tiles.value_dim), written),
        ],
        in_specs=[
            walk.queries(tiles.dim),
            walk.keys(tiles.dim),
            walk.keys(tiles.value_dim),
            walk.clock(),
            walk.bounds(),
            walk.queries(tiles.value_dim),
            walk.queries(tiles.value_dim),
            walk.statistics(),
            walk.statistics(),
        ],
        out_specs=[walk.queries(tiles.dim), whole(tiles.dim), whole(tiles.value_dim)],
        scratch_shapes=[
            ((tiles.heads, tiles.block_q), jnp.float32),
            ((tiles.heads, tiles.dim, tiles.block_q), jnp.float32),
            ((keys, tiles.dim), jnp.float32),
            ((keys, tiles.value_dim), jnp.float32),
        ],
    )
    return d_q, _join(tiles, d_k, tiles.dim, k.dtype), _join(tiles, d_v, tiles.value_dim, v.dtype)


def _out_dtype(tiles: Tiles, dtype):
    """Parts of one sum are written in float32."""
    return jnp.dtype(dtype if tiles.groups == 1 else jnp.float32)


def _join(tiles: Tiles, parts: jax.Array, dim: int, dtype) -> jax.Array:
    """Adds up what the groups of heads of each key head gave, `[B S K*groups*dim]`."""
    if tiles.groups == 1:
        return parts
    B, S, _ = parts.shape
    parts = parts.reshape(B, S, -1, tiles.groups, dim)
    return parts.sum(3).reshape(B, S, -1).astype(dtype)


class _Refs(NamedTuple):
    q: Any  # [block_q heads*H]
    k: Any  # [block_k H]
    v: Any  # [block_k V]
    clock: Any  # [1 block_q]
    bounds: Any  # [2 block_k]
    out: Any  # [block_q heads*V]
    d_out: Any  # [block_q heads*V]
    lse: Any  # [heads block_q]
    d_lse: Any  # [heads block_q]
    d_q: Any  # [block_q heads*H]
    d_k: Any  # [keys H]
    d_v: Any  # [keys V]
    slope: Any  # scratch [heads block_q]: the mean of a query's d_p, less its d_lse
    q_sums: Any  # scratch [heads H block_q]
    k_sums: Any  # scratch [keys H]
    v_sums: Any  # scratch [keys V]


def _kernel(walk: Walk, first: int, words, *refs):
    tiles, at = walk.tiles, _Refs(*refs)
    t = pl.program_id(2)
    word = walk.word(words, pl.program_id(1), t)
    low = (minor(word) - first) * tiles.block_k
    place = pl.ds(pl.multiple_of(low, tiles.block_k), tiles.block_k)

    @pl.when(t == 0)
    def _():
        at.k_sums[...] = jnp.zeros_like(at.k_sums)
        at.v_sums[...] = jnp.zeros_like(at.v_sums)

    pl.when((word & FIRST) != 0)(lambda: _turn(tiles, at))
    pl.when((word & FULL) != 0)(lambda: _visit(tiles, at, place, masked=False))
    pl.when((word & PARTIAL) != 0)(lambda: _visit(tiles, at, place, masked=True))

    @pl.when((word & LAST) != 0)
    def _():
        for head in range(tiles.heads):
            d_q = at.q_sums[head].T * tiles.scale
            at.d_q[:, tiles.of(head, tiles.dim)] = d_q.astype(at.d_q.dtype)

    @pl.when(t == pl.num_programs(2) - 1)
    def _():
        at.d_k[...] = (at.k_sums[...] * tiles.scale).astype(at.d_k.dtype)
        at.d_v[...] = at.v_sums[...].astype(at.d_v.dtype)


def _turn(tiles: Tiles, at: _Refs):
    """Begins a block of queries."""
    at.q_sums[...] = jnp.zeros_like(at.q_sums)
    for head in range(tiles.heads):
        here = tiles.of(head, tiles.value_dim)
        products = at.out[:, here].astype(jnp.float32) * at.d_out[:, here].astype(jnp.float32)
        row = slice(head, head + 1)
        at.slope[row, :] = products.T.sum(0, keepdims=True) - at.d_lse[row, :]


def _visit(tiles: Tiles, at: _Refs, place, *, masked: bool):
    k, v = at.k[...], at.v[...]
    k_across = k.T
    hidden = _hidden(tiles, at) if masked else None
    for head in range(tiles.heads):
        q, d_out = at.q[:, tiles.of(head, tiles.dim)], at.d_out[:, tiles.of(head, tiles.value_dim)]
        s = tiles.scores(tiles.dot(k, q, (1, 1)))
        shown = s if hidden is None else s + hidden
        p = jnp.exp2(shown - at.lse[head : head + 1, :])
        d_p = tiles.dot(v, d_out, (1, 1))
        d_s = p * (d_p - at.slope[head : head + 1, :])
        if tiles.soft_cap is not None:
            d_s = d_s * (1 - jnp.square(s / (tiles.soft_cap * LOG2E)))
        d_s = d_s.astype(q.dtype)
        at.v_sums[place, :] += tiles.dot(p.astype(d_out.dtype), d_out, (1, 0))
        at.k_sums[place, :] += tiles.dot(d_s, q, (1, 0))
        at.q_sums[head] += tiles.dot(k_across, d_s, (1, 0))


def _hidden(tiles: Tiles, at: _Refs):
    """What is added to the scores `[block_k block_q]`."""
    repeat = (1, tiles.block_q // LANES)
    columns = (jnp.broadcast_to(at.bounds[i : i + 1, :], (LANES, tiles.block_k)).T for i in (0, 1))
    low, length = (jnp.tile(x, repeat) for x in columns)
    return jnp.where(at.clock[...] - low < length, 0.0, HIDDEN)
