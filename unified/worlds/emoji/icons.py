"""Icons: one big drawing of any of the 3,006 concepts, its name, and its siblings.

A sibling differs in one thing that an instruction can name: skin tone, or one word of the name
(a colour, a direction, a gender).
"""

import collections
import dataclasses
import functools
import random

from unified.worlds.emoji import sprites
from unified.worlds.emoji.edits import Edit
from unified.worlds.emoji.holdout import is_held_out_concept
from unified.worlds.emoji.questions import Question
from unified.worlds.emoji.scene import Scene, Thing
from unified.worlds.emoji.sprites import Concept, Style, concepts
from unified.worlds.emoji.vocabulary import BACKGROUNDS

TONES = ("no", "light", "medium-light", "medium", "medium-dark", "dark")
FAMILIES = (  # words that may replace one another in a name
    (*sprites.COLOURS, "white", "grey", "light blue"),
    ("left", "right", "up", "down"),
    ("man", "woman", "person"),
    ("men", "women", "people"),
    ("boy", "girl", "child"),
)
GROUPS = (
    "smileys-emotion",
    "people-body",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
    "symbols",
    "flags",
)


@functools.cache
def pool(held_out: bool) -> tuple[tuple[Concept, ...], tuple[Concept, ...]]:
    """Base concepts and skin-tone variants, held out from training or not."""
    chosen = [c for c in concepts().values() if is_held_out_concept(c.base) == held_out]
    return tuple(c for c in chosen if not c.tone), tuple(c for c in chosen if c.tone)


@functools.cache
def siblings() -> dict[str, tuple[tuple[str, str], ...]]:
    """For each base id, the ids whose names differ in one word of a family, and that word."""
    families = collections.defaultdict(list)
    for concept in pool(False)[0] + pool(True)[0]:
        padded = f" {concept.caption} "
        for family in FAMILIES:
            for word in family:
                if f" {word} " in padded:
                    key = (family, concept.subgroup, padded.replace(f" {word} ", " * ", 1))
                    families[key].append((concept.id, word))
    found: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    for members in families.values():
        for id, _ in members:
            found[id].extend((other, word) for other, word in members if other != id)
    return {id: tuple(others) for id, others in found.items() if others}


@functools.cache
def tones() -> dict[str, tuple[str, ...]]:
    """For each base id that has skin tones, the ids of tones 0 to 5."""
    found: dict[str, dict[int, str]] = collections.defaultdict(dict)
    for concept in concepts().values():
        found[concept.base][concept.tone] = concept.id
    return {
        base: tuple(ids[t] for t in range(6))
        for base, ids in found.items()
        if set(ids) == set(range(6))
    }


def draw(concept: Concept, style: Style, background: str = "white", side: int = 64) -> Scene:
    """The concept alone, filling seven eighths of the canvas."""
    centre = side // 2
    thing = Thing(concept.id, style, None, centre, centre, side * 7 // 8)
    return Scene((thing,), background, side)


def sample(rng: random.Random, held_out: bool, side: int = 64) -> Scene:
    """One concept, most often a base concept in the flat style, on a plain background."""
    base, toned = pool(held_out)
    concept = rng.choice(base if rng.random() < 0.8 or not toned else toned)
    flat = "flat" in concept.styles and rng.random() < 0.5
    style = "flat" if flat else rng.choice(concept.styles)
    background = "white" if rng.random() < 0.8 else rng.choice(tuple(BACKGROUNDS)[1:])
    return draw(concept, style, background, side)


def of(scene: Scene) -> Concept:
    return concepts()[scene.things[0].id]


def describe(scene: Scene, rng: random.Random) -> str:
    """`an icon of a red apple` and the like. The style is told unless it is flat."""
    style = scene.things[0].style
    told = style != "flat" or rng.random() < 0.1
    forms = ("{} icon of {}", "{} icon: {}") if told else ("{}icon of {}", "{}icon: {}")
    text = rng.choice(forms).format(style if told else "", of(scene).caption)
    return text + ("" if scene.background == "white" else f" on {scene.background}")


def ask(scene: Scene, rng: random.Random) -> Question:
    """A question about an icon: its name, group, style, or whether it is some named thing."""
    concept, kind = of(scene), rng.choice(("name", "group", "style", "yes/no"))
    if kind == "name":
        names = tuple(c.caption for c in concepts().values())
        prompt = rng.choice(("what is this icon?", "name this icon"))
        return Question("icon name", prompt, concept.caption, names)
    if kind == "group":
        return Question("icon group", "which group is this icon in?", concept.group, GROUPS)
    if kind == "style":
        style = scene.things[0].style
        return Question("icon style", "which style is this icon?", style, sprites.STYLES)
    truth = rng.random() < 0.5
    base, _ = pool(is_held_out_concept(concept.base))
    asked = concept if truth else rng.choice([c for c in base[:400] if c.id != concept.base])
    answer = "yes" if truth else "no"
    return Question("icon yes/no", f"is this icon {asked.caption}?", answer, ("yes", "no"))


def edit(scene: Scene, rng: random.Random) -> Edit:
    """Another style, another skin tone, or another word of the name."""
    concept, (thing,) = of(scene), scene.things
    swaps: list[tuple[str, str, str, Style]] = []  # kind, instruction, id, style
    for style in concept.styles:
        if style != thing.style:
            text = rng.choice((f"redraw it in {style} style", f"make it {style}"))
            swaps.append(("icon style", text, concept.id, style))
    for tone, id in enumerate(tones().get(concept.base, ())):
        if tone != concept.tone and thing.style in concepts()[id].styles:
            words = f"{TONES[tone]} skin tone"
            text = rng.choice((f"change it to {words}", f"give it {words}"))
            swaps.append(("icon tone", text, id, thing.style))
    for id, word in siblings().get(concept.id, ()):
        same = is_held_out_concept(id) == is_held_out_concept(concept.base)
        if same and thing.style in concepts()[id].styles:
            swaps.append(("icon word", f"change it to {word}", id, thing.style))
    kind = rng.choice(sorted({swap[0] for swap in swaps}))
    _, text, id, style = rng.choice([swap for swap in swaps if swap[0] == kind])
    return Edit(kind, text, scene.with_things([dataclasses.replace(thing, id=id, style=style)]))
