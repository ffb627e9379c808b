"""Rows of a batch, each filled by a packer of its own, read by threads.

Row r of R takes the examples r, r + R, r + 2R, ... and keeps a few waiting, so what it holds
depends neither on the other rows nor on which process makes it.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from grain.experimental import ThreadPrefetchDatasetIterator

from unified.data.packing import Packer
from unified.data.sources import BadRecord
from unified.lanes.batch import assemble
from unified.lanes.document import Spans
from unified.lanes.layout import Layout
from unified.sequence import Batch

log = logging.getLogger(__name__)

# A source has a good record (`Pipeline` sees to it) and at most `max_bad_records` bad ones, which
# come back every epoch: after so many times their number without a good one, they have all turned.
PASSES = 20


class BadRecordsError(RuntimeError):
    """More bad records than the run allows, or no good ones."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """A batch, what it uses of each of `layout.budgets()`, and its number of examples by task."""

    batch: Batch
    used: np.ndarray
    tasks: collections.Counter


class Prefetch(ThreadPrefetchDatasetIterator):
    """Grain's prefetch, silent when the interpreter ends before it is closed."""

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing):
        if not is_finalizing():
            super().__del__()


@dataclasses.dataclass
class Row:
    """One row of the global batch. `bad` holds the origins of its bad records, each once."""

    number: int
    packer: Packer
    next: int = 0
    bad: list[str] = dataclasses.field(default_factory=list)


class RowIterator(Iterator[Packed]):
    """Batches of the given `rows` of `batch_size`, from `examples[i] -> Spans | BadRecord`.

    Endless, or as many batches as `num_examples` fill, each example once. Every row waits with
    up to `lookahead` examples to choose from. Raises BadRecordsError after `max_bad_records`,
    or when none is good any more.
    """

    def __init__(
        self,
        examples: Any,
        layout: Layout,
        *,
        batch_size: int,
        rows: Sequence[int],
        num_examples: int | None,
        lookahead: int,
        threads: int,
        max_bad_records: int,
    ):
        self.examples, self.layout, self.batch_size = examples, layout, batch_size
        self.rows = [Row(number, Packer(layout)) for number in rows]
        self.num_examples, self.lookahead = num_examples, lookahead
        self.max_bad_records = max_bad_records
        self.in_vain = 0  # bad examples since the last good one
        self.pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="examples")

    def __next__(self) -> Packed:
        self._refill()
        rows = [row.packer.pack() for row in self.rows]
        spans = list(itertools.chain.from_iterable(rows))
        if not spans:
            raise StopIteration
        tasks = collections.Counter(s.task for s in spans)
        return Packed(assemble(rows, self.layout), np.sum([s.cost for s in spans], axis=0), tasks)

    def get_state(self) -> dict[str, Any]:
        rows = {
            str(row.number): {"next": row.next, "held": row.packer.state, "bad": list(row.bad)}
            for row in self.rows
        }
        return {"batch_size": self.batch_size, "rows": rows}

    def set_state(self, state: dict[str, Any]) -> None:
        if state["batch_size"] != self.batch_size:
            raise ValueError(
                f"the input was saved with batch_size {state['batch_size']}; it can go on only "
                f"with that, not with {self.batch_size}"
            )
        for row in self.rows:
            saved = state["rows"][str(row.number)]
            row.next, row.bad, row.packer.held = saved["next"], list(saved["bad"]), []
        self._read([(row, i) for row in self.rows for i in state["rows"][str(row.number)]["held"]])

    def close(self) -> None:
        """Ends the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _refill(self) -> None:
        """Brings every row to `lookahead` waiting examples, as far as there are any."""
        while wanted := [(row, i) for row in self.rows for i in self._draw(row)]:
            self._read(wanted)

    def _draw(self, row: Row) -> list[int]:
        """The next indices of a row, enough to fill its list."""
        first, count = row.next, self.lookahead - len(row.packer.held)
        indices = [row.number + self.batch_size * (first + k) for k in range(count)]
        if self.num_examples is not None:
            indices = [i for i in indices if i < self.num_examples]
        row.next += len(indices)
        return indices

    def _read(self, wanted: Sequence[tuple[Row, int]]) -> None:
        spans = self.pool.map(self.examples.__getitem__, [i for _, i in wanted])
        for (row, index), got in zip(wanted, spans, strict=True):
            if isinstance(got, Spans):
                row.packer.add(index, got)
                self.in_vain = 0
            else:
                self._count(row, got)

    def _count(self, row: Row, bad: BadRecord) -> None:
        self.in_vain += 1
        if self.in_vain > PASSES * (self.max_bad_records + 1):
            raise BadRecordsError(
                f"the last {self.in_vain} records read are all bad, as {bad.origin}: {bad.reason}"
            )
        known = set(itertools.chain.from_iterable(row.bad for row in self.rows))
        if bad.origin not in known:
            log.warning("bad record %s: %s", bad.origin, bad.reason)
            row.bad.append(bad.origin)
            if len(known) >= self.max_bad_records:
                raise BadRecordsError(
                    f"{len(known) + 1} bad records, and max_bad_records is "
                    f"{self.max_bad_records}; the last is {bad.origin}: {bad.reason}"
                )


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of several iterators' rows as one, from which any of them can continue."""
    rows = {number: row for state in states for number, row in state["rows"].items()}
    return {"batch_size": states[0]["batch_size"], "rows": rows}


def bad_records(state: Mapping[str, Any]) -> set[str]:
    """Origins of the bad records that a state has met."""
    return set(itertools.chain.from_iterable(row["bad"] for row in state["rows"].values()))
