"""A model before and after a training that began with released weights: both are asked the same
examples with the same seeds, and shown side by side."""

import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from unified.data.sources import open_source
from unified.evaluation import report, samples
from unified.evaluation.card import Section
from unified.evaluation.metric import Metrics
from unified.evaluation.model import Model
from unified.evaluation.verdict import collect

TIMES = ("before", "after")


@runtime_checkable
class Trained(Model, Protocol):
    """A model that still knows what its training began with."""

    def before_training(self) -> Model: ...


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a training that begins with other than released weights."""
    if not any(not path.strip("/") for path in config.get("load", {})):
        raise ValueError(
            f"config.benchmark.module={__name__!r} compares with the weights that training begins "
            "with: name them, config.load={'/': a release}"
        )


def run(
    model: Trained,
    folder: str | os.PathLike[str],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    examples: int = 16,
    shown: int = 12,
    seed: int = 0,
    title: str = "Before and after",
    extra: Mapping[str, float] | None = None,
) -> Metrics:
    """Asks for the first `examples` examples of each source (specs as of `open_source`) and writes
    `metrics.json`, `samples.png` and `report.html`, with `shown` of each source.

    What comes of a source that can `judge(i, output)` its examples, as `EmojiSource` does, is
    judged: `before/<source>/all` and `after/<source>/all` are the rates. Of others the metrics are
    how many were asked.
    """
    metrics: Metrics = dict(extra or {})
    models = dict(zip(TIMES, (model.before_training(), model), strict=True))
    sections: list[Section] = []
    for name, spec in sources.items():
        source: Any = open_source(spec)
        known = samples.readable(source, examples, model)
        made = {time: samples.ask(models[time], known, seed) for time in TIMES}
        judged = {}
        if hasattr(source, "judge"):
            judged = {t: [source.judge(i, x) for i, x in enumerate(made[t])] for t in TIMES}
        for time, verdicts in judged.items():
            rates = collect(f"{time}/{name}", verdicts)
            metrics |= {k: v for k, v in rates.items() if k.startswith(f"{time}/{name}/all")}
        cards = []
        for i, example in enumerate(known[:shown]):
            said = {time: outputs[i] for time, outputs in made.items()}
            last = judged[TIMES[-1]][i] if judged else None
            verdict = {"correct": last.is_correct, "reason": last.reason} if last else {}
            cards.append(samples.card(example, said, **verdict))
        sections.append(Section(name, tuple(cards)))
        if not judged:
            metrics |= {f"{time}/{name}/examples": float(len(known)) for time in TIMES}
    report.write(folder, metrics, sections, title)
    return metrics
