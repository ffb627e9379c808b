"""The backward pass on a Hopper GPU: dq along the rows of the plan, dk and dv along its columns.

Probabilities are computed again from the log-sum-exp (FlashAttention, arXiv 2205.14135), twice: in
the first kernel each warpgroup keeps dq of its queries in registers, in the second dk and dv of its
keys, summed over the query heads of the key head, so that nothing is added up in memory.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.interval_attention.gpu_forward import Options, see
from pallas_kernels.interval_attention.gpu_sides import (
    Scratch,
    Side,
    Size,
    at,
    drain_both,
    feed_both,
    give,
    scratch_of,
    take,
)
from pallas_kernels.interval_attention.gpu_tiles import Tiles, div, rem
from pallas_kernels.interval_attention.gpu_warpgroup import (
    MATRIX,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    Product,
    Warpgroup,
    in_roles,
    launch,
    per_column,
    per_row,
)
from pallas_kernels.interval_attention.visits import Visits

# Positions that a step of each kernel visits, of heads up to 128. With 128 the products are larger
# (dq of causal 16k: 4.6 ms on an H100, not 4.9), but dk and dv at once spill (12.0 ms, not 6.4).
KEYS, QUERIES = 128, 64
JOBS = 4  # of dk and dv, for each multiprocessor: with fewer, some would have one more than others
MAX_SUMS = 256  # columns of dk and dv that a kernel may sum up at once, in registers


def backward(options: Options, q, k, v, clock, ends, d_out, stats, rows, columns):
    """Gradients of q, k and v; arguments as in `forward`.

    `stats [B N 2 T]`: the lse in units of log 2 (large where a query sees no key), and
    `out . d_out - d_lse`.
    """
    queries, keys = Side(q, d_out, clock, stats), Side(k, v, ends)
    dq = _queries(options, queries, keys, rows)
    if q.shape[-1] + v.shape[-1] <= MAX_SUMS:
        return dq, *_keys(options, queries, keys, columns, (True, True))
    [dk] = _keys(options, queries, keys, columns, (True, False))
    [dv] = _keys(options, queries, keys, columns, (False, True))
    return dq, dk, dv


def _queries(options: Options, queries: Side, keys: Side, rows: Visits):
    """dq `[B T N H]`."""
    (B, T, N, H), K, V = queries.first.shape, keys.first.shape[2], keys.second.shape[3]
    size = Size.of(H, V, KEYS)
    sizes = ROWS * size.warpgroups, options.block_q, keys.first, options.block_k, size.step
    tiles = Tiles.of(queries.first, N, *sizes, options.programs)

    def kernel(words, begin, partial, full, order, q, do, clock, stats, k, v, ends, dq, s):
        lists = Visits(words, begin, partial, full, order)

        def compute(index):
            own = at(s.own, index)

            def work(turn, tile, before):
                del turn
                where = pl.ds(tile.first + index * ROWS, ROWS)
                given, ready = Side(q, do, clock, stats), s.own_ready.at[index]
                take(given, own, tile.row, tile.head, where, ready)
                visit = functools.partial(_visit_keys, options, s, own)
                zeros = Warpgroup(options.simulated).full((ROWS, H), 0, MATRIX)
                total = tile.walk.run(visit, zeros, size.stages, before)
                give(total * options.scale, own.first, dq.at[tile.row, where, tile.head])
                plgpu.wait_smem_to_gmem(0, wait_read_only=True)

            tiles.for_each(lists, work)
            plgpu.wait_smem_to_gmem(0)

        def load():
            def work(turn, tile, before):
                del turn
                key_head = div(tile.head, N // K)

                def supply(copy, ready, step, slot):
                    for piece in tile.walk.pieces(step):
                        to = at(s.other, slot)
                        copy(Side(k, v, ends), to, tile.row, key_head, piece, ready.at[slot])

                feed_both(s, tile.walk.steps, size.stages, supply, before)

            drain_both(s, tiles.for_each(lists, work), size.stages)

        in_roles(compute, load, size.warpgroups)

    return launch(
        kernel,
        jax.ShapeDtypeStruct((B, T, N, H), queries.first.dtype),
        tiles.programs,
        [scratch_of(queries, keys, size)],
        warpgroups=size.warpgroups,
        simulated=options.simulated,
    )(*rows, *queries, *keys[:3])


def _visit_keys(options: Options, s: Scratch, own: Side, slot, dq, masked: bool):
    """One step of keys, added to dq of a warpgroup's queries (not yet scaled)."""
    wg, other = Warpgroup(options.simulated), at(s.other, slot)
    plgpu.barrier_wait(s.first_ready.at[slot])
    plgpu.barrier_wait(s.second_ready.at[slot])
    products = [Product(own.first, other.first, True), Product(own.second, other.second, True)]
    scores, d_p = wg.products(products)
    plgpu.barrier_arrive(s.second_free.at[slot])
    spread = lambda ref, layout, per: per(wg.load(ref, layout), scores.shape)
    lse, less = (spread(own.stats.at[j], PER_ROW, per_row) for j in (0, 1))
    visible = None
    if masked:
        clock = spread(own.ranks.at[0], PER_ROW, per_row)
        visible = see(clock, *(spread(other.ranks.at[j], PER_COLUMN, per_column) for j in (0, 1)))
    soft, p = _weights(options, scores, visible, lse)
    d_s = _slopes(options, soft, p, d_p, less)
    [dq] = wg.add_products([dq], [Product(d_s.astype(own.first.dtype), other.first)])
    plgpu.barrier_arrive(s.first_free.at[slot])
    return dq


