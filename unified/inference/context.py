"""Requests -> arrays: contexts at padded shapes, and the place of what comes after them.

A request is a list of segments that are read. Slots are rounded up, so that requests of many
lengths share a compiled program: all texts of up to 128 tokens do. `B` rows, one request each.
"""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from unified.lanes import Lane, PictureLane
from unified.lanes.batch import assemble
from unified.lanes.document import Document, Encode, read
from unified.lanes.layout import TEXT, Layout
from unified.sequence import Array, Batch, Example, Segment, Tokens, struct

log = logging.getLogger(__name__)

Request = Sequence[Segment]
MOST_SLOTS = 4096  # that a model serves, or as many as a row of its training has


@struct
class Contexts:
    """Requests as a batch, and where each goes on: the next clock and position, int32 `[B]`; `last`
    is the id that a text begins after, which is not yet among them."""

    batch: Batch
    clock: Array
    position: Array
    last: Array


def pack(
    requests: Sequence[Request],
    layout: Layout,
    encode: Encode,
    task: str = "",
    *,
    then: Literal["", "text", "picture"] = "",
) -> Contexts:
    """Contexts of requests, each a row and a document that stays open; `then` is what comes next.

    A lane that no request uses is absent, but for text, whose targets are its losses. Raises
    ValueError if no lane takes a view, or where a request is longer than a model serves; logs a
    warning where it is longer than any example that the model was trained on.
    """
    documents = [read(Example(tuple(r), task, "request"), layout, encode) for r in requests]
    last = [document.open(then) for document in documents]
    spans = [document.spans() for document in documents]
    sizes = {}
    for lane in layout.lanes:
        counts = [lane.counts(s.lanes[lane.name]) for s in spans if lane.name in s.lanes]
        used = {limit: max([c[limit] for c in counts], default=0) for limit in lane.limits}
        _check_length(used["slots"], lane)
        sizes[lane.name] = {limit: _round_up(n, lane) for limit, n in used.items()}
    text = layout.lane_for(TEXT, task)
    sizes[text.name]["slots"] = max(sizes[text.name]["slots"], _round_up(1, text))
    tight = layout.resized(sizes)
    batch = assemble([[s] for s in spans], tight, open_end=True)
    lanes = {name: lane for name, lane in batch.lanes.items() if tight[name].slots}
    numbers = ([s.length for s in spans], [s.position for s in spans], last)
    return Contexts(Batch(lanes), *(np.array(values, np.int32) for values in numbers))


def picture_after(contexts: Contexts, lane: PictureLane, layout: Layout, task: str = "") -> Batch:
    """The tokens `[B n]` of a target picture of `lane` right after each context, with its marks;
    what the lane holds is None."""
    document = Document(layout, task)
    document.role, document.clock, document.position = "target", 0, 0
    document.block(lane, {}, lane.cells({}, lane.unit), target=True)
    clock = contexts.clock[:, None]
    position = contexts.position.reshape(-1, 1, *[1] * len(layout.axes))

    def after(name: str) -> Tokens:
        tokens = document.lane_tokens(name)
        start, stop = tokens.start + clock, tokens.stop + clock
        return Tokens(tokens.clock + clock, start, stop, tokens.position + position)

    text = layout.lane_for(TEXT, task)
    ids = np.concatenate([part["ids"] for part in document.parts[text.name]])
    tokens = after(text.name)
    marks = text.bare(tokens, ids=np.broadcast_to(ids, tokens.clock.shape))
    return Batch({text.name: marks, lane.name: lane.bare(after(lane.name))})


def without(request: Request, drop: str) -> list[Segment]:
    """What a term of guidance leaves of a request: all but its last "text" (as BAGEL), all but its
    "images"; all of it for any other."""
    texts = [i for i, segment in enumerate(request) if segment.modality == "text"]
    lost = {"text": texts[-1:], "images": sorted({*range(len(request))} - {*texts})}.get(drop, [])
    return [segment for i, segment in enumerate(request) if i not in lost]


def most_slots(lane: Lane) -> int:
    """Slots of a lane that a request, or what is written after it, may take."""
    return max(lane.slots, MOST_SLOTS)


def _check_length(slots: int, lane: Lane) -> None:
    taken, row, most = (n // lane.unit for n in (slots, lane.slots, most_slots(lane)))
    what = "tokens" if lane.unit == 1 else "pictures"
    if taken > row:
        said = f"a request takes {taken} {what} of lane {lane.name!r}, and the model "
        if taken > most:
            raise ValueError(f"{said}serves at most {most}: make it shorter")
        log.warning(f"{said}was trained on at most {row}: expect less of it")


def _round_up(n: int, lane: Lane) -> int:
    step = lane.unit * lane.round_to
    return -(-n // step) * step
