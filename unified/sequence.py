"""The vocabulary every other part speaks: segments, examples, tokens, packed batches.

An `Example` is what a data source yields. A `Batch` holds rows of many examples, as the arrays of
every lane (`unified/lanes`): a lane is a static, contiguous share of a row, for one kind of
content, in a **stream**, which has weights of its own. Because attention reads clocks and not
places (`Tokens`), the order of lanes is free, and routing a token to its weights is a static slice.

`B` rows, `n` slots of a lane.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, dataclass_transform

import jax
import numpy as np

Role = Literal["context", "target"]
Array = Any  # numpy on the host, jax.Array inside a program
OPEN = 2**31 - 1  # stop of a key that is visible to the end of a document that still grows


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of an example: text, or a picture as uint8 pixels `[H W 3]`.

    `role`: `context` is read, `target` is predicted. `use` says what a picture that is read is for:
    `see`, to be understood, or `edit`, to be drawn anew; a target picture is read so by what
    follows it. The layout knows which lanes that takes. `without`: views of those that are
    forgotten, as condition dropout does.
    """

    content: str | np.ndarray
    role: Role = "context"
    use: str = "see"
    without: tuple[str, ...] = ()

    @property
    def modality(self) -> Literal["text", "image"]:
        return "text" if isinstance(self.content, str) else "image"


@dataclasses.dataclass(frozen=True)
class Example:
    """Segments in reading order. `origin` names the file and row in error messages."""

    segments: tuple[Segment, ...]
    task: str = ""
    origin: str = ""


@dataclass_transform(frozen_default=True)
def struct(cls):
    """A frozen dataclass of arrays that is a JAX pytree."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    return jax.tree_util.register_dataclass(cls)


@struct
class Tokens:
    """What attention knows of tokens: int32, all `[B n]`.

    Query q sees key k iff `start[k] <= clock[q] < stop[k]`. Padding has `start = stop = 0` as a
    key and the largest clock as a query. `position` is the RoPE position, `[B n]`, or `[B n A]` for
    one of several axes.
    """

    clock: Array
    start: Array
    stop: Array
    position: Array

    @classmethod
    def causal(cls, n: int, rows: int = 1) -> "Tokens":
        """`n` tokens a row, each of which sees those before it and itself: text."""
        clock = np.tile(np.arange(n, dtype=np.int32), (rows, 1))
        return cls(clock, clock, np.full_like(clock, n), clock)

    @classmethod
    def block(cls, n: int, rows: int = 1) -> "Tokens":
        """`n` tokens a row, which all see one another: a picture alone."""
        clock = np.tile(np.arange(n, dtype=np.int32), (rows, 1))
        return cls(clock, np.zeros_like(clock), np.full_like(clock, n), clock)


@struct
class Batch:
    """Arrays by lane: `tokens`, and what the lane declares."""

    lanes: Mapping[str, Any]
