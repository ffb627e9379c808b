"""What the programs of the GPU kernels work through: tiles of an axis, and the visits of each."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from pallas_kernels.interval_attention.visits import Visits, minor

PIECE = 64  # positions of the other axis that are fetched together


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
