"""Whole pictures of one size, as so many tokens each: latents, codes, whatever a part makes of
their pixels."""

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from unified.lanes.lane import Content, Counts, Field, Lane
from unified.lanes.pixels import aspect_of, cover, to_rgb
from unified.sequence import Array, Tokens, struct


@struct
class PictureTokens:
    tokens: Tokens
    pixels: Array  # uint8 [B N H W 3]
    target: Array  # bool [B N], predicted (True) or context (False)
    valid: Array  # bool [B N], False in padding


@dataclasses.dataclass(frozen=True)
class PictureLane(Lane):
    """`count` pictures of `height` by `width` pixels; `stride` pixels a side become one token.

    `sees`: the tokens of a picture see one another (`block`) or those before them (`causal`).
    """

    count: int = 0
    height: int = 64
    width: int = 64
    stride: int = 8
    sees: Literal["block", "causal"] = "block"

    arrays: ClassVar[type] = PictureTokens
    modality: ClassVar[str] = "image"

    @property
    def rows(self) -> int:
        """Tokens of a column of one picture."""
        return self.height // self.stride

    @property
    def columns(self) -> int:
        return self.width // self.stride

    @property
    def unit(self) -> int:
        return self.rows * self.columns

    @property
    def slots(self) -> int:
        return self.count * self.unit

    @property
    def pixels(self) -> int:
        return self.count * self.height * self.width

    @property
    def fields(self) -> dict[str, Field]:
        return {
            "pixels": Field("count", (self.height, self.width, 3), np.uint8),
            "target": Field("count", dtype=np.bool_),
            "valid": Field("count", dtype=np.bool_),
        }

    def check(self) -> None:
        if self.height % self.stride or self.width % self.stride:
            raise ValueError(
                f"lane {self.name!r}: pictures of {self.height}x{self.width} pixels are not "
                f"whole tokens of stride {self.stride}"
            )
        if self.count < 1:
            raise ValueError(f"lane {self.name!r}: count must be 1 or more to hold a picture")

    def affinity(self, content: Any) -> float:
        """Nearer in aspect ratio is better: lanes are aspect buckets."""
        return -abs(aspect_of(self.height, self.width) - aspect_of(*to_rgb(content).shape[:2]))

    def write(self, content: Any, *, target: bool) -> Content:
        pixels = cover(to_rgb(content), self.height, self.width)
        return {"pixels": pixels[None], "target": np.array([target]), "valid": np.array([True])}

    def starts(self, n: int) -> np.ndarray:
        return np.zeros(n, np.int32) if self.sees == "block" else np.arange(n, dtype=np.int32)

    def cells(self, part: Content, n: int) -> np.ndarray:
        return np.indices((self.rows, self.columns), dtype=np.int32).reshape(2, -1).T

    def resized(self, sizes: Counts) -> "PictureLane":
        return dataclasses.replace(self, count=sizes.get("slots", 0) // self.unit)
