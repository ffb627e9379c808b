"""Verdicts: what a sentence, a drawing or an edit of a scene gets right, against the truth.

A drawing is judged as the scene that the parser reads from it. Measures are named in the order
of a table; `all` is the strict one: everything that was asked, and nothing else.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from unified.data.emoji import language
from unified.data.emoji.language import SURFACE, Facts, Group, members
from unified.data.emoji.scene import Scene, Thing, region, relation, relation_of_groups
from unified.data.emoji.tasks import Truth
from unified.data.emoji.vocabulary import BY_ID, NOUNS
from unified.evaluation.metric import iou

SAME_PLACE = 0.5  # IoU of two boxes that are taken for one place


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`measures`: True or False make rates, numbers make means. `seen` is what was understood."""

    measures: Mapping[str, bool | float]
    seen: str = ""

    @property
    def is_correct(self) -> bool | None:
        """The strict measure, None where there is none."""
        return bool(self.measures["all"]) if "all" in self.measures else None

    @property
    def reason(self) -> str:
        wrong = [name for name, good in self.measures.items() if good is False and name != "all"]
        parts = [f"read as {self.seen}"] if self.seen else []
        return "; ".join(parts + ([f"wrong: {', '.join(wrong)}"] if wrong else []))


def judge_answer(truth: Truth, text: str) -> Verdict:
    """A short answer: the same words."""
    same = _plain(text) == _plain(truth.answer)
    return Verdict({truth.kind: same, "all": same})


def judge_caption(truth: Truth, text: str) -> Verdict:
    """A description: what it states, beside what the picture shows. `words`: the very sentence."""
    words = {"words": _plain(text) == _plain(truth.answer)}
    try:
        told = language.read(text)
    except ValueError:
        wrong = ("objects", "count", "colour", "binding", "all")
        return Verdict(dict.fromkeys(wrong, False) | words, "no sentence about a scene")
    return Verdict(agreement(told, known(truth.before)) | words)


def judge_scene(truth: Truth, drawn: Scene) -> Verdict:
    """A drawing from words."""
    return Verdict(agreement(language.read(truth.prompt), drawn), summary(drawn))


def judge_layout(truth: Truth, drawn: Scene) -> Verdict:
    """A drawing from boxes. `iou`: mean over the boxes asked for, 0 where the object is missing."""
    told, boxes = language.read_layout(truth.prompt)
    wanted = [((group.noun, group.colour), box) for group, box in boxes]
    found = [(name_of(thing), thing.box) for thing in drawn.things]
    ious = [score for _, score in assign(wanted, found)]
    facts = agreement(told, drawn)
    facts["boxes"] = min(ious) >= SAME_PLACE
    facts["all"] = facts["all"] and facts["boxes"]
    return Verdict(facts | {"iou": sum(ious) / len(ious)}, summary(drawn))


def agreement(told: Facts, scene: Scene) -> dict[str, bool]:
    """Which of the facts hold in the scene, and whether they are all its objects.

    `objects`: the kinds of objects; `count`: how many of each kind; `colour`: the colours, whatever
    wears them; `binding` (of two groups or more): which object has which colour; `position` where a
    relation is told. `all`: the exact groups, the relations and the background; not the style,
    which at 18 pixels cannot always be told.
    """
    told_nouns: collections.Counter[str] = collections.Counter()
    nouns: collections.Counter[str] = collections.Counter()
    for group in told.groups:
        told_nouns[group.noun] += group.count
    shown = members(scene)
    for group in shown:
        nouns[group.noun] += group.count
    pairs = lambda groups: {(group.noun, group.colour) for group in groups}
    facts = {
        "objects": set(told_nouns) == set(nouns),
        "count": told_nouns == nouns,
        "colour": {g.word for g in told.groups} == {g.word for g in shown},
    }
    if len(told.groups) > 1:
        facts["binding"] = pairs(told.groups) == pairs(shown)
    if told.relations:
        facts["position"] = all(_holds(told.groups, at, name, shown) for at, name in told.relations)
    facts["background"] = told.background == scene.background
    facts["style"] = told.style == style_of(scene)
    exact = set(told.groups) == set(shown)
    placed = facts.get("position", True) and facts["background"]
    return facts | {"all": exact and placed}


def _holds(groups: Sequence[Group], at: int, name: str, shown: Mapping[Group, list]) -> bool:
    """Whether things of group `at` lie in direction `name` of those of the group after it."""
    things = {(g.noun, g.colour): things for g, things in shown.items()}
    a, b = (things.get((g.noun, g.colour), ()) for g in groups[at : at + 2])
    return relation_of_groups(a, b, margin=0) == name


