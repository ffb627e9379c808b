"""Draws a packed row and its mask, `docs/images/row.png` of `docs/architecture.md`.

python scripts/draw_row.py docs/images/row.png        (needs matplotlib: the extra `notebook`)
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from unified.lanes import PatchLane, PictureLane, TextLane, figure
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
TITLES = {"text": "text and marks", "vit": "patches", "vae": "latents"}


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
    canvas, (row, mask) = plt.subplots(2, 1, figsize=(8, 9.2), height_ratios=(1, 9))
    figure.draw_row(row, batch, layout, titles=TITLES)
    row.set_title("a row, as it lies in memory (grey: padding)", fontsize=10)
    figure.draw_mask(mask, batch, layout)
    mask.set_title("what its tokens see, in the order of their clocks", fontsize=10)
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
