"""Batches made and placed ahead of the step that uses them, each with the way back to it.

A thread draws from the recipe's iterator, counts tokens and starts the transfer, while the device
works. Since the iterator runs ahead, every batch carries the iterator's state just after it.
"""

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from unified.sequence import Tokens


@dataclasses.dataclass(frozen=True)
class Fed:
    arrays: Any  # on devices
    state: Any  # json-able, of the iterator after this batch
    tokens: int  # of all processes, without padding; 0 for batches without a packed sequence
    slots: int  # of all processes, with padding
    metrics: dict[str, float]  # the iterator's own, where a log line is due
    ideal: float = 0.0  # seconds that the step would take at the devices' peak; 0 if unknown


class Feed:
    """Iterates over `Fed`. Close it, or use it as a context manager, to end its thread.

    The metrics of the iterator, which gathers them from call to call, are asked for every so many
    steps, the next step being `start + 1`. `ideal` gives the `Fed.ideal` of a host batch.
    """

    def __init__(
        self,
        inputs: Any,
        place: Callable[[Any], Any],
        ideal: Callable[[Any], float] | None = None,
        *,
        start: int = 0,
        every: int = 1,
        depth: int = 2,
    ):
        self._inputs, self._place, self._ideal = inputs, place, ideal
        self._step, self._every = start, every
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Fed]:
        return self

    def __next__(self) -> Fed:
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)
            raise item
        return item

    def close(self) -> None:
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        if hasattr(self._inputs, "close"):
            self._inputs.close()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _work(self) -> None:
        try:
            for batch in self._inputs:
                if self._closed.is_set():
                    return
                self._queue.put(self._feed(batch))
                if self._closed.is_set():
                    return
            raise ValueError("the training input ended; it should repeat for as long as it is read")
        except BaseException as error:  # raised again where the batch is awaited
            self._queue.put(error)

    def _feed(self, batch: Any) -> Fed:
        self._step += 1
        metrics = dict(self._inputs.metrics()) if self._step % self._every == 0 else {}
        tokens, slots = (jax.process_count() * number for number in count_tokens(batch))
        ideal = self._ideal(batch) if self._ideal else 0.0
        return Fed(self._place(batch), self._inputs.get_state(), tokens, slots, metrics, ideal)


def count_tokens(batch: Any) -> tuple[int, int]:
    """(tokens that are no padding, slots) of every packed sequence in a host batch."""
    nodes = jax.tree.leaves(batch, is_leaf=lambda node: isinstance(node, Tokens))
    stops = [np.asarray(node.stop) for node in nodes if isinstance(node, Tokens)]
    return sum(int((stop > 0).sum()) for stop in stops), sum(stop.size for stop in stops)
