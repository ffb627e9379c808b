"""What a data set is: which of its records a fraction keeps, and whether it has changed.

A record is known by the name of its file and its number in it, wherever the files lie: so it stays
on its side of a split when files grow, others are added, or all are moved.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Part = tuple[Path, int]  # a file and the number of its records
Fingerprint = dict[str, Any]

# Steps of the golden ratio spread the records of a file evenly over the unit interval, whatever
# their number: of any n that follow on one another, about f n lie in an interval of length f.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LOOKED_AT = 2**16  # bytes of either end of a file, to see whether it is another
EDGE = 0.05  # the first of one file in twenty is foremost, of the others the second


def kept(
    parts: Sequence[Part], start: float | None, stop: float | None
) -> Sequence[int] | np.ndarray:
    """The records with a place from `start` to `stop`."""
    place = places(parts)
    chosen = place >= (start or 0.0)
    if stop is not None and stop < 1:
        chosen &= place < stop
    return np.flatnonzero(chosen)


def places(parts: Sequence[Part]) -> np.ndarray:
    """A number in [0, 1) for each record, float64 `[n]`, from its file's name and its number alone.

    Of the first two of a file one has place 0, so that every share from 0 has it, and the other a
    place from `EDGE` on. (No rule of names and numbers does this for files of one record.)
    """
    return np.concatenate([np.zeros(0), *(_places(file.name, num) for file, num in parts)])


def _places(name: str, num: int) -> np.ndarray:
    digest = hashlib.blake2b(os.fsencode(name), digest_size=16).digest()
    first, then = np.frombuffer(digest, "<u8") * 2.0**-64
    foremost = int(first >= EDGE)
    begin = np.uint64(EDGE * then * 2**64)  # where the foremost would be, so that all are spread
    place = ((begin + np.arange(num, dtype=np.uint64) * GOLDEN) >> np.uint64(11)) * 2.0**-53
    if foremost:
        place = np.concatenate([[first], place])[:num]
    place[foremost : foremost + 1] = 0.0
    return place


def is_coarse(
    parts: Sequence[Part], num_kept: int, start: float | None, stop: float | None
) -> bool:
    """Whether far more or less is kept than the share, as of many small files."""
    num_records = sum(num for _, num in parts)
    share = (1.0 if stop is None else stop) - (start or 0.0)
    return num_records >= 20 and abs(num_kept / num_records - share) > EDGE


def fingerprint(parts: Sequence[Part]) -> Fingerprint:
    """Cheap to make and to keep: counts, and a digest of the names and sizes of the files and of
    what they begin and end with."""
    sizes, digest = [], hashlib.blake2b(digest_size=8)
    for file, num in parts:
        size, ends = _ends(file) if file.is_file() else (0, b"")
        sizes.append(size)
        digest.update(b"%s\0%d\0%d\0" % (os.fsencode(file.name), num, size))
        digest.update(hashlib.blake2b(ends).digest())
    num_records = sum(num for _, num in parts)
    counts = {"records": num_records, "files": len(parts), "bytes": sum(sizes)}
    return {**counts, "digest": digest.hexdigest()}


def _ends(file: Path) -> tuple[int, bytes]:
    """The size of a file, its first and its last bytes."""
    with file.open("rb") as content:
        first = content.read(LOOKED_AT)
        size = content.seek(0, os.SEEK_END)
        content.seek(max(0, size - LOOKED_AT))
        return size, first + content.read(LOOKED_AT)


def changes(before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint]) -> Iterator[str]:
    """A line for each source, by name, that is not what it was."""
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            yield f"source {name}: {'is new' if old is None else 'is no longer there'}"
        elif old != new:
            counts = [what for what in new if what != "digest" and old.get(what) != new[what]]
            how = ", ".join(f"{what} from {old.get(what)} to {new[what]}" for what in counts)
            how = how or "names, sizes or content of files"
            yield (
                f"source {name} has changed since the run was saved ({how}): the order of its "
                "examples is another from here on"
            )
