"""Files that people bring: found by folder, glob or name, and read where they are regular files."""

import glob
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

PACKED = r"\.(gz|bz2|xz|lz|lzma|lzo|zst|zstd|lz4|sz|br|zip|7z|z)$"
BACKUP = re.compile(r"(~|[.](bak|backup|old|orig|swp|crc|idx|index|lock))$", re.IGNORECASE)
RELATED = {  # endings that people give to files of a kind, or to what they take for one
    ".jsonl": (".json", ".jl", ".jsonlines", ".ndjson", ".csv", ".tsv"),
    ".parquet": (".pq", ".parq", ".arrow", ".feather"),
    ".tar": (".wds",),
}
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"PK\x03\x04")
URL = re.compile(r"\s*([a-z][a-z0-9+.-]+://|(https?|ftp|gs|s3|hf):/)", re.IGNORECASE)
COMPRESSED = "compressed, so without random access: uncompress it"


def find_files(
    path: str | Path | Sequence[str], suffixes: Sequence[str], packed: Sequence[str] = ()
) -> list[Path]:
    """Files of a folder (all levels), a file, a glob (`**`: all levels) or a list of these, sorted.

    Of a folder those whose names end in a suffix, in capitals or not, or in one and the number of
    the shard: `x.parquet-00000-of-00004`. Hidden files and folders are left out, and so are
    backups, as `x.jsonl.bak`; what is not read is logged by name: compressed files (`packed`:
    endings of such in one word, `.tgz`), broken links, and what looks like data under another
    ending, as `x.jsonl.1`. Raises FileNotFoundError if there are none.
    """
    if not isinstance(path, (str, Path)):
        return [file for one in path for file in find_files(one, suffixes, packed)]
    path = Path(path)
    if path.is_dir():
        known = rf"({'|'.join(map(re.escape, suffixes))})(-\d+-of-\d+)?"
        ends = re.compile(f"{known}({PACKED})?$", re.IGNORECASE)
        is_data = lambda file: ends.search(file.name) or file.name.lower().endswith(tuple(packed))
        everything = list(_walk(path))
        found = [file for file in everything if is_data(file)]
    else:
        names = [path] if path.exists() else map(Path, glob.glob(str(path), recursive=True))
        everything = found = [file for file in names if not file.is_dir()]
    reasons = {file: _unreadable(file, packed if path.is_dir() else None) for file in found}
    files = sorted(file for file, reason in reasons.items() if not reason)
    left = [f"{file}: {reason}" for file, reason in sorted(reasons.items()) if reason]
    if not files:
        there = left or sorted({f"*{file.suffix}" for file in everything if file.suffix})
        raise FileNotFoundError(
            f"no {' or '.join(suffixes)} files at {path}{', but ' * bool(there)}{_some(there)}"
        )
    if path.is_dir():
        is_like = lambda file: file not in reasons and _is_like(file.name.lower(), suffixes)
        others = sorted(str(file) for file in everything if is_like(file))
        left += [f"{file}: not named as {suffixes[0]}" for file in others]
    if left:
        log.warning("%d files are not read: %s", len(left), _some(left))
    return files


def opened(path: str | Path, open: Callable[[Any], T]) -> T:
    """What `open(path)` gives. Raises ValueError, naming the path, whatever the reader raises."""
    try:
        return open(path)
    except Exception as error:
        raise ValueError(f"{path}: {error}") from error


def check_uncompressed(file: Path) -> None:
    """Raises ValueError for content that is compressed, whatever its name is."""
    with file.open("rb") as content:
        if content.read(8).startswith(MAGIC):
            raise ValueError(COMPRESSED)


def read_file(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The content of a regular file: a pipe would never end, a device neither.

    Raises OSError, or ValueError for what is no regular file, is larger, or is a URL.
    """
    name = os.fspath(path)
    if URL.match(name):
        raise ValueError(
            f"{name[:80]!r} is a URL: pictures are not fetched; load it to a file first"
        )
    at_once = getattr(os, "O_NONBLOCK", 0)
    without_waiting = lambda name, flags: os.open(name, flags | at_once)
    with open(name, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{name} is no regular file, but a pipe, device or socket")
        if status.st_size > max_bytes:
            raise ValueError(f"{name}: {status.st_size} bytes are more than {max_bytes}")
        return file.read(status.st_size)


def check_within(path: str | os.PathLike[str], folder: str) -> None:
    """Raises ValueError for a path that leads out of the folder: absolute, by `..` or a link."""
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{os.fspath(path)} leads out of within={folder!r}")


def _walk(folder: Path) -> Iterator[Path]:
    """All that is not hidden and no folder. Raises OSError for a folder that cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = os.path.realpath(place)
        is_inside = lambda name, place=place, here=here: (
            not Path(here).is_relative_to(os.path.realpath(os.path.join(place, name)))
        )  # not a link to a folder around it, which would have no end
        folders[:] = [name for name in folders if name[0] != "." and is_inside(name)]
        yield from (Path(place, name) for name in names if name[0] != ".")


def _unreadable(file: Path, packed: Sequence[str] | None) -> str:
    """Why a file cannot be read, if so; by its name only where it was not named itself."""
    if not file.is_file():
        return "no regular file, or a link to none"
    ends = packed is not None and (
        re.search(PACKED, file.name, re.IGNORECASE) or file.name.lower().endswith(tuple(packed))
    )
    return COMPRESSED if ends else ""


def _is_like(name: str, suffixes: Sequence[str]) -> bool:
    """Whether a file that is not read may well be meant as data."""
    related = tuple(ending for suffix in suffixes for ending in RELATED.get(suffix, ()))
    longer = any(f"{suffix}{mark}" in name for suffix in suffixes for mark in ".-_")
    return not BACKUP.search(name) and (longer or name.endswith(related))


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + rest
