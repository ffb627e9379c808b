"""What evaluation asks of a model, whatever it is made of."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from unified.sequence import Segment


@runtime_checkable
class Model(Protocol):
    """What is evaluated. Pictures are uint8 `[H W 3]`; a request is what an example lets read."""

    def answer(self, requests: Sequence[Sequence[Segment]], *, task: str) -> Sequence[str]: ...

    def draw(
        self, requests: Sequence[Sequence[Segment]], *, seeds: Sequence[int], task: str
    ) -> Sequence[np.ndarray]: ...

    def reconstruct(self, pictures: np.ndarray) -> np.ndarray:
        """[n H W 3] through the model's own tokens of pictures and back."""
