"""Losses on data kept from training, per task, on the same batches and noise each time."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from unified.evaluation.loss import losses, named
from unified.training.metrics import Values
from unified.training.setup import Setup
from unified.training.tree import Tree


class Validation:
    """Holds `batches` host batches of every task, drawn on first use.

    `inputs(task)` gives an iterator over host batches; no `tasks` means all data together (None).
    """

    def __init__(
        self,
        setup: Setup,
        inputs: Callable[[str | None], Any],
        *,
        tasks: Sequence[str],
        batches: int,
        every: int,
        seed: int,
    ):
        self._setup, self._batches, self._every, self._seed = setup, batches, every, seed
        self._inputs = {task: inputs(task) for task in (tasks or (None,))} if every else {}
        self._held: Mapping[str | None, list[Any]] | None = None

    def is_due(self, step: int, ending: bool) -> bool:
        """After every so many steps (0: never) and at the end."""
        return self._every > 0 and (ending or step % self._every == 0)

    def names(self, losses: Collection[str]) -> list[str]:
        """Of the metrics that there may be, from those of the losses."""
        each = [named(task, loss) for task in self._inputs for loss in (*losses, "")]
        return [*each, named(None)]

    def __call__(self, params: Tree) -> Values:
        """The metrics of `evaluation.loss.losses`."""
        if self._held is None:
            take = lambda inputs: list(itertools.islice(inputs, self._batches))
            self._held = {task: take(inputs) for task, inputs in self._inputs.items()}
        step = lambda batch, key: self._setup.eval_step(params, self._setup.place(batch), key)
        return losses(step, self._held, self._setup.objective.weights, jax.random.key(self._seed))
