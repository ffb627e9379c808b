"""Losses on data kept from training, per task, on the same batches and noise each time."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from unified.training.metrics import Values, Window
from unified.training.setup import Setup
from unified.training.tree import Tree


class Validation:
    """Holds `batches` host batches of every task, drawn on first use."""

    def __init__(self, setup: Setup, inputs: Any, tasks: Sequence[str], batches: int):
        """`inputs(task) -> iterator` of host batches; no `tasks` means all data together (None)."""
        self._setup, self._batches = setup, batches
        self._inputs = {task: inputs(task) for task in (tasks or (None,))}
        self._held: Mapping[str | None, list[Any]] | None = None

    def __call__(self, params: Tree, seed: int) -> Values:
        """`validation/task/loss-name` of every loss and task, and `validation/loss`, their mean."""
        if self._held is None:
            take = lambda inputs: list(itertools.islice(inputs, self._batches))
            self._held = {task: take(inputs) for task, inputs in self._inputs.items()}
        values: Values = {}
        for task, batches in self._held.items():
            means = self._losses(params, batches, jax.random.key(seed)).means()
            prefix = f"validation/{task}" if task else "validation"
            weights = self._setup.task.weights
            objective = sum(weights[name] * means[name] for name in weights if name in means)
            values |= {f"{prefix}/{name}": value for name, value in means.items()}
            values[f"{prefix}/loss"] = objective
        if None not in self._held:
            objectives = [values[f"validation/{task}/loss"] for task in self._held]
            values["validation/loss"] = sum(objectives) / len(objectives)
        return values

    def _losses(self, params: Tree, batches: Iterator[Any], key: jax.Array) -> Window:
        window = Window()
        for index, batch in enumerate(batches):
            arrays = self._setup.place(batch)
            losses = self._setup.eval_step(params, arrays, jax.random.fold_in(key, index))
            window.add(jax.device_get(losses))
        return window
