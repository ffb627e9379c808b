"""Sentences about scenes: `say` writes facts down in one of many ways, `read` reads them back.

The grammar, with `[]` optional and `|` a choice:

    sentence  [draw] [a [style] picture of] item {, item} [and item] [on [a] plain [background]]
    item      group [[is | are] [to the] relation group]
    group     number [colour] noun
    plain     light blue, ... (`vocabulary.BACKGROUNDS`; white where it is not told)

A colour that is natural to an object (a red apple) says no more than the noun alone.
"""

import collections
import dataclasses
import random
import re

from unified.worlds.emoji import vocabulary
from unified.worlds.emoji.scene import Scene, Thing, relation_of_groups
from unified.worlds.emoji.sprites import COLOURS
from unified.worlds.emoji.vocabulary import BACKGROUNDS, NOUNS, NUMBERS, STYLES, article


@dataclasses.dataclass(frozen=True)
class Group:
    """All objects of one kind and colour. `colour` None is the natural drawing."""

    count: int
    noun: str
    colour: str | None = None

    @property
    def word(self) -> str | None:
        """The colour to name: the tint, or the natural colour where the object has one."""
        return self.colour or NOUNS[self.noun].natural


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a sentence says. A relation `(i, r)` means: group i is `r` group i + 1."""

    groups: tuple[Group, ...]
    relations: tuple[tuple[int, str], ...] = ()
    style: str = "flat"
    background: str = "white"


def members(scene: Scene) -> dict[Group, list[Thing]]:
    """The groups of a scene with their things, in order of first appearance."""
    found: dict[tuple[str, str | None], list[Thing]] = {}
    for thing in scene.things:
        found.setdefault((vocabulary.BY_ID[thing.id].singular, thing.colour), []).append(thing)
    return {Group(len(things), *key): things for key, things in found.items()}


def facts(scene: Scene, rng: random.Random, relations: bool = True) -> Facts:
    """What to say of a scene: all its groups in some order and, where there is one, a relation."""
    things = members(scene)
    order = rng.sample(list(things), len(things))
    said: tuple[tuple[int, str], ...] = ()
    if relations and len(order) > 1:
        related = relation_of_groups(things[order[0]], things[order[1]])
        said = ((0, related),) if related else ()
    return Facts(tuple(order), said, scene.things[0].style, scene.background)


def phrase(group: Group, rng: random.Random, colour: bool | None = None) -> str:
    """`a red apple`, `two dogs`; a natural colour is named if `colour`, at random if None."""
    word = group.word
    if group.colour is None and not (rng.random() < 0.5 if colour is None else colour):
        word = None
    noun = NOUNS[group.noun]
    words = f"{word} " if word else ""
    if group.count == 1:
        return article(words + noun.singular)
    return f"{NUMBERS[group.count]} {words}{noun.plural}"


SURFACE = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def say(said: Facts, rng: random.Random) -> str:
    """One of many sentences whose meaning is exactly `said`: `read(say(f, rng)) == f`."""
    phrases = [phrase(group, rng) for group in said.groups]
    framed = said.style != "flat" or rng.random() < 0.4
    items, related = [], dict(said.relations)
    i = 0
    while i < len(phrases):
        item = phrases[i]
        if i in related:
            verb = "are " if said.groups[i].count > 1 else "is "
            verb = verb if not framed and rng.random() < 0.5 else ""
            item += f" {verb}{rng.choice(SURFACE[related[i]])} {phrases[i + 1]}"
            i += 1
        items.append(item)
        i += 1
    text = ", ".join(items[:-1]) + " and " * (len(items) > 1) + items[-1]
    if said.background != "white":
        colour = said.background
        text += rng.choice((f" on {colour}", f" on a {colour} background"))
    if not framed:
        return text
    style = f"{said.style} " if said.style != "flat" or rng.random() < 0.1 else ""
    return f"a {style}picture of {text}"


def describe(scene: Scene, rng: random.Random) -> str:
    """A caption of the scene: every object, colour and count, often a relation."""
    return say(facts(scene, rng), rng)


def _any(words) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_CANONICAL = {form: name for name, forms in SURFACE.items() for form in forms}
_COUNTS = {word: i for i, word in enumerate(NUMBERS)} | {"a": 1, "an": 1}
_HEAD = re.compile(rf"(?:draw )?(?:a (?:({_any(STYLES)}) )?picture of )?")
_TAIL = re.compile(rf" on (?:an? )?({_any(BACKGROUNDS)})(?: background)?$")
_ITEM = re.compile(rf"(.+?)(?: (?:is |are )?({_any(_CANONICAL)}) (.+))?")
_GROUP = re.compile(rf"({_any(_COUNTS)}) (?:({_any(COLOURS)}) )?({_any(vocabulary.BY_WORD)})")


def read(text: str) -> Facts:
    """The facts a sentence states. Raises ValueError where it is not a sentence of the grammar."""
    body = text.strip().lower().rstrip(".")
    style, body, background = _frame(_HEAD, body)
    groups: list[Group] = []
    relations = []
    for item in re.split(r", | and ", body):
        match = _ITEM.fullmatch(item)
        parts = (match[1], match[3]) if match and match[2] else (item,)
        if match and match[2]:
            relations.append((len(groups), _CANONICAL[match[2]]))
        groups.extend(map(read_group, parts))
    return Facts(tuple(groups), tuple(relations), style, background)


def _frame(start: re.Pattern, text: str) -> tuple[str, str, str]:
    """Style, what is between `start` and the background, background."""
    head, tail = start.match(text), _TAIL.search(text)
    if not head:
        raise ValueError(f"no {start.pattern!r} at the start of {text!r}")
    body = text[head.end() : tail.start() if tail else None]
    return head[1] or "flat", body, tail[1] if tail else "white"


def read_group(text: str) -> Group:
    match = _GROUP.fullmatch(text)
    if not match:
        raise ValueError(f"not an object with its number: {text!r}")
    noun = vocabulary.BY_WORD[match[3]]
    colour = None if match[2] == noun.natural else match[2]
    return Group(_COUNTS[match[1]], noun.singular, colour)


def say_layout(scene: Scene, rng: random.Random, in_order: bool = False) -> str:
    """Every object with its box: `layout: red apple [4 10 28 34], dog [30 2 48 20]`.

    `in_order`: as one reads, from the highest box to the lowest; otherwise in random order.
    """
    named: list[tuple[tuple[int, ...], str]] = []
    for group, things in members(scene).items():
        name = phrase(dataclasses.replace(group, count=1), rng).split(" ", 1)[1]
        named.extend((thing.box, name) for thing in things)
    if in_order:
        named.sort(key=lambda item: (item[0][1], item[0][0]))
    else:
        rng.shuffle(named)
    parts = (f"{name} [{' '.join(map(str, box))}]" for box, name in named)
    style = "" if scene.things[0].style == "flat" else f"{scene.things[0].style} "
    tail = "" if scene.background == "white" else f" on {scene.background}"
    return f"{style}layout: {', '.join(parts)}{tail}"


_LAYOUT = re.compile(rf"(?:({_any(STYLES)}) )?layout: ")
_BOX = re.compile(r"(.+) \[(\d+) (\d+) (\d+) (\d+)\]")


def read_layout(text: str) -> tuple[Facts, tuple[tuple[Group, tuple[int, ...]], ...]]:
    """The facts of a layout and each object's box. Raises ValueError where it is not one."""
    body = text.strip().lower()
    style, body, background = _frame(_LAYOUT, body)
    boxes = []
    for item in body.split(", "):
        match = _BOX.fullmatch(item)
        if not match:
            raise ValueError(f"not an object with its box: {item!r}")
        boxes.append((read_group(f"a {match[1]}"), tuple(map(int, match.groups()[1:]))))
    counts = collections.Counter(group for group, _ in boxes)
    groups = tuple(dataclasses.replace(group, count=n) for group, n in counts.items())
    return Facts(groups, (), style, background), tuple(boxes)
