"""Losses of held-back batches, task by task."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from unified.evaluation.metric import Metrics

# (batch, key) -> name -> (sum, count), a recipe's `loss` of a fixed model
Loss = Callable[[Any, jax.Array], Mapping[str, tuple[jax.Array, jax.Array]]]


def losses(
    loss_fn: Loss,
    batches: Mapping[str, Iterable[Any]],
    key: jax.Array,
    name: str = "validation/loss",
) -> Metrics:
    """The mean of every loss over the batches of a task, as `name/task/loss`.

    `batches` maps the name of a task to its batches. A loss weighs by its own count over all
    batches of the task, and is left out where that is zero. Every task draws the same noise, so
    that two runs, or two checkpoints, differ by the model alone.
    """
    metrics: Metrics = {}
    for task, several in batches.items():
        totals: dict[str, tuple[float, float]] = {}
        for i, batch in enumerate(several):
            found = jax.device_get(loss_fn(batch, jax.random.fold_in(key, i)))
            for loss, (total, count) in found.items():
                before = totals.get(loss, (0.0, 0.0))
                totals[loss] = (before[0] + float(total), before[1] + float(count))
        for loss, (total, count) in totals.items():
            if count > 0:
                metrics[f"{name}/{task}/{loss}"] = total / count
    return metrics
