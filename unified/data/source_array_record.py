"""ArrayRecord files, one record each entry: JSON, or msgpack (pictures as bytes, no base64)."""

import itertools
import json
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import grain
import msgpack

from unified.data.record import as_fields
from unified.data.sources import RecordSource, find_files, opened


class ArrayRecordSource(RecordSource):
    """`path`: a folder, a glob or `.array_record` / `.arrayrecord` files, written with
    group_size:1. An entry that begins with `{` is JSON, any other msgpack; both hold the fields of
    `record.py`.
    """

    def __init__(self, path, **options):
        super().__init__(**options)
        self.files = find_files(path, [".array_record", ".arrayrecord"])
        read = lambda file: grain.sources.ArrayRecordDataSource([str(file)])
        self.entries = [opened(file, read) for file in self.files]
        self.ends = list(itertools.accumulate(len(entries) for entries in self.entries))

    @property
    def num_records(self) -> int:
        return self.ends[-1]

    def origin(self, row: int) -> str:
        file, row = self._place(row)
        return f"{self.files[file]}:{row}"

    def read(self, row: int) -> Mapping[str, Any]:
        file, row = self._place(row)
        entry = self.entries[file][row]
        return as_fields(json.loads(entry) if entry[:1] == b"{" else msgpack.unpackb(entry))

    def _place(self, row: int) -> tuple[int, int]:
        """File of a row, and its place in the file."""
        file = bisect_right(self.ends, row)
        return file, row - (self.ends[file - 1] if file else 0)
