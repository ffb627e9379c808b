"""Losses of held-back batches, task by task: while a model is trained, and of a trained one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from unified.evaluation.metric import Metrics

# (batch, key) -> name -> (sum, count), a recipe's `loss` of a fixed model
Loss = Callable[[Any, jax.Array], Mapping[str, tuple[jax.Array, jax.Array]]]

NAME = "validation/loss"


def losses(
    loss_fn: Loss,
    batches: Mapping[str | None, Iterable[Any]],
    weights: Mapping[str, float],
    key: jax.Array,
) -> Metrics:
    """By name: every loss of every task, what the losses of a task add up to with `weights`, and
    the mean of that over tasks.

    `batches` maps the name of a task (None: all data together) to its batches. A loss weighs by
    its own count over all batches of the task, and is left out where that is zero; so is a task
    without any. Every task draws the same noise, so that two runs, or two checkpoints, differ by
    the model alone.
    """
    metrics: Metrics = {}
    for task, several in batches.items():
        means = _means(loss_fn, several, key)
        metrics |= {named(task, loss): value for loss, value in means.items()}
        if means:
            total = sum(weights[loss] * means[loss] for loss in weights if loss in means)
            metrics[named(task)] = total
    objectives = [metrics[named(task)] for task in batches if named(task) in metrics]
    if objectives:
        metrics[named(None)] = sum(objectives) / len(objectives)
    return metrics


def named(task: str | None, loss: str = "") -> str:
    """`validation/loss/task/name-of-loss`, without the parts that there are not."""
    return "/".join(filter(None, (NAME, task, loss)))


def _means(loss_fn: Loss, batches: Iterable[Any], key: jax.Array) -> dict[str, float]:
    totals: dict[str, tuple[float, float]] = {}
    for i, batch in enumerate(batches):
        found = jax.device_get(loss_fn(batch, jax.random.fold_in(key, i)))
        for loss, (total, count) in found.items():
            before = totals.get(loss, (0.0, 0.0))
            totals[loss] = (before[0] + float(total), before[1] + float(count))
    return {loss: total / count for loss, (total, count) in totals.items() if count}
