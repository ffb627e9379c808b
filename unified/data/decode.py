"""Pictures that people bring -> uint8 `[H W 3]`, whatever they claim to be.

A picture is opened as one of `FORMATS`: Pillow knows more, of which some start a program
(PostScript, Ghostscript) or read other files. Its pixels are counted before any is decoded.
"""

import contextlib
import functools
import io
import threading

import numpy as np
from PIL import Image

from unified.data.container import ORIENTATION, pixels_only
from unified.lanes.pixels import check_range, size_of, to_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535  # pixels, as of a JPEG: to scale a line of 30 million takes seconds
SLOW = 16  # times that decoders written in Python take: they may have so many times fewer pixels
LARGE = 16_000_000  # pixels; decoding takes some 20 bytes for each of them
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Large pictures are decoded one at a time, so that threads take the memory of one.
_large = threading.Lock()


def max_bytes(max_pixels: int) -> int:
    """Of the file of a picture: four channels of 16 bits, and a mebibyte for all else."""
    return 8 * max_pixels + 2**20


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Picture file -> uint8 `[H W 3]`, upright, transparency composited on white.

    Of several frames the first. Raises ValueError for a damaged file, one that is not a picture, or
    one of more than `max_pixels` pixels.
    """
    if len(data) > max_bytes(max_pixels):
        raise ValueError(_too_large(f"{len(data)} bytes", max_pixels))
    try:
        data = pixels_only(data)
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            _check_size(image, max_pixels)
            large = image.width * image.height > LARGE
            with _large if large else contextlib.nullcontext():
                of_16 = any(";16" in str(tile[3]) for tile in image.tile)  # how it is stored
                image.load()
                if of_16 and image.mode[:3] == "RGB":
                    _check_range(image)
                return to_rgb(_upright(image))
    except Image.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ValueError(f"not a picture of a known format, or a damaged one ({known})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(_too_large("a picture", max_pixels)) from None
    except ValueError:
        raise
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from error


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(image: Image.Image, max_pixels: int) -> None:
    """Raises ValueError for more pixels than are allowed, also in what is decoded at one time."""
    tiles = getattr(image, "tile", ())
    if any(tile[0] in Image.DECODERS for tile in tiles):  # written in Python
        max_pixels //= SLOW
    size = size_of(image.height, image.width)
    if max(image.size) > MAX_SIDE:
        raise ValueError(f"{size}: a side has at most {MAX_SIDE}")
    if image.width * image.height > max_pixels:
        raise ValueError(_too_large(size, max_pixels))
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 1) for tag in (322, 323)]  # of a tile of a TIFF
    if not all(isinstance(side, int) for side in sides) or sides[0] * sides[1] > max_pixels:
        raise ValueError(_too_large(f"{size} in tiles of {sides[1]} x {sides[0]}", max_pixels))


def _check_range(image: Image.Image) -> None:
    """Raises ValueError for colours of 16 bits, of which Pillow leaves the high 8, that are nearly
    black: where nothing is transparent, which would be white."""
    lowest, highest = np.array(image.getextrema()).T
    if len(highest) == 4 and lowest[3] == 255:
        highest = highest[:3]
    check_range(int(highest.max()) << 8 | 255, 16)


def _too_large(what: str, max_pixels: int) -> str:
    return f"{what}: more than max_pixels={max_pixels}; make it smaller, or raise that"


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata, which says nothing about the pixels
        return image
    return image if turn is None else image.transpose(turn)
