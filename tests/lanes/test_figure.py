"""Figures of a row show what its tokens see."""

import numpy as np
from matplotlib.figure import Figure

from unified.lanes import PictureLane, TextLane, figure
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.lanes.layout import Layout, Template
from unified.sequence import Example, Segment

WIDE = np.zeros((8, 16, 3), np.uint8)  # two latent tokens
LAYOUT = Layout(
    (
        TextLane("text", "und", "text", budget=8, losses=4),
        PictureLane("vae", "gen", "vae", count=2, height=8, width=16, stride=8),
    ),
    Template(begin_text=1, end_text=2),
)
READ = Example((Segment("a"), Segment(WIDE, "target")))  # three tokens and two
SAID = Example((Segment("", "target"),))  # two, another document
BATCH = assemble(
    [[expand(example, LAYOUT, lambda text: [*map(ord, text)]) for example in (READ, SAID)]], LAYOUT
)
SEEN = [
    [1, 0, 0, 0, 0, 0, 0],
    [1, 1, 0, 0, 0, 0, 0],
    [1, 1, 1, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 0, 0],
    [1, 1, 1, 1, 1, 0, 0],
    [0, 0, 0, 0, 0, 1, 0],
    [0, 0, 0, 0, 0, 1, 1],
]


def colour(name):
    return [int(figure.colours(LAYOUT)[name][i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_what_is_seen_is_in_the_order_of_clocks_and_without_padding():
    seen, lanes = figure.visible(BATCH)
    np.testing.assert_array_equal(seen, SEEN)
    assert lanes.tolist() == ["text"] * 3 + ["vae"] * 2 + ["text"] * 2


def test_a_mask_has_the_colour_of_the_lane_of_what_is_seen():
    axes = Figure().subplots()
    figure.draw_mask(axes, BATCH, LAYOUT)
    shown = np.asarray(axes.images[0].get_array())
    _, lanes = figure.visible(BATCH)
    for at, name in enumerate(lanes):
        for query, seen in enumerate(np.array(SEEN)[:, at]):
            np.testing.assert_allclose(shown[query, at], colour(name) if seen else [1, 1, 1])


def test_a_row_has_every_slot_and_padding_is_grey():
    axes = Figure().subplots()
    figure.draw_row(axes, BATCH, LAYOUT, titles={"vae": "latents"})
    slots = [bar for bar in axes.patches if bar.get_width() == 1 and bar.get_fill()]
    assert len(slots) == LAYOUT.slots == 12
    grey = [bar.get_x() for bar in slots if bar.get_facecolor()[0] == int("e4", 16) / 255]
    assert grey == [5, 6, 7, 10, 11]
    said = [text.get_text() for text in axes.texts]
    assert said == ["text", "stream und", "latents", "stream gen"]
