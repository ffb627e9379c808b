"""Measures as flat names: a value, and beside it what is needed to judge it.

`name` is the value, `name.stderr` its standard error (rates only: values in [0, 1] that are shown
in per cent), `name.chance` what a guess without looking scores, `name.examples` how many examples
were measured. Names are `group/task/measure`; a group, say a split of the data, is a column of the
table. Losses are `group/loss/task/name-of-loss`, and have a table of their own.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Metrics = dict[str, float]
BESIDE = ("stderr", "chance", "examples")


def rate(name: str, outcomes: Iterable[bool], chance: float | None = None) -> Metrics:
    """The share of True with its standard error; {} of nothing."""
    outcomes = list(outcomes)
    if not outcomes:
        return {}
    p, n = sum(outcomes) / len(outcomes), len(outcomes)
    metrics = {name: p, f"{name}.stderr": wilson(p, n), f"{name}.examples": float(n)}
    return metrics if chance is None else metrics | {f"{name}.chance": chance}


def wilson(p: float, n: int) -> float:
    """Half the width of Wilson's score interval (1927) for one standard deviation (68%).

    It is sqrt(p (1 - p) / n + 1 / 4n^2) / (1 + 1 / n): of many examples the binomial standard
    error, but of few it does not vanish where all are right, or none.
    """
    return math.sqrt(p * (1 - p) / n + 1 / (4 * n**2)) / (1 + 1 / n)


def mean(name: str, values: Iterable[float], chance: float | None = None) -> Metrics:
    """The mean of numbers that are no rate (dB, IoU, nats); {} of nothing."""
    values = list(values)
    if not values:
        return {}
    metrics = {name: float(np.mean(values)), f"{name}.examples": float(len(values))}
    return metrics if chance is None else metrics | {f"{name}.chance": chance}


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom); 0 where both are empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    union = area(a) + area(b) - both
    return both / union if union > 0 else 0.0


# Back from flat names to what a table shows.


@dataclasses.dataclass(frozen=True)
class Cell:
    value: float
    stderr: float | None = None
    chance: float | None = None
    examples: float | None = None

    @property
    def is_rate(self) -> bool:
        return self.stderr is not None

    def text(self, value: float) -> str:
        """A number as this cell shows numbers: rates in per cent."""
        if self.is_rate:
            return f"{100 * value:.1f}"
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"

    def __str__(self) -> str:
        error = f" ±{100 * self.stderr:.1f}" if self.stderr is not None else ""
        return self.text(self.value) + error


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure of a task, its cells by column."""

    task: str
    measure: str
    cells: Mapping[str, Cell]


def has_rates(metrics: Mapping[str, float]) -> bool:
    return any(name.endswith(".stderr") for name in metrics)


def rows(metrics: Mapping[str, float]) -> tuple[list[str], list[Row]]:
    """Columns and rows of a table: tasks in the order of their first appearance, `all` at the end.

    Names of fewer than three parts are `task/measure` or `measure`, in a column `value`; but where
    others have three, `group/task` is `group/task/all`.
    """
    groups = {key.split("/")[0] for key in metrics if key.count("/") > 1}
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    columns: dict[str, None] = {}
    for key, value in metrics.items():
        name, _, what = key.rpartition(".")
        if what not in BESIDE:  # a dot of the name itself, as in `t0.25-0.50`
            name, what = key, "value"
        parts = name.split("/", 2)
        if len(parts) == 2 and parts[0] in groups:
            parts.append("all")
        column, task, measure = parts if len(parts) == 3 else ("value", *["", *parts][-2:])
        columns.setdefault(column)
        cell = cells.setdefault((task, measure), {}).setdefault(column, {})
        cell[what] = value
    made = [
        Row(task, measure, {column: Cell(**cell) for column, cell in row.items()})
        for (task, measure), row in cells.items()
    ]
    tasks = list(dict.fromkeys(row.task for row in made))
    made.sort(key=lambda row: (tasks.index(row.task), row.measure == "all"))
    return list(columns), made


def most_telling(rows: Sequence[Row], count: int) -> list[Row]:
    """Of rows as `rows` gives them, about `count`: `all` of every task, then the other measures of
    one task after another, where all of a task still fit."""
    left = count - len({row.task for row in rows})
    chosen = {row.task: False for row in rows}
    for task in chosen:
        number = sum(row.task == task and row.measure != "all" for row in rows)
        has_all = any(row.task == task and row.measure == "all" for row in rows)
        if number <= left or not has_all:
            chosen[task], left = True, left - number
    return [row for row in rows if row.measure == "all" or chosen[row.task]]
