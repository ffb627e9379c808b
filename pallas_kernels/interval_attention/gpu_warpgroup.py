"""What a warpgroup of the GPU kernels does, on the chip or simulated on a CPU, in one vocabulary.

On the chip, products run on the tensor cores and arrays have a layout over the threads. JAX's
simulator of Mosaic GPU knows threads, barriers and copies but (in JAX 0.10) neither products nor
layouts; there a product is a plain dot of what the references hold.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.interval_attention.plan import Visits, minor

MATRIX = plgpu.Layout.WGMMA
PER_ROW, PER_COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)  # one value for each row, each column

ROWS = 64  # of a product: what one warpgroup computes
PIECE = 64  # positions of the other axis that are fetched together
SWIZZLE = 128  # bytes; a row of shared memory holds a multiple of them
REGISTERS = 240, 24  # of a thread that computes, that loads

INDEX = inspect.signature(plgpu.load).parameters.get("idx")
LOAD_NEEDS_INDEX = INDEX is not None and INDEX.default is INDEX.empty  # before JAX 0.11


def simulator() -> Any:
    """The value of `interpret` that runs a Mosaic GPU kernel on a CPU."""
    if hasattr(plgpu, "InterpretGPUParams"):
        return plgpu.InterpretGPUParams()
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # before JAX 0.11

    return InterpretGPUParams()


class Product(NamedTuple):
    """`a @ b`, or `a @ b.T`: `a` a reference or an array in registers, `b` a reference."""

    a: Any
    b: Any
    transposed: bool = False


class Warpgroup(NamedTuple):
    simulated: bool

    def full(self, shape, value, layout, dtype=jnp.float32):
        return self._in(layout, jnp.full(shape, value, dtype))

    def load(self, ref, layout):
        """A vector from shared memory."""
        if self.simulated:
            return ref[...]
        return plgpu.load(ref, *([()] if LOAD_NEEDS_INDEX else []), layout=layout)

    def products(self, products: Sequence[Product], meanwhile: Callable[[], None] | None = None):
        """Float32 products, issued together; `meanwhile` is called before they are awaited."""
        if self.simulated:
            if meanwhile:
                meanwhile()
            return [_dot(product) for product in products]

        def issue(*sums):
            for accumulator, product in zip(sums, products, strict=True):
                _multiply(accumulator, product)
            if meanwhile:
                meanwhile()
            return [accumulator[...] for accumulator in sums]

        shapes = [(p.a.shape[0], p.b.shape[0 if p.transposed else 1]) for p in products]
        return pl.run_scoped(issue, *(plgpu.ACC(shape, jnp.float32) for shape in shapes))

    def add_products(self, sums: Sequence[jax.Array], products: Sequence[Product]):
        """`sums`, each with a product added; issued together."""
        if self.simulated:
            return [x + _dot(p) for x, p in zip(sums, products, strict=True)]

        def issue(refs):
            for accumulator, product in zip(refs, products, strict=True):
                _multiply(accumulator, product)

        return pl.run_state(issue)([plgpu.ACC.init(x) for x in sums])

    def _in(self, layout, x):
        return x if self.simulated else plgpu.layout_cast(x, layout)


def _multiply(accumulator, product: Product) -> None:
    b = product.b.transpose((1, 0)) if product.transposed else product.b
    plgpu.wgmma(accumulator, product.a, b)


def _dot(product: Product) -> jax.Array:
    b = product.b[...]
    b = jax.lax.transpose(b, (1, 0)) if product.transposed else b
    return jax.lax.dot(product.a[...], b, preferred_element_type=jnp.float32)


def per_row(x, shape):
    return jax.lax.broadcast_in_dim(x, shape, (0,))


def per_column(x, shape):
    return jax.lax.broadcast_in_dim(x, shape, (1,))


class Piece(NamedTuple):
    """Some positions that are fetched for a step of a walk, as slices."""

    place: Any  # in the step
    where: Any  # on the axis that is visited
    known: Any  # the same, or beyond the end of the axis where the step has no such piece


class Walk(NamedTuple):
    """The visits of one block of a list, in steps of one or more pieces of the other axis.

    The pieces of a step need not be neighbours. If the last step would not be full, the first one
    is not, which evaluates the mask anyhow.
    """

    words: Any  # [B C], a reference
    row: jax.Array
    begin: jax.Array  # of the block's visits in the list
    missing: jax.Array  # pieces of the first step
    masked: jax.Array  # steps that evaluate the mask; they come first
    steps: jax.Array
    per_block: int  # pieces of a visit
    per_step: int
    end: int  # of the other axis, in pieces

    def pieces(self, step) -> Iterator[Piece]:
        for i in range(self.per_step):
            n = step * self.per_step + i - self.missing
            turn, part = (op(jnp.maximum(n, 0), self.per_block) for op in (div, rem))
            piece = minor(self.words[self.row, self.begin + turn]) * self.per_block + part
            known = jax.lax.select(n >= 0, piece, jnp.int32(self.end))
            yield Piece(*(pl.ds(x * PIECE, PIECE) for x in (i, piece, known)))

    def run(self, visit: Callable, carry, stages: int, before=0):
        """`carry = visit(slot, carry, masked)` for every step; `before` steps used the slots."""

        def turn(masked, step, carry):
            return visit(rem(before + step, stages), carry, masked)

        carry = jax.lax.fori_loop(0, self.masked, functools.partial(turn, True), carry)
        return jax.lax.fori_loop(self.masked, self.steps, functools.partial(turn, False), carry)


class Tile(NamedTuple):
    row: jax.Array
    head: jax.Array
    first: jax.Array  # its first position
    walk: Walk


class Tiles(NamedTuple):
    """The tiles of one axis, by heads and rows of the batch: the jobs of a kernel's programs.

    A program has a multiprocessor to itself. Where there are fewer programs than jobs, each works
    through several, and the inputs of the next are fetched while it ends one. The longest jobs of a
    row come first, so that none straggles at the end (longest processing time first, Graham 1969);
    they are dealt out forth and back, so that they add up to about the same for all programs.
    """

    heads: int
    tiles: int  # of a row
    size: int  # positions of a tile
    block: int  # positions of a block of the list
    per_block: int  # pieces of a visit
    per_step: int  # pieces of a step
    end: int  # of the other axis, in pieces
    programs: int
    jobs: int

    @classmethod
    def of(
        cls,
        axis: Array,
        heads: int,
        size: int,
        block: int,
        other: Array,
        visit: int,
        step: int,
        programs: int | None,
    ) -> "Tiles":
        """`axis` and `other` are `[B T ..]`; `visit` and `step` are positions of the other one.
        `programs`: None is one for each job.
        """
        B, T = axis.shape[:2]
        jobs = B * (T // size) * heads
        return cls(
            heads=heads,
            tiles=T // size,
            size=size,
            block=block,
            per_block=visit // PIECE,
            per_step=step // PIECE,
            end=other.shape[1] // PIECE,
            programs=min(programs or jobs, jobs),
            jobs=jobs,
        )

    def find(self, job, lists: Visits) -> Tile:
        """`lists` holds references to the vectors."""
        turn, head = div(job, self.heads), rem(job, self.heads)
        row, turn = div(turn, self.tiles), rem(turn, self.tiles)
        per_block = self.block // self.size
        block = lists.order[row, div(turn, per_block)]
        first = block * self.block + rem(turn, per_block) * self.size

        partial, full = lists.partial[row, block], lists.full[row, block]
        pieces = (partial + full) * self.per_block
        in_steps = lambda pieces: div(pieces + (self.per_step - 1), self.per_step)
        steps = in_steps(pieces)
        missing = steps * self.per_step - pieces
        masked = in_steps(missing + partial * self.per_block)
        visits = lists.words, row, lists.begin[row, block], missing, masked, steps
        return Tile(row, head, first, Walk(*visits, self.per_block, self.per_step, self.end))

    def for_each(self, lists: Visits, work: Callable) -> Array:
        """`work(turn, tile, before)` for every tile of this program.

        `turn` counts them, `before` the steps of those before, which are all together returned.
        """
        program = jax.lax.axis_index("program")
        rounds, rest = divmod(self.jobs, self.programs)

        def place(turn):
            return jax.lax.select(rem(turn, 2) == 0, program, self.programs - 1 - program)

        def each(turn, before):
            tile = self.find(turn * self.programs + place(turn), lists)
            work(turn, tile, before)
            return before + tile.walk.steps

        last = (place(jnp.int32(rounds)) < rest).astype(jnp.int32)
        return jax.lax.fori_loop(jnp.int32(0), rounds + last, each, jnp.int32(0))


def div(x, n: int):
    return jax.lax.div(x, jnp.int32(n))


def rem(x, n: int):
    return jax.lax.rem(x, jnp.int32(n))


def shared(*shape, dtype):
    """Shared memory in the order the tensor cores read, or plain for vectors."""
    if jnp.dtype(dtype).itemsize != 2:
        return plgpu.SMEM(shape, dtype)
    tiling = plgpu.TilingTransform((8, SWIZZLE // 2))
    return plgpu.SMEM(shape, dtype, transforms=(tiling, plgpu.SwizzleTransform(SWIZZLE)))


def launch(kernel, out_type, programs: int, scratch, *, warpgroups: int, simulated: bool):
    """`kernel(*inputs, *outputs, *scratch)` with `warpgroups` that compute and one that loads."""
    return plgpu.kernel(
        kernel,
        out_type=out_type,
        grid=(programs,),
        grid_names=("program",),
        scratch_types=scratch,
        num_threads=warpgroups + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=simulator() if simulated else None,
    )


def in_roles(compute: Callable, load: Callable, warpgroups: int) -> None:
    """Runs `compute(index)` in the first `warpgroups`, `load()` in the last one."""
    index = jax.lax.axis_index("warpgroup")
    many, few = REGISTERS

    @pl.when(index < warpgroups)
    def _():
        plgpu.set_max_registers(many, action="increase")
        compute(index)

    @pl.when(index == warpgroups)
    def _():
        plgpu.set_max_registers(few, action="decrease")
        load()


def feed(steps, stages: int, supplies: Sequence[tuple[Any, Callable]], before=0) -> None:
    """Copies the inputs of every step into its slot as soon as that is free.

    `supplies`: pairs of the barriers at which the warpgroups that compute free the slots, and
    `copy(step, slot)`; `before` steps used the slots.
    """

    def turn(step, carry):
        slot = rem(before + step, stages)
        for free, copy in supplies:
            pl.when(before + step >= stages)(functools.partial(plgpu.barrier_wait, free.at[slot]))
            copy(step, slot)
        return carry

    jax.lax.fori_loop(0, steps, turn, None)


def drain(steps, stages: int, frees: Sequence[Any]) -> None:
    """Waits until the slots of all steps are free."""

    def turn(step, carry):
        for free in frees:
            plgpu.barrier_wait(free.at[rem(step, stages)])
        return carry

    jax.lax.fori_loop(jnp.maximum(steps - stages, 0), steps, turn, None)
