"""What is shown of an evaluation: examples as cards, cards in sections."""

import dataclasses
import itertools
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Card:
    """One example, in reading order: (label, text or uint8 picture `[H W 3]`).

    `correct` is the verdict, None where there is none; `reason` says what is wrong.
    """

    parts: tuple[tuple[str, str | np.ndarray], ...]
    correct: bool | None = None
    reason: str = ""

    @property
    def runs(self) -> list[list[tuple[str, Any]]]:
        """Parts in order: pictures that follow one another together, and texts that do."""
        is_text = lambda part: isinstance(part[1], str)
        return [list(run) for _, run in itertools.groupby(self.parts, is_text)]

    @property
    def across(self) -> int:
        """Pictures side by side, at most."""
        return max((len(run) for run in self.runs if not isinstance(run[0][1], str)), default=0)


@dataclasses.dataclass(frozen=True)
class Section:
    """Cards of one task. `note` is a sentence under the title."""

    title: str
    cards: tuple[Card, ...]
    note: str = ""
