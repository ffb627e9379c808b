"""Requests -> arrays: contexts at padded shapes, and the place of what comes after them.

A request is a list of segments that are read. Slots are rounded up, so that requests of many
lengths share a compiled program: all texts of up to 128 tokens do. `B` rows, one request each.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from unified.data.expand import Encode, Spans, budgets, expand
from unified.data.packing import assemble
from unified.sequence import (
    Array,
    Batch,
    Example,
    Lane,
    LatentLane,
    LatentTokens,
    Layout,
    PatchLane,
    Segment,
    TextLane,
    TextTokens,
    Tokens,
    struct,
)

log = logging.getLogger(__name__)

Request = Sequence[Segment]
SLOTS_STEP = {TextLane: 128, PatchLane: 32}  # an unused patch costs the vision encoder its work
MOST_SLOTS = 4096  # that a model serves, or as many as a row of its training has
UNLIMITED = 1 << 24


@struct
class Contexts:
    """Requests as a batch, and where each goes on: the next clock and position, int32 `[B]`."""

    batch: Batch
    clock: Array
    position: Array


def pack(requests: Sequence[Request], layout: Layout, encode: Encode, task: str = "") -> Contexts:
    """Contexts of requests, each a row and a document that stays open.

    A lane that no request uses is absent, but for text, whose targets are its losses. Raises
    ValueError if no lane takes a view, or where a request is longer than a model serves; logs a
    warning where it is longer than any example that the model was trained on.
    """
    roomy = _budget(layout, dict.fromkeys(budgets(layout), UNLIMITED))
    spans = [expand(Example(tuple(r), task, "request"), roomy, encode) for r in requests]
    used = {lane.name: max(_count(s, lane.name) for s in spans) for lane in layout.lanes}
    _check_length(used, layout)
    rounded = {lane.name: _round_up(used[lane.name], lane) for lane in layout.lanes}
    for lane in layout.lanes:
        if isinstance(lane, TextLane):
            losses = max(_targets(s, lane.name) for s in spans)
            rounded[f"{lane.name}_losses"] = _round_up(losses, lane)
    text = next(lane for lane in layout.lanes if isinstance(lane, TextLane))
    rounded[text.name] = max(rounded[text.name], _round_up(1, text))
    tight = _budget(layout, rounded)
    batch = assemble([[s] for s in spans], tight, open_end=True)
    lanes = {name: lane for name, lane in batch.lanes.items() if tight[name].slots}
    clock, position = (
        np.array([getattr(s, name) for s in spans], np.int32) for name in ("length", "position")
    )
    return Contexts(Batch(lanes), clock, position)


def picture_after(contexts: Contexts, lane: LatentLane, layout: Layout, task: str = "") -> Batch:
    """The tokens `[B n]` of a noised picture of `lane` right after each context, with its marks."""
    lanes = [x for x in layout.lanes if x is lane or not isinstance(x, LatentLane)]
    sizes = {x.name: 1 if x is lane else 2 for x in lanes}  # two marks, one picture
    alone = _budget(dataclasses.replace(layout, lanes=tuple(lanes)), sizes)
    blank = Segment(np.zeros((lane.height, lane.width, 3), np.uint8), role="target")
    spans = expand(Example((blank,), task, "request"), alone, lambda text: ())
    clock, position = contexts.clock[:, None], contexts.position[:, None]

    def after(tokens: Tokens) -> Tokens:
        start, stop = tokens.start + clock, tokens.stop + clock
        return Tokens(tokens.clock + clock, start, stop, tokens.position + position)

    def place(part):
        tokens = after(part.tokens)
        if isinstance(part, LatentTokens):
            return LatentTokens(tokens, pixels=None, noised=None, valid=None)
        ids = np.broadcast_to(part.ids, tokens.clock.shape)
        return TextTokens(tokens, ids, loss_index=None, loss_target=None, loss_weight=None)

    return Batch({name: place(part) for name, part in spans.lanes.items()})


def without_text(request: Request) -> list[Segment]:
    """The request without its last text, as BAGEL's context for text guidance."""
    texts = [i for i, segment in enumerate(request) if segment.modality == "text"]
    return [segment for i, segment in enumerate(request) if i not in texts[-1:]]


def without_images(request: Request) -> list[Segment]:
    return [segment for segment in request if segment.modality == "text"]


def _count(spans: Spans, lane: str) -> int:
    """What a lane's budget counts: pictures of a latent lane, slots of the others."""
    part = spans.lanes.get(lane)
    if part is None:
        return 0
    return len(part.valid if isinstance(part, LatentTokens) else part.tokens.clock)


def _targets(spans: Spans, lane: str) -> int:
    part = spans.lanes.get(lane)
    return 0 if part is None else len(part.loss_index)  # type: ignore[union-attr]


def most_slots(lane: Lane) -> int:
    """Slots of a lane that a request, or what is written after it, may take."""
    return max(lane.slots, MOST_SLOTS)


def _check_length(used: Mapping[str, int], layout: Layout) -> None:
    for lane in layout.lanes:
        if isinstance(lane, LatentLane):
            row, each, what = lane.count, lane.tokens, "pictures"
        else:
            row, each, what = lane.slots, 1, "tokens"
        taken, most = used[lane.name], most_slots(lane) // each
        if taken > row:
            said = f"a request takes {taken} {what} of lane {lane.name!r}, and the model "
            if taken > most:
                raise ValueError(f"{said}serves at most {most}: make it shorter")
            log.warning(f"{said}was trained on at most {row}: expect less of it")


def _round_up(n: int, lane: Lane) -> int:
    step = 1 if isinstance(lane, LatentLane) else SLOTS_STEP[type(lane)]  # or pictures
    return -(-n // step) * step


def _budget(layout: Layout, sizes: Mapping[str, int]) -> Layout:
    """The layout with these budgets (slots, pictures of latent lanes, losses); others are 0."""

    def resize(lane):
        n = sizes.get(lane.name, 0)
        if isinstance(lane, LatentLane):
            return dataclasses.replace(lane, count=n)
        if isinstance(lane, TextLane):
            return dataclasses.replace(lane, budget=n, losses=sizes.get(f"{lane.name}_losses", 0))
        return dataclasses.replace(lane, budget=n)

    return dataclasses.replace(layout, lanes=tuple(map(resize, layout.lanes)))
