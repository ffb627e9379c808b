"""A folder with jsonl: one record a line, pictures as paths relative to the file."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified.data.files import check_uncompressed, find_files, opened
from unified.data.picture import DATA_URI
from unified.data.record import parse_json
from unified.data.sources import RecordSource


class JsonlSource(RecordSource):
    """`path`: a folder, a glob or `.jsonl` files. In memory are only the places of the lines."""

    def __init__(self, path, **options):
        super().__init__(**options)
        self.files = find_files(path, [".jsonl", ".ndjson", ".jsonlines"])
        index = lambda file: list(_lines(file, self.pictures.max_bytes))
        self.lines = [opened(file, index) for file in self.files]
        self.parts = list(zip(self.files, map(len, self.lines), strict=True))

    def name(self, part: int, row: int) -> str:
        return str(self.lines[part][row][0])

    def read(self, part: int, row: int) -> Mapping[str, Any]:
        with self.files[part].open("rb") as lines:
            lines.seek(self.lines[part][row][1])
            line = lines.readline(self.pictures.max_bytes + 1)
        if len(line) > self.pictures.max_bytes:
            raise ValueError(f"a line of more than {self.pictures.max_bytes} bytes")
        return parse_json(line)

    def picture(self, value: Any, part: int) -> np.ndarray:
        if isinstance(value, str) and not DATA_URI.match(value):
            value = {"path": value}
        if not isinstance(value, (str, Mapping)):
            raise TypeError(f"a picture is a path, not {type(value).__name__}")
        return super().picture(value, part)


def _lines(file: Path, max_bytes: int) -> Iterator[tuple[int, int]]:
    """(line number from 1, byte offset) of the lines that are not blank."""
    check_uncompressed(file)
    number, offset, is_whole = 0, 0, True
    with file.open("rb") as lines:
        for piece in iter(functools.partial(lines.readline, max_bytes), b""):
            if is_whole:  # the one before: this one begins a line
                number += 1
                if piece.strip():
                    yield number, offset
            is_whole = piece.endswith(b"\n")
            offset += len(piece)
