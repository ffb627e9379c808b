"""The forms in which a record gives a picture -> its pixels.

Bytes of a picture file, base64 of them or a `data:` URI, a uint8 array, or a dict with `bytes` (any
of these) or, where they are missing, the `path` of a file.
"""

import base64
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified.data.decode import MAX_PIXELS, decode, max_bytes, to_rgb
from unified.data.files import URL, check_within, read_file

DATA_URI = re.compile(r"\s*data:[^,]*,", re.IGNORECASE)
BASE64 = re.compile(r"[\w+/=\s-]{100,}", re.ASCII)  # or a long path without a dot
PATHS = (
    "a path is that of a field `file_name`, as with columns={'file_name': ...}, or {'path': ...}"
)
URLSAFE = str.maketrans("-_", "+/", " \t\r\n\v\f")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Opens pictures of at most `max_pixels` pixels; files must lie `within` a folder, if given.

    Raises ValueError where one of the two cannot be.
    """

    max_pixels: int = MAX_PIXELS
    within: str | None = None

    def __post_init__(self):
        if type(self.max_pixels) is not int or self.max_pixels < 1:
            raise ValueError(
                f"max_pixels={self.max_pixels!r} must be a number of pixels, 1 or more"
            )
        if self.within is not None and not Path(self.within).is_dir():
            raise ValueError(f"within={self.within!r} is no folder")

    @property
    def max_bytes(self) -> int:
        """Of a file or record."""
        return max_bytes(self.max_pixels)

    def __call__(self, value: Any, folder: Path) -> np.ndarray:
        """uint8 `[H W 3]`; paths start at `folder`. Raises TypeError, ValueError or OSError."""
        if isinstance(value, Mapping):  # the struct of Hugging Face
            given = value.get("bytes")
            if given is None or (isinstance(given, (bytes, str)) and not given):
                return self.read(_path(value), folder)
            value = given
        if isinstance(value, np.ndarray):
            return to_rgb(value)
        if isinstance(value, str):
            value = from_base64(value)
        if isinstance(value, bytes):
            return decode(value, self.max_pixels)
        raise TypeError(f"a picture is bytes, base64 or an array, not {type(value).__name__}")

    def read(self, name: str, folder: Path) -> np.ndarray:
        """The picture in a file; what is wrong with it names the file."""
        path = name if URL.match(name) else folder / name
        if BASE64.fullmatch(name) and not os.path.exists(path):
            raise ValueError(
                f"no file {name[:40]!r}...; if it is base64, give a data: URI or {{'bytes': ...}}"
            )
        if self.within is not None:
            check_within(path, self.within)
        content = read_file(path, self.max_bytes)
        try:
            return decode(content, self.max_pixels)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def from_base64(text: str) -> bytes:
    """Of any alphabet, in lines or in one, padded or not, alone or as `data:` URI."""
    if URL.match(text):
        raise ValueError(f"{text[:80]!r} is a URL: pictures are not fetched; give the bytes")
    uri = DATA_URI.match(text)
    if uri and ";base64" not in uri[0].lower():
        raise ValueError(f"a data: URI of a picture is of base64, not {text[:40]!r}")
    letters = text[uri.end() if uri else 0 :].translate(URLSAFE).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except ValueError as error:
        said = f"a picture that is a string is base64, not {text[:40]!r}; {PATHS}"
        raise ValueError(said) from error


def _path(value: Mapping[str, Any]) -> str:
    path = value.get("path")
    if path is None and {"bytes", "path"} & value.keys():
        raise ValueError("a picture whose 'bytes' and 'path' are null or empty")
    if path is None:
        raise ValueError(f"a picture has no 'bytes' and no 'path', only {sorted(value)}")
    if not isinstance(path, str):
        raise TypeError(f"the path of a picture is a string, not {type(path).__name__}")
    return path
