"""Regular files, here or in a bucket: whatever else has the name of one is not waited for."""

import math
import os

from etils import epath


def read(file: epath.Path, most: float = math.inf) -> bytes:
    """The content of a regular file. Raises FileNotFoundError for what else has its name,
    ValueError for more than `most` bytes."""
    check(file)
    if file.stat().length > most:
        raise ValueError(f"it is larger than {most} bytes")
    return file.read_bytes()


def check(file: epath.Path) -> None:
    """Raises FileNotFoundError for what is no regular file."""
    if not is_file(file):
        raise FileNotFoundError(f"{file} is not a file")


def is_file(path: epath.Path) -> bool:
    """Whether a regular file is there: a pipe would wait for ever, a device never end."""
    local = os.fspath(path)
    return os.path.isfile(local) if os.path.exists(local) else path.is_file()
