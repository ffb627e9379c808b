"""Random scenes: which objects, how many, where.

A `World` says what there is to choose from, and which pairs of colour and object may appear.
"""

import functools
import random
from collections.abc import Callable, Sequence

from unified.worlds.emoji.language import Group
from unified.worlds.emoji.scene import (
    SINGLE,
    Scene,
    Spot,
    Thing,
    fits_beside,
    relation_of_groups,
    unit,
)
from unified.worlds.emoji.sprites import Style
from unified.worlds.emoji.vocabulary import NOUNS, SIZES, STYLES
from unified.worlds.emoji.world import MOST, World

PARTITIONS = {  # number of things -> sizes of its groups, more likely ones repeated
    1: ((1,),),
    2: ((2,), (1, 1), (1, 1)),
    3: ((3,), (2, 1), (2, 1), (1, 1, 1)),
    4: ((4,), (3, 1), (2, 2), (2, 1, 1)),
}
COUNT_WEIGHTS = (25, 35, 25, 15)  # of 1 to 4 things
STYLE_WEIGHTS = dict(zip(STYLES, (60, 20, 20), strict=True))
COLOURED = 0.6  # share of groups with a tint
CELL = 8  # centres of things are centres of such cells, pixels of 64: a model's patches repeat


def colour_for(rng: random.Random, noun: str, world: World) -> str | None:
    """A tint that may be used for the object, or None for its own colours."""
    if rng.random() >= COLOURED:
        return None
    return rng.choice([c for c in NOUNS[noun].colours if world.allows(c, noun)])


def group(rng: random.Random, count: int, world: World, others: Sequence[Group] = ()) -> Group:
    """A group that differs from `others` in noun or, sometimes, in colour alone."""
    if others and rng.random() < 0.15 and others[0].word:
        noun = others[0].noun
        taken = {other.colour for other in others if other.noun == noun}
        colours = [c for c in NOUNS[noun].colours if c not in taken and world.allows(c, noun)]
        return Group(count, noun, rng.choice(colours))
    taken = {other.noun for other in others}
    noun = rng.choice([name for name in world.nouns if name not in taken])
    return Group(count, noun, colour_for(rng, noun, world))


def sample(
    rng: random.Random,
    world: World,
    first: Group | None = None,
    most: int = MOST,
) -> Scene:
    """A scene of at most `most` things; `first`, if given, sets noun and colour of one group."""
    most = min(most, world.most)
    count = rng.choices(range(1, most + 1), COUNT_WEIGHTS[:most])[0]
    groups: list[Group] = []
    for size in rng.choice(PARTITIONS[count]):
        if first and not groups:
            groups.append(Group(size, first.noun, first.colour))
        else:
            groups.append(group(rng, size, world, groups))
    style = rng.choices(world.styles, [STYLE_WEIGHTS[style] for style in world.styles])[0]
    plain, *others = world.backgrounds
    background = plain if rng.random() < 0.7 or not others else rng.choice(others)
    return place(rng, groups, style, background, world.side)


def place(
    rng: random.Random, groups: Sequence[Group], style: Style, background: str, side: int = 64
) -> Scene:
    """Puts groups on a canvas, most often so that a relation holds between the first two."""
    owners = [group for group in groups for _ in range(group.count)]
    related = len(groups) > 1 and rng.random() < 0.75
    spots = free_spots(rng, len(owners), side)
    for _ in range(8 if related else 0):
        axis = rng.randrange(2)
        spots.sort(key=lambda spot: spot[axis], reverse=rng.random() < 0.5)
        end = groups[0].count
        if relation_of_groups(spots[:end], spots[end : end + groups[1].count]):
            break
        spots = free_spots(rng, len(owners), side)
    things = [
        Thing(NOUNS[group.noun].id, style, group.colour, *spot)
        for group, spot in zip(owners, spots, strict=True)
    ]
    return Scene(tuple(things), background, side)


def free_spots(rng: random.Random, count: int, side: int) -> list[Spot]:
    """`count` places that do not overlap; that of a single thing is the middle."""
    if side == SINGLE:
        return [Spot(side // 2, side // 2, SIZES[-1])]
    sizes = SIZES if count < 4 else SIZES[:1]
    while True:
        spots: list[Spot] = []
        for _ in range(8 * count):
            spot = _spot(rng, rng.choice(sizes), side)
            if fits_beside(spot, spots):
                spots.append(spot)
            if len(spots) == count:
                return spots


def free_spot(
    rng: random.Random, spots: Sequence[Spot], side: int, accept: Callable[[Spot], bool]
) -> Spot | None:
    """A place beside `spots` for which `accept(place)`, or None if none was found."""
    for _ in range(60):
        spot = _spot(rng, rng.choice(SIZES), side)
        if fits_beside(spot, spots) and accept(spot):
            return spot
    return None


def _spot(rng: random.Random, size: int, side: int) -> Spot:
    """A random place in a cell for a thing of `size` pixels on a canvas of 64."""
    places = _places(size, side)
    return Spot(rng.choice(places), rng.choice(places), size * unit(side))


@functools.cache
def _places(size: int, side: int) -> tuple[int, ...]:
    """Centres of cells, along one side, where such a thing stays on the canvas."""
    size, cell = size * unit(side), CELL * unit(side)
    return tuple(c for c in range(cell // 2, side, cell) if size <= 2 * c <= 2 * side - size)
