"""Edits of a scene: an instruction, and the scene that carries it out."""

import dataclasses
import random
from collections.abc import Callable

from unified.worlds.emoji.arrange import colour_for, free_spot
from unified.worlds.emoji.language import SURFACE, Group, members, phrase
from unified.worlds.emoji.questions import refer
from unified.worlds.emoji.scene import REGIONS, Scene, Spot, Thing, fits, relation
from unified.worlds.emoji.vocabulary import NOUNS
from unified.worlds.emoji.world import EDITS, World


@dataclasses.dataclass(frozen=True)
class Edit:
    """`place`, if the instruction says it, is where the thing that comes in must be: a relation
    and the thing it is seen from."""

    kind: str
    instruction: str
    after: Scene
    place: tuple[str, Thing] | None = None


def edit(
    scene: Scene,
    rng: random.Random,
    world: World,
    first: bool = False,
    new: Group | None = None,
) -> Edit:
    """A random edit of the scene; of its first group if `first`.

    `new`, if given, is the noun and colour that the edit brings in (by recolouring, where the
    first group has that noun, by adding or by replacing).
    """
    groups = list(members(scene))
    group = groups[0] if first or new else rng.choice(groups)
    weights = {"recolour": 3, "add": 1, "replace": 1} if new else EDIT_WEIGHTS
    weights = {kind: weight for kind, weight in weights.items() if kind in world.edits}
    for kind in rng.choices(tuple(weights), tuple(weights.values()), k=100):
        found = _EDIT[kind](scene, groups, group, rng, world, new)
        if found:
            return Edit(kind, *found)
    raise ValueError(f"no edit of {tuple(weights)} fits {scene} (to bring in: {new})")


def _changed(scene: Scene, group: Group, change: Callable[[Thing], Thing]) -> Scene:
    things = members(scene)[group]
    return scene.with_things(change(t) if t in things else t for t in scene.things)


def _recolour(scene, groups, group, rng, world, new):
    noun = NOUNS[group.noun]
    taken = {g.colour for g in groups if g.noun == group.noun}
    natural = (None,) if noun.natural else ()
    colours = [c for c in noun.colours + natural if c not in taken and world.allows(c, group.noun)]
    if new:
        colours = [new.colour] if new.noun == group.noun and new.colour not in taken else []
    if not colours:
        return None
    colour = rng.choice(colours)
    word, subject = colour or noun.natural, refer(group, groups, rng)
    text = rng.choice(("make {} {}", "paint {} {}", "turn {} {}", "change the colour of {} to {}"))
    after = _changed(scene, group, lambda t: dataclasses.replace(t, colour=colour))
    return text.format(subject, word), after


def _newcomer(groups, rng, world, new) -> Group | None:
    if new:
        present = any((g.noun, g.colour) == (new.noun, new.colour) for g in groups)
        return None if present else Group(1, new.noun, new.colour)
    noun = rng.choice([n for n in world.nouns if all(n != g.noun for g in groups)])
    return Group(1, noun, colour_for(rng, noun, world))


def _add(scene, groups, group, rng, world, new):
    added, where, place = _newcomer(groups, rng, world, new), "", None
    if not added or len(scene.things) >= world.most:
        return None
    if group.count == 1 and rng.random() < 0.7:
        (anchor,) = members(scene)[group]
        related = rng.choice(tuple(SURFACE))
        where = f" {rng.choice(SURFACE[related])} {refer(group, groups, rng)}"
        place = (related, anchor)
    accept = lambda spot: not place or relation(spot, place[1]) == place[0]
    spot = free_spot(rng, [t.spot for t in scene.things], scene.side, accept)
    if not spot:
        return None
    thing = Thing(NOUNS[added.noun].id, scene.things[0].style, added.colour, *spot)
    text = (
        f"{rng.choice(('add', 'put', 'draw') if where else ('add',))} {phrase(added, rng)}{where}"
    )
    return text, scene.with_things((*scene.things, thing)), place


def _remove(scene, groups, group, rng, world, new):
    if len(groups) < 2:
        return None
    text = f"{rng.choice(('remove', 'delete', 'take away', 'erase'))} {refer(group, groups, rng)}"
    gone = members(scene)[group]
    return text, scene.with_things(t for t in scene.things if t not in gone)


def _replace(scene, groups, group, rng, world, new):
    other = _newcomer(groups, rng, world, new)
    if not other:
        return None
    other = dataclasses.replace(other, count=group.count)
    phrased = phrase(other, rng)
    phrased = phrased.split(" ", 1)[1] if other.count > 1 else phrased
    change = lambda t: dataclasses.replace(t, id=NOUNS[other.noun].id, colour=other.colour)
    text = rng.choice(("replace {} with {}", "turn {} into {}", "change {} to {}"))
    return text.format(refer(group, groups, rng), phrased), _changed(scene, group, change)


def _move(scene, groups, group, rng, world, new):
    if group.count > 1:
        return None
    (thing,) = members(scene)[group]
    where = rng.choice(REGIONS)
    x, y = (scene.side * (13 if word in where else 3) // 16 for word in ("right", "bottom"))
    others = [t.spot for t in scene.things if t != thing]
    if abs(x - thing.x) + abs(y - thing.y) < scene.side // 4:
        return None
    if not fits([*others, Spot(x, y, thing.size)], scene.side):
        return None
    text = f"move {refer(group, groups, rng)} to the {where}"
    return text, _changed(scene, group, lambda t: dataclasses.replace(t, x=x, y=y))


def _style(scene, groups, group, rng, world, new):
    styles = [s for s in world.styles if s != scene.things[0].style]
    if not styles:
        return None
    style = rng.choice(styles)
    text = rng.choice(("redraw it in {} style", "make it {}", "change the style to {}"))
    restyled = (dataclasses.replace(t, style=style) for t in scene.things)
    return text.format(style), scene.with_things(restyled)


def _background(scene, groups, group, rng, world, new):
    colours = [b for b in world.backgrounds if b != scene.background]
    if not colours:
        return None
    colour = rng.choice(colours)
    text = rng.choice(("make the background {}", "change the background to {}"))
    return text.format(colour), dataclasses.replace(scene, background=colour)


_EDIT = {
    "recolour": _recolour,
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "style": _style,
    "background": _background,
}
EDIT_WEIGHTS = {
    "recolour": 3,
    "add": 2,
    "remove": 2,
    "replace": 2,
    "move": 2,
    "style": 1,
    "background": 1,
}
assert tuple(_EDIT) == EDITS
