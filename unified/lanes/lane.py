"""What all lanes are: a share of a row for one kind of content, declared by its arrays.

A lane says which arrays it has and along which of its sizes they lie (`Field`), and how the content
of a segment becomes rows of them. All else follows from that: empty rows, examples joined, examples
placed in a row, budgets. So a new kind of content is a subclass, here, and a part on the device.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from unified.sequence import OPEN, Tokens

SLOTS = "slots"
Content = dict[str, np.ndarray]  # by field, without the leading axis of a batch
Counts = dict[str, int]  # of each size of a lane, how much of it is used


@dataclasses.dataclass(frozen=True)
class Field:
    """An array of a lane: it lies `along` one of the sizes of the lane, an attribute such as
    "slots", with `shape` behind. `counts`: its values are places along that other size."""

    along: str = SLOTS
    shape: tuple[int, ...] = ()
    dtype: Any = np.int32
    counts: str = ""


@dataclasses.dataclass(frozen=True)
class Lane:
    """`slots` tokens per row of `stream`, for one view of the content.

    `tasks` limits a lane to the named tasks (routing by task, as UniFork does); empty accepts all.
    A segment goes to the first lane that has its view and accepts its task.
    """

    name: str
    stream: str
    view: str
    tasks: tuple[str, ...] = ()

    arrays: ClassVar[type]  # the struct of `tokens` and the fields
    modality: ClassVar[str]  # of the segments that it takes
    limits: ClassVar[tuple[str, ...]] = (SLOTS,)  # sizes that bound what a row holds
    round_to: ClassVar[int] = 1  # units: requests of many lengths share a compiled program

    @property
    def slots(self) -> int:
        raise NotImplementedError(type(self).__name__)

    @property
    def unit(self) -> int:
        """Slots of the least that can be added."""
        return 1

    @property
    def pixels(self) -> int:
        """How many a row holds."""
        return 0

    @property
    def fields(self) -> dict[str, Field]:
        """The arrays of the lane, beside its tokens."""
        raise NotImplementedError(type(self).__name__)

    def check(self) -> None:
        """Raises ValueError, saying what to change, where a row does not hold the least content."""

    def affinity(self, content: Any) -> float:
        """How well this lane suits a content, beside others with the same view."""
        return 0.0

    def write(self, content: Any, *, target: Any) -> Content:
        """The arrays of one segment, those that are predicted of a `target` among them."""
        raise NotImplementedError(type(self).__name__)

    def starts(self, n: int) -> np.ndarray:
        """From which token on each of `n` is seen, as offsets `[n]`: all from the first on, as in a
        picture; from itself on, as in text."""
        return np.zeros(n, np.int32)

    def cells(self, part: Content, n: int) -> np.ndarray:
        """Row and column of each of `n` tokens of a segment, `[n 2]`: all in one row."""
        return np.pad(np.arange(n, dtype=np.int32)[:, None], ((0, 0), (1, 0)))

    def resized(self, sizes: Counts) -> "Lane":
        """The lane with other limits; one that is not given is 0."""
        raise NotImplementedError(type(self).__name__)

    # What follows from these.

    def accepts(self, view: str, task: str) -> bool:
        return self.view == view and (not self.tasks or task in self.tasks)

    def budgets(self) -> dict[str, int]:
        """The limits of a row, by names that are unique among lanes."""
        return {self.budget_name(limit): getattr(self, limit) for limit in self.limits}

    def budget_name(self, limit: str) -> str:
        return self.name if limit == SLOTS else f"{self.name}_{limit}"

    def counts(self, arrays: Any) -> Counts:
        """How much of each size the arrays of an example take."""
        found = {SLOTS: len(arrays.tokens.clock)}
        return found | {f.along: len(getattr(arrays, name)) for name, f in self.fields.items()}

    def join(self, tokens: Tokens, parts: Sequence[Content]) -> Any:
        """The arrays of an example from those of its segments, in order."""
        used: Counts = {}
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self.fields}
        for part in parts:
            for name, field in self.fields.items():
                columns[name].append(part[name] + used.get(field.counts, 0))
            for along, name in {f.along: name for name, f in self.fields.items()}.items():
                used[along] = used.get(along, 0) + len(part[name])
        joined = {
            name: np.concatenate(columns[name]).astype(field.dtype, copy=False)
            for name, field in self.fields.items()
        }
        return self.arrays(tokens=tokens, **joined)

    def empty(self, rows: int, pad_clock: int, axes: tuple[int, ...] = ()) -> Any:
        """Rows `[B ...]` of nothing but padding; `axes` of positions."""
        zeros = lambda *shape: np.zeros((rows, *shape), np.int32)
        clock = np.full((rows, self.slots), pad_clock, np.int32)
        tokens = Tokens(clock, zeros(self.slots), zeros(self.slots), zeros(self.slots, *axes))
        fields = {
            name: np.zeros((rows, getattr(self, f.along), *f.shape), f.dtype)
            for name, f in self.fields.items()
        }
        return self.arrays(tokens=tokens, **fields)

    def bare(self, tokens: Tokens, **fields: Any) -> Any:
        """Arrays of tokens whose content is not there, but for some fields."""
        return self.arrays(tokens=tokens, **{**dict.fromkeys(self.fields), **fields})

    def place(self, batch: Any, part: Any, row: int, used: Counts, clock: int, end: int) -> None:
        """Writes an example's arrays into a row of the batch, behind what is `used`, and adds to
        that. Clocks count from `clock`; what lives as long as its document ends at `end`."""
        counts = self.counts(part)
        at = {
            along: slice(used.get(along, 0), used.get(along, 0) + n) for along, n in counts.items()
        }
        here, tokens, new = at[SLOTS], batch.tokens, part.tokens
        tokens.clock[row, here] = new.clock + clock
        tokens.start[row, here] = new.start + clock
        tokens.stop[row, here] = np.where(new.stop == OPEN, end - clock, new.stop) + clock
        tokens.position[row, here] = new.position
        for name, field in self.fields.items():
            value = getattr(part, name)
            shift = used.get(field.counts, 0)
            getattr(batch, name)[row, at[field.along]] = value + shift if shift else value
        for along, n in counts.items():
            used[along] = used.get(along, 0) + n
