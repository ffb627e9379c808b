"""Draws a packed row and its mask, `docs/images/row.png` of `docs/architecture.md`.

python scripts/draw_row.py docs/images/row.png        (needs matplotlib: the extra `notebook`)
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.lanes.layout import Layout, Template
from unified.sequence import Batch, Example, Segment

PICTURE = np.zeros((32, 48, 3), np.uint8)
QUESTION = Example((Segment(PICTURE), Segment("what is it?"), Segment("a cat", "target")), "vqa")
SAID = Segment("it sits", "target")  # after a picture that was drawn, and is read again
DRAWING = Example((Segment("a dog"), Segment(PICTURE, "target"), SAID), "generate")
EDIT = Example(
    (Segment(PICTURE, use="edit"), Segment("redder"), Segment(PICTURE, "target", "edit")), "edit"
)
COLOURS = {"text": "#4878cf", "vit": "#6acc65", "vae": "#d65f5f"}
NAMES = {"text": "text and marks", "vit": "patches", "vae": "latents"}


def packed() -> tuple[Batch, Layout]:
    """A row of three examples."""
    lanes = (
        TextLane("text", "und", "text", budget=64, losses=24),
        PatchLane("vit", "und", "vit", budget=24, patch=16, min_side=32, max_side=48),
        PictureLane("vae", "gen", "vae", count=3, height=32, width=48, stride=16),
    )
    layout = Layout(lanes, Template(begin_text=1, end_text=2, begin_image=3, end_image=4))
    encode = lambda text: [ord(letter) for letter in text.replace(" ", "")]
    examples = [expand(example, layout, encode) for example in (QUESTION, DRAWING, EDIT)]
    return assemble([examples], layout), layout


def draw(path: str) -> None:
    batch, layout = packed()
    figure, (row, mask) = plt.subplots(2, 1, figsize=(8, 9.2), height_ratios=(1, 9))
    at = 0
    for stream in layout.streams:
        first = at
        for lane in layout.of_stream(stream):
            stops = batch.lanes[lane.name].tokens.stop[0]
            for slot, stop in enumerate(stops):
                colour = COLOURS[lane.name] if stop else "#e4e4e4"
                row.add_patch(Rectangle((at + slot, 0), 1, 1, facecolor=colour, edgecolor="white"))
            row.text(at + len(stops) / 2, 1.15, NAMES[lane.name], ha="center", va="bottom")
            at += len(stops)
        row.text((first + at) / 2, -0.25, f"stream {stream}", ha="center", va="top")
        row.add_patch(Rectangle((first, -0.08), at - first, 1.16, fill=False, linewidth=1.5))
    row.set(xlim=(-1, at + 1), ylim=(-0.9, 2.0))
    row.set_title("a row, as it lies in memory (grey: padding)", fontsize=10)
    row.axis("off")

    join = lambda name: np.concatenate([getattr(x.tokens, name)[0] for x in batch.lanes.values()])
    clock, start, stop = map(join, ("clock", "start", "stop"))
    lane = np.repeat(list(batch.lanes), [x.tokens.clock.shape[1] for x in batch.lanes.values()])
    order = np.argsort(clock, kind="stable")
    order = order[stop[order] > 0]
    clock, start, stop, lane = clock[order], start[order], stop[order], lane[order]
    seen = (start[None] <= clock[:, None]) & (clock[:, None] < stop[None])
    shown = np.ones((*seen.shape, 3))
    for name, colour in COLOURS.items():
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        shown[seen & (lane[None] == name)] = rgb
    mask.imshow(shown, interpolation="nearest")
    mask.set(xlabel="key", ylabel="query", xticks=[], yticks=[])
    mask.set_title("what its tokens see, in the order of their clocks", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
