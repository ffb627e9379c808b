"""How a picture is drawn: steps, their spacing, and guidance."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unified.generation.guidance import Guidance, Renorm
from unified.sequence import Segment


@dataclasses.dataclass(frozen=True)
class Drawing:
    """`steps` points of time (one Euler step fewer), `shift` moves them towards noise.

    `text_scale` and `image_scale` guide towards the text and the pictures of a request (1: not at
    all) at times within `interval`, `renorm` as in `Guidance`.
    """

    steps: int = 30
    shift: float = 3.0
    text_scale: float = 4.0
    image_scale: float = 1.5
    interval: tuple[float, float] = (0.0, 1.0)
    renorm: Renorm = "global"
    renorm_min: float = 0.0

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval must lie in [0, 1], low end first; got {self.interval}")
        if self.steps < 2 or self.shift <= 0:
            raise ValueError(f"need at least 2 steps and a positive shift, got {self}")
        self.guidance([])

    def guidance(self, requests: Sequence[Sequence[Segment]]) -> Guidance:
        """A scale for each request, 1 where it has no such condition; None where none has it."""

        def scale(modality: str, value: float) -> np.ndarray | None:
            has = [any(s.modality == modality for s in request) for request in requests]
            return np.where(has, value, 1.0).astype(np.float32) if any(has) and value != 1 else None

        return Guidance(
            scale("text", self.text_scale),
            scale("image", self.image_scale),
            self.interval,
            self.renorm,
            self.renorm_min,
        )
