"""Held-out batches: what chance decides in training is the same at every evaluation."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from unified.model import UnifiedConfig
from unified.sequence import Batch

if TYPE_CHECKING:
    from unified.data.pipeline import Pipeline


class HeldOut(Iterator[Batch]):
    """Batches whose content every part has settled (`Part.held_out`). Those of a fresh iterator do
    not depend on seeds or keys."""

    def __init__(self, batches: "Pipeline", cfg: UnifiedConfig):
        self._batches, self._cfg = batches, cfg
        self._seen = collections.Counter[str]()  # targets, by view

    def __next__(self) -> Batch:
        batch = next(self._batches)
        lanes = {}
        for name, content in batch.lanes.items():
            view = self._cfg.layout[name].view
            lanes[name], seen = self._cfg.kind(view).held_out(content, self._seen[view])
            self._seen[view] = seen
        return dataclasses.replace(batch, lanes=lanes)

    def close(self) -> None:
        """Stops the threads."""
        self._batches.close()
