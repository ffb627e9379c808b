"""Sources: random access to examples, `source[i] -> Example | BadRecord`, safe in threads.

`open_source` opens one from a config: a format by name, or any class by import path.
"""

import abc
import dataclasses
import functools
import itertools
import logging
import math
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from unified import names
from unified.data import identity, record
from unified.data.decode import MAX_PIXELS
from unified.data.files import check_within
from unified.data.picture import Pictures
from unified.message import one_line
from unified.sequence import Example

log = logging.getLogger(__name__)

FORMATS = {
    "jsonl": "unified.data.source_jsonl:JsonlSource",
    "parquet": "unified.data.source_parquet:ParquetSource",
    "webdataset": "unified.data.source_tar:TarSource",
    "array_record": "unified.data.source_array_record:ArrayRecordSource",
    "tfds": "unified.data.source_tfds:TfdsSource",
}
LOOKED_AT = 8  # records, for fields that nobody reads, before any is an example
MOST_TOLD = 50  # such fields: records may have names of their own for each
UNREAD = ...  # what a reader gives for a field of a record that it does not read

_telling = threading.Lock()  # of all sources: one that is pickled has none of its own


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that could not be read: `origin` names the file and row, `reason` what is wrong."""

    origin: str
    reason: str


@runtime_checkable
class Source(Protocol):
    """What the pipeline needs. `__getitem__` is a pure function of the index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example | BadRecord: ...


