"""What a model makes of examples of any data: no scores, but each beside its truth."""

import functools
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from unified.data.pipeline import as_spans
from unified.data.sources import BadRecord, Source, open_source
from unified.evaluation import report
from unified.evaluation.card import Card, Section
from unified.evaluation.metric import Metrics
from unified.evaluation.model import Model
from unified.sequence import Example, Segment

log = logging.getLogger(__name__)


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
        known = readable(open_source(spec), examples, model)
        outputs = ask(model, known, seed)
        cards = [card(e, {"model": made}) for e, made in zip(known, outputs, strict=True)]
        sections.append(Section(name, tuple(cards)))
        metrics[f"{name}/examples"] = float(len(cards))
    report.write(folder, metrics, sections, title)
    return metrics


def readable(source: Source, count: int, model: Any = None) -> list[Example]:
    """The first records of a source that training would take, by the `layout` and `tokenizer` of
    the model where it has them; the bad ones before are logged."""
    good: list[Example] = []
    check: Any = lambda record: record
    if hasattr(model, "layout") and hasattr(model, "tokenizer"):
        row = {"layout": model.layout, "encode": model.tokenizer.encode}
        check = functools.partial(as_spans, **row)
    for record in map(source.__getitem__, range(len(source))):
        found = check(record)
        if isinstance(found, BadRecord):
            log.warning("bad record %s: %s", found.origin, found.reason)
        elif isinstance(record, Example) and has_target(record):
            good.append(record)
        if len(good) == count:
            break
    return good


def has_target(example: Example) -> bool:
    return any(segment.role == "target" for segment in example.segments)


def ask(model: Model, examples: Sequence[Example], seed: int) -> list[Any]:
    """What the model makes of examples, each asked up to its first target; those that a task wants
    text of are asked at once, and those that it wants pictures of."""
    requests = [request(example) for example in examples]
    kinds: dict[tuple[str, str], list[int]] = {}
    for i, example in enumerate(examples):
        kinds.setdefault((example.task, target(example).modality), []).append(i)
    made: dict[int, Any] = {}
    for (task, modality), chosen in kinds.items():
        asked = [requests[i] for i in chosen]
        if modality == "text":
            outputs: Any = model.answer(asked, task=task)
        else:
            outputs = model.draw(asked, seeds=[seed + i for i in chosen], task=task)
        made.update(zip(chosen, outputs, strict=True))
    return [made[i] for i in range(len(examples))]


def request(example: Example) -> list[Segment]:
    """What is read before the first target."""
    return list(itertools.takewhile(lambda s: s.role == "context", example.segments))


def target(example: Example) -> Segment:
    return example.segments[len(request(example))]


def card(example: Example, made: Mapping[str, Any], **verdict: Any) -> Card:
    """What was read, in order, what is made of it, by whom, and what it should be; `verdict` as of
    `Card`."""
    names = {"text": "prompt", "image": "picture"}
    parts: list[tuple[str, Any]] = [(names[s.modality], s.content) for s in request(example)]
    parts += [*made.items(), ("truth", target(example).content)]
    said = lambda part: part if not isinstance(part, str) or part.strip() else "(nothing)"
    return Card(tuple((label, said(part)) for label, part in parts), **verdict)
