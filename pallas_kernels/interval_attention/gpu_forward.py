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

from pallas_kernels.interval_attention.gpu_warpgroup import (
    MATRIX,
    PER_COLUMN,
    PER_ROW,
    ROWS,
    Product,
    Walk,
    Warpgroup,
    feed,
    in_roles,
    launch,
    locate,
    longest_first,
    per_column,
    per_row,
    shared,
)
from pallas_kernels.interval_attention.plan import Visits

LOWEST = -1e20  # where maxima start: below every score, and far above that of a hidden key
MAX_WARPGROUPS = 2
STAGES = 2  # steps whose keys are in shared memory


class Options(NamedTuple):
    """Static facts of a call."""

    scale: float
    soft_cap: float | None
    block_q: int
    block_k: int
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

    q: Any  # [warpgroups ROWS H]
    out: Any  # [warpgroups ROWS V], or None: then it takes the place of q
    clock: Any  # [warpgroups ROWS]
    lse: Any  # [warpgroups ROWS]
    k: Any  # [stages step H]
    v: Any  # [stages step V]
    ends: Any  # [stages 2 step]
    q_ready: Any
    k_ready: Any
    v_ready: Any
    k_free: Any
    v_free: Any
    turn: Any  # at the tensor cores


def _scratch(H: int, V: int, step: int, warpgroups: int, dtype) -> Scratch:
    return Scratch(
        q=shared(warpgroups, ROWS, H, dtype=dtype),
        out=None if H == V else shared(warpgroups, ROWS, V, dtype=dtype),
        clock=shared(warpgroups, ROWS, dtype=jnp.int32),
        lse=shared(warpgroups, ROWS, dtype=jnp.float32),
        k=shared(STAGES, step, H, dtype=dtype),
        v=shared(STAGES, step, V, dtype=dtype),
        ends=shared(STAGES, 2, step, dtype=jnp.int32),
        q_ready=plgpu.Barrier(num_arrivals=2, num_barriers=warpgroups),
        k_ready=plgpu.Barrier(num_arrivals=2, num_barriers=STAGES),
        v_ready=plgpu.Barrier(num_barriers=STAGES),
        k_free=plgpu.Barrier(num_arrivals=warpgroups, num_barriers=STAGES),
        v_free=plgpu.Barrier(num_arrivals=warpgroups, num_barriers=STAGES),
        turn=plgpu.Barrier(num_arrivals=warpgroups),
    )


def forward(options: Options, q, k, v, clock, ends, rows: Visits):
    """`q [B T N H]`, `k [B S K H]`, `v [B S K V]`, `clock [B 1 T]`, `ends [B 2 S]`, padded to
    whole blocks. Returns the output `[B T N V]` and the log-sum-exp `[B N T]` (float32).
    """
    (B, T, N, H), K, V = q.shape, k.shape[2], v.shape[3]
    # Registers and shared memory hold a tile of 128 queries and steps of 128 keys, or wider heads.
    warpgroups, step = (MAX_WARPGROUPS, 128) if max(H, V) <= 128 else (1, 64)
    tile = ROWS * warpgroups

    def kernel(words, begin, partial, full, order, q, k, v, clock, ends, out, lse, scratch):
        row, head = jax.lax.axis_index("row"), jax.lax.axis_index("head")
        block, first = locate(order, row, options.block_q, tile)
        walk = Walk.of(Visits(words, begin, partial, full), row, block, options.block_k // step)

        def compute(index):
            queries = pl.ds(first + index * ROWS, ROWS)
            ready = scratch.q_ready.at[index]
            plgpu.copy_gmem_to_smem(q.at[row, queries, head], scratch.q.at[index], ready)
            plgpu.copy_gmem_to_smem(clock.at[row, 0, queries], scratch.clock.at[index], ready)
            plgpu.barrier_wait(ready)
            _compute(options, scratch, walk, index, V)
            result = (scratch.q if scratch.out is None else scratch.out).at[index]
            plgpu.copy_smem_to_gmem(result, out.at[row, queries, head])
            plgpu.copy_smem_to_gmem(scratch.lse.at[index], lse.at[row, head, queries])
            plgpu.wait_smem_to_gmem(0)

        def load():
            key_head = jax.lax.div(head, jnp.int32(N // K))

            def copy_k(i, slot):
                keys, ready = pl.ds(walk.part(i) * step, step), scratch.k_ready.at[slot]
                plgpu.copy_gmem_to_smem(k.at[row, keys, key_head], scratch.k.at[slot], ready)
                to = scratch.ends.at[slot]
                plgpu.copy_gmem_to_smem(ends.at[row, :, keys], to, ready)

            def copy_v(i, slot):
                keys, ready = pl.ds(walk.part(i) * step, step), scratch.v_ready.at[slot]
                plgpu.copy_gmem_to_smem(v.at[row, keys, key_head], scratch.v.at[slot], ready)

            feed(walk.steps, STAGES, [(scratch.k_free, copy_k), (scratch.v_free, copy_v)])

        in_roles(compute, load, warpgroups)

    return launch(
        kernel,
        [
            jax.ShapeDtypeStruct((B, T, N, V), q.dtype),
            jax.ShapeDtypeStruct((B, N, T), jnp.float32),
        ],
        {"head": N, "tile": T // tile, "row": B},
        [_scratch(H, V, step, warpgroups, q.dtype)],
        warpgroups=warpgroups,
        simulated=options.simulated,
    )(*rows, longest_first(rows), q, k, v, clock, ends)


def _compute(options: Options, scratch: Scratch, walk: Walk, index, V: int) -> None:
    """The output and lse of one warpgroup's queries, into shared memory."""
    wg = Warpgroup(options.simulated)

    def take_turn():
        plgpu.barrier_arrive(scratch.turn)
        plgpu.barrier_wait(scratch.turn)

    carry = (
        wg.full((ROWS, V), 0, MATRIX),
        wg.full((ROWS,), LOWEST, PER_ROW),
        wg.full((ROWS,), 0, PER_ROW),
    )
    visit = functools.partial(_visit, options, wg, scratch, take_turn, index)
    pl.when(index == 1)(take_turn)
    carry = walk.run(visit, carry, STAGES)
    pl.when(index == 0)(take_turn)
    sums, top, total = carry
    blind = total == 0
    share = jax.lax.select(blind, jnp.zeros_like(total), 1 / total)
    lse = top * math.log(2) + jnp.log(total)  # -inf where the total is zero
    result = (scratch.q if scratch.out is None else scratch.out).at[index]
    result[...] = (sums * per_row(share, sums.shape)).astype(scratch.k.dtype)
    scratch.lse.at[index][...] = lse
    plgpu.commit_smem()


def _visit(
    options: Options, wg: Warpgroup, scratch: Scratch, take_turn, index, slot, carry, masked
):
    """One step of keys. `carry`: weighted sums of values, maximum of scores (log 2), total."""
    sums, top, total = carry
    plgpu.barrier_wait(scratch.k_ready.at[slot])
    product = Product(scratch.q.at[index], scratch.k.at[slot], transposed=True)
    [scores] = wg.products([product], meanwhile=take_turn)
    scores = options.soften(scores)
    if masked:
        clock = per_row(wg.load(scratch.clock.at[index], PER_ROW), scores.shape)
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
