"""Verdicts on icons: captions by their parts, drawings by what they are nearest to."""

import dataclasses
import random
import re

import numpy as np

from unified.evaluation.verdict import Verdict
from unified.worlds.emoji import icons, sprites
from unified.worlds.emoji.judge import known
from unified.worlds.emoji.parser import background_of
from unified.worlds.emoji.scene import Scene, render
from unified.worlds.emoji.sprites import concepts
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.vocabulary import BACKGROUNDS

RIVALS = 99  # other concepts that a drawing could be taken for
CELLS = 16  # cells a side by whose mean colours pictures are compared

_STYLE, _BACKGROUND = "|".join(sprites.STYLES), "|".join(BACKGROUNDS)
_CAPTION = re.compile(rf"(?:({_STYLE}) )?icon(?: of|:) (.+?)(?: on ({_BACKGROUND}))?")


def judge_caption(truth: Truth, text: str) -> Verdict:
    """`icon of a red apple` and the like: the name, the style and the background."""
    told, true = map(_parts, (text, truth.answer))
    measures = {name: told.get(name) == part for name, part in true.items()}
    return Verdict(measures | {"all": all(measures.values())})


def _parts(caption: str) -> dict[str, str]:
    match = _CAPTION.fullmatch(caption.strip().lower())
    if not match:
        return {}
    return {"name": match[2], "style": match[1] or "flat", "background": match[3] or "white"}


def judge_drawing(truth: Truth, pixels: np.ndarray) -> Verdict:
    """A drawn icon, uint8 `[H W 3]`: nearest to the true one among 99 concepts and its siblings.

    An edit is judged among the icon as it was, its siblings and their styles: who changes nothing
    is nearest to what was. `all` asks for the background too.
    """
    after = known(truth.after)
    options = _rivals(truth) if truth.before is None else _family(truth.before)
    options = [after, *(option for option in options if option != after)]
    best = options[nearest(pixels, options)]
    background, _ = background_of(pixels)
    measures = {"icon": best == after, "background": background == after.background}
    done = all(measures.values())
    kind = {} if truth.before is None else {truth.kind: done}
    thing = best.things[0]
    return Verdict(
        measures | kind | {"all": done}, f"nearest to: {icons.of(best).caption} ({thing.style})"
    )


def nearest(pixels: np.ndarray, scenes: list[Scene]) -> int:
    """Index of the scene that looks most like the picture, by squared distance of mean colours."""
    small = _cells(pixels)
    return int(np.argmin([np.square(_cells(render(scene)) - small).sum() for scene in scenes]))


def _cells(pixels: np.ndarray) -> np.ndarray:
    cell = pixels.shape[0] // CELLS
    return pixels.reshape(CELLS, cell, CELLS, cell, 3).mean((1, 3))


def _rivals(truth: Truth) -> list[Scene]:
    """Other concepts in the style of the true one: its skin tones and siblings, and 99 more."""
    scene = known(truth.after)
    (thing,) = scene.things
    base = icons.of(scene).base
    pool = [c.id for held_out in (False, True) for c in icons.pool(held_out)[0] if c.base != base]
    pool = [id for id in pool if thing.style in concepts()[id].styles]
    chosen = random.Random(thing.id).sample(pool, RIVALS)
    return _drawn(scene, [*_siblings(thing.id), *chosen], (thing.style,))


def _family(scene: Scene) -> list[Scene]:
    """Every icon that one edit can make of this one, and the icon itself."""
    id = scene.things[0].id
    return _drawn(scene, [id, *_siblings(id)], sprites.STYLES)


def _siblings(id: str) -> list[str]:
    others = [other for other, _ in icons.siblings().get(id, ())]
    return [*icons.tones().get(concepts()[id].base, ()), *others]


def _drawn(like: Scene, ids: list[str], styles: tuple[sprites.Style, ...]) -> list[Scene]:
    (thing,) = like.things
    return [
        like.with_things([dataclasses.replace(thing, id=id, style=style)])
        for id in dict.fromkeys(ids)
        for style in styles
        if style in concepts()[id].styles
    ]
