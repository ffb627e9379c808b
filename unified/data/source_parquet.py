"""Parquet files: pictures as bytes with captions, or lists of pictures with edit instructions."""

import functools
import itertools
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unified.data.files import find_files, opened
from unified.data.record import FIELDS
from unified.data.sources import UNREAD, RecordSource

BATCH = 1024  # rows that are unpacked at a time
FREE, EXPANSION = 2**28, 20  # bytes in memory that a group may have, and more for each of the file


class ParquetSource(RecordSource):
    """`path`: a folder, a glob or `.parquet` files. Only columns that a record can use are read.

    A row costs reading its row group, and the last `cached_groups` are kept in memory.
    `group_sizes` lets the mixture shuffle group by group, so that each is read about once an epoch.
    """

    def __init__(self, path, *, cached_groups: int = 32, **options):
        super().__init__(**options)
        self.files = find_files(path, [".parquet"])
        sizes = [opened(file, _group_sizes) for file in self.files]
        self.group_ends = [list(itertools.accumulate(each)) for each in sizes]  # in their file
        self.parts = list(zip(self.files, map(sum, sizes), strict=True))
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
    def group_sizes(self) -> list[int]:
        """Examples of each row group, in the order of the source."""
        files = zip([0, *self.ends], self.group_ends, strict=False)
        ends = [first + end for first, ends in files for end in ends]
        kept = [bisect_left(self.kept, end) for end in ends]
        return [b - a for a, b in itertools.pairwise([0, *kept]) if b > a] * self.variants

    def read(self, part: int, row: int) -> Mapping[str, Any]:
        group = bisect_right(self.group_ends[part], row)
        first = self.group_ends[part][group - 1] if group else 0
        with self._lock:
            found = self._group(part, group)
        if isinstance(found, str):
            raise ValueError(found)
        table, passed = found
        record = table.slice(row - first, 1).to_pylist()[0] if table.num_columns else {}
        return {**dict.fromkeys(passed, UNREAD), **record}

    def _read_group(self, part: int, group: int) -> tuple[pa.Table, list[str]] | str:
        """The columns that a record can use, and the names of the others; or what is wrong."""
        wanted = {self.columns.get(field, field) for field in FIELDS}
        try:
            with pq.ParquetFile(self.files[part]) as parquet:
                names = parquet.schema_arrow.names
                used = [name for name in names if name in wanted]
                limit = FREE + EXPANSION * self.files[part].stat().st_size
                table = _unpacked(parquet, group, used, limit)
            return table, [name for name in names if name not in wanted]
        except Exception as error:  # kept: each row of the group would find it again
            return f"row group {group}: {type(error).__name__}: {error}"


def _unpacked(parquet: pq.ParquetFile, group: int, columns: list[str], limit: int) -> pa.Table:
    """Raises ValueError where a few bytes of the file say so much that memory would end."""
    size, batches = 0, []
    for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=columns):
        batches.append(batch)
        size += batch.nbytes
        if size > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
    return pa.Table.from_batches(batches) if columns else pa.table({})


def _group_sizes(file: Path) -> list[int]:
    """Rows of each group."""
    metadata = pq.read_metadata(file)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
