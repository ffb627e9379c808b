"""ArrayRecord files, one record each entry: JSON, or msgpack (pictures as bytes, no base64)."""

from collections.abc import Mapping
from typing import Any

import grain
import msgpack

from unified.data.files import find_files, opened
from unified.data.record import as_fields, parse_json
from unified.data.sources import RecordSource


class ArrayRecordSource(RecordSource):
    """`path`: a folder, a glob or `.array_record` / `.arrayrecord` files, written with
    group_size:1. An entry that begins with `{` is JSON, any other msgpack; both hold the fields of
    `record.py`.
    """

    def __init__(self, path, **options):
        super().__init__(**options)
        files = find_files(path, [".array_record", ".arrayrecord"])
        read = lambda file: grain.sources.ArrayRecordDataSource([str(file)])
        self.entries = [opened(file, read) for file in files]
        self.parts = list(zip(files, map(len, self.entries), strict=True))

    def read(self, part: int, row: int) -> Mapping[str, Any]:
        entry = self.entries[part][row]
        return parse_json(entry) if entry[:1] == b"{" else as_fields(msgpack.unpackb(entry))
