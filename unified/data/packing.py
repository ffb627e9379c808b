"""Examples -> rows -> batches: which examples share a row, and their arrays.

A row is a bin with several budgets (slots of every lane, text losses). Each row of the global
batch has a packer of its own with a short list of waiting examples, so what a row holds depends on
its own examples alone and the state of the input is a few integers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unified.data.expand import OPEN, Encode, Spans, budgets, expand
from unified.sequence import (
    Batch,
    LatentLane,
    LatentTokens,
    Layout,
    PatchLane,
    PatchTokens,
    TextLane,
    TextTokens,
    Tokens,
)

__all__ = ["OPEN", "Encode", "Packer", "Spans", "assemble", "budgets", "check", "expand", "select"]


TRIES = 64


def check(layout: Layout) -> None:
    """Raises ValueError, saying what to change, if a lane cannot hold one picture of its size."""
    if not any(isinstance(lane, TextLane) for lane in layout.lanes):
        raise ValueError("a layout needs a text lane: the marks of pictures are text tokens")
    for lane in layout.lanes:
        if isinstance(lane, PatchLane):
            side = lane.max_side // lane.patch
            if side < 1 or lane.min_side > lane.max_side:
                raise ValueError(f"lane {lane.name!r}: patch and min_side must be within max_side")
            if side * side > lane.budget:
                raise ValueError(
                    f"lane {lane.name!r}: a picture of {lane.max_side} pixels a side has "
                    f"{side * side} patches, the budget is {lane.budget}: raise budget or lower "
                    "max_side"
                )
        elif isinstance(lane, LatentLane):
            if lane.height % lane.stride or lane.width % lane.stride:
                raise ValueError(
                    f"lane {lane.name!r}: sides must be multiples of stride {lane.stride}"
                )
            if lane.count < 1:
                raise ValueError(f"lane {lane.name!r}: count must be 1 or more to hold a picture")
        elif lane.losses >= lane.budget:
            raise ValueError(f"lane {lane.name!r}: losses must be fewer than budget {lane.budget}")


def select(costs: np.ndarray, budget: np.ndarray, worth: np.ndarray) -> list[int]:
    """Which of the waiting examples `costs [n d]` (oldest first) to put into a row.

    The oldest one is always among them, so that none waits for ever. With each of the first
    `TRIES` as the second, a row is filled greedily by what fits and is most like the budget that is
    left (dot product in units of the budget: vector bin packing, Panigrahy et al. 2011); the row
    that uses most of `budget @ worth` wins. On the emoji mixture the tries raise the share of
    slots filled from 94.5% to 97.5%.
    """
    tries = np.arange(min(len(costs), TRIES))
    unit = 1 / np.maximum(budget, 1)
    left = np.repeat(budget[None] - costs[0], len(tries), axis=0)  # [tries d]
    chosen = np.zeros((len(tries), len(costs)), bool)
    chosen[:, 0] = True
    possible = _fits(costs, left) & ~chosen
    live, best = tries[1:], tries[1:]  # the first try has no second: it stays the oldest alone
    live, best = live[possible[live, best]], best[possible[live, best]]
    while len(live):
        left[live] -= costs[best]
        chosen[live, best] = True
        possible[live] &= _fits(costs, left[live]) & ~chosen[live]
        live = live[possible[live].any(axis=1)]
        scores = (left[live] * unit) @ (costs * unit).T
        best = np.where(possible[live], scores, -1.0).argmax(axis=1)
    return np.flatnonzero(chosen[np.argmin(left @ worth)]).tolist()


def _fits(costs: np.ndarray, left: np.ndarray) -> np.ndarray:
    """`[n d]`, `[tries d]` -> bool `[tries n]`."""
    fits = np.ones((len(left), len(costs)), bool)
    for cost, room in zip(costs.T, left.T, strict=True):
        fits &= cost <= room[:, None]
    return fits


@dataclasses.dataclass
class Packer:
    """Packs one row after another from the examples added to it; `held` wait, oldest first."""

    layout: Layout
    held: list[tuple[int, Spans]] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        limits = budgets(self.layout)
        self.budget = np.array(list(limits.values()))
        self.worth = np.arange(len(limits)) < len(self.layout.lanes)  # slots count, losses do not

    def add(self, index: int, spans: Spans) -> None:
        """`index` is the caller's name for the example; `state` returns those still waiting."""
        self.held.append((index, spans))

    def pack(self) -> list[Spans]:
        """The examples of the next row; they are no longer held."""
        if not self.held:
            return []
        chosen = select(np.stack([spans.cost for _, spans in self.held]), self.budget, self.worth)
        row = [self.held[i][1] for i in chosen]
        taken = set(chosen)
        self.held = [item for i, item in enumerate(self.held) if i not in taken]
        return row

    @property
    def state(self) -> list[int]:
        """Indices of the examples that wait, oldest first."""
        return [index for index, _ in self.held]


