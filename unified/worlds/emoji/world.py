"""What scenes are made of: which objects, how many, in which styles, and what is asked of them."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from unified.worlds.emoji.holdout import is_held_out_pair
from unified.worlds.emoji.scene import SINGLE, unit
from unified.worlds.emoji.sprites import Style
from unified.worlds.emoji.vocabulary import BACKGROUNDS, NOUNS, STYLES

MOST = 4  # things in a scene
QUESTIONS = ("what", "count", "colour", "where", "yes/no", "group", "background")
EDITS = ("recolour", "add", "remove", "replace", "move", "style", "background")


@dataclasses.dataclass(frozen=True)
class World:
    """The choice that scenes, questions and edits are drawn from; each is all there is by default.

    `side` of pictures in pixels: a multiple of 64, or 32 for one large thing in the middle. `most`
    things in a scene; `questions` and `edits` name kinds. `any_pair`: pairs of colour and object
    that are kept from training may appear.

    Raises ValueError, naming the field, for what there is not and for what leaves nothing.
    """

    side: int = 64
    nouns: tuple[str, ...] = tuple(NOUNS)
    styles: tuple[Style, ...] = STYLES
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)
    most: int = MOST
    questions: tuple[str, ...] = QUESTIONS
    edits: tuple[str, ...] = EDITS
    any_pair: bool = False

    def __post_init__(self):
        known: Mapping[str, Collection[str]] = {
            "nouns": NOUNS,
            "styles": STYLES,
            "backgrounds": BACKGROUNDS,
            "questions": QUESTIONS,
            "edits": EDITS,
        }
        for field, names in known.items():
            chosen = tuple(getattr(self, field))
            object.__setattr__(self, field, chosen)
            if not chosen or set(chosen) - set(names):
                raise ValueError(f"world.{field}={chosen}: choose from {', '.join(names)}")
        if len(self.nouns) <= self.most:
            raise ValueError(f"world.nouns={self.nouns}: more than world.most={self.most} at least")
        unit(self.side)
        room = 1 if self.side == SINGLE else MOST
        if not 1 <= self.most <= room:
            raise ValueError(f"world.most={self.most}: 1 to {room} on {self.side} pixels a side")

    def allows(self, colour: str | None, noun: str) -> bool:
        """Whether a scene may join this tint and this object."""
        return self.any_pair or not is_held_out_pair(colour, noun)


def world(fields: Mapping[str, Any]) -> World:
    """The world of the fields that a config gives. Raises ValueError for one that is unknown."""
    names = [field.name for field in dataclasses.fields(World)]
    if unknown := sorted(set(fields) - set(names)):
        raise ValueError(f"world: unknown {unknown}; there are {names}")
    return World(**fields)
