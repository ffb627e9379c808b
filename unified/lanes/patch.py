"""Pixel patches for a vision encoder: pictures of any size, packed patch by patch."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from unified.lanes.lane import Content, Counts, Field, Lane
from unified.lanes.pixels import patch_grid, resize, to_rgb
from unified.sequence import Array, Tokens, struct


@struct
class PatchTokens:
    tokens: Tokens
    patches: Array  # uint8 [B n patch*patch*3], order (row, column, channel)
    grid: Array  # int32 [B n 2], row and column of the patch in its picture
    first: Array  # int32 [B n], slot where the picture of this patch begins
    last: Array  # int32 [B n], slot after its end; first = last = 0 in padding


@dataclasses.dataclass(frozen=True)
class PatchLane(Lane):
    """Sides are rounded to whole patches of `patch` pixels, keeping the aspect ratio, so that the
    long side is at most `max_side` and the short side at least `min_side`."""

    budget: int = 0
    patch: int = 16
    min_side: int = 16
    max_side: int = 224

    arrays: ClassVar[type] = PatchTokens
    modality: ClassVar[str] = "image"
    round_to: ClassVar[int] = 32  # an unused patch costs the vision encoder its work

    @property
    def slots(self) -> int:
        return self.budget

    @property
    def pixels(self) -> int:
        return self.budget * self.patch**2

    @property
    def fields(self) -> dict[str, Field]:
        return {
            "patches": Field(shape=(self.patch * self.patch * 3,), dtype=np.uint8),
            "grid": Field(shape=(2,)),
            "first": Field(counts="slots"),
            "last": Field(counts="slots"),
        }

    def check(self) -> None:
        side = self.max_side // self.patch
        if side < 1 or self.min_side > self.max_side:
            raise ValueError(f"lane {self.name!r}: patch and min_side must be within max_side")
        if side * side > self.budget:
            raise ValueError(
                f"lane {self.name!r}: a picture of {self.max_side} pixels a side has "
                f"{side * side} patches, the budget is {self.budget}: raise budget or lower "
                "max_side"
            )

    def write(self, content: Any, *, target: bool) -> Content:
        patches, grid = self.cut(to_rgb(content))
        n = np.full(len(patches), len(patches), np.int32)
        return {"patches": patches, "grid": grid, "first": 0 * n, "last": n}

    def cut(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[H W 3]` -> patches `[P p*p*3]` in order (row, column, channel), grid int32 `[P 2]`."""
        p = self.patch
        rows, columns = patch_grid(
            *image.shape[:2], patch=p, min_side=self.min_side, max_side=self.max_side
        )
        image = resize(image, rows * p, columns * p)
        patches = image.reshape(rows, p, columns, p, 3).transpose(0, 2, 1, 3, 4)
        grid = np.indices((rows, columns), dtype=np.int32).reshape(2, -1).T
        return patches.reshape(rows * columns, p * p * 3), grid

    def cells(self, part: Content, n: int) -> np.ndarray:
        return part["grid"]

    def resized(self, sizes: Counts) -> "PatchLane":
        return dataclasses.replace(self, budget=sizes.get("slots", 0))
