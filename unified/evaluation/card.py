"""What is shown of an evaluation: examples as cards, cards in sections."""

import dataclasses

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
    def pictures(self) -> list[tuple[str, np.ndarray]]:
        return [(label, part) for label, part in self.parts if not isinstance(part, str)]

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(label, part) for label, part in self.parts if isinstance(part, str)]


@dataclasses.dataclass(frozen=True)
class Section:
    """Cards of one task. `note` is a sentence under the title."""

    title: str
    cards: tuple[Card, ...]
    note: str = ""
