"""What sees what: one example -> the tokens it puts into each lane.

Clocks and slots are counted from the example's own start. Positions and order follow BAGEL: text
is causal, one position a token; a picture begins with its begin mark and ends with its end mark,
which have its attention, and takes one position (or what `Layout.image_position` says). A target
picture is hidden from what follows; its clean views come after it if anything does.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unified.lanes.lane import SLOTS, Content, Lane
from unified.lanes.layout import DRAW, TEXT, Layout
from unified.sequence import OPEN, Example, Role, Segment, Tokens

Encode = Callable[[str], Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Spans:
    """An example as tokens. Arrays are those of a batch without the leading `B`; a lane that the
    example does not touch is absent. `stop` is `OPEN` where a key lives as long as its document.

    `length` tokens over all lanes (clocks 0 .. length - 1), `position` the next free RoPE position,
    `cost` int64 in the order of `layout.budgets()`.
    """

    lanes: Mapping[str, Any]
    length: int
    position: int
    cost: np.ndarray
    task: str = ""
    origin: str = ""


def expand(example: Example, layout: Layout, encode: Encode) -> Spans:
    """Tokens of an example; `encode` turns text into ids. Raises ValueError, naming the example, if
    no lane takes it."""
    document = read(example, layout, encode)
    document.turn(None)
    return document.spans(example.origin)


def read(example: Example, layout: Layout, encode: Encode) -> "Document":
    """The document of an example, to be gone on with. Raises ValueError as `expand`."""
    document = Document(layout, example.task)
    try:
        for i, segment in enumerate(example.segments):
            document.write(segment, encode, last=i + 1 == len(example.segments))
    except ValueError as error:
        raise ValueError(f"{example.origin or 'example'}: {error}") from error
    return document


class Document:
    """Collects the tokens of one document, lane by lane. `clock` and `position` are the next."""

    def __init__(self, layout: Layout, task: str = ""):
        self.layout, self.task, self.template = layout, task, layout.template
        self.clock = self.position = 0
        self.tokens: dict[str, list[Tokens]] = {}
        self.parts: dict[str, list[Content]] = {}
        self.role: Role | None = None  # whose turn it is
        self.marks(begin_document=False)

    def write(self, segment: Segment, encode: Encode, *, last: bool = True) -> None:
        """Adds a segment; a target picture is read, too, where it is not the `last`."""
        self.turn(segment.role)
        target = segment.role == "target"
        if segment.modality == "text":
            ids = [int(i) for i in encode(segment.content)]  # type: ignore[arg-type]
            self.marks(begin_text=target, ids=(ids, target), end_text=target)
            return
        if target:
            self.picture(segment.content, *self.layout.views_of(DRAW)[:1], target=True)
        if not target or not last:
            for view in self.layout.views(segment):
                self.picture(segment.content, view, target=False)

    def turn(self, role: Role | None) -> None:
        """Ends the turn of another role, and begins one of this."""
        self.marks(**self._turn(role))
        self.role = role

    def _turn(self, role: Role | None) -> dict[str, bool]:
        """The marks of that, and whether they are of a target."""
        if role == self.role:
            return {}
        ends = {f"end_{self.role}": self.role == "target"} if self.role else {}
        return ends | ({f"begin_{role}": role == "target"} if role else {})

    def open(self, what: str) -> int:
        """Adds what stands before a "picture" or "text" that is to come, but for the last id before
        a text, which is returned (else 0): the one that the first id of the text follows. Raises
        ValueError for a template that has none."""
        if what != "text":
            self.turn("target" if what else None)
            return 0
        names = [*self._turn("target"), "begin_text"]
        ids = [i for name in names for i in getattr(self.template, name)]
        if not ids:
            raise ValueError("no mark of the template opens a text: give it begin_text")
        self.marks(ids=(ids[:-1], False))
        self.role = "target"
        return ids[-1]

    def marks(self, **pieces: Any) -> None:
        """Text tokens: marks by name, with whether they are of a target; `ids` and whether they are
        learnt."""
        said: list[int] = []
        learnt: list[bool] = []
        for name, target in pieces.items():
            ids, target = target if name == "ids" else (getattr(self.template, name), target)
            said += ids
            learnt += [target and (name == "ids" or name in self.template.learnt)] * len(ids)
        if said:
            lane = self.layout.lane_for(TEXT, self.task)
            if learnt[0] and lane.name not in self.parts:
                raise ValueError("nothing predicts the first token: give the template begin_text")
            n = len(said)
            self._add(lane, lane.write(said, target=np.array(learnt)), n, lane.starts(n), OPEN)
            self.clock += n
            self.position += n

    def picture(self, content: Any, view: str, *, target: bool) -> None:
        lane = self.layout.lane_for(view, self.task, content)
        part = lane.write(content, target=target)
        slots = [len(part[name]) for name, f in lane.fields.items() if f.along == SLOTS]
        self.block(lane, part, lane.cells(part, slots[0] if slots else lane.unit), target=target)

    def block(self, lane: Lane, part: Content, cells: np.ndarray, *, target: bool) -> None:
        """Tokens in the `cells` of a picture (row and column, `[n 2]`), between marks with its
        attention. Where they are a target, nothing after them sees them, and a clean copy takes
        their position."""
        text = self.layout.lane_for(TEXT, self.task)
        begin, end = self.template.begin_image, self.template.end_image
        n, first = len(cells), len(begin)
        size = first + n + len(end)
        starts, stop = lane.starts(size), self.clock + size if target else OPEN
        steps, next_position = self.layout.positions(first, cells, len(end))
        learnt = target and "begin_image" in self.template.learnt
        for ids, at, said in ((begin, 0, learnt), (end, first + n, False)):
            places = np.arange(at, at + len(ids))
            if ids:
                marks = text.write(ids, target=np.full(len(ids), said))
                self._add(text, marks, len(ids), starts, stop, places, steps)
        self._add(lane, part, n, starts, stop, np.arange(first, first + n), steps)
        self.clock += size
        if not target:
            self.position += next_position

    def _add(
        self, lane: Lane, part: Content, n: int, starts, stop, places=None, steps=None
    ) -> None:
        """Tokens at `places` from here on: of each, from which one on it is seen, and when no more;
        `steps` on the way of positions."""
        places = np.arange(n, dtype=np.int32) if places is None else places
        position = self.position + (places if steps is None else steps[places])
        if position.ndim == 1 and self.layout.axes:  # the same on all
            position = np.repeat(position[:, None], self.layout.axes[0], axis=1)
        clock, seen = self.clock + places, self.clock + starts[places]
        arrays = (clock, seen, np.full(n, stop), position)
        tokens = Tokens(*(array.astype(np.int32) for array in arrays))
        self.tokens.setdefault(lane.name, []).append(tokens)
        self.parts.setdefault(lane.name, []).append(part)

    def lane_tokens(self, name: str) -> Tokens:
        each = [vars(tokens) for tokens in self.tokens[name]]
        return Tokens(**{key: np.concatenate([tokens[key] for tokens in each]) for key in each[0]})

    def spans(self, origin: str = "") -> Spans:
        """All that was added."""
        lanes = {
            name: self.layout[name].join(self.lane_tokens(name), parts)
            for name, parts in self.parts.items()
        }
        used: dict[str, int] = {}
        for name, arrays in lanes.items():
            lane = self.layout[name]
            counts = lane.counts(arrays)
            used |= {lane.budget_name(limit): counts[limit] for limit in lane.limits}
        cost = np.array([used.get(name, 0) for name in self.layout.budgets()])
        return Spans(lanes, self.clock, self.position, cost, self.task, origin)
