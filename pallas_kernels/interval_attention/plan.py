"""Which blocks of the score matrix a kernel has to visit, found once a step for all layers.

The scores of `T` queries and `S` keys fall into `block_q x block_k` blocks. A block is full if
every pair in it is visible, partial if some pair may be, and otherwise it is visited by nobody.
The clocks of a query block are summed up by the minima and maxima of its runs (stretches in which
the clock rises by one or rests), so that finding the blocks takes `RUNS x S x T / block_q`
comparisons, and is exact for queries laid out stream after stream, each sorted by itself, while no
block holds more than `RUNS` stretches.

`B` batch, `T` queries, `S` keys, `n` blocks of queries, `m` of keys.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.interval_attention.visits import MAX_BLOCKS, Visits, make_visits
from pallas_kernels.interval_attention.width import in_32_bits

RUNS = 64  # told apart in a query block; further ones count as one
MAX_CAPACITY = 1 << 16  # of a list by default: 256 KiB


class Stats(NamedTuple):
    """Blocks of each row of the batch, int32 `[B]`. `visited = full + partial`."""

    visited: Array
    full: Array
    partial: Array
    least: Array  # that any kernel with blocks of this size must visit: some pair is visible


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows", "columns", "spans", "clock", "start", "stop"],
    meta_fields=["block_q", "block_k", "block_columns", "span"],
)
@dataclasses.dataclass(frozen=True)
class Plan:
    """The visits along the queries (forward, dq) and along the keys (dk, dv).

    A pytree of int32 arrays that all lead with the batch: it can be mapped, scanned over and
    sharded by rows, and is good for every layer of a step.
    """

    rows: Visits
    columns: Visits
    spans: tuple[Visits, ...]  # rows of `span` blocks of keys each; none if one would hold all
    clock: Array  # [B T]: what the plan was made for
    start: Array  # [B S]
    stop: Array  # [B S]
    block_q: int
    block_k: int
    block_columns: int  # keys of a block in `columns`; `rows` and `spans` have `block_k`
    span: int

    def stretches(self, most: int) -> Iterator[tuple[range, Visits]]:
        """All blocks of keys, at most `most` at a time, and for each the visits along the queries
        that stay within it."""
        m = self.key_blocks
        for i, visits in enumerate(self.spans or (self.rows,)):
            span = range(m)[i * self.span : (i + 1) * self.span]
            for low in range(0, len(span), most):
                blocks = span[low : low + most]
                yield blocks, visits if blocks == span else visits.within(blocks)

    @property
    def key_blocks(self) -> int:
        """Blocks of `block_k` keys."""
        return -(-self.start.shape[-1] // self.block_k)

    @property
    def is_complete(self) -> bool:
        """Whether the lists hold every block, whatever the intervals, known before they are."""
        return self.rows.words.shape[-1] >= self.rows.full.shape[-1] * self.key_blocks

    @property
    def fits(self) -> Array:
        """Whether no list overflowed, a scalar. If one did, the plan must not be used.

        Those of spans have no more visits than the rows.
        """
        lists = (self.rows, self.columns)
        return jnp.all(jnp.stack([jnp.all(x.begin[..., -1] <= x.words.shape[-1]) for x in lists]))

    @property
    def bounded(self) -> "Plan":
        """Itself if it fits; otherwise one that names no place beyond the ends of its lists.

        Under `vmap` both branches of a condition run: a kernel walks a plan that has overflowed,
        and its results are thrown away.
        """

        def bound(lists: Visits) -> Visits:
            partial, full = (jnp.where(self.fits, x, 0) for x in (lists.partial, lists.full))
            begin = jnp.minimum(lists.begin, lists.words.shape[-1])
            return lists._replace(begin=begin, partial=partial, full=full)

        rows, columns, *spans = map(bound, (self.rows, self.columns, *self.spans))
        return dataclasses.replace(self, rows=rows, columns=columns, spans=tuple(spans))

    @property
    def stats(self) -> Stats:
        """Counts of blocks. `least` looks at every query: not for use in a training step."""
        full, partial = self.rows.full.sum(-1), self.rows.partial.sum(-1)
        return Stats(full + partial, full, partial, _least(self))


@functools.partial(
    jax.jit, static_argnames=("block_q", "block_k", "capacity", "span", "block_columns")
)
@in_32_bits
def make_plan(
    clock: Array,
    start: Array,
    stop: Array,
    *,
    block_q: int,
    block_k: int,
    capacity: int | None = None,
    span: int | None = None,
    block_columns: int | None = None,
) -> Plan:
    """The plan for int32 clocks `[B T]` and intervals `[B S]`; ragged tails become partial blocks.

    `capacity`: visits that a list can hold, for each row of the batch; by default all blocks there
    are, up to `MAX_CAPACITY`. With fewer, `fits` says whether they sufficed; `interval_attention`
    asks it, and runs the reference if they did not.
    `span`: blocks of keys of which a backward pass can sum the gradients at a time, by default all;
    where there are more, the plan has a list along the queries for each so many.
    `block_columns`: keys of a block in the lists along the keys, a multiple of `block_k`, which it
    is by default.

    Raises ValueError for shapes that do not agree, `MAX_BLOCKS` blocks or more along an axis, sizes
    below 1 or that are no multiples, and clocks that are no whole numbers.
    """
    clock, start, stop = whole_numbers(clock=clock, start=start, stop=stop)
    check_shapes(clock, start, stop)
    sizes = {"block_q": block_q, "block_k": block_k, "capacity": capacity, "span": span}
    sizes["block_columns"] = block_columns
    if wrong := {name: size for name, size in sizes.items() if size is not None and size < 1}:
        raise ValueError(f"{wrong}: sizes of a plan are at least 1")
    block_columns = block_columns or block_k
    if block_columns % block_k:
        raise ValueError(f"block_columns={block_columns} is not a multiple of block_k={block_k}")
    n, m = -(-clock.shape[1] // block_q), -(-start.shape[1] // block_k)
    if max(n, m) >= MAX_BLOCKS:
        raise ValueError(f"{n} x {m} blocks, but an axis has at most {MAX_BLOCKS - 1}")
    if capacity is None:
        capacity = min(n * m, MAX_CAPACITY)
    active, full = _kinds(clock, start, stop, block_q, block_k)
    capacity = max(1, min(capacity, n * m))
    rows = make_visits(active, full, capacity)
    columns = make_visits(*_merged(active, full, block_columns // block_k), capacity)
    span = span or m
    cuts = [slice(low, low + span) for low in range(0, m, span)] if span < m else []
    spans = tuple(make_visits(active[..., c], full[..., c], capacity, c.start) for c in cuts)
    vectors = clock, start, stop
    return Plan(rows, columns, spans, *vectors, block_q, block_k, block_columns, span)


def whole_numbers(**arrays: Array) -> tuple[Array, ...]:
    """The arrays as int32, which kernels count with. Raises ValueError, naming one that is not
    integer."""
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} counts tokens and must be int32, not {x.dtype}")
    return tuple(x.astype(jnp.int32) for x in arrays.values())


def check_shapes(clock: Array, start: Array, stop: Array) -> None:
    """Raises ValueError unless they are `[B T]`, `[B S]` and `[B S]`, and none is empty."""
    shapes = clock.shape, start.shape, stop.shape
    fit = {len(shape) for shape in shapes} == {2} and start.shape == stop.shape
    if not fit or clock.shape[0] != start.shape[0] or 0 in (*clock.shape, *start.shape):
        clock_shape, start_shape, stop_shape = shapes
        raise ValueError(
            f"clock {clock_shape} must be [B T], start {start_shape} and stop {stop_shape} [B S], "
            "and none empty"
        )


def in_blocks(x: Array, block: int, **pad) -> Array:
    """`[B T] -> [B n block]`, padded at the end; `pad` as in `jnp.pad`."""
    B, T = x.shape
    n = max(1, -(-T // block))
    return jnp.pad(x, ((0, 0), (0, n * block - T)), **pad).reshape(B, n, block)


def _kinds(clock, start, stop, block_q, block_k) -> tuple[Array, Array]:
    """Whether some pair of a block may be visible, and whether all are: boolean `[B n m]`."""
    low_BRn, high_BRn = _runs(in_blocks(clock, block_q, mode="edge"))
    start_B1mC, stop_B1mC = (in_blocks(x, block_k)[:, None] for x in (start, stop))
    meets = jnp.zeros((), bool)
    for r in range(RUNS):  # one fused loop over keys: no array of queries times keys
        low, high = low_BRn[:, r, :, None, None], high_BRn[:, r, :, None, None]
        meets |= (start_B1mC <= high) & (low < stop_B1mC)
    active = jnp.any(meets & (start_B1mC < stop_B1mC), -1)
    lowest, highest = low_BRn.min(1)[..., None], high_BRn.max(1)[..., None]
    covers = (start_B1mC.max(-1) <= lowest) & (highest < stop_B1mC.min(-1))
    return active, covers & active


def _merged(active_Bnm, full_Bnm, together: int) -> tuple[Array, Array]:
    """Kinds `[B m' n]` of blocks of so many times the keys."""
    active, full = (x.swapaxes(1, 2) for x in (active_Bnm, full_Bnm))
    B, m, n = active.shape
    grow = ((0, 0), (0, -m % together), (0, 0))
    active, full = (jnp.pad(x, grow).reshape(B, -1, together, n) for x in (active, full))
    return active.any(2), full.all(2)


def _runs(clock_BnC: Array) -> tuple[Array, Array]:
    """Lowest and highest clock `[B R n]` of every run; of one that is not there, none between."""
    rise = jnp.diff(clock_BnC, axis=-1)
    ends = jnp.pad((rise < 0) | (rise > 1), ((0, 0), (0, 0), (1, 0)))
    run = jnp.minimum(jnp.cumsum(ends, -1), RUNS - 1)
    is_in = run[:, None] == jnp.arange(RUNS)[:, None, None]
    top = jnp.iinfo(jnp.int32).max
    low = jnp.where(is_in, clock_BnC[:, None], top).min(-1)
    high = jnp.where(is_in, clock_BnC[:, None], -top).max(-1)
    return low, high


@jax.jit
@in_32_bits
def _least(plan: Plan) -> Array:
    """Blocks `[B]` in which some pair is visible, by counting each block's clocks below a bound."""
    start, stop = (in_blocks(x, plan.block_k) for x in (plan.start, plan.stop))
    below = jax.vmap(functools.partial(jnp.searchsorted, side="left"))

    def visit(total, clock_BC):
        clock_BC = jnp.sort(clock_BC)
        sees = (below(clock_BC, start) < below(clock_BC, stop)).any(-1)
        return total + sees.sum(-1, dtype=jnp.int32), None

    blocks = in_blocks(plan.clock, plan.block_q, mode="edge").swapaxes(0, 1)
    return jax.lax.scan(visit, jnp.zeros(len(start), jnp.int32), blocks)[0]
