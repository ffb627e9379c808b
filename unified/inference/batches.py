"""Requests, a few at a time, in numbers that compiled programs share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def in_batches(
    run: Callable[[list, np.ndarray], Sequence[Any]],
    requests: Sequence[Any],
    seeds: np.ndarray,
    most: int,
) -> list[Any]:
    """Results of `run(rows, seeds)` on parts of at most so many rows, rounded up to a power of 2.

    What fills a part up is its last request once more, which ends when that does.
    """
    results: list[Any] = []
    for at in range(0, len(requests), most):
        rows = requests[at : at + most]
        n = len(rows)
        fill = [*range(n), *[n - 1] * ((1 << (n - 1).bit_length()) - n)]
        results += run([rows[i] for i in fill], seeds[at:][fill])[:n]
    return results
