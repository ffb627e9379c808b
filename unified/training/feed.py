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
    tokens: int  # that attend; 0 for batches without a packed sequence
    slots: int  # that could
    metrics: dict[str, float]  # the iterator's own


class Feed:
    """Iterates over `Fed`. Close it, or use it as a context manager, to end its thread."""

    def __init__(self, inputs: Iterator, place: Callable[[Any], Any], *, depth: int = 2):
        self._inputs, self._place = inputs, place
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

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _work(self) -> None:
        try:
            for batch in self._inputs:
                if self._closed.is_set():
                    return
                tokens, slots = count_tokens(batch)
                state, metrics = self._inputs.get_state(), dict(self._inputs.metrics())
                self._queue.put(Fed(self._place(batch), state, tokens, slots, metrics))
                if self._closed.is_set():
                    return
            raise ValueError("the training input ended; it should repeat for as long as it is read")
        except BaseException as error:  # raised again where the batch is awaited
            self._queue.put(error)


def count_tokens(batch: Any) -> tuple[int, int]:
    """(tokens that are no padding, slots) of every packed sequence in a host batch."""
    nodes = jax.tree.leaves(batch, is_leaf=lambda node: isinstance(node, Tokens))
    stops = [np.asarray(node.stop) for node in nodes if isinstance(node, Tokens)]
    return sum(int((stop > 0).sum()) for stop in stops), sum(stop.size for stop in stops)
