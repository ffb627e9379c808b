"""Sprites: 3,006 concepts in up to five drawing styles, read from the packaged table.

`sprite` is the one way to a picture: the ink of a drawing, cropped, scaled and optionally
coloured. Colours are exact by construction (`tint`), so that they can be asked for and checked.

`h w` pixels of one sprite, channels red, green, blue, alpha (not premultiplied).
"""

import dataclasses
import functools
import importlib.resources
import io
import json
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

Style = Literal["3d", "flat", "modern", "noto", "mono"]

STYLES: tuple[Style, ...] = ("3d", "flat", "modern", "noto", "mono")

COLOURS = {  # name -> the colour of a mid tone; all well apart from each other
    "red": (222, 32, 40),
    "orange": (250, 140, 22),
    "yellow": (248, 216, 40),
    "green": (40, 160, 60),
    "blue": (36, 100, 225),
    "purple": (130, 50, 180),
    "pink": (246, 130, 190),
    "brown": (124, 74, 40),
    "black": (38, 38, 44),
}

INK = 24  # alpha at which a pixel counts as drawn


@dataclasses.dataclass(frozen=True)
class Concept:
    """One row of the table. `id` is the code points in hexadecimal, joined by `-`.

    `tone` is the skin tone, 0 (none) to 5; `base` is the id without it. `gender` is 0 (female), 1
    (male) or None. `i18n` maps a language code to the name in that language; tags and `i18n` are
    those of the base concept. `styles` lists the drawings that exist.
    """

    id: str
    caption: str
    group: str
    subgroup: str
    tags: tuple[str, ...]
    tone: int
    base: str
    gender: int | None
    i18n: dict[str, str] = dataclasses.field(hash=False, compare=False)
    styles: tuple[Style, ...]


@functools.cache
def _table():
    path = importlib.resources.files("unified.worlds.emoji") / "emoji64.parquet"
    return pq.read_table(io.BytesIO(path.read_bytes()))


@functools.cache
def concepts() -> dict[str, Concept]:
    """All concepts by id, in the order of the table."""
    table = _table()
    drawn = {s: table.column(s).is_valid().to_pylist() for s in STYLES}
    rows = table.drop_columns(list(STYLES)).to_pylist()
    shared = {
        row["id"]: (tuple(row["tags"] or ()), json.loads(row["i18n"] or "{}")) for row in rows
    }
    found = {}
    for i, row in enumerate(rows):
        tags, i18n = shared.get(row["base"], ((), {}))
        styles = tuple(s for s in STYLES if drawn[s][i])
        row = {k: row[k] for k in ("id", "caption", "group", "subgroup", "tone", "base", "gender")}
        found[row["id"]] = Concept(**row, tags=tags, i18n=i18n, styles=styles)
    return found


@functools.cache
def _row() -> dict[str, int]:
    return {id: i for i, id in enumerate(concepts())}


@functools.lru_cache(maxsize=1024)
def _drawing(id: str, style: Style) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """The picture as shipped (64x64 RGBA) and the box of its ink."""
    data = _table().column(style)[_row()[id]].as_py()
    if data is None:
        raise KeyError(f"no drawing of {id} ({concepts()[id].caption}) in style {style}")
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    ink = image.getchannel("A").point(lambda a: 255 * (a >= INK))
    return image, ink.getbbox() or (0, 0, *image.size)


@functools.lru_cache(maxsize=8192)
def sprite(id: str, style: Style = "flat", size: int = 24, colour: str | None = None) -> np.ndarray:
    """uint8 `[h w 4]`: the ink of a drawing, scaled so that its long side is `size` pixels.

    `colour` is None for the drawing's own colours, or one of `COLOURS` (see `tint`). Raises
    KeyError for a concept, style or colour that does not exist. The array is read-only (shared).
    """
    image, box = _drawing(id, style)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = size / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = np.asarray(image.resize(shape, Image.Resampling.LANCZOS, box=box))  # premultiplies
    if colour is not None:
        pixels = tint(pixels, colour)
    pixels.setflags(write=False)
    return pixels


def tint(pixels: np.ndarray, colour: str) -> np.ndarray:
    """Replaces the hue of uint8 `[h w 4]` pixels and keeps their shading.

    The luminance (Rec. 601), centred on its mean over the ink and divided by four of its standard
    deviations, gives a tone in [-1, 1]; tones run from 30 % of the colour through the colour
    itself (the mean luminance) to half way to white. So the mean over the ink is the colour,
    whatever the drawing was.
    """
    alpha = pixels[..., 3:] / np.float32(255)
    luminance = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)[:, None]
    total = alpha.sum() + 1e-6
    mean = (luminance * alpha).sum() / total
    deviation = np.sqrt((np.square(luminance - mean) * alpha).sum() / total)
    tone = np.clip((luminance - mean) / (4 * deviation + 1e-3), -1, 1)
    middle = np.array(COLOURS[colour], np.float32)
    dark, light = middle * 0.3, middle * 0.5 + 127.5
    rgb = middle + np.maximum(tone, 0) * (light - middle) + np.minimum(tone, 0) * (middle - dark)
    return np.concatenate([np.rint(rgb).astype(np.uint8), pixels[..., 3:]], axis=-1)
