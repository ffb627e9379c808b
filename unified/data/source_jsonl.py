"""A folder with jsonl: one record a line, pictures as paths relative to the file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified.data.image import decode
from unified.data.record import as_fields
from unified.data.sources import RecordSource, find_files


class JsonlSource(RecordSource):
    """`path`: a folder, a glob or `.jsonl` files. Picture paths start at `image_root` (default: the
    folder of their file). Only the places of the lines are kept in memory.
    """

    def __init__(self, path, *, image_root: str | None = None, **options):
        super().__init__(**options)
        self.image_root = image_root
        self.files = find_files(path, [".jsonl"])
        self.lines = [(file, *line) for file in self.files for line in _lines(file)]

    @property
    def num_records(self) -> int:
        return len(self.lines)

    def origin(self, row: int) -> str:
        file, number, _ = self.lines[row]
        return f"{file}:{number}"

    def read(self, row: int) -> Mapping[str, Any]:
        file, _, offset = self.lines[row]
        with file.open("rb") as lines:
            lines.seek(offset)
            return as_fields(json.loads(lines.readline()))

    def picture(self, value: Any, row: int) -> np.ndarray:
        if not isinstance(value, str):
            raise TypeError(f"a picture is a path, not {type(value).__name__}")
        path = Path(self.image_root or self.lines[row][0].parent) / value
        content = path.read_bytes()  # its errors name the file, those of the decoder do not
        try:
            return decode(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _lines(file: Path) -> Iterator[tuple[int, int]]:
    """(line number from 1, byte offset) of the lines that are not blank."""
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, offset
            offset += len(line)
