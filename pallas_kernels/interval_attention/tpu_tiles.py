"""What the TPU kernels share: tiles of queries and keys, and the walk over a plan's visits.

Queries are read as the projections write them, `[B T N*H]`, and a step takes `heads` neighbouring
query heads of one key head: they share one copy of the keys and one evaluation of the mask. The
grid is `(groups of heads, B, visits)`; its last bound is the number of visits, known at run time.
Head dims are padded to whole vectors of `LANES`, lengths to whole blocks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.interval_attention.manual import struct
from pallas_kernels.interval_attention.visits import (
    FIRST,
    FULL,
    LAST,
    MAJOR,
    MINOR,
    PARTIAL,
    major,
    minor,
)

LANES = 128
LOG2E = math.log2(math.e)
HEADS = 8  # at most, in one step: its code is unrolled
HIDDEN = -1e30  # added to the score of a hidden pair
VMEM_BYTES = 60 * 2**20  # of the 64 MiB of a v5p core
LOWEST = jnp.iinfo(jnp.int32).min


class Tiles(NamedTuple):
    """Static facts of a call.

    `cost` is for the compiler's cost model, which takes the plan's words for zeros: every step is
    then a full or a partial visit of a dense grid, whatever the plan says. It needs a power of two
    of key blocks.
    """

    heads: int  # query heads of a step
    groups: int  # steps' worth of heads that share a key head
    dim: int  # of queries and keys
    value_dim: int
    block_q: int
    block_k: int
    scale: float
    soft_cap: float | None
    interpret: bool
    cost: Literal["full", "partial"] | None = None

    def of(self, head: int, dim: int) -> slice:
        """Columns of one of the step's heads."""
        return slice(head * dim, (head + 1) * dim)

    def scores(self, products):
        """Scores in units of log 2."""
        if self.soft_cap is None:
            return products * (self.scale * LOG2E)
        return jnp.tanh(products * (self.scale / self.soft_cap)) * (self.soft_cap * LOG2E)

    def dot(self, a, b, contract: tuple[int, int]):
        """Product in float32, contracted over one axis of each; exact for float32 operands."""
        precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
        dims = ((contract[:1], contract[1:]), ((), ()))
        return jax.lax.dot_general(a, b, dims, precision, jnp.float32)


class Walk(NamedTuple):
    """The visits of a plan, as a kernel sees them."""

    tiles: Tiles
    capacity: int
    columns: int = 0  # blocks of keys, for `Tiles.cost`

    def word(self, words: Any, b, t):
        """The word of visit `t` of row `b` of the batch."""
        if self.tiles.cost is None:
            return words[b * self.capacity + t]
        row, column = t >> (self.columns.bit_length() - 1), t & (self.columns - 1)
        ends = jnp.where(column == 0, FIRST, 0) | jnp.where(column == self.columns - 1, LAST, 0)
        kind = FULL if self.tiles.cost == "full" else PARTIAL
        return (row << MAJOR) | (column << MINOR) | kind | ends

    def _spec(self, shape, place: Callable) -> pl.BlockSpec:
        def index(h, b, t, words):
            word = self.word(words, b, t)
            return place(h, b, major(word), minor(word))

        return pl.BlockSpec(shape, index)

    def queries(self, dim: int) -> pl.BlockSpec:
        """Of `[B T N*dim]`: a block of queries of the step's heads."""
        tiles = self.tiles
        return self._spec((None, tiles.block_q, tiles.heads * dim), lambda h, b, i, j: (b, i, h))

    def keys(self, dim: int) -> pl.BlockSpec:
        """Of `[B S K*dim]`: a block of keys of the heads' key head."""
        groups = self.tiles.groups
        place = lambda h, b, i, j: (b, j, jax.lax.div(h, groups))
        return self._spec((None, self.tiles.block_k, dim), place)

    def clock(self) -> pl.BlockSpec:
        """Of `[B 1 T]`."""
        return self._spec((None, 1, self.tiles.block_q), lambda h, b, i, j: (b, 0, i))

    def bounds(self) -> pl.BlockSpec:
        """Of `[B 2 S]`."""
        return self._spec((None, 2, self.tiles.block_k), lambda h, b, i, j: (b, 0, j))

    def statistics(self) -> pl.BlockSpec:
        """Of `[B N/heads heads T]`: a number for each query of the step's heads."""
        shape = (None, None, self.tiles.heads, self.tiles.block_q)
        return self._spec(shape, lambda h, b, i, j: (b, h, 0, i))

    def launch(self, name: str, kernel, words, steps, args: Sequence, outputs: Sequence, **specs):
        """Runs `kernel` over all visits; `words` `[B C]`, `steps` the most of any row."""
        B, groups = words.shape[0], args[0].shape[-1] // (self.tiles.heads * self.tiles.dim)
        by_head = groups % 2 == 0 or B == 1
        semantics: Any = ("parallel", "arbitrary") if by_head else ("arbitrary", "parallel")
        scratch = specs.pop("scratch_shapes")
        return pl.pallas_call(
            kernel,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=(groups, B, steps),
                scratch_shapes=[pltpu.VMEM(*s) for s in scratch],
                **specs,
            ),
            out_shape=[struct(shape, dtype, args[0]) for shape, dtype in outputs],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=(*semantics, "arbitrary"),
                vmem_limit_bytes=VMEM_BYTES,
                disable_bounds_checks=True,
            ),
            interpret=self.tiles.interpret,
            name=name,
        )(words.reshape(-1), *args)


def bounds(start: jax.Array, stop: jax.Array) -> jax.Array:
    """Intervals `[B S]` as `[B 2 S]`: a key is visible iff `clock - bounds[0] < bounds[1]`.

    That is one subtraction and one comparison: as unsigned numbers, `clock - start` is less than
    the interval's length exactly if the clock is inside; adding the lowest number to both sides
    makes it a comparison of signed ones. All sums wrap around.
    """
    length = jnp.where(start < stop, stop - start, 0)
    return jnp.stack([start + LOWEST, length + LOWEST], axis=1)
