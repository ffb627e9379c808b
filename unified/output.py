"""The picture file that a command writes: refused before the work, whole or not there after it."""

import io
import os
from pathlib import Path
from typing import Any


def check(name: str) -> None:
    """Raises OSError or ValueError for what could not be written after all the work."""
    from PIL import Image

    from unified.data.decode import FORMATS

    if "://" in name:
        raise ValueError(f"{name}: nothing is sent to the network: name a file")
    if name.endswith((os.sep, f"{os.sep}.")):  # which a Path leaves out
        raise ValueError(f"{name} names a folder: name a picture file to write")
    path = Path(name)
    kind, file = Image.registered_extensions().get(path.suffix.lower()), io.BytesIO()
    try:  # Pillow cannot write all that it reads
        if kind not in FORMATS:  # of the others some are no pictures (PDF), some start a program
            raise ValueError(kind)
        Image.new("RGB", (16, 16)).save(file, kind)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            f"{path} needs the ending of a picture file that can be written, such as .png"
        ) from None
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file: name a picture file to write")
    _put(path, b"", "ab")


def write(picture: Any, name: str) -> str:
    from PIL import Image

    path, file = Path(name), io.BytesIO()
    Image.fromarray(picture).save(file, Image.registered_extensions()[path.suffix.lower()])
    _put(path, file.getvalue(), "wb")
    return str(path)


def _put(path: Path, data: bytes, mode: str) -> None:
    """Writes `data`. A file that was not there is not left behind without it."""
    new, done = not path.exists(), False
    try:
        with open(path, mode) as file:
            file.write(data)
        done = bool(data)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if new and not done and path.exists():
            os.unlink(os.path.realpath(path))
