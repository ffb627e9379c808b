"""The forward pass on a Hopper GPU: an online softmax over the visited key blocks.

Warpgroups with `ROWS` queries each take turns at the tensor cores, so that one multiplies while the
other does its softmax (FlashAttention-3, arXiv 2407.08608); a third one fetches keys. Partial
blocks come first, then full ones, which evaluate no mask.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.interval_attention.gpu_tiles import PIECE, Tile, Tiles, Walk, div, rem
from pallas_kernels.interval_attention.gpu_warpgroup import (
    MATRIX,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    Product,
    Warpgroup,
    drain,
    feed,
    in_roles,
    launch,
    per_column,
    per_row,
    shared,
)
from pallas_kernels.interval_attention.visits import Visits

LOWEST = -1e20  # where maxima start: below every score, and far above that of a hidden key
MAX_WARPGROUPS = 2
STAGES = 2  # steps whose keys are in shared memory


class Options(NamedTuple):
    """Static facts of a call."""

    scale: float
    soft_cap: float | None
    block_q: int
    block_k: int
    block_columns: int
    programs: int  # at a time: each has a multiprocessor of its own
    simulated: bool

    @property
    def factor(self) -> float:
        """What `soften` gives, times this, is a score in units of log 2."""
        return (self.soft_cap or self.scale) * math.log2(math.e)

    def soften(self, products):
        if self.soft_cap is None:
            return products
        return jnp.tanh(products * (self.scale / self.soft_cap))


class Scratch(NamedTuple):
    """Shared memory, and the barriers by which its parts change hands."""

    q: Any  # [tiles warpgroups ROWS H]
    out: Any  # [tiles warpgroups ROWS V], or None: then it takes the place of q
    clock: Any  # [tiles warpgroups ROWS]
    lse: Any  # [tiles warpgroups ROWS]
    k: Any  # [stages step H]
    v: Any  # [stages step V]
    ends: Any  # [stages 2 step]
    q_ready: Any
    k_ready: Any
    v_ready: Any
    k_free: Any
    v_free: Any
    q_free: Any
    turn: Any  # at the tensor cores


class Size(NamedTuple):
    """How the kernel is cut up, by what registers and shared memory (227 KiB) hold."""

    warpgroups: int  # that compute, for `ROWS` queries each
    step: int  # keys that are visited together
    tiles: int  # whose queries are in shared memory: the one that is worked at, and the next

    @classmethod
    def of(cls, H: int, V: int) -> "Size":
        return cls(MAX_WARPGROUPS, 128, 2) if max(H, V) <= 128 else cls(1, 64, 1)


def _scratch(H: int, V: int, size: Size, dtype) -> Scratch:
    warpgroups, step, tiles = size
    pieces, own = step // PIECE, (tiles, warpgroups, ROWS)
    return Scratch(
        q=shared(*own, H, dtype=dtype),
        out=None if H == V else shared(*own, V, dtype=dtype),
        clock=shared(*own, dtype=jnp.int32),
        lse=shared(*own, dtype=jnp.float32),
        k=shared(STAGES, step, H, dtype=dtype),
        v=shared(STAGES, step, V, dtype=dtype),
        ends=shared(STAGES, 2, step, dtype=jnp.int32),
        q_ready=plgpu.Barrier(num_arrivals=2 * warpgroups, num_barriers=tiles),
        k_ready=plgpu.Barrier(num_arrivals=3 * pieces, num_barriers=STAGES),
        v_ready=plgpu.Barrier(num_arrivals=pieces, num_barriers=STAGES),
        k_free=plgpu.Barrier(num_arrivals=warpgroups, num_barriers=STAGES),
        v_free=plgpu.Barrier(num_arrivals=warpgroups, num_barriers=STAGES),
        q_free=plgpu.Barrier(num_arrivals=warpgroups, num_barriers=tiles),
        turn=plgpu.Barrier(num_arrivals=warpgroups),
    )


class Arrays(NamedTuple):
    """In global memory, padded to whole blocks, `ends` also with a piece that nobody sees."""

    q: Any  # [B T N H]
    k: Any  # [B S K H]
    v: Any  # [B S K V]
    clock: Any  # [B 1 T]
    ends: Any  # [B 2 S+PIECE]


class Results(NamedTuple):
    out: Any  # [B T N V]
    lse: Any  # [B N T], float32


def forward(options: Options, q, k, v, clock, ends, rows: Visits) -> Results:
    (B, T, N, H), V = q.shape, v.shape[3]
    size = Size.of(H, V)
    sizes = ROWS * size.warpgroups, options.block_q, k, options.block_k, size.step
    tiles = Tiles.of(q, N, *sizes, options.programs)

    def kernel(words, begin, partial, full, order, q, k, v, clock, ends, out, lse, scratch):
        lists, arrays = Visits(words, begin, partial, full, order), Arrays(q, k, v, clock, ends)

        def compute(index):
            results = Results(out, lse)
            work = functools.partial(_compute_tile, options, size, results, scratch, index)
            tiles.for_each(lists, work)
            plgpu.wait_smem_to_gmem(0)

        def load():
            steps = tiles.for_each(lists, functools.partial(_load_tile, size, arrays, scratch))
            drain(steps, STAGES, [scratch.k_free, scratch.v_free])

        in_roles(compute, load, size.warpgroups)

    shapes = [jax.ShapeDtypeStruct((B, T, N, V), q.dtype)]
    shapes += [jax.ShapeDtypeStruct((B, N, T), jnp.float32)]
    scratch = [_scratch(H, V, size, q.dtype)]
    facts: Any = {"warpgroups": size.warpgroups, "simulated": options.simulated}
    run = launch(kernel, shapes, tiles.programs, scratch, **facts)
    return Results(*run(*rows, q, k, v, clock, ends))


class Own(NamedTuple):
    """What a warpgroup has of a tile, in shared memory."""

    q: Any
    out: Any
    clock: Any
    lse: Any

    @classmethod
    def of(cls, scratch: Scratch, slot, index) -> "Own":
        out = scratch.q if scratch.out is None else scratch.out
        refs = scratch.q, out, scratch.clock, scratch.lse
        return cls(*(ref.at[slot, index] for ref in refs))


def _load_tile(size: Size, arrays: Arrays, scratch: Scratch, turn, tile: Tile, before) -> None:
    """Fetches the queries of a tile, and the keys of its steps."""
    slot, row, walk = rem(turn, size.tiles), tile.row, tile.walk
    free = functools.partial(plgpu.barrier_wait, scratch.q_free.at[slot])
    pl.when(turn >= size.tiles)(free)
    copy = plgpu.copy_gmem_to_smem
    for index in range(size.warpgroups):
        own, ready = Own.of(scratch, slot, index), scratch.q_ready.at[slot]
        queries = pl.ds(tile.first + index * ROWS, ROWS)
        copy(arrays.q.at[row, queries, tile.head], own.q, ready)
        copy(arrays.clock.at[row, 0, queries], own.clock, ready)
    key_head = div(tile.head, arrays.q.shape[2] // arrays.k.shape[2])

    def copy_k(step, slot):
        ready = scratch.k_ready.at[slot]
        for piece in walk.pieces(step):
            to = scratch.k.at[slot, piece.place]
            copy(arrays.k.at[row, piece.where, key_head], to, ready)
            for i in (0, 1):
                to = scratch.ends.at[slot, i, piece.place]
                copy(arrays.ends.at[row, i, piece.known], to, ready)

    def copy_v(step, slot):
        for piece in walk.pieces(step):
            to, ready = scratch.v.at[slot, piece.place], scratch.v_ready.at[slot]
            copy(arrays.v.at[row, piece.where, key_head], to, ready)

    supplies = [(scratch.k_free, copy_k), (scratch.v_free, copy_v)]
    feed(walk.steps, STAGES, supplies, before)


def _compute_tile(
    options: Options,
    size: Size,
    results: Results,
    scratch: Scratch,
    index,
    turn,
    tile: Tile,
    before,
) -> None:
    """A warpgroup's part of a tile, from shared memory into global memory."""
    slot = rem(turn, size.tiles)
    plgpu.barrier_wait(scratch.q_ready.at[slot])
    own = Own.of(scratch, slot, index)
    _attend(options, scratch, own, tile.walk, index, before)
    queries = pl.ds(tile.first + index * ROWS, ROWS)
    plgpu.copy_smem_to_gmem(own.out, results.out.at[tile.row, queries, tile.head])
    plgpu.copy_smem_to_gmem(own.lse, results.lse.at[tile.row, tile.head, queries])
    later = size.tiles - 1  # tiles whose results may still be in shared memory
    plgpu.wait_smem_to_gmem(len(results) * later, wait_read_only=True)
    free = scratch.q_free.at[rem(turn + 1, size.tiles)]
    pl.when(turn >= later)(functools.partial(plgpu.barrier_arrive, free))


