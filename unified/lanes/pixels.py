"""Pictures as arrays, uint8 `[H W 3]`: made of whatever shows one, scaled, cut.

`H W` pixels.
"""

import math

import numpy as np
from PIL import Image, ImageOps

BAND = 2**20  # pixels that are converted at a time, so that a large picture is not there thrice


def to_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """Any Pillow picture or uint8 array (`[H W]`, `[H W 1]`, `[H W 3]`, `[H W 4]`) -> `[H W 3]`.

    Grey of 9 to 16 bits is scaled by its range. Raises ValueError for what does not say what is
    white (floats, 32 bits, a range that is hardly used), other layouts, and one without pixels.
    """
    if isinstance(image, np.ndarray):
        _check_array(image)
        if image.ndim == 3 and image.shape[-1] == 3:
            return image
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    if not (image.width and image.height):
        raise ValueError(f"a picture of {size_of(image.height, image.width)} shows nothing")
    if image.mode[0] in "IF":
        return np.repeat(_to_grey(image)[..., None], 3, axis=-1)
    step = max(1, BAND // image.width)
    if image.height <= step:
        return np.asarray(_on_white(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(top + step, image.height)))
        pixels[top : top + step] = np.asarray(_on_white(band))
    return pixels


def patch_grid(
    height: int, width: int, *, patch: int, min_side: int, max_side: int
) -> tuple[int, int]:
    """Rows and columns of patches of a picture: BAGEL's size rule, aspect kept.

    Never enlarged, except to bring the short side up to `min_side`; the long side is limited last,
    so a very long picture ends with a short side below `min_side`.
    """
    limit = max_side // patch * patch
    scale = max(min(limit / max(height, width), 1.0), min_side / min(height, width))
    rows, columns = (_patches(side * scale, patch) for side in (height, width))
    long = max(rows, columns) * patch
    if long > limit:
        rows, columns = (_patches(n * patch * limit / long, patch) for n in (rows, columns))
    return rows, columns


def _patches(side: float, patch: int) -> int:
    return max(1, round(round(side) / patch))


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales `[H W 3]` to cover a size and crops the centre."""
    if image.shape[:2] == (height, width):
        return image
    size = (width, height)
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.BICUBIC))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales `[H W 3]` to a size, whatever becomes of its aspect ratio."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def aspect_of(height: int, width: int) -> float:
    """Logarithm of the aspect ratio: of two sizes, the difference says how unlike they are."""
    return math.log(width / height)


def size_of(height: int, width: int) -> str:
    return f"{height} x {width} pixels"


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_grey(image: Image.Image) -> np.ndarray:
    """Pixels of more than 8 bits -> uint8 `[H W]`."""
    tags = getattr(image, "tag_v2", {})
    of_16 = image.mode == "I" and image.format in ("PNG", "PPM")
    if not image.mode.startswith("I;16") and not of_16:
        kind = "floats" if image.mode == "F" else "32-bit numbers"
        raise ValueError(f"a picture of {kind} does not say what is white: store 8 or 16 bits")
    bits = tags.get(258, (16,))[0]
    values = np.asarray(image)
    if values.any():
        check_range(int(values.max()), bits)
    if tags.get(262) == 0:  # white is zero, which Pillow minds up to 8 bits
        values = (1 << bits) - 1 - values
    return (values >> (bits - 8)).astype(np.uint8)


def check_range(largest: int, bits: int) -> None:
    """Raises ValueError where a picture of more than 8 bits uses less than a quarter of its range:
    it is data of fewer bits, which would be nearly black."""
    if largest < 1 << (bits - 2):
        raise ValueError(
            f"a picture of {bits} bits in which no number is above {largest} looks like one of "
            f"{max(8, largest.bit_length())} bits and would be nearly black: multiply it up to "
            f"{(1 << bits) - 1}, or store it with 8 bits"
        )


def _check_array(array: np.ndarray) -> None:
    if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and _has_channels(array))):
        if not array.size:
            raise ValueError(f"a picture of {size_of(*array.shape[:2])} shows nothing")
        return
    hint = ""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and min(array.shape[1:]) > 4:
        hint = "; give array.transpose(1, 2, 0)"
    elif array.dtype == bool:
        hint = "; give array * np.uint8(255)"
    elif array.dtype != np.uint8:
        hint = ": scale its white to 255, round and cast it"
    raise ValueError(f"a picture is uint8 [H W 3], not {array.dtype} {list(array.shape)}{hint}")


def _has_channels(array: np.ndarray) -> bool:
    return 1 <= array.shape[-1] <= 4
