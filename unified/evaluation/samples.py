"""What a model makes of examples of any data: no scores, but each beside its truth."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

from unified.data.sources import BadRecord, Source, open_source
from unified.evaluation import report
from unified.evaluation.card import Card, Section
from unified.evaluation.emoji import Model
from unified.evaluation.metric import Metrics
from unified.sequence import Example


def run(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    examples: int = 16,
    seed: int = 0,
    title: str = "Samples",
    extra: Mapping[str, float] | None = None,
) -> Metrics:
    """Asks for the first `examples` examples of each source (specs as of `open_source`), and
    writes `samples.png` and `report.html`. The only metrics are how many were asked, and `extra`,
    measured elsewhere."""
    sections: list[Section] = []
    metrics: Metrics = dict(extra or {})
    for name, spec in sources.items():
        known = readable(open_source(spec), examples)
        cards = [ask(model, example, seed + i) for i, example in enumerate(known)]
        sections.append(Section(name, tuple(cards)))
        metrics[f"{name}/examples"] = float(len(cards))
    report.write(folder, metrics, sections, title)
    return metrics


def readable(source: Source, count: int) -> list[Example]:
    """The first good records of a source."""
    records = (source[i] for i in range(len(source)))
    good = (r for r in records if not isinstance(r, BadRecord) and has_target(r))
    return list(itertools.islice(good, count))


def has_target(example: Example) -> bool:
    return any(segment.role == "target" for segment in example.segments)


def ask(model: Model, example: Example, seed: int) -> Card:
    """An example up to its first target, what the model makes of it, and what it should be."""
    request = list(itertools.takewhile(lambda s: s.role == "context", example.segments))
    target = example.segments[len(request)]
    if target.modality == "text":
        made: Any = model.answer([request], task=example.task)[0]
    else:
        made = model.draw([request], seeds=[seed], task=example.task)[0]
    parts: list[tuple[str, Any]] = [(segment.role, segment.content) for segment in request]
    return Card((*parts, ("model", made), ("data", target.content)))
