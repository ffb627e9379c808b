"""Which examples share a row.

A row is a bin with several budgets (slots of every lane, text losses). Each row of the global
batch has a packer of its own with a short list of waiting examples, so what a row holds depends on
its own examples alone and the state of the input is a few integers.
"""

import dataclasses

import numpy as np

from unified.lanes.document import Spans
from unified.lanes.layout import Layout

TRIES = 64


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
        limits = self.layout.budgets()
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
