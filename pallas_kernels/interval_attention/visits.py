"""Lists of visits: which blocks of the score matrix a kernel goes to, in order, one word each.

`B` batch, `n` blocks of the axis that a list goes along, `m` of the other, `C` capacity of a list.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

# A visit in one int32, from the lowest bit: four flags, the block of the other axis, whether it is
# full, and the block of the axis the list goes along. Sorted, they are in visiting order.
FIRST, LAST, PARTIAL = 1, 2, 4  # first and last visit of its block; the mask must be evaluated
MINOR = 4
FULL = 1 << 17  # every pair is visible
MAJOR = 18
MAX_BLOCKS = 1 << 13  # an axis has fewer


class Visits(NamedTuple):
    """The visits of every row of the batch, one list each, along the queries or along the keys.

    A list goes through the blocks of its axis in order, and for each of them first through the
    partial and then through the full blocks of the other axis, in order. A block with none has one
    visit that is neither, so that its zeros get written. The words after the last visit repeat its
    blocks and have no flag.
    """

    words: Array  # [B C] int32; read them with `major`, `minor` and the flags
    begin: Array  # [B n+1] int32: where the visits of each block begin; the last is their number
    partial: Array  # [B n] int32: how many visits of each block are partial,
    full: Array  # [B n] int32: and full
    order: Array  # [B n] int32: the blocks by falling number of visits

    def within(self, blocks: range) -> "Visits":
        """The same visits, of which those of other `blocks` of the other axis do nothing.

        They name the nearest of the blocks, so that nothing else is copied. Counts stay.
        """
        near = jnp.clip(minor(self.words), blocks.start, blocks.stop - 1)
        kept = self.words & ~((MAX_BLOCKS - 1) << MINOR)
        kept = jnp.where(near == minor(self.words), kept, kept & ~(PARTIAL | FULL))
        return self._replace(words=kept | (near << MINOR))


def major(word: Array) -> Array:
    """The block of the axis that a list goes along."""
    return word >> MAJOR


def minor(word: Array) -> Array:
    """The block of the other axis."""
    return (word >> MINOR) & (MAX_BLOCKS - 1)


def make_visits(active, full, capacity: int, first: int = 0) -> Visits:
    """The list along the first axis of blocks; `active` and `full` are `[B n m]`, from block
    `first` of the other axis."""
    B, n, m = active.shape
    blind = ~active.any(-1, keepdims=True) & (jnp.arange(m) == 0)
    word = (jnp.arange(n)[:, None] << MAJOR) | (jnp.arange(first, first + m) << MINOR)
    word = word | jnp.where(full, FULL, jnp.where(active, PARTIAL, 0))
    nothing = jnp.iinfo(jnp.int32).max
    words = jnp.sort(jnp.where(active | blind, word, nothing).reshape(B, n * m))
    begin = jnp.pad(jnp.cumsum((active | blind).sum(-1), -1), ((0, 0), (1, 0)))

    turns = jnp.pad(
        major(words[:, 1:]) != major(words[:, :-1]), ((0, 0), (1, 1)), constant_values=1
    )
    words = words | jnp.where(turns[:, :-1], FIRST, 0) | jnp.where(turns[:, 1:], LAST, 0)
    last = jnp.take_along_axis(words, begin[:, -1:] - 1, axis=-1) & ~(FIRST | LAST | PARTIAL | FULL)
    words = jnp.where(jnp.arange(n * m) < begin[:, -1:], words, last)[:, :capacity]
    counts = (active & ~full).sum(-1), full.sum(-1)
    order = jnp.argsort(-active.sum(-1), axis=-1)
    return Visits(words, *(x.astype(jnp.int32) for x in (begin, *counts, order)))
