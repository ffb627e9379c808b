"""Parquet files: pictures as bytes with captions, or lists of pictures with edit instructions."""

import functools
import itertools
import threading
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unified.data.record import FIELDS
from unified.data.sources import RecordSource, find_files, opened


class ParquetSource(RecordSource):
    """`path`: a folder, a glob or `.parquet` files. Only columns that a record can use are read.

    A row costs reading its row group, and the last `cached_groups` are kept in memory.
    `group_sizes` lets the mixture shuffle group by group, so that each is read about once an epoch.
    """

    def __init__(self, path, *, cached_groups: int = 32, **options):
        super().__init__(**options)
        files = find_files(path, [".parquet"])
        self.groups = [group for file in files for group in opened(file, _groups)]
        self._ends = list(itertools.accumulate(rows for _, _, _, rows in self.groups))
        self.cached_groups = cached_groups
        self._cache()

    def _cache(self) -> None:
        self._group = functools.lru_cache(self.cached_groups)(self._read_group)
        self._lock = threading.Lock()  # threads that want the same group read it once

    def __getstate__(self) -> dict[str, Any]:  # a process that a source is sent to keeps its own
        return {k: v for k, v in vars(self).items() if k not in ("_group", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._cache()

    @property
    def num_records(self) -> int:
        return self._ends[-1] if self.groups else 0

    @property
    def group_sizes(self) -> list[int]:
        """Examples of each row group, in the order of the source."""
        ends = np.clip(self._ends, self.kept.start, self.kept.stop)
        sizes = np.diff(ends, prepend=self.kept.start)
        return [int(n) for n in sizes if n] * self.variants

    def origin(self, row: int) -> str:
        group, row = self._place(row)
        file, _, first, _ = self.groups[group]
        return f"{file}:{first + row}"

    def read(self, row: int) -> Mapping[str, Any]:
        group, row = self._place(row)
        with self._lock:
            table = self._group(group)
        return table.slice(row, 1).to_pylist()[0]

    def _place(self, row: int) -> tuple[int, int]:
        """Group of a row, and its place in the group."""
        group = bisect_right(self._ends, row)
        return group, row - (self._ends[group - 1] if group else 0)

    def _read_group(self, index: int) -> pa.Table:
        file, group, _, _ = self.groups[index]
        wanted = {self.columns.get(field, field) for field in FIELDS}
        with pq.ParquetFile(file) as parquet:
            columns = [name for name in parquet.schema_arrow.names if name in wanted]
            return parquet.read_row_group(group, columns=columns)


def _groups(file: Path) -> list[tuple[Path, int, int, int]]:
    """(file, number of the group, its first row in the file, its rows)."""
    metadata = pq.read_metadata(file)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    firsts = itertools.accumulate(rows, initial=0)
    return [
        (file, group, first, n) for group, (first, n) in enumerate(zip(firsts, rows, strict=False))
    ]
