"""Questions about a scene, each with its answer and the answers it had to be chosen from."""

import dataclasses
import random

from unified.worlds.emoji.language import SURFACE, Group, members, phrase
from unified.worlds.emoji.scene import (
    OPPOSITE,
    REGIONS,
    RELATIONS,
    Scene,
    region,
    relation_of_groups,
)
from unified.worlds.emoji.sprites import COLOURS
from unified.worlds.emoji.vocabulary import BACKGROUNDS, KINDS, NOUNS, NUMBERS
from unified.worlds.emoji.world import QUESTIONS, World


@dataclasses.dataclass(frozen=True)
class Question:
    kind: str
    prompt: str
    answer: str
    choices: tuple[str, ...]


def refer(group: Group, groups: list[Group], rng: random.Random, colour: bool = True) -> str:
    """`the dog`, `the two red apples`: words that fit one group of the scene alone.

    Names the colour where the noun alone is ambiguous, otherwise at random or, if not `colour`,
    never.
    """
    shared = sum(other.noun == group.noun for other in groups) > 1
    if not shared and (not colour or rng.random() < 0.5):
        words = phrase(Group(group.count, group.noun), rng, colour=False)
    else:
        words = phrase(group, rng, colour=True)
    number, rest = words.split(" ", 1)
    keep = group.count > 1 and rng.random() < 0.5
    return f"the {number} {rest}" if keep else f"the {rest}"


def ask(
    scene: Scene,
    rng: random.Random,
    world: World,
    first: bool = False,
    kinds: tuple[str, ...] | None = None,
) -> Question:
    """A question of a random kind that the scene can answer; about its first group if `first`.

    Kinds are those of the world, or `kinds`; raises ValueError if none of them fits the scene.
    """
    groups = list(members(scene))
    group = groups[0] if first else rng.choice(groups)
    kinds = kinds or world.questions
    for kind in rng.sample(kinds, len(kinds)):
        found = _ASK[kind](scene, groups, group, rng, world)
        if found:
            return Question(kind, *found)
    raise ValueError(f"no question of kinds {kinds} fits {scene}")


def _what(scene, groups, group, rng, world):
    words = tuple(w for n in NOUNS.values() for w in (n.singular, n.plural))
    noun = NOUNS[group.noun]
    answer = noun.singular if group.count == 1 else noun.plural
    if len(groups) == 1:
        prompt = "what is this?" if group.count == 1 else "what are these?"
        return rng.choice((prompt, "what is in the picture?")), answer, words
    things = members(scene)
    for other in rng.sample(groups, len(groups)):
        related = other != group and relation_of_groups(things[group], things[other])
        rivals = (g for g in groups if g not in (group, other))
        if related and not any(relation_of_groups(things[g], things[other], 0) for g in rivals):
            where = rng.choice(SURFACE[related])
            return f"what is {where} {refer(other, groups, rng)}?", answer, words
    return None


def _count(scene, groups, group, rng, world):
    absent = rng.random() < 0.1
    noun = NOUNS[rng.choice([n for n in world.nouns if n not in {g.noun for g in groups}])]
    noun = noun if absent else NOUNS[group.noun]
    same = [g for g in groups if g.noun == noun.singular]
    word = ""
    if len(same) > 1 or (same and group.colour and rng.random() < 0.3):
        same, word = [group], f"{group.word} "
    prompt = rng.choice(("how many {} are there?", "how many {} do you see?", "count the {}"))
    return prompt.format(word + noun.plural), NUMBERS[sum(g.count for g in same)], NUMBERS


def _colour(scene, groups, group, rng, world):
    if not group.word or sum(other.noun == group.noun for other in groups) > 1:
        return None
    thing = refer(group, groups, rng, colour=False)
    verb = "are" if group.count > 1 else "is"
    prompt = rng.choice((f"what colour {verb} {thing}?", f"which colour {verb} {thing}?"))
    return prompt, group.word, tuple(COLOURS)


def _where(scene, groups, group, rng, world):
    things = members(scene)
    verb = "are" if group.count > 1 else "is"
    subject = refer(group, groups, rng)
    for other in rng.sample(groups, len(groups)):
        related = other != group and relation_of_groups(things[group], things[other])
        if related:
            return f"where {verb} {subject} from {refer(other, groups, rng)}?", related, RELATIONS
    corners = {region(thing, scene.side) for thing in things[group]}
    if len(corners) == 1 and (corner := corners.pop()):
        return f"where {verb} {subject}?", corner, REGIONS
    return None


def _yes_no(scene, groups, group, rng, world):
    truth = rng.random() < 0.5
    answer = "yes" if truth else "no"
    things = members(scene)
    for other in groups if rng.random() < 0.5 else ():
        related = other != group and relation_of_groups(things[group], things[other])
        if related:
            verb = "are" if group.count > 1 else "is"
            where = rng.choice(SURFACE[related if truth else OPPOSITE[related]])
            pair = f"{refer(group, groups, rng)} {where} {refer(other, groups, rng)}"
            return f"{verb} {pair}?", answer, ("yes", "no")
    asked = Group(1, group.noun, group.colour)
    if not truth:
        asked = _absent(groups, asked, rng, world)
    return f"is there {phrase(asked, rng)}?", answer, ("yes", "no")


def _absent(groups, group, rng, world) -> Group:
    """A group that is not in the scene, alike in colour or in noun."""
    present = {(g.noun, g.colour) for g in groups}
    nouns = {g.noun for g in groups}
    alike = [Group(1, group.noun, c) for c in NOUNS[group.noun].colours]
    other = rng.choice([n for n in world.nouns if n not in nouns])
    swaps = [
        Group(1, group.noun, g.colour) for g in groups if g.colour in NOUNS[group.noun].colours
    ]
    pool = swaps * 4 + alike if group.word else []
    pool = [g for g in pool if (g.noun, g.colour) not in present and world.allows(g.colour, g.noun)]
    return rng.choice(pool) if pool and rng.random() < 0.6 else Group(1, other)


def _kind(scene, groups, group, rng, world):
    if len(groups) > 1:
        return None
    prompt = rng.choice(("what kind of thing is this?", "which group does this belong to?"))
    return prompt, NOUNS[group.noun].kind, KINDS


def _background(scene, groups, group, rng, world):
    if scene.background == "white" and rng.random() < 0.7:
        return None
    return "what colour is the background?", scene.background, tuple(BACKGROUNDS)


_ASK = {
    "what": _what,
    "count": _count,
    "colour": _colour,
    "where": _where,
    "yes/no": _yes_no,
    "group": _kind,
    "background": _background,
}
assert tuple(_ASK) == QUESTIONS
