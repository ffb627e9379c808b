"""Losses on data kept from training, per task, on the same batches and noise each time."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from unified.training.metrics import Values, Window
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
        each = [_name(task, loss) for task in self._inputs for loss in (*losses, "")]
        return [*each, _name(None)]

    def __call__(self, params: Tree) -> Values:
        """By name: every loss of every task, what the weighted losses of a task add up to, and the
        mean of that over tasks, `validation/loss`."""
        if self._held is None:
            take = lambda inputs: list(itertools.islice(inputs, self._batches))
            self._held = {task: take(inputs) for task, inputs in self._inputs.items()}
        values: Values = {}
        for task, batches in self._held.items():
            means = self._losses(params, batches, jax.random.key(self._seed)).means()
            weights = self._setup.task.weights
            objective = sum(weights[name] * means[name] for name in weights if name in means)
            values |= {_name(task, name): value for name, value in means.items()}
            values[_name(task)] = objective
        objectives = [values[_name(task)] for task in self._held]
        values[_name(None)] = sum(objectives) / len(objectives)
        return values

    def _losses(self, params: Tree, batches: Sequence[Any], key: jax.Array) -> Window:
        window = Window()
        for index, batch in enumerate(batches):
            arrays = self._setup.place(batch)
            losses = self._setup.eval_step(params, arrays, jax.random.fold_in(key, index))
            window.add(jax.device_get(losses))
        return window


def _name(task: str | None, loss: str = "") -> str:
    """`validation/loss/task/name-of-loss`, without the parts that there are not."""
    return "/".join(filter(None, ("validation/loss", task, loss)))
