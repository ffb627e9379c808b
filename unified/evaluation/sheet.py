"""A sheet of cards as one picture: pictures enlarged, their texts wrapped below."""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unified.evaluation.card import Card, Section

WIDTH = 1248  # of the sheet, pixels
SIDE = 130  # of a picture, at most
PAD = 12
PAPER, WHITE, INK, FAINT = "#efefec", "#ffffff", "#1c1c1c", "#85857f"
VERDICTS = {True: "#2e9e5b", False: "#d64545", None: "#d0d0ca"}


def draw(title: str, sections: Sequence[Section], cards: int = 4) -> Image.Image:
    """The first `cards` cards of every section, under its title."""
    write = functools.partial(_text, width=WIDTH - 2 * PAD, paper=PAPER)
    blocks = [write(title, 26, INK)]
    for section in filter(lambda section: section.cards, sections):
        blocks.append(write(section.title, 19, INK))
        blocks += [write(section.note, 13, FAINT)] if section.note else []
        blocks += _grid(section.cards[:cards])
    return _join(blocks, PAPER, margin=PAD, width=WIDTH)


def _grid(cards: Sequence[Card]) -> list[Image.Image]:
    """Rows of cards of one width: what the card with the most pictures side by side needs."""
    most = max(1, *(card.across for card in cards))
    columns = (WIDTH - PAD) // (most * (SIDE + PAD) + 2 * PAD)
    columns = max(1, min(columns, 5))
    width = (WIDTH - PAD) // columns - PAD
    drawn = [_card(card, width) for card in cards]
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    return [_join(row, PAPER, across=True) for row in rows]


def _card(card: Card, width: int) -> Image.Image:
    inside = width - 2 * PAD
    blocks = []
    for run in card.runs:
        if isinstance(run[0][1], str):
            blocks += [_labelled(label, text, inside) for label, text in run]
        else:
            side = min(SIDE, (inside + PAD) // len(run) - PAD)
            blocks.append(_join([_picture(*part, side) for part in run], WHITE, across=True))
    if card.reason:
        blocks.append(_text(card.reason, 13, VERDICTS[card.correct], inside))
    body = _join(blocks, WHITE, PAD // 2, margin=PAD, width=width)
    ImageDraw.Draw(body).rectangle((0, 0, 4, body.height), VERDICTS[card.correct])
    return body


def _labelled(label: str, text: str, width: int) -> Image.Image:
    return _join([_text(label, 11, FAINT, width), _text(text, 15, INK, width)], WHITE, 0)


def _picture(label: str, pixels: np.ndarray, side: int) -> Image.Image:
    """A picture enlarged (by a whole factor where it fits) so that its long side is near `side`."""
    scale = side / max(pixels.shape[:2])
    scale = int(scale) if scale >= 1 else scale
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    framed = Image.new("RGB", (size[0] + 2, size[1] + 2), VERDICTS[None])
    framed.paste(image, (1, 1))
    return _join([framed, _text(label, 11, FAINT, side)], WHITE, 2)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(text: str, size: int, colour: str, width: int, paper: str = WHITE) -> Image.Image:
    """Text wrapped at `width` pixels."""
    font, line = _font(size), round(1.3 * size)
    lines = wrap(
        text.encode(errors="replace").decode(), font, width
    )  # half characters have no form
    image = Image.new("RGB", (width, line * len(lines)), paper)
    for i, words in enumerate(lines):
        ImageDraw.Draw(image).text((0, i * line), words, colour, font)
    return image


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels, broken at spaces, or inside a word that is too wide."""
    lines = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if font.getlength(joined) <= width:
                line = joined
                continue
            lines += [line] if line else []
            while font.getlength(word) > width and len(word) > 1:
                fits = max(1, sum(font.getlength(word[:n]) <= width for n in range(1, len(word))))
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def _join(
    blocks: Sequence[Image.Image],
    paper: str,
    gap: int = PAD,
    *,
    across: bool = False,
    margin: int = 0,
    width: int | None = None,
) -> Image.Image:
    """Blocks side by side (`across`) or one below the other, on `paper`."""
    spread = gap * (len(blocks) - 1) + 2 * margin
    w, h = zip(*(block.size for block in blocks), strict=True)
    size = (
        (sum(w) + spread, max(h) + 2 * margin) if across else (max(w) + 2 * margin, sum(h) + spread)
    )
    image = Image.new("RGB", (width or size[0], size[1]), paper)
    at = margin
    for block in blocks:
        image.paste(block, (at, margin) if across else (margin, at))
        at += gap + (block.width if across else block.height)
    return image
