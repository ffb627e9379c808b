"""Rows of documents -> the arrays of a batch."""

from collections.abc import Sequence

import numpy as np

from unified.lanes.document import Spans
from unified.lanes.layout import Layout
from unified.sequence import OPEN, Batch


def check_size(spans: Spans, layout: Layout) -> None:
    """Raises ValueError, with its size and the limits, for an example larger than a whole row."""
    limits = layout.budgets()
    over = {k: n for (k, most), n in zip(limits.items(), spans.cost, strict=True) if n > most}
    if over:
        sizes = ", ".join(f"{name} {n} (limit {limits[name]})" for name, n in over.items())
        raise ValueError(
            f"{spans.origin or 'example'}: larger than a row: needs {sizes}; raise the budget of "
            "its lanes"
        )


def assemble(rows: Sequence[Sequence[Spans]], layout: Layout, *, open_end: bool = False) -> Batch:
    """Arrays of a batch, one row for each list of examples, each example a document of its own.

    Clocks follow reading order, document after document. `open_end`: documents have no end (stop
    is the largest int32), for contexts that generation will append to; padding then has that
    clock too. Raises ValueError if a row does not fit.
    """
    limits = layout.budgets()
    for row in rows:
        used = sum((spans.cost for spans in row), np.zeros(len(limits), np.int64))
        for (name, limit), n in zip(limits.items(), used, strict=True):
            if n > limit:
                raise ValueError(f"a row needs {n} of {name!r}, more than its budget {limit}")
    pad_clock = OPEN if open_end else layout.slots
    lanes = {lane.name: lane.empty(len(rows), pad_clock, layout.axes) for lane in layout.lanes}
    for b, row in enumerate(rows):
        places: dict[str, dict[str, int]] = {name: {} for name in lanes}
        clock = 0
        for spans in row:
            end = OPEN if open_end else clock + spans.length
            for name, part in spans.lanes.items():
                layout[name].place(lanes[name], part, b, places[name], clock, end)
            clock += spans.length
    return Batch(lanes)
