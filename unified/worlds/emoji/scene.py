"""Scenes: objects on a plain background, and everything that is true of them.

Coordinates are pixels, x to the right and y downwards; `H W` pixels of the canvas.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from unified.worlds.emoji import sprites, vocabulary

RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
REGIONS = ("top left", "top right", "bottom left", "bottom right")


class Spot(NamedTuple):
    """A place for a thing: its centre, and the long side of its ink."""

    x: int
    y: int
    size: int


@dataclasses.dataclass(frozen=True)
class Thing:
    """A drawing of a concept: `(x, y)` is its centre, `size` the long side of its ink."""

    id: str
    style: sprites.Style
    colour: str | None
    x: int
    y: int
    size: int

    @property
    def spot(self) -> Spot:
        return Spot(self.x, self.y, self.size)

    @property
    def pixels(self) -> np.ndarray:
        """uint8 `[h w 4]`."""
        return sprites.sprite(self.id, self.style, self.size, self.colour)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the ink; right and bottom are exclusive."""
        height, width = self.pixels.shape[:2]
        left, top = self.x - width // 2, self.y - height // 2
        return left, top, left + width, top + height


@dataclasses.dataclass(frozen=True)
class Scene:
    """Things that do not overlap on a background named in `vocabulary.BACKGROUNDS`.

    `side` is the side of the square canvas in pixels.
    """

    things: tuple[Thing, ...]
    background: str = "white"
    side: int = 64

    def with_things(self, things: Iterable[Thing]) -> "Scene":
        return dataclasses.replace(self, things=tuple(things))


SINGLE = 32  # side of a canvas for one thing, in its middle and as large as on one of 64


def unit(side: int) -> int:
    """How much larger things are than on a canvas of 64 pixels a side, or on one for a single.

    Raises ValueError for a side that no canvas has.
    """
    if side != SINGLE and (side < 64 or side % 64):
        raise ValueError(f"{side} pixels a side: {SINGLE} for a single thing, or a multiple of 64")
    return max(side // 64, 1)


def render(scene: Scene) -> np.ndarray:
    """uint8 `[H W 3]`. Raises ValueError if a thing leaves the canvas."""
    canvas = np.empty((scene.side, scene.side, 3), np.uint8)
    canvas[:] = vocabulary.BACKGROUNDS[scene.background]
    for thing in scene.things:
        left, top, right, bottom = thing.box
        if min(left, top) < 0 or max(right, bottom) > scene.side:
            raise ValueError(f"{thing} leaves the canvas of {scene.side} pixels")
        pixels = thing.pixels
        alpha = pixels[..., 3:].astype(np.uint16)
        under = canvas[top:bottom, left:right]
        under[:] = (pixels[..., :3] * alpha + under * (255 - alpha) + 127) // 255
    return canvas


def mask(scene: Scene) -> np.ndarray:
    """int `[H W]`: the index of the thing that covers a pixel, or -1."""
    owner = np.full((scene.side, scene.side), -1)
    for i, thing in enumerate(scene.things):
        left, top, right, bottom = thing.box
        owner[top:bottom, left:right][thing.pixels[..., 3] >= 128] = i
    return owner


def fits_beside(spot: Spot, others: Sequence[Spot], gap: int = 1) -> bool:
    """Whether a spot keeps `gap` pixels from all others."""
    x, y, size = spot
    apart = (2 * max(abs(x - u), abs(y - v)) >= size + o + 2 * gap for u, v, o in others)
    return all(apart)


def fits(spots: Sequence[Spot], side: int, gap: int = 1) -> bool:
    """Whether all spots lie on the canvas with `gap` pixels between them."""
    inside = (s.size <= 2 * c <= 2 * side - s.size for s in spots for c in (s.x, s.y))
    return all(inside) and all(fits_beside(s, spots[:i], gap) for i, s in enumerate(spots))


def relation(a: Thing | Spot, b: Thing | Spot, margin: int = 6) -> str | None:
    """Where `a` is, seen from `b`: the direction that dominates by `margin` pixels, or None."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) >= abs(dy) + margin:
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= abs(dx) + margin:
        return "above" if dy < 0 else "below"
    return None


def relation_of_groups(
    a: Sequence[Thing | Spot], b: Sequence[Thing | Spot], margin: int = 6
) -> str | None:
    """The relation that every thing of `a` has to every thing of `b`, or None."""
    found = {relation(p, q, margin) for p in a for q in b}
    return found.pop() if len(found) == 1 else None


def region(thing: Thing | Spot, side: int, margin: int = 6) -> str | None:
    """The quarter of the canvas that the centre lies in, at least `margin` pixels deep."""
    dx, dy = thing.x - side / 2, thing.y - side / 2
    if min(abs(dx), abs(dy)) < margin:
        return None
    return f"{'top' if dy < 0 else 'bottom'} {'left' if dx < 0 else 'right'}"
