"""Several pictures for each request, of which the one is kept that the model reads best.

As DALL-E ranks by another model, CLIP; here the model itself is asked what it has drawn.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unified.sequence import Segment

Request = Sequence[Segment]
Draw = Callable[[Sequence[Request], Sequence[int]], list[Any]]  # (requests, seeds) -> pictures
Score = Callable[[Sequence[Request]], list[float]]  # log-probabilities of targets


def best_of(
    requests: Sequence[Request],
    seeds: Sequence[int],
    candidates: int,
    question: str,
    *,
    draw: Draw,
    score: Score,
) -> list[Any]:
    """The picture of each request from which its last text is read most surely, as the answer to
    the question. A request without text has one candidate; the first is the picture that would be
    the only one."""
    said = [texts_of(request)[-1:] for request in requests]
    tries = [(i, k) for i, text in enumerate(said) for k in range(candidates if text else 1)]
    chosen = [requests[i] for i, _ in tries]
    pictures = draw(chosen, [candidate_seed(seeds[i], k) for i, k in tries])
    read = [
        [Segment(picture), Segment(question), *_as_target(said[i])]
        for picture, (i, _) in zip(pictures, tries, strict=True)
    ]
    best: dict[int, tuple[float, Any]] = {}
    for (i, _), likely, picture in zip(tries, score(read), pictures, strict=True):
        if i not in best or likely > best[i][0]:
            best[i] = likely, picture
    return [picture for _, picture in best.values()]


def texts_of(request: Request) -> list[Segment]:
    return [segment for segment in request if segment.modality == "text"]


def candidate_seed(seed: int, k: int) -> int:
    """The seed of candidate k; the first has that of the request."""
    return int(np.random.SeedSequence((seed, k)).generate_state(1)[0] >> 1) if k else int(seed)


def _as_target(texts: Sequence[Segment]) -> list[Segment]:
    return [dataclasses.replace(text, role="target") for text in texts]
