"""Sources: random access to examples, `source[i] -> Example | BadRecord`, safe in threads.

`open_source` opens one from a config: a format by name, or any class by import path.
"""

import abc
import dataclasses
import glob
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from unified import names
from unified.data import record
from unified.data.image import BAD_DATA
from unified.sequence import Example

T = TypeVar("T")

FORMATS = {
    "jsonl": "unified.data.source_jsonl:JsonlSource",
    "parquet": "unified.data.source_parquet:ParquetSource",
    "webdataset": "unified.data.source_tar:TarSource",
    "array_record": "unified.data.source_array_record:ArrayRecordSource",
    "tfds": "unified.data.source_tfds:TfdsSource",
}


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that could not be read: `origin` names the file and row, `reason` what is wrong."""

    origin: str
    reason: str


class Source(Protocol):
    """What the pipeline needs. `__getitem__` is a pure function of the index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example | BadRecord: ...


class RecordSource(abc.ABC):
    """Examples from records (dicts, see `record.py`); a subclass finds and reads them.

    `task` is the name given to the examples, `columns` renames fields (`{"image": "jpg"}`: the
    field `image` is called `jpg` in the file), `variants` passes over the records make one epoch,
    each with the next of the alternative texts, `rows` keeps a range (start, stop) of the records;
    a fraction is a share of them, rounded up. Raises ValueError for an option out of its range.
    """

    def __init__(
        self,
        *,
        task: str = "",
        columns: Mapping[str, str] | None = None,
        variants: int = 1,
        rows: Sequence[int | float | None] = (None, None),
    ):
        if variants < 1:
            raise ValueError(f"variants={variants}: an epoch is at least 1 pass over the records")
        if unknown := set(columns or {}) - set(record.FIELDS):
            raise ValueError(f"columns of {sorted(unknown)}: the fields are {record.FIELDS}")
        if len(rows) != 2 or any(isinstance(row, float) and not 0 <= row <= 1 for row in rows):
            raise ValueError(f"rows={rows}: give (start, stop), fractions from 0.0 to 1.0")
        self.task, self.columns, self.variants = task, dict(columns or {}), variants
        self.rows = tuple(rows)

    @property
    @abc.abstractmethod
    def num_records(self) -> int:
        """How many records the files hold."""

    @abc.abstractmethod
    def origin(self, row: int) -> str:
        """File and row, for messages."""

    @abc.abstractmethod
    def read(self, row: int) -> Mapping[str, Any]:
        """The record; may raise what `BAD_DATA` lists."""

    def picture(self, value: Any, row: int) -> np.ndarray:
        """Pixels of a picture field of a record."""
        return record.picture(value)

    @property
    def kept(self) -> range:
        """The records that `rows` keeps."""
        n = self.num_records
        place = lambda row: math.ceil(row * n) if isinstance(row, float) else row
        return range(n)[slice(*map(place, self.rows))]

    def __len__(self) -> int:
        return len(self.kept) * self.variants

    def __getitem__(self, index: int) -> Example | BadRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        variant, place = divmod(index, len(self.kept))
        row = self.kept[place]
        origin = self.origin(row)
        try:
            fields = dict(self.read(row))
            for field, column in self.columns.items():
                if column not in fields:
                    raise ValueError(f"no column {column!r} for {field!r}, only {sorted(fields)}")
                fields[field] = fields.pop(column)
            picture = lambda value: self.picture(value, row)
            return record.to_example(
                fields, origin=origin, task=self.task, variant=variant, picture=picture
            )
        except BAD_DATA as error:
            return BadRecord(origin, f"{type(error).__name__}: {error}")


def open_source(spec: Mapping[str, Any]) -> Source:
    """`{"format": name or "module:Class", **arguments}` -> source.

    Raises ValueError for an unknown format, an argument the source does not take, whatever else
    goes wrong in opening it, or no records.
    """
    arguments = dict(spec)
    name = arguments.pop("format", "")
    path = FORMATS.get(name, name) if isinstance(name, str) else ""
    if ":" not in path:
        raise ValueError(f"unknown format {name!r}: use one of {sorted(FORMATS)} or 'module:Class'")
    try:
        source = names.find("format", path)(**arguments)
        size = len(source)
    except Exception as error:  # each reader raises its own kinds
        raise ValueError(f"source {name!r}: {error}") from error
    if not size:
        found, rows = getattr(source, "num_records", 0), arguments.get("rows")
        left = f"; of the {found} in the files, rows={rows} leaves none" if found else ""
        raise ValueError(f"source {name!r} with {arguments} has no records{left}")
    return source


def open_split(
    data: Mapping[str, Any], split: str, task: str | None = None
) -> tuple[list[Source], list[float]]:
    """The sources of `data[split]`, or the one named `task`, and their weights in the mixture.

    Raises ValueError for a name that there is not, and as `open_source` does.
    """
    specs = {name: dict(spec) for name, spec in data[split].items()}
    if task is not None and task not in specs:
        raise ValueError(f"no source {task!r} in config.data.{split}: {sorted(specs)}")
    chosen = [specs[name] for name in (specs if task is None else [task])]
    weights = [float(spec.pop("weight", 1.0)) for spec in chosen]
    return [open_source(spec) for spec in chosen], weights


def opened(path: str | Path, open: Callable[[Any], T]) -> T:
    """What `open(path)` gives. Raises ValueError, naming the path, whatever the reader raises."""
    try:
        return open(path)
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error


def find_files(path: str | Path | Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder (all levels), a file, a glob (`**`: all levels) or a list of these, sorted.

    Of a folder those whose names end in a suffix, or in one and the number of the shard:
    `x.parquet-00000-of-00004`. Hidden files and folders are left out, and so are backups, as
    `x.jsonl.bak`. Raises FileNotFoundError if there are none.
    """
    if not isinstance(path, (str, Path)):
        return [file for one in path for file in find_files(one, suffixes)]
    path = Path(path)
    if path.is_dir():
        ends = re.compile(rf"({'|'.join(map(re.escape, suffixes))})(-\d+-of-\d+)?$")
        found = glob.glob(f"{glob.escape(str(path))}/**", recursive=True)
        found = [name for name in found if ends.search(name)]
    else:
        found = [str(path)] if path.exists() else glob.glob(str(path), recursive=True)
    files = sorted(file for file in map(Path, found) if file.is_file())
    if not files:
        raise FileNotFoundError(f"no {' or '.join(suffixes)} files at {path}")
    return files