def assemble(rows: Sequence[Sequence[Spans]], layout: Layout, *, open_end: bool = False) -> Batch:
    """Arrays of a batch, one row for each list of examples, each example a document of its own.

    Clocks follow reading order, document after document. `open_end`: documents have no end (stop
    is the largest int32), for contexts that generation will append to; padding then has that
    clock too. Raises ValueError if a row does not fit.
    """
    limits = budgets(layout)
    for row in rows:
        used = sum((spans.cost for spans in row), np.zeros(len(limits), np.int64))
        for (name, limit), n in zip(limits.items(), used, strict=True):
            if n > limit:
                raise ValueError(f"a row needs {n} of {name!r}, more than its budget {limit}")
    pad_clock = OPEN if open_end else layout.slots
    lanes = {lane.name: _empty(lane, len(rows), pad_clock) for lane in layout.lanes}
    for b, row in enumerate(rows):
        slot = dict.fromkeys(lanes, 0)
        clock = 0
        for spans in row:
            end = OPEN if open_end else clock + spans.length
            for name, part in spans.lanes.items():
                _write(lanes[name], part, b, slot[name], clock, end)
                slot[name] += len(part.tokens.clock)
            clock += spans.length
    return Batch(lanes)


def _empty(lane: TextLane | PatchLane | LatentLane, B: int, pad_clock: int):
    """A lane of nothing but padding."""
    n = lane.slots
    zeros = lambda *shape, dtype=np.int32: np.zeros((B, *shape), dtype)
    tokens = Tokens(np.full((B, n), pad_clock, np.int32), zeros(n), zeros(n), zeros(n))
    if isinstance(lane, TextLane):
        m = lane.losses
        return TextTokens(tokens, zeros(n), zeros(m), zeros(m), zeros(m, dtype=np.float32))
    if isinstance(lane, PatchLane):
        patches = zeros(n, lane.patch * lane.patch * 3, dtype=np.uint8)
        return PatchTokens(tokens, patches, zeros(n, 2), zeros(n), zeros(n))
    assert isinstance(lane, LatentLane)
    N = lane.count
    pixels = zeros(N, lane.height, lane.width, 3, dtype=np.uint8)
    return LatentTokens(tokens, pixels, zeros(N, dtype=bool), zeros(N, dtype=bool))


def _write(lane, part, b: int, slot: int, clock: int, end: int) -> None:
    """Writes one example's share of a lane into row `b` from `slot` on."""
    n = len(part.tokens.clock)
    here = slice(slot, slot + n)
    tokens, new = lane.tokens, part.tokens
    tokens.clock[b, here] = new.clock + clock
    tokens.start[b, here] = new.start + clock
    tokens.stop[b, here] = np.where(new.stop == OPEN, end - clock, new.stop) + clock
    tokens.position[b, here] = new.position
    if isinstance(part, TextTokens):
        lane.ids[b, here] = part.ids
        m = int((lane.loss_weight[b] > 0).sum())
        losses = slice(m, m + len(part.loss_index))
        lane.loss_index[b, losses] = part.loss_index + slot
        lane.loss_target[b, losses] = part.loss_target
        lane.loss_weight[b, losses] = part.loss_weight
    elif isinstance(part, PatchTokens):
        lane.patches[b, here] = part.patches
        lane.grid[b, here] = part.grid
        lane.first[b, here] = part.first + slot
        lane.last[b, here] = part.last + slot
    else:
        N = int(lane.valid[b].sum())
        here = slice(N, N + len(part.valid))
        lane.pixels[b, here] = part.pixels
        lane.noised[b, here] = part.noised
        lane.valid[b, here] = True
