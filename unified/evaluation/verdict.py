"""What is right and what is wrong of an output, and rates of many."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from unified.evaluation.metric import Metrics, mean, rate


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`measures`: True or False make rates, numbers make means. `seen`: what was understood."""

    measures: Mapping[str, bool | float]
    seen: str = ""

    @property
    def is_correct(self) -> bool | None:
        """The strict measure, None where there is none."""
        return bool(self.measures["all"]) if "all" in self.measures else None

    @property
    def reason(self) -> str:
        wrong = [name for name, good in self.measures.items() if good is False and name != "all"]
        parts = [self.seen] if self.seen else []
        return "; ".join(parts + ([f"wrong: {', '.join(wrong)}"] if wrong else []))


def collect(name: str, verdicts: Sequence[Verdict], blind: Sequence[Verdict] = ()) -> Metrics:
    """A rate, or a mean, of every measure over the verdicts that have it; `all` comes last."""
    guessed = {key: float(np.mean(values)) for key, values in _columns(blind).items()}
    metrics: Metrics = {}
    for key, values in _columns(verdicts).items():
        if all(isinstance(value, bool) for value in values):
            metrics |= rate(f"{name}/{key}", map(bool, values), guessed.get(key))
        else:
            metrics |= mean(f"{name}/{key}", values, guessed.get(key))
    return metrics


def _columns(verdicts: Iterable[Verdict]) -> dict[str, list[bool | float]]:
    columns: dict[str, list[bool | float]] = {}
    for verdict in verdicts:
        for key, value in verdict.measures.items():
            columns.setdefault(key, []).append(value)
    last = {"all": columns.pop("all")} if "all" in columns else {}
    return columns | last
