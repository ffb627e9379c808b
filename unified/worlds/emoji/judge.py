"""Verdicts: what a sentence, a drawing or an edit of a scene gets right, against the truth.

Measures are named in the order of a table; `all` is the strict one: everything that was asked,
and nothing else. A drawing is pixels, uint8 `[H W 3]`, or a scene that is known already.
"""

from collections.abc import Sequence

import numpy as np

from unified.evaluation.metric import iou
from unified.evaluation.verdict import Verdict
from unified.worlds.emoji import language
from unified.worlds.emoji.language import Facts, Group, members
from unified.worlds.emoji.parser import parse
from unified.worlds.emoji.scene import Scene, render
from unified.worlds.emoji.score import score_edit, score_facts
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.vocabulary import BY_ID, NOUNS

Drawing = Scene | np.ndarray
Boxes = Sequence[tuple[tuple[str, str | None], tuple[int, ...]]]  # noun and colour, and where

SAME_PLACE = 0.5  # IoU of two boxes that are taken for one place


def judge_answer(truth: Truth, text: str) -> Verdict:
    """A short answer: the same words."""
    same = _plain(text) == _plain(truth.answer)
    return Verdict({truth.kind: same, "all": same})


def judge_caption(truth: Truth, text: str) -> Verdict:
    """A description: what it states, beside what the picture shows. `words`: the very sentence."""
    words = {"words": _plain(text) == _plain(truth.answer)}
    scene = known(truth.before)
    try:
        return Verdict(agreement(language.read(text), scene) | words)
    except ValueError:
        facts = dict.fromkeys(agreement(language.read(truth.answer), scene), False)
        return Verdict(facts | words, "no sentence about a scene")


def judge_scene(truth: Truth, drawing: Drawing) -> Verdict:
    """A drawing from words."""
    drawn = read(drawing)
    return Verdict(agreement(language.read(truth.prompt), drawn), summary(drawn))


def judge_layout(truth: Truth, drawing: Drawing) -> Verdict:
    """A drawing from boxes. `iou`: mean over the boxes asked for, 0 where the object is missing."""
    drawn = read(drawing)
    told, boxes = language.read_layout(truth.prompt)
    return Verdict(placed(told, drawn, _names(boxes), _boxes(drawn)), summary(drawn))


def judge_boxes(truth: Truth, text: str) -> Verdict:
    """Boxes read off a picture. `iou`: mean over its objects, 0 where one is missing."""
    scene = known(truth.before)
    try:
        told, boxes = language.read_layout(text)
        return Verdict(placed(told, scene, _boxes(scene), _names(boxes)))
    except ValueError:
        nothing = placed(language.read_layout(truth.answer)[0], scene, _boxes(scene), [])
        return Verdict(dict.fromkeys(nothing, False) | {"iou": 0.0}, "no list of boxes")


def placed(told: Facts, scene: Scene, wanted: Boxes, found: Boxes) -> dict[str, bool | float]:
    """The facts that hold in the scene, and whether every wanted box was found in its place."""
    ious = overlaps(wanted, found)
    facts = agreement(told, scene)
    facts["boxes"] = min(ious) >= SAME_PLACE
    facts["all"] = facts["all"] and facts["boxes"]
    return facts | {"iou": sum(ious) / len(ious)}


def _names(boxes: Sequence[tuple[Group, tuple[int, ...]]]) -> Boxes:
    return [((group.noun, group.colour), box) for group, box in boxes]


def _boxes(scene: Scene) -> Boxes:
    return [((BY_ID[thing.id].singular, thing.colour), thing.box) for thing in scene.things]


def judge_edit(truth: Truth, drawing: np.ndarray) -> Verdict:
    """`changed`: what the instruction asks is done; `unchanged`: all the rest is as before."""
    score = score_edit(truth, render(known(truth.before)), drawing)
    return Verdict({**score, truth.kind: score["all"]}, summary(read(drawing)))


def agreement(told: Facts, scene: Scene) -> dict[str, bool]:
    """Which of the facts hold in the scene, with nothing beside them; `objects`: their kinds."""
    kinds = {group.noun for group in told.groups} == {group.noun for group in members(scene)}
    return {"objects": kinds} | score_facts(told, scene)


def overlaps(wanted: Boxes, found: Boxes) -> list[float]:
    """For each wanted (name, box) its IoU with a found one of the same name, 0 if there is none.

    The best overlaps are paired first; nothing is found twice.
    """
    pairs = [
        (iou(box, other), i, j)
        for i, (name, box) in enumerate(wanted)
        for j, (found_name, other) in enumerate(found)
        if name == found_name
    ]
    chosen: dict[int, float] = {}
    taken: set[int] = set()
    for score, i, j in sorted(pairs, reverse=True):
        if i not in chosen and j not in taken:
            chosen[i] = score
            taken.add(j)
    return [chosen.get(i, 0.0) for i in range(len(wanted))]


def known(scene: Scene | None) -> Scene:
    """A scene that this kind of example has."""
    assert scene is not None
    return scene


def read(drawing: Drawing) -> Scene:
    return drawing if isinstance(drawing, Scene) else parse(drawing).scene


def summary(scene: Scene) -> str:
    """`seen: 2 red apples, 1 dog`, the groups of a scene in figures."""
    words = []
    for group in members(scene):
        noun = NOUNS[group.noun]
        named = [group.word or "", noun.singular if group.count == 1 else noun.plural]
        words.append(" ".join([str(group.count), *filter(None, named)]))
    tail = "" if scene.background == "white" else f" on {scene.background}"
    return f"seen: {', '.join(words) or 'nothing'}{tail}"


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