def _weights(options: Options, scores, visible, lse):
    """Softened scores, and probabilities from the lse in units of log 2."""
    soft = options.soften(scores)
    p = jnp.exp2(soft * options.factor - lse)
    return soft, p if visible is None else jax.lax.select(visible, p, jnp.zeros_like(p))


def _slopes(options: Options, soft, p, d_p, less):
    """Gradients of the scores, not yet scaled."""
    d_s = p * (d_p - less)
    return d_s if options.soft_cap is None else d_s * (1 - soft * soft)


def _keys(options: Options, queries: Side, keys: Side, columns: Visits, wanted):
    """dk `[B S K H]` and dv `[B S K V]`, those that are `wanted`."""
    (B, S, K, H), N, V = keys.first.shape, queries.first.shape[2], keys.second.shape[3]
    size, G = Size.of(H, V, QUERIES), N // K
    parts = min(G, -(-JOBS * options.programs // (B * K * S // (ROWS * size.warpgroups))))
    sizes = ROWS * size.warpgroups, options.block_columns, queries.first, options.block_q, size.step
    tiles = Tiles.of(keys.first, K * parts, *sizes, programs=None)  # too few to be dealt out evenly
    widths = [n * want for n, want in zip((H, V), wanted, strict=True)]

    def kernel(words, begin, partial, full, order, q, do, clock, stats, k, v, ends, *rest):
        *outputs, s = rest
        lists = Visits(words, begin, partial, full, order)
        row, part, first, walk = tiles.find(jax.lax.axis_index("program"), lists)
        key_head, part_of_head = div(part, parts), rem(part, parts)
        first_head, last_head = (div((part_of_head + i) * G, parts) for i in (0, 1))
        heads = last_head - first_head

        def compute(index):
            where, own = pl.ds(first + index * ROWS, ROWS), at(s.own, index)
            take(Side(k, v, ends), own, row, key_head, where, s.own_ready.at[index])
            visit = functools.partial(_visit_queries, options, s, own)
            of_head = lambda g, totals: walk.run(visit, totals, size.stages, before=g * walk.steps)
            zeros = lambda width: Warpgroup(options.simulated).full((ROWS, width), 0, MATRIX)
            totals = Gradients(*(zeros(n) if n else None for n in widths))
            dk, dv = jax.lax.fori_loop(0, heads, of_head, totals)
            targets = iter(outputs)
            if dk is not None:
                give(dk * options.scale, own.first, next(targets).at[row, where, part])
            if dv is not None:
                give(dv, own.second, next(targets).at[row, where, part])
            plgpu.wait_smem_to_gmem(0)

        def load():
            given = Side(q, do, clock, stats)

            def supply(copy, ready, i, slot):
                g, step = jax.lax.div(i, walk.steps), jax.lax.rem(i, walk.steps)
                head = key_head * G + first_head + g
                for piece in walk.pieces(step):
                    copy(given, at(s.other, slot), row, head, piece, ready.at[slot])

            feed_both(s, heads * walk.steps, size.stages, supply)
            drain_both(s, heads * walk.steps, size.stages)

        in_roles(compute, load, size.warpgroups)

    shapes = [jax.ShapeDtypeStruct((B, S, K * parts, n), keys.first.dtype) for n in widths if n]
    results = launch(
        kernel,
        shapes,
        tiles.programs,
        [scratch_of(keys, queries, size)],
        warpgroups=size.warpgroups,
        simulated=options.simulated,
    )(*columns, *queries, *keys[:3])
    if parts == 1:
        return results
    return [jnp.sum(x.reshape(B, S, K, parts, -1), 3, jnp.float32).astype(x.dtype) for x in results]


class Gradients(NamedTuple):
    """Of a warpgroup's keys; None where another kernel finds it."""

    dk: Any  # [ROWS H], not yet scaled
    dv: Any  # [ROWS V]


def _visit_queries(options: Options, s: Scratch, own: Side, slot, totals: Gradients, masked: bool):
    """One step of queries, added to `totals`. Scores are transposed: rows are keys."""
    wg, other = Warpgroup(options.simulated), at(s.other, slot)
    dk, dv = totals
    plgpu.barrier_wait(s.first_ready.at[slot])
    [scores] = wg.products([Product(own.first, other.first, True)])
    spread = lambda ref, layout, per: per(wg.load(ref, layout), scores.shape)
    visible = None
    if masked:
        clock = spread(other.ranks.at[0], PER_COLUMN, per_column)
        visible = see(clock, *(spread(own.ranks.at[j], PER_ROW, per_row) for j in (0, 1)))
    soft, p = _weights(options, scores, visible, spread(other.stats.at[0], PER_COLUMN, per_column))
    plgpu.barrier_wait(s.second_ready.at[slot])
    sums, products = [], []
    if dv is not None:
        sums, products = [dv], [Product(p.astype(own.second.dtype), other.second)]
    if dk is not None:
        sums.append(wg.full(scores.shape, 0, MATRIX))
        products.append(Product(own.second, other.second, True))
    sums = wg.add_products(sums, products)
    plgpu.barrier_arrive(s.second_free.at[slot])
    if dv is not None:
        dv = sums[0]
    if dk is not None:
        less = spread(other.stats.at[1], PER_COLUMN, per_column)
        d_s = _slopes(options, soft, p, sums[-1], less).astype(own.first.dtype)
        [dk] = wg.add_products([dk], [Product(d_s, other.first)])
    plgpu.barrier_arrive(s.first_free.at[slot])
    return Gradients(dk, dv)
