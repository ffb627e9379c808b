"""The two sides of the scores in the backward pass on a GPU: how they get to the warpgroups.

A warpgroup works for its own queries and visits keys, or the other way round.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.interval_attention.gpu_tiles import PIECE, Piece
from pallas_kernels.interval_attention.gpu_warpgroup import ROWS, drain, feed, shared

VISITED = 256  # positions of the other side in shared memory, of heads up to 128


class Side(NamedTuple):
    """One side of the scores, queries or keys, in global or shared memory."""

    first: Any  # [.. H]: q or k
    second: Any  # [.. V]: d_out or v
    ranks: Any  # what the mask is made of: clock [1 ..], or start and stop [2 ..]
    stats: Any = None  # [2 ..]: of queries, the lse (log 2) and what is taken off d_p


class Scratch(NamedTuple):
    own: Side  # [warpgroups ROWS ..]: what a warpgroup works for
    other: Side  # [stages step ..]: what it visits
    own_ready: Any
    first_ready: Any
    second_ready: Any
    first_free: Any
    second_free: Any


class Size(NamedTuple):
    """How a kernel is cut up."""

    warpgroups: int  # that compute, for `ROWS` positions of their own side each
    step: int  # positions of the other side that are visited together
    stages: int  # steps of the other side in shared memory

    @classmethod
    def of(cls, H: int, V: int, step: int) -> "Size":
        """What registers and shared memory (227 KiB) hold; wide heads take shorter steps."""
        return cls(2, step, VISITED // step) if max(H, V) <= 128 else cls(1, 64, 2)


def scratch_of(own: Side, other: Side, size: Size) -> Scratch:
    def side(given: Side, n: int, length: int) -> Side:
        first, second = (
            shared(n, length, x.shape[-1], dtype=x.dtype) for x in (given.first, given.second)
        )
        ranks = shared(n, given.ranks.shape[1], length, dtype=jnp.int32)
        has_stats = given.stats is not None
        return Side(
            first, second, ranks, shared(n, 2, length, dtype=jnp.float32) if has_stats else None
        )

    def vectors(given: Side) -> int:
        return given.ranks.shape[1] + (0 if given.stats is None else 2)

    stages, pieces = size.stages, size.step // PIECE
    free = plgpu.Barrier(num_arrivals=size.warpgroups, num_barriers=stages)
    return Scratch(
        own=side(own, size.warpgroups, ROWS),
        other=side(other, stages, size.step),
        own_ready=plgpu.Barrier(num_arrivals=2 + vectors(own), num_barriers=size.warpgroups),
        first_ready=plgpu.Barrier(num_arrivals=(1 + vectors(other)) * pieces, num_barriers=stages),
        second_ready=plgpu.Barrier(num_arrivals=pieces, num_barriers=stages),
        first_free=free,
        second_free=free,
    )


def copy_first(given: Side, to: Side, row, head, piece: Piece, ready) -> None:
    """Into shared memory: all but the second array, which has barriers of its own."""
    copy = functools.partial(plgpu.copy_gmem_to_smem, barrier=ready)
    copy(given.first.at[row, piece.where, head], to.first.at[piece.place])
    for i in range(to.ranks.shape[0]):
        copy(given.ranks.at[row, i, piece.known], to.ranks.at[i, piece.place])
    if given.stats is not None:
        for i in range(to.stats.shape[0]):
            copy(given.stats.at[row, head, i, piece.where], to.stats.at[i, piece.place])


def copy_second(given: Side, to: Side, row, head, piece: Piece, ready) -> None:
    source = given.second.at[row, piece.where, head]
    plgpu.copy_gmem_to_smem(source, to.second.at[piece.place], ready)


def take(given: Side, to: Side, row, head, where, ready) -> None:
    """What a warpgroup works for."""
    piece = Piece(pl.ds(0, ROWS), where, where)
    copy_first(given, to, row, head, piece, ready)
    copy_second(given, to, row, head, piece, ready)
    plgpu.barrier_wait(ready)


def at(side: Side, index) -> Side:
    return Side(*(None if ref is None else ref.at[index] for ref in side))


def give(values, to, target) -> None:
    """Registers -> shared memory -> global memory."""
    to[...] = values.astype(target.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(to, target)


def feed_both(s: Scratch, steps, stages: int, supply, before=0) -> None:
    """Feeds both arrays of the other side; `supply(copy, ready, step, slot)`."""
    first = functools.partial(supply, copy_first, s.first_ready)
    second = functools.partial(supply, copy_second, s.second_ready)
    feed(steps, stages, [(s.first_free, first), (s.second_free, second)], before)


def drain_both(s: Scratch, steps, stages: int) -> None:
    drain(steps, stages, [s.first_free, s.second_free])
