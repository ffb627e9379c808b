"""Whether a picture is right: what was asked for beside what the parser reads.

Every function returns one bool per kind. `all` holds where every other kind holds.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unified.worlds.emoji.language import Facts, Group, members
from unified.worlds.emoji.parser import parse
from unified.worlds.emoji.scene import (
    Scene,
    Thing,
    mask,
    relation,
    relation_of_groups,
    render,
    unit,
)
from unified.worlds.emoji.truth import Truth

REACH = 3  # pixels of 64 that a centre may be off
DRIFT = 6.0  # mean change of a pixel, of 255, that counts as none (an autoencoder makes 2 to 4)
# The same over the ink of one thing. The largest of a picture is 5 to 14 after an autoencoder (5th
# and 95th percentile of 60 scenes), 14 to 44 after a Gaussian blur of 1.5 pixels.
INK_DRIFT = 18.0


def score_facts(facts: Facts, seen: Scene) -> dict[str, bool]:
    """What a sentence says, in a scene as read.

    `count`: of each noun; `colour`: of each colour word, whatever wears it; `binding`: of each
    coloured noun; `position`: the relations, where some are told; `style`; `background`.
    """
    groups = members(seen)
    kinds = _multisets(facts.groups, tuple(groups))
    if facts.relations:
        kinds["position"] = all(
            _related(groups, facts.groups[i], facts.groups[i + 1], said)
            for i, said in facts.relations
        )
    styles = Counter(thing.style for thing in seen.things).most_common(1)
    kinds["style"] = bool(styles) and styles[0][0] == facts.style
    kinds["background"] = seen.background == facts.background
    return kinds | {"all": all(kinds.values())}


def score_scene(truth: Scene, seen: Scene) -> dict[str, bool]:
    """The same for a scene known exactly; `position`: every centre is within `REACH`."""
    kinds = _multisets(tuple(members(truth)), tuple(members(seen)))
    kinds["position"] = _left_over(truth.things, seen.things, REACH * unit(truth.side)) is not None
    kinds["background"] = seen.background == truth.background
    return kinds | {"all": all(kinds.values())}


def score_edit(truth: Truth, source: np.ndarray, picture: np.ndarray) -> dict[str, bool]:
    """Whether `picture` is `source` with the edit carried out (both uint8 `[H W 3]`).

    `changed`: what the edit brings in is there (an added thing where the instruction wants it), and
    what it takes away is gone. `unchanged`: all other things are where they were, and away from
    the edit no pixel changes on average more than `DRIFT`; of another background, no thing on it
    more than `INK_DRIFT`. Raises ValueError for a truth that is no edit of a scene.
    """
    if truth.before is None or truth.after is None or truth.icon:
        raise ValueError(f"not an edit of a scene: {truth}")
    seen = parse(picture).scene
    before, after = set(truth.before.things), set(truth.after.things)
    reach = REACH * unit(truth.after.side)
    others = _left_over([t for t in truth.before.things if t in after], seen.things, reach)
    edited = seen.things if others is None else others  # what is not accounted for
    changed = others is not None and _is_changed(truth, seen, edited, reach)
    if truth.kind == "background":
        kept = _ink_drift(truth.after, picture) <= INK_DRIFT
    else:
        kept = _drift(source, picture, [*(before ^ after), *edited]) <= DRIFT
    unchanged = others is not None and kept
    return {"changed": changed, "unchanged": unchanged, "all": changed and unchanged}


def _is_changed(truth: Truth, seen: Scene, edited: Sequence[Thing], reach: int) -> bool:
    """Whether `edited`, the things that were not there before, are just what the edit brings in."""
    assert truth.before is not None and truth.after is not None
    wanted = [t for t in truth.after.things if t not in truth.before.things]
    styles = Counter(thing.style for thing in seen.things).most_common(1)
    right = [
        seen.background == truth.after.background,
        _left_over(wanted, edited, None if truth.kind == "add" else reach) == [],
        truth.kind != "style" or (bool(styles) and styles[0][0] == wanted[0].style),
        not truth.place or any(relation(t, truth.place[1], 0) == truth.place[0] for t in edited),
    ]
    return all(right)


def _multisets(told: Sequence[Group], seen: Sequence[Group]) -> dict[str, bool]:
    kinds = {
        "count": lambda group: group.noun,
        "colour": lambda group: group.word,
        "binding": lambda group: (group.noun, group.colour),
    }
    return {kind: _tally(told, key) == _tally(seen, key) for kind, key in kinds.items()}


def _tally(groups: Sequence[Group], key) -> Counter:
    return Counter(key(group) for group in groups for _ in range(group.count))


def _related(groups: dict[Group, list[Thing]], a: Group, b: Group, said: str) -> bool:
    of = {(group.noun, group.colour): things for group, things in groups.items()}
    first, second = of.get((a.noun, a.colour)), of.get((b.noun, b.colour))
    if not first or not second:
        return False
    return relation_of_groups(first, second, 0) == said


def _left_over(
    wanted: Sequence[Thing], seen: Sequence[Thing], reach: int | None
) -> list[Thing] | None:
    """`seen` without a match for each of `wanted` (any place, if `reach` is None), or None."""
    left = list(seen)
    for thing in wanted:
        far = lambda other, thing=thing: max(abs(other.x - thing.x), abs(other.y - thing.y))
        alike = [o for o in left if (o.id, o.colour) == (thing.id, thing.colour)]
        match = min(alike, key=far, default=None)
        if match is None or (reach is not None and far(match) > reach):
            return None
        left.remove(match)
    return left


def _drift(source: np.ndarray, picture: np.ndarray, edited: Sequence[Thing]) -> float:
    """Mean absolute change outside the boxes of `edited`, with two pixels around them."""
    outside = np.ones(source.shape[:2], bool)
    for thing in edited:
        left, top, right, bottom = thing.box
        outside[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
    change = np.abs(source.astype(int) - picture)[outside]
    return float(change.mean()) if change.size else 0.0


def _ink_drift(scene: Scene, picture: np.ndarray) -> float:
    """Mean absolute change inside the ink of a thing of `scene`, the largest over its things."""
    change = np.abs(render(scene).astype(int) - picture)
    owner = mask(scene)
    return max(float(change[owner == i].mean()) for i in range(len(scene.things)))
