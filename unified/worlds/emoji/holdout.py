"""What training never sees: a few concepts, and a few pairs of a colour and an object.

Membership is a hash of the name, so it depends on neither seed, order nor the rest of the set.
"""

import zlib
from typing import Literal

from unified.worlds.emoji import vocabulary

Split = Literal["train", "validation", "heldout", "concepts"]

SPLITS: tuple[Split, ...] = ("train", "validation", "heldout", "concepts")
PAIRS = 10  # per cent of (colour, object) pairs held out
CONCEPTS = 5  # per cent of base concepts held out


def _within(name: str, per_cent: int) -> bool:
    return zlib.crc32(name.encode()) % 100 < per_cent


def is_held_out_pair(colour: str | None, noun: str) -> bool:
    """Whether no training scene or text may join this tint and this object (singular noun)."""
    return colour is not None and _within(f"{colour} {noun}", PAIRS)


def is_held_out_concept(base: str) -> bool:
    """Whether the concept with this base id, all skin tones included, is never trained on."""
    return base not in vocabulary.BY_ID and _within(base, CONCEPTS)
