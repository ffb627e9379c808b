"""Pictures on the host: decoded to RGB (`decode.py`), fit to a lane, cut into patches.

`H W` pixels, `P` patches, `p` pixels a side of a patch. Pictures are uint8 `[H W 3]`.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from unified.data.decode import decode, to_rgb
from unified.sequence import LatentLane, PatchLane

__all__ = ["decode", "fit_latent", "fit_patches", "nearest_aspect", "patch_grid", "to_rgb"]


def patch_grid(height: int, width: int, lane: PatchLane) -> tuple[int, int]:
    """Rows and columns of patches of a picture: BAGEL's size rule, aspect kept.

    Never enlarged, except to bring the short side up to `min_side`; the long side is limited last,
    so a very long picture ends with a short side below `min_side`.
    """
    limit = lane.max_side // lane.patch * lane.patch
    scale = max(min(limit / max(height, width), 1.0), lane.min_side / min(height, width))
    rows, columns = (_patches(side * scale, lane.patch) for side in (height, width))
    long = max(rows, columns) * lane.patch
    if long > limit:
        rows, columns = (
            _patches(n * lane.patch * limit / long, lane.patch) for n in (rows, columns)
        )
    return rows, columns


def _patches(side: float, patch: int) -> int:
    return max(1, round(round(side) / patch))


def fit_patches(image: np.ndarray, lane: PatchLane) -> tuple[np.ndarray, np.ndarray]:
    """`[H W 3]` -> patches `[P p*p*3]` in order (row, column, channel), grid int32 `[P 2]`."""
    rows, columns = patch_grid(image.shape[0], image.shape[1], lane)
    p = lane.patch
    image = _resize(image, rows * p, columns * p)
    patches = image.reshape(rows, p, columns, p, 3).transpose(0, 2, 1, 3, 4)
    grid = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
    return patches.reshape(rows * columns, p * p * 3), grid


def fit_latent(image: np.ndarray, lane: LatentLane) -> np.ndarray:
    """Scales `[H W 3]` to cover the size of the lane and crops the centre."""
    if image.shape[:2] == (lane.height, lane.width):
        return image
    size = (lane.width, lane.height)
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, Image.Resampling.BICUBIC))


def nearest_aspect(image: np.ndarray, lanes: Sequence[LatentLane]) -> LatentLane:
    """The lane nearest in aspect ratio (the first of equals): lanes are aspect buckets."""
    aspect = math.log(image.shape[1] / image.shape[0])
    return min(lanes, key=lambda lane: abs(math.log(lane.width / lane.height) - aspect))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)
