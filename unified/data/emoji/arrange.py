"""Random scenes: which objects, how many, where.

`allowed(colour, noun)` says which pairs may appear, so that held-out pairs stay out of training.
"""

import functools
import random
from collections.abc import Callable, Sequence

from unified.data.emoji.language import Group
from unified.data.emoji.scene import Scene, Spot, Thing, fits_beside, relation_of_groups
from unified.data.emoji.sprites import Style
from unified.data.emoji.vocabulary import BACKGROUNDS, NOUNS, SIZES, STYLES

Allowed = Callable[[str | None, str], bool]

PARTITIONS = {  # number of things -> sizes of its groups, more likely ones repeated
    1: ((1,),),
    2: ((2,), (1, 1), (1, 1)),
    3: ((3,), (2, 1), (2, 1), (1, 1, 1)),
    4: ((4,), (3, 1), (2, 2), (2, 1, 1)),
}
COUNT_WEIGHTS = (25, 35, 25, 15)  # of 1 to 4 things
MOST = len(COUNT_WEIGHTS)
STYLE_WEIGHTS = (60, 20, 20)  # of vocabulary.STYLES
COLOURED = 0.6  # share of groups with a tint
NAMES = tuple(NOUNS)
CELL = 8  # centres of things are centres of such cells, pixels of 64: a model's patches repeat


def colour_for(rng: random.Random, noun: str, allowed: Allowed) -> str | None:
    """A tint that may be used for the object, or None for its own colours."""
    if rng.random() >= COLOURED:
        return None
    return rng.choice([c for c in NOUNS[noun].colours if allowed(c, noun)])


def group(rng: random.Random, count: int, allowed: Allowed, others: Sequence[Group] = ()) -> Group:
    """A group that differs from `others` in noun or, sometimes, in colour alone."""
    if others and rng.random() < 0.15 and others[0].word:
        noun = others[0].noun
        taken = {other.colour for other in others if other.noun == noun}
        colours = [c for c in NOUNS[noun].colours if c not in taken and allowed(c, noun)]
        return Group(count, noun, rng.choice(colours))
    taken = {other.noun for other in others}
    noun = rng.choice([name for name in NAMES if name not in taken])
    return Group(count, noun, colour_for(rng, noun, allowed))


def sample(
    rng: random.Random,
    allowed: Allowed,
    first: Group | None = None,
    side: int = 64,
    most: int = MOST,
) -> Scene:
    """A scene of at most `most` things; `first`, if given, sets noun and colour of one group."""
    count = rng.choices(range(1, most + 1), COUNT_WEIGHTS[:most])[0]
    groups: list[Group] = []
    for size in rng.choice(PARTITIONS[count]):
        if first and not groups:
            groups.append(Group(size, first.noun, first.colour))
        else:
            groups.append(group(rng, size, allowed, groups))
    style = rng.choices(STYLES, STYLE_WEIGHTS)[0]
    background = "white" if rng.random() < 0.7 else rng.choice(tuple(BACKGROUNDS)[1:])
    return place(rng, groups, style, background, side)


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
    """`count` places that do not overlap."""
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
    return Spot(rng.choice(places), rng.choice(places), size * (side // 64))


@functools.cache
def _places(size: int, side: int) -> tuple[int, ...]:
    """Centres of cells, along one side, where such a thing stays on the canvas."""
    unit = side // 64
    size, cell = size * unit, CELL * unit
    return tuple(c for c in range(cell // 2, side, cell) if size <= 2 * c <= 2 * side - size)
