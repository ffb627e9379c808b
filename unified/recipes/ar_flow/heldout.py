"""Held-out batches: every noised picture brings the flow time that it is measured at.

Training draws times where learning pays, so few of them are small: by `timestep_shift=3`, 1.4% lie
below 0.25. A loss by time needs pictures at all of them, the same at every evaluation.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from unified.lanes import PictureTokens
from unified.processes import rectified_flow
from unified.sequence import Array, Batch, struct

if TYPE_CHECKING:
    from unified.data.pipeline import Pipeline


@struct
class TimedLatents(PictureTokens):
    times: Array  # float32 [B N], the flow time of noised pictures, 0 elsewhere


class HeldOut(Iterator[Batch]):
    """Batches whose latents are `TimedLatents`, spread evenly over the times from the first picture
    on. Same batches, same times: those of a fresh iterator do not depend on seeds or keys."""

    def __init__(self, batches: "Pipeline"):
        self._batches, self._num_pictures = batches, 0

    def __next__(self) -> Batch:
        batch = next(self._batches)
        lanes = {name: self._timed(lane) for name, lane in batch.lanes.items()}
        return dataclasses.replace(batch, lanes=lanes)

    def close(self) -> None:
        """Stops the threads."""
        self._batches.close()

    def _timed(self, lane):
        if not isinstance(lane, PictureTokens):
            return lane
        noised = lane.target & lane.valid
        times, count = np.zeros(noised.shape, np.float32), int(noised.sum())
        times[noised] = rectified_flow.spread(self._num_pictures, count)
        self._num_pictures += count
        return TimedLatents(lane.tokens, lane.pixels, lane.target, lane.valid, times)
