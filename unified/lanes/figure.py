"""Figures of a row of a batch: as it lies in memory, and what its tokens see.

They are drawn on axes of matplotlib, which is not imported here: whoever has axes has it.

`T` tokens of the row, in the order of their clocks, without padding.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from unified.lanes.layout import Layout
from unified.sequence import Batch

COLOURS = ("#4878cf", "#6acc65", "#d65f5f", "#b47cc7", "#c4ad66", "#77bedb")  # of lanes, in order
PADDING = "#e4e4e4"


def visible(batch: Batch, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whether a token, the first axis of bool `[T T]`, sees another, the second; and the name of
    the lane of each `[T]`."""
    join = lambda field: np.concatenate(
        [np.asarray(getattr(lane.tokens, field)[row]) for lane in batch.lanes.values()]
    )
    clock, start, stop = map(join, ("clock", "start", "stop"))
    lanes = np.repeat(list(batch.lanes), [x.tokens.clock.shape[1] for x in batch.lanes.values()])
    order = np.argsort(clock, kind="stable")
    order = order[stop[order] > 0]
    clock, start, stop = clock[order], start[order], stop[order]
    return (start <= clock[:, None]) & (clock[:, None] < stop), lanes[order]


def draw_mask(axes: Any, batch: Batch, layout: Layout, row: int = 0) -> None:
    """What the tokens of a row see, in the colour of the lane of what is seen."""
    seen, lanes = visible(batch, row)
    shown = np.ones((*seen.shape, 3))
    for name, colour in colours(layout).items():
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        shown[seen & (lanes == name)] = rgb
    axes.imshow(shown, interpolation="nearest")
    axes.set(xlabel="key", ylabel="query", xticks=[], yticks=[])


def draw_row(
    axes: Any,
    batch: Batch,
    layout: Layout,
    row: int = 0,
    *,
    titles: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """The slots of a row, lane by lane and stream by stream; padding is grey. `titles` of lanes, in
    place of their names."""
    at, colour_of = 0, colours(layout)
    box = {"width": 1, "align": "edge", "edgecolor": "white"}
    for stream in layout.streams:
        first = at
        for lane in layout.of_stream(stream):
            stops = np.asarray(batch.lanes[lane.name].tokens.stop[row])
            shown = [colour_of[lane.name] if stop else PADDING for stop in stops]
            axes.bar(at + np.arange(len(stops)), 1, color=shown, **box)
            title = titles.get(lane.name, lane.name)
            axes.text(at + len(stops) / 2, 1.15, title, ha="center", va="bottom")
            at += len(stops)
        axes.text((first + at) / 2, -0.25, f"stream {stream}", ha="center", va="top")
        frame = {"align": "edge", "fill": False, "linewidth": 1.5}
        axes.bar(first, 1.16, width=at - first, bottom=-0.08, **frame)
    axes.set(xlim=(-1, at + 1), ylim=(-0.9, 2.0))
    axes.axis("off")


def colours(layout: Layout) -> dict[str, str]:
    """Of each lane."""
    return {lane.name: COLOURS[i % len(COLOURS)] for i, lane in enumerate(layout.lanes)}