class RecordSource(abc.ABC):
    """Examples from records (dicts, see `record.py`); a subclass finds and reads them.

    `task` is the name given to the examples, `columns` renames fields (`{"image": "jpg"}`: the
    field `image` is called `jpg` in the file), `variants` passes over the records make one epoch,
    each with the next of the alternative texts, `rows` keeps a part (start, stop) of the records:
    whole numbers count them, fractions are shares of them that stay as they are when records are
    added, and from 0 have one at least of a file of two or more (`identity.py`). Paths of pictures
    start at `image_root` (default: the folder of the file that names them), and no file may lie
    outside of the folder `within`, if one is named. A picture has at most `max_pixels` pixels, a
    record and a file 8 bytes for each.

    A subclass sets `parts`: the files, each with the number of its records, in order. Raises
    ValueError for an option out of its range.
    """

    parts: Sequence[identity.Part]

    def __init__(
        self,
        *,
        task: str = "",
        columns: Mapping[str, str] | None = None,
        variants: int = 1,
        rows: Sequence[int | float | None] = (None, None),
        image_root: str | None = None,
        within: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        if variants < 1:
            raise ValueError(f"variants={variants}: an epoch is at least 1 pass over the records")
        if unknown := set(columns or {}) - set(record.FIELDS):
            raise ValueError(f"columns of {sorted(unknown)}: the fields are {record.FIELDS}")
        self.by_share = any(isinstance(row, float) for row in rows)
        if len(rows) != 2 or (self.by_share and not all(0 <= (row or 0) <= 1 for row in rows)):
            raise ValueError(f"rows={rows}: give (start, stop), fractions from 0.0 to 1.0")
        self.task, self.columns, self.variants = task, dict(columns or {}), variants
        self.rows: tuple[Any, ...] = tuple(rows)
        self.image_root = image_root
        self.pictures = Pictures(max_pixels, within)
        self.quiet = False
        self.told: set[str] = set()  # fields, of which it has been said that nobody reads them

    @abc.abstractmethod
    def read(self, part: int, row: int) -> Mapping[str, Any]:
        """The record of a row, counted from 0, of a part; may raise any Exception. `UNREAD` stands
        for a field that is passed over."""

    def name(self, part: int, row: int) -> str:
        """The record within its file, for messages."""
        return str(row)

    @functools.cached_property
    def ends(self) -> list[int]:
        """The number of records up to the end of each part."""
        return list(itertools.accumulate(num for _, num in self.parts))

    @property
    def num_records(self) -> int:
        """How many records the files hold."""
        return self.ends[-1] if self.ends else 0

    @functools.cached_property
    def kept(self) -> Sequence[int] | np.ndarray:
        """The records that `rows` keeps."""
        if self.by_share:
            return identity.kept(self.parts, *self.rows)
        return range(self.num_records)[slice(*self.rows)]

    def fingerprint(self) -> identity.Fingerprint:
        return identity.fingerprint(self.parts)

    def place(self, record: int) -> tuple[int, int]:
        """Part and row of a record."""
        part = bisect_right(self.ends, record)
        return part, record - (self.ends[part - 1] if part else 0)

    def fields(self, part: int, row: int) -> dict[str, Any]:
        """The record under the names of `record.py`."""
        found = dict(self.read(part, row))
        for field, column in self.columns.items():
            if column not in found:
                raise ValueError(f"no column {column!r} for {field!r}, only {sorted(found)}")
        renamed = {field: found[column] for field, column in self.columns.items()}
        rest = {name: x for name, x in found.items() if name not in self.columns.values()}
        return rest | renamed

    def picture(self, value: Any, part: int) -> np.ndarray:
        """Pixels of a picture field of a record."""
        return self.pictures(value, Path(self.image_root or self.parts[part][0].parent))

    def check(self, quiet: bool) -> None:
        """Raises ValueError for a file outside of `within`; logs fields that nobody reads."""
        for file, _ in self.parts:
            if self.pictures.within is not None:
                check_within(file, self.pictures.within)
        self.quiet = quiet
        if quiet:
            return
        if names := self.unread():
            said = one_line(", ".join(names))
            log.warning("%s: fields that are not read: %s", self.parts[0][0], said)
        if self.by_share and identity.is_coarse(self.parts, len(self.kept), *self.rows):
            log.warning(
                "%s: rows=%s keep %d of %d records, since a share from 0 has one of every file of "
                "two or more: join small files",
                *(self.parts[0][0], self.rows, len(self.kept), self.num_records),
            )

    def unread(self) -> list[str]:
        """Fields of the first records that make no part of an example."""
        found: set[str] = set()
        for number in self.kept[:LOOKED_AT]:
            try:
                found |= record.unread(self.fields(*self.place(int(number))))
            except Exception:  # a bad record, which is told where it is met
                continue
        self.told |= found
        return sorted(map(one_line, found))

    def _tell(self, fields: Mapping[str, Any], origin: str) -> None:
        """Logs fields that make no part of an example, where each is met first."""
        found = record.unread(fields)
        nulls = {f"{name} is null" for name in record.no_picture(fields)}
        if self.quiet or found | nulls <= self.told or len(self.told) > MOST_TOLD:
            return
        with _telling:
            new, self.told = (found | nulls) - self.told, self.told | found | nulls
        if unread := sorted(map(one_line, new & found)):
            log.warning("%s: fields that are not read: %s", origin, one_line(", ".join(unread)))
        for null in sorted(new & nulls):
            log.warning("%s: %s, so it is text alone, as may be others", origin, null)

    def __len__(self) -> int:
        return len(self.kept) * self.variants

    def __getitem__(self, index: int) -> Example | BadRecord:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        variant, number = divmod(index, len(self.kept))
        part, row = self.place(int(self.kept[number]))
        origin = one_line(f"{self.parts[part][0]}:{self.name(part, row)}", 5000)
        try:
            fields = self.fields(part, row)
            example = record.to_example(
                fields,
                origin=origin,
                task=self.task,
                variant=variant,
                picture=lambda value: self.picture(value, part),
            )
            self._tell(fields, origin)
            return example
        except Exception as error:  # the one border: readers and decoders raise what they like
            return BadRecord(origin, one_line(f"{type(error).__name__}: {error}"))


def open_source(spec: Mapping[str, Any], *, quiet: bool = False) -> Source:
    """`{"format": name or "module:Class", **arguments}` -> source.

    Fields of its records that make no part of an example are logged, unless `quiet`. Raises
    ValueError for an unknown format, an argument the source does not take, whatever else goes wrong
    in opening it, or no records.
    """
    arguments = dict(spec)
    name = arguments.pop("format", "")
    path = FORMATS.get(name, name) if isinstance(name, str) else ""
    if ":" not in path:
        raise ValueError(f"unknown format {name!r}: use one of {sorted(FORMATS)} or 'module:Class'")
    try:
        source = names.find("format", path)(**arguments)
        size = len(source)
        if isinstance(source, RecordSource):
            source.check(quiet)
    except Exception as error:  # each reader raises its own kinds
        raise ValueError(f"source {name!r}: {error}") from error
    if not size:
        found, rows = getattr(source, "num_records", 0), arguments.get("rows")
        left = f"; of the {found} in the files, rows={rows} leaves none" if found else ""
        raise ValueError(f"source {name!r} with {arguments} has no records{left}")
    return source


def fingerprint(source: Source) -> identity.Fingerprint:
    """What a source holds, cheap to make: at least the number of its records."""
    made = getattr(source, "fingerprint", None)
    return made() if made else {"records": len(source)}


def open_split(
    data: Mapping[str, Any], split: str, task: str | None = None
) -> tuple[list[Source], list[float]]:
    """The sources of `data[split]`, or the one named `task`, and their weights in the mixture.

    Raises ValueError for a name that there is not, for weights that are negative or all 0, and as
    `open_source` does.
    """
    specs = {name: dict(spec) for name, spec in data[split].items()}
    if task is not None and task not in specs:
        raise ValueError(f"no source {task!r} in config.data.{split}: {sorted(specs)}")
    chosen = [specs[name] for name in (specs if task is None else [task])]
    weights = [float(spec.pop("weight", 1.0)) for spec in chosen]
    check_weights(f"config.data.{split}", specs if task is None else [task], weights)
    quiet = split != "train"  # often the same files
    return [open_source(spec, quiet=quiet) for spec in chosen], weights


def check_weights(where: str, names: Iterable[object], weights: Sequence[float]) -> None:
    """Raises ValueError, naming its source, for a weight in a mixture that is negative or not
    finite, and where there is none but 0."""
    for name, weight in zip(names, weights, strict=True):
        if not 0 <= weight < math.inf:
            raise ValueError(f"{where}.{name}.weight={weight} must be at least 0")
    if not any(weights):
        raise ValueError(f"{where}: the weight of each is 0, so there is nothing to read")