def judge_edit(truth: Truth, drawn: Scene) -> Verdict:
    """`changed`: what the instruction asks is done; `unchanged`: all the rest is as before.

    As it was means: the same objects in the same colours at the same places, nothing else, and the
    background.
    """
    after = known(truth.after)
    kept = [thing for thing in after.things if _was_there(thing, truth)]
    new = [thing for thing in after.things if thing not in kept]
    wanted, found = ([(name_of(t), t.box) for t in ts] for ts in ([*kept, *new], drawn.things))
    pairs = assign(wanted, found)
    unchanged = (
        all(score >= SAME_PLACE for _, score in pairs[: len(kept)])
        and len(found) == len(wanted)
        and (truth.kind == "background" or drawn.background == after.background)
    )
    places = [i for i, _ in pairs[len(kept) :]]
    made = [(want, drawn.things[i]) for want, i in zip(new, places, strict=True) if i >= 0]
    changed = len(made) == len(new) and _is_done(truth, drawn, made)
    done = changed and unchanged
    measures = {"changed": changed, "unchanged": unchanged, truth.kind: done, "all": done}
    return Verdict(measures, summary(drawn))


def _was_there(thing: Thing, truth: Truth) -> bool:
    """Whether a thing is as it was before the edit, but for its style in an edit of the style."""
    old = {(name_of(t), t.spot): t.style for t in known(truth.before).things}
    style = old.get((name_of(thing), thing.spot))
    return style is not None and (truth.kind == "style" or style == thing.style)


def _is_done(truth: Truth, drawn: Scene, made: Sequence[tuple[Thing, Thing]]) -> bool:
    """Whether an instruction is carried out; `made` are the new things, as wanted and as drawn."""
    before, after, side = known(truth.before), known(truth.after), drawn.side
    same_place = lambda a, b: iou(a.box, b.box) >= SAME_PLACE
    match truth.kind:
        case "background":
            return drawn.background == after.background
        case "style":
            return style_of(drawn) == style_of(after)
        case "remove":
            gone = set(map(name_of, before.things)) - set(map(name_of, after.things))
            return gone.isdisjoint(map(name_of, drawn.things))
        case "add":
            beside = _anchor(truth)
            return not beside or all(relation(got, beside[0], 0) == beside[1] for _, got in made)
        case "move":
            old = {name_of(t): t for t in before.things}
            there = [region(got, side, 0) == region(want, side, 0) for want, got in made]
            return all(there) and not any(same_place(got, old[name_of(got)]) for _, got in made)
        case _:  # another colour, or another object in its place
            return all(same_place(want, got) for want, got in made)


_RELATIONS = {form: name for name, forms in SURFACE.items() for form in forms}
_WHERE = re.compile(rf" ({'|'.join(sorted(_RELATIONS, key=len, reverse=True))}) the (.+)$")


def _anchor(truth: Truth) -> tuple[Thing, str] | None:
    """The thing that an added one is placed beside, and on which side, where that is said."""
    told = _WHERE.search(truth.prompt)
    if not told:
        return None
    group = language.read_group(f"a {told[2]}")
    alike = [t for t in known(truth.before).things if BY_ID[t.id].singular == group.noun]
    named = [t for t in alike if t.colour == group.colour]
    return (named or alike)[0], _RELATIONS[told[1]]


def assign(wanted: Sequence[tuple], found: Sequence[tuple]) -> list[tuple[int, float]]:
    """For each wanted (name, box) a found one of the same name: its index (-1: none) and the IoU.

    The best overlaps are paired first; nothing is found twice.
    """
    pairs = [
        (iou(box, other), i, j)
        for i, (name, box) in enumerate(wanted)
        for j, (found_name, other) in enumerate(found)
        if name == found_name
    ]
    chosen = [(-1, 0.0)] * len(wanted)
    taken: set[int] = set()
    for score, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if chosen[i][0] < 0 and j not in taken:
            chosen[i] = (j, score)
            taken.add(j)
    return chosen


def known(scene: Scene | None) -> Scene:
    """A scene that this kind of example has."""
    assert scene is not None
    return scene


def style_of(scene: Scene) -> str | None:
    """The drawing style of most of the things."""
    styles = collections.Counter(thing.style for thing in scene.things)
    return styles.most_common(1)[0][0] if styles else None


def summary(scene: Scene) -> str:
    """`2 red apples, 1 dog`: the groups of a scene in figures."""
    words = []
    for group in members(scene):
        noun = NOUNS[group.noun]
        named = [group.word or "", noun.singular if group.count == 1 else noun.plural]
        words.append(" ".join([str(group.count), *filter(None, named)]))
    tail = "" if scene.background == "white" else f" on {scene.background}"
    return (", ".join(words) or "nothing") + tail


def name_of(thing: Thing) -> tuple[str, str | None]:
    return BY_ID[thing.id].singular, thing.colour


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
