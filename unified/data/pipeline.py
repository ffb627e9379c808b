"""From sources to batches: mixture, condition dropout, packing, prefetch; exact resume."""

import collections
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from unified.data import identity
from unified.data.mixture import drop_conditions, mixture
from unified.data.rows import BadRecordsError, Prefetch, RowIterator, bad_records, merge_states
from unified.data.sources import BadRecord, Source, fingerprint, open_split
from unified.data.workers import Workers
from unified.lanes.batch import check_size
from unified.lanes.document import Encode, Spans, expand
from unified.lanes.layout import Layout
from unified.sequence import Batch, Example

log = logging.getLogger(__name__)


class Pipeline(Iterator[Batch]):
    """Batches of numpy arrays, each leaf `[rows ...]`.

    sources, weights: the mixture. layout, encode: how examples become tokens. batch_size: rows of
    the global batch; `rows`: those that this process makes (default: all). dropout: probability
    to forget a condition, for `text`, `image` (as a whole) and each view. num_examples: None
    trains for ever on the shuffled mixture; a number gives the first so many examples of the
    sources, once, in order. lookahead: examples that wait in each row to be chosen (memory,
    against padding). threads read the examples, `prefetch` batches are made ahead; `workers`
    processes share the rows of endless input (0: this one makes them), for sources that keep Python
    busy, which then have to pickle. max_bad_records: bad records after which the run stops with a
    BadRecordsError. `names` are those of the sources, for messages.

    The state is a dict of integers and strings, exact for any prefetch. A process keeps the state
    of its own rows; `merge_states` joins them, and any process starts from the joined one. What
    the sources held is part of it: a source that has changed since is logged.

    Raises ValueError for a layout that cannot hold one picture, dropout of an unknown view, or a
    number out of its range; BadRecordsError for a source without a good record in endless input.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        layout: Layout,
        encode: Encode,
        *,
        batch_size: int,
        weights: Sequence[float] | None = None,
        rows: Sequence[int] | None = None,
        seed: int = 0,
        dropout: Mapping[str, float] | None = None,
        num_examples: int | None = None,
        lookahead: int = 64,
        threads: int = 4,
        prefetch: int = 2,
        workers: int = 0,
        max_bad_records: int = 100,
        names: Sequence[str] | None = None,
    ):
        layout.check()
        _check_numbers(threads=(threads, 1), lookahead=(lookahead, 1))
        _check_numbers(workers=(workers, 0), prefetch=(prefetch, 0))
        _check_numbers(max_bad_records=(max_bad_records, 0))
        if workers and num_examples is not None:
            raise ValueError("workers make endless input: leave out num_examples or workers")
        make_spans = functools.partial(as_spans, layout=layout, encode=encode)
        self._found = {
            name: fingerprint(source)
            for name, source in zip(names or map(str, range(len(sources))), sources, strict=True)
        }
        if num_examples is None:
            examples = mixture(sources, weights, seed=seed)
            for source in sources if weights is None else itertools.compress(sources, weights):
                _require_good(source, make_spans, max_bad_records)
        else:
            examples = grain.MapDataset.concatenate([grain.MapDataset.source(s) for s in sources])
            num_examples = min(num_examples, len(examples))
        if dropout:
            examples = examples.random_map(_forget(dropout, layout), seed=seed)
        self.layout = layout
        make = functools.partial(
            RowIterator,
            examples.map(make_spans),
            layout,
            batch_size=batch_size,
            num_examples=num_examples,
            lookahead=lookahead,
            threads=threads,
            max_bad_records=max_bad_records,
        )
        numbers = list(range(batch_size) if rows is None else rows)
        self._num_rows = len(numbers)
        self._rows = (
            Workers(make, numbers, workers, prefetch=prefetch, max_bad_records=max_bad_records)
            if workers
            else make(rows=numbers)
        )
        self._batches = Prefetch(self._rows, prefetch)
        self._clear()

    def __next__(self) -> Batch:
        packed = next(self._batches)
        self._used += packed.used
        self._tasks.update(packed.tasks)
        self._num_batches += 1
        return packed.batch

    def get_state(self) -> dict[str, Any]:
        """The place in the data after the last batch that was handed out. Can be saved as JSON."""
        return {**self._batches.get_state(), "sources": self._found}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues as the pipeline would have that gave `state`."""
        for change in identity.changes(state.get("sources", self._found), self._found):
            log.warning("%s", change)
        self._batches.set_state(state)
        self._clear()

    def merge_states(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {**states[0], **merge_states(states)}

    def metrics(self) -> dict[str, float]:
        """Since the last call: share of slots filled, overall (`fill`) and by lane, and examples a
        batch, overall and by task; bad records since the start. Of this process's rows.
        """
        metrics = {"bad_records": float(len(bad_records(self.get_state())))}
        if self._num_batches:
            rows = self._num_batches * self._num_rows
            used = dict(zip(self.layout.budgets(), self._used / rows, strict=True))
            fill = float(sum(used[lane.name] for lane in self.layout.lanes) / self.layout.slots)
            metrics["fill"] = fill
            for name, limit in self.layout.budgets().items():
                metrics[f"fill/{name}"] = float(used[name]) / limit if limit else 0.0
            metrics["examples"] = self._tasks.total() / self._num_batches
            for task, count in sorted(self._tasks.items()):
                metrics[f"examples/{task or 'unnamed'}"] = count / self._num_batches
        self._clear()
        return metrics

    def close(self) -> None:
        """Ends the threads and processes."""
        self._batches.close()
        self._rows.close()

    def _clear(self) -> None:
        self._used = np.zeros(len(self.layout.budgets()))
        self._tasks = collections.Counter[str]()
        self._num_batches = 0


def configured(
    config: Mapping[str, Any],
    split: str,
    task: str | None,
    layout: Layout,
    encode: Encode,
    *,
    rows: Sequence[int] | None = None,
    adapt: Callable[[Source], Source] = lambda source: source,
) -> Pipeline:
    """The pipeline of `config.data[split]`: its sources by name, or the one named `task`.

    Conditions are dropped, and `data.workers` started, in the split "train" alone. `rows` as in
    `Pipeline`; `adapt` is applied to every source. Raises ValueError as `open_split` and `Pipeline`
    do.
    """
    data = config["data"]
    if not data.get(split):
        raise ValueError(f"config.data.{split} names no source: add one, by a name of yours")
    sources, weights = open_split(data, split, task)
    return Pipeline(
        [adapt(source) for source in sources],
        layout,
        encode,
        weights=weights,
        batch_size=config["batch_size"],
        rows=rows,
        seed=config["seed"],
        dropout=data.get("dropout") if split == "train" else None,
        lookahead=data.get("lookahead", 1),
        threads=data["threads"],
        prefetch=data["prefetch"],
        workers=data.get("workers", 0) if split == "train" else 0,
        max_bad_records=data["max_bad_records"],
        names=list(data[split]) if task is None else [task],
    )


def _check_numbers(**fields: tuple[int, int]) -> None:
    """Raises ValueError, naming the field of `config.data`, for a value below its least one."""
    for name, (value, least) in fields.items():
        if value < least:
            raise ValueError(f"data.{name}={value} must be at least {least}")


def _require_good(
    source: Source, make_spans: Callable[[Example | BadRecord], Spans | BadRecord], allowed: int
) -> None:
    """Reads up to the first good example, or to one more bad one than is allowed, which is an
    error: in a mixture the others would take the place of this source, alone it would never end.
    """
    n = min(len(source), allowed + 1)
    found = (make_spans(source[i]) for i in range(n))
    first = next(found)
    if isinstance(first, BadRecord) and all(isinstance(other, BadRecord) for other in found):
        which = f"all {n}" if n == len(source) else f"the first {n} of {len(source)}"
        raise BadRecordsError(
            f"{which} examples of a source are bad; the first, {first.origin}: {first.reason}"
        )


def _forget(dropout: Mapping[str, float], layout: Layout) -> Callable:
    known = {"text", "image"} | {lane.view for lane in layout.lanes}
    if unknown := set(dropout) - known:
        raise ValueError(f"config.data.dropout of {sorted(unknown)}: there are {sorted(known)}")
    if wrong := {what: rate for what, rate in dropout.items() if not 0 <= rate <= 1}:
        raise ValueError(f"config.data.dropout={wrong}: a probability is from 0 to 1")
    return functools.partial(drop_conditions, rates=dict(dropout), views=layout.views)


def as_spans(example: Example | BadRecord, *, layout: Layout, encode: Encode) -> Spans | BadRecord:
    """An example that no row can hold is a bad record too: refused, with its size in the reason."""
    if isinstance(example, BadRecord):
        return example
    try:
        spans = expand(example, layout, encode)
        check_size(spans, layout)
        return spans
    except ValueError as error:
        reason = str(error).removeprefix(f"{example.origin}: ")
        return BadRecord(example.origin, reason)