def _attend(options: Options, scratch: Scratch, own: Own, walk: Walk, index, before) -> None:
    """The output and lse of one warpgroup's queries, into shared memory."""
    wg, V = Warpgroup(options.simulated), own.out.shape[-1]

    def take_turn():
        plgpu.barrier_arrive(scratch.turn)
        plgpu.barrier_wait(scratch.turn)

    carry = (
        wg.full((ROWS, V), 0, MATRIX),
        wg.full((ROWS,), LOWEST, PER_ROW),
        wg.full((ROWS,), 0, PER_ROW),
    )
    visit = functools.partial(_visit, options, wg, scratch, own, take_turn)
    pl.when(index == 1)(take_turn)
    carry = walk.run(visit, carry, STAGES, before)
    pl.when(index == 0)(take_turn)
    sums, top, total = carry
    blind = total == 0
    share = jax.lax.select(blind, jnp.zeros_like(total), 1 / total)
    own.out[...] = (sums * per_row(share, sums.shape)).astype(scratch.k.dtype)
    own.lse[...] = top * math.log(2) + jnp.log(total)  # -inf where the total is zero
    plgpu.commit_smem()


def _visit(
    options: Options, wg: Warpgroup, scratch: Scratch, own: Own, take_turn, slot, carry, masked
):
    """One step of keys. `carry`: weighted sums of values, maximum of scores (log 2), total."""
    sums, top, total = carry
    plgpu.barrier_wait(scratch.k_ready.at[slot])
    product = Product(own.q, scratch.k.at[slot], transposed=True)
    [scores] = wg.products([product], meanwhile=take_turn)
    scores = options.soften(scores)
    if masked:
        clock = per_row(wg.load(own.clock, PER_ROW), scores.shape)
        ends = (wg.load(scratch.ends.at[slot, j], PER_COLUMN) for j in (0, 1))
        visible = see(clock, *(per_column(end, scores.shape) for end in ends))
        scores = jax.lax.select(visible, scores, jnp.full_like(scores, -jnp.inf))
    plgpu.barrier_arrive(scratch.k_free.at[slot])

    new_top = jnp.maximum(top, scores.max(1) * options.factor)
    p = jnp.exp2(scores * options.factor - per_row(new_top, scores.shape))
    shrink = jnp.exp2(top - new_top)
    total = total * shrink + p.sum(1)
    sums = sums * per_row(shrink, sums.shape)
    weights = p.astype(scratch.v.dtype)
    sums, new_top, total, weights = jax.lax.optimization_barrier((sums, new_top, total, weights))

    plgpu.barrier_arrive(scratch.turn)
    plgpu.barrier_wait(scratch.v_ready.at[slot])
    plgpu.barrier_wait(scratch.turn)
    [sums] = wg.add_products([sums], [Product(weights, scratch.v.at[slot])])
    plgpu.barrier_arrive(scratch.v_free.at[slot])
    return sums, new_top, total


def see(clock, start, stop):
    """Where keys are visible, from matrices."""
    return (start <= clock) & (clock < stop)
