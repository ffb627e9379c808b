"""Text: one slot a token, each seen from itself on, and the predictions of some."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from unified.lanes.lane import Content, Counts, Field, Lane
from unified.sequence import Array, Tokens, struct


@struct
class TextTokens:
    tokens: Tokens
    ids: Array  # int32 [B n]
    loss_index: Array  # int32 [B m], slots that predict
    loss_target: Array  # int32 [B m], the id that follows
    loss_weight: Array  # float32 [B m], 0 where unused


@dataclasses.dataclass(frozen=True)
class TextLane(Lane):
    """Token ids. `losses` is the most text predictions a row can hold."""

    budget: int = 0
    losses: int = 0

    arrays: ClassVar[type] = TextTokens
    modality: ClassVar[str] = "text"
    limits: ClassVar[tuple[str, ...]] = ("slots", "losses")
    round_to: ClassVar[int] = 128

    @property
    def slots(self) -> int:
        return self.budget

    @property
    def fields(self) -> dict[str, Field]:
        return {
            "ids": Field(),
            "loss_index": Field("losses", counts="slots"),
            "loss_target": Field("losses"),
            "loss_weight": Field("losses", dtype=np.float32),
        }

    def check(self) -> None:
        if self.losses >= self.budget:
            raise ValueError(f"lane {self.name!r}: losses must be fewer than budget {self.budget}")

    def write(self, content: Any, *, target: Any) -> Content:
        """Of ids, those that are a `target` (bool `[n]`) are predicted by the one before."""
        ids = np.asarray(content, np.int32)
        learnt = np.flatnonzero(target)
        return {
            "ids": ids,
            "loss_index": learnt - 1,
            "loss_target": ids[learnt],
            "loss_weight": np.ones(len(learnt), np.float32),
        }

    def starts(self, n: int) -> np.ndarray:
        return np.arange(n, dtype=np.int32)

    def resized(self, sizes: Counts) -> "TextLane":
        return dataclasses.replace(
            self, budget=sizes.get("slots", 0), losses=sizes.get("losses", 0)
        )
