"""One example -> the tokens it puts into each lane, clocks and slots counted from its own start.

Positions and order follow BAGEL: text is causal, one position a token; a picture is bidirectional
inside, begins with its begin mark and ends with its end mark, and takes one position. A target
picture is noised and hidden from what follows; its clean views come after it if anything does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unified.data import image as pictures
from unified.sequence import (
    OPEN,
    Example,
    LatentLane,
    LatentTokens,
    Layout,
    PatchLane,
    PatchTokens,
    Segment,
    TextLane,
    TextTokens,
    Tokens,
)

Encode = Callable[[str], Sequence[int]]
Lanes = Mapping[str, TextTokens | PatchTokens | LatentTokens]

TARGET_VIEW = "vae"


@dataclasses.dataclass(frozen=True)
class Spans:
    """An example as tokens. Arrays are those of a batch without the leading `B`; a lane that the
    example does not touch is absent. `stop` is `OPEN` where a key lives as long as its document.

    `length` tokens over all lanes (clocks 0 .. length - 1), `position` the next free RoPE position,
    `cost` int64 in the order of `budgets(layout)`.
    """

    lanes: Lanes
    length: int
    position: int
    cost: np.ndarray
    task: str = ""
    origin: str = ""


def budgets(layout: Layout) -> dict[str, int]:
    """What a row can hold: slots of each lane, and text losses of each text lane."""
    slots = {lane.name: lane.slots for lane in layout.lanes}
    texts = (lane for lane in layout.lanes if isinstance(lane, TextLane))
    return slots | {f"{lane.name}_losses": lane.losses for lane in texts}


def expand(example: Example, layout: Layout, encode: Encode) -> Spans:
    """Tokens of an example; `encode` turns text into ids.

    Raises ValueError, naming the example, if it is larger than a whole row or no lane takes it.
    """
    try:
        writer = _Writer(layout, example.task)
        for segment, view, noised in _items(example.segments, layout):
            if isinstance(segment.content, str):
                writer.text(encode(segment.content), predict=segment.role == "target")
            else:
                writer.picture(segment.content, view, noised)
        return writer.finish(example)
    except ValueError as error:
        raise ValueError(f"{example.origin or 'example'}: {error}") from error


def _items(segments: Sequence[Segment], layout: Layout) -> Iterator[tuple[Segment, str, bool]]:
    """(segment, view, noised) in reading order, a picture once for each view of it."""
    for i, segment in enumerate(segments):
        if segment.modality == "text":
            yield segment, "text", False
            continue
        if segment.role == "target":
            yield segment, TARGET_VIEW, True
        if segment.role == "context" or i + 1 < len(segments):
            for view in layout.views(segment):
                yield segment, view, False


class _Writer:
    """Collects the tokens of one document, lane by lane."""

    def __init__(self, layout: Layout, task: str):
        self.layout, self.task = layout, task
        self.clock = self.position = 0
        self.tokens: dict[str, list[np.ndarray]] = {}  # [4 n]: clock, start, stop, position
        self.content: dict[str, list[tuple]] = {}
        self.slots: dict[str, int] = {}

    def text(self, said: Sequence[int], predict: bool) -> None:
        ids = np.array([self.layout.begin_text, *said, self.layout.end_text], np.int32)
        n = len(ids)
        lane = self._lane("text")
        slot = self.slots.get(lane.name, 0)
        clock = np.arange(self.clock, self.clock + n)
        position = np.arange(self.position, self.position + n)
        losses = (np.arange(slot, slot + n - 1), ids[1:]) if predict else ([], [])
        self._add(lane.name, (ids, *losses), clock, clock, OPEN, position)
        self.clock += n
        self.position += n

    def picture(self, image: np.ndarray, view: str, noised: bool) -> None:
        image = pictures.to_rgb(image)
        lane = self._lane(view, image)
        content: tuple[Any, ...]
        if isinstance(lane, LatentLane):
            n, content = lane.tokens, (pictures.fit_latent(image, lane), noised)
        else:
            patches, grid = pictures.fit_patches(image, lane)
            n, first = len(patches), self.slots.get(lane.name, 0)
            content = (patches, grid, np.full(n, first, np.int32), np.full(n, first + n, np.int32))
        start = self.clock
        last = start + n + 1
        stop = last + 1 if noised else OPEN
        shared = self.layout.image_position == "shared"
        position = np.full(n + 2, self.position) if shared else self.position + np.arange(n + 2)
        marks = np.array([self.layout.begin_image, self.layout.end_image])
        ends = np.array([start, last])
        text = self._lane("text").name
        self._add(text, (marks, [], []), ends, start, stop, position[[0, -1]])
        clock = np.arange(start + 1, last)
        self._add(lane.name, content, clock, start, stop, position[1:-1])
        self.clock = last + 1
        if not noised:  # a clean copy of a noised picture takes its position
            self.position += 1 if shared else n + 2

    def finish(self, example: Example) -> Spans:
        lanes = {name: self._finish(self.layout[name]) for name in self.tokens}
        limits = budgets(self.layout)
        losses = {
            f"{name}_losses": len(lane.loss_index)
            for name, lane in lanes.items()
            if isinstance(lane, TextTokens)
        }
        need = self.slots | losses
        over = {name: n for name, n in need.items() if n > limits[name]}
        if over:
            sizes = ", ".join(f"{name} {n} (limit {limits[name]})" for name, n in over.items())
            raise ValueError(f"larger than a row: needs {sizes}; raise the budget of its lanes")
        cost = np.array([need.get(name, 0) for name in limits])
        return Spans(lanes, self.clock, self.position, cost, example.task, example.origin)

    def _finish(self, lane: TextLane | PatchLane | LatentLane):
        tokens = Tokens(*np.concatenate(self.tokens[lane.name], axis=1))
        parts = self.content[lane.name]
        if isinstance(lane, LatentLane):
            pixels, noised = zip(*parts, strict=True)
            return LatentTokens(
                tokens, np.stack(pixels), np.array(noised), np.ones(len(parts), bool)
            )
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if isinstance(lane, PatchLane):
            return PatchTokens(tokens, *columns)
        ids, index, target = (column.astype(np.int32) for column in columns)
        return TextTokens(tokens, ids, index, target, np.ones(len(index), np.float32))

    def _add(self, name: str, content: tuple, clock, start, stop, position) -> None:
        tokens = np.empty((4, len(clock)), np.int32)
        for row, value in zip(tokens, (clock, start, stop, position), strict=True):
            row[:] = value
        self.tokens.setdefault(name, []).append(tokens)
        self.content.setdefault(name, []).append(content)
        self.slots[name] = self.slots.get(name, 0) + len(clock)

    def _lane(self, view: str, image: np.ndarray | None = None):
        """The first lane with this view that accepts the task; of latent lanes, the nearest."""
        lanes = [
            lane
            for lane in self.layout.lanes
            if lane.view == view and (not lane.tasks or self.task in lane.tasks)
        ]
        if not lanes:
            known = sorted({lane.view for lane in self.layout.lanes})
            raise ValueError(f"no lane for view {view!r} of task {self.task!r}; views are {known}")
        latent = [lane for lane in lanes if isinstance(lane, LatentLane)]
        return pictures.nearest_aspect(image, latent) if image is not None and latent else lanes[0]
