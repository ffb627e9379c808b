"""How a picture is drawn: steps, their spacing, and guidance."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from unified.generation.guidance import Guidance, Renorm
from unified.processes.autoregressive import Sampling
from unified.sequence import Segment


@dataclasses.dataclass(frozen=True)
class Drawing:
    """`steps` points of time (one Euler step fewer), `shift` moves them towards noise.

    `text_scale` and `image_scale` guide towards the text and the pictures of a request (1: not at
    all) at times within `interval`, `renorm` as in `Guidance`.

    Pictures that are codes have no times: they are drawn one by one, by `temperature`, `top_k` and
    `top_p` as in `Sampling`, from logits that the same scales guide.

    Of `candidates` pictures the one is kept that the model itself reads best: asked the question
    that `read_back` has for the task, it must find the text of the request a likely answer (as
    DALL-E ranks by another model, CLIP). Tasks without a question, and requests without text, have
    one candidate.

    Raises ValueError, naming the field that is wrong.
    """

    steps: int = 30
    shift: float = 3.0
    text_scale: float = 4.0
    image_scale: float = 1.5
    interval: tuple[float, float] = (0.0, 1.0)
    renorm: Renorm = "global"
    renorm_min: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    candidates: int = 1
    read_back: Mapping[str, str] = dataclasses.field(default_factory=dict)  # task -> question

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval must lie in [0, 1], low end first; got {self.interval}")
        for name, least, most in (("steps", 2, 10_000), ("candidates", 1, 1_000)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}={value} must be at least {least}")
            if value > most:
                raise ValueError(f"{name}={value} must be at most {most}")
        if not 1e-3 <= self.shift <= 1e3:
            raise ValueError(f"shift={self.shift} must be a positive number, from 0.001 to 1000")
        for name in ("text_scale", "image_scale"):
            if not abs(number := getattr(self, name)) <= 1e6:  # nor NaN
                raise ValueError(f"{name}={number} must be a number from -1e6 to 1e6")
        if not 0 <= self.renorm_min <= 1:
            raise ValueError(f"renorm_min={self.renorm_min} must be from 0 to 1")
        self.guidance([])
        self.sampling  # noqa: B018  (raises)

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p)

    def guidance(self, requests: Sequence[Sequence[Segment]]) -> Guidance:
        """A scale for each request, 1 where it has no such condition; no term where none has it."""
        terms = {}
        for drop, modality, value in (
            ("text", "text", self.text_scale),
            ("images", "image", self.image_scale),
        ):
            has = [any(s.modality == modality for s in request) for request in requests]
            if any(has) and value != 1:
                terms[drop] = np.where(has, value, 1.0).astype(np.float32)
        return Guidance.of(
            terms,
            interval=None if self.interval == (0, 1) else self.interval,  # all steps are at t > 0
            renorm=self.renorm,
            renorm_min=self.renorm_min,
        )
