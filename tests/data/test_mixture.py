"""Mixtures: weights, epochs, local reads, condition dropout; all functions of (seed, index)."""

import collections
import dataclasses
import math
import types

import numpy as np
import pytest

from unified.data.mixture import WINDOW, drop_conditions, mixture
from unified.data.sources import BadRecord
from unified.lanes.layout import Layout, Template
from unified.sequence import Example, Segment

PICTURE = np.zeros((8, 8, 3), np.uint8)


def numbers(n, first=0):
    return range(first, first + n)  # a range is a random-access source


def test_weights_hold_in_every_window_and_in_every_row():
    mixed = mixture([numbers(1000), numbers(1000, 1000), numbers(9, 9000)], [1, 3, 0], seed=1)
    drawn = [mixed[i] for i in range(WINDOW)]
    assert sum(i < 1000 for i in drawn) == WINDOW // 4
    assert max(drawn) < 2000  # weight 0: left out
    for row in range(4):  # a row takes every fourth example and sees the same mixture
        share = np.mean([i < 1000 for i in drawn[row::4]])
        assert 0.2 < share < 0.3


def test_every_epoch_holds_each_example_once_in_a_new_order():
    epochs = [[mixture([numbers(50)], seed=3)[e * 50 + i] for i in range(50)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] != epochs[1] != list(range(50))
    assert [mixture([numbers(50)], seed=4)[i] for i in range(50)] != epochs[0]


def test_grouped_sources_are_read_group_by_group():
    class Grouped(collections.UserList):
        group_sizes = (5, 3, 4, 5, 3)
        cached_groups = 4

    source = Grouped(range(20))
    mixed = mixture([source], seed=0)
    epochs = [[mixed[e * 20 + i] for i in range(20)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    group = np.repeat(np.arange(5), Grouped.group_sizes)
    spans = [np.flatnonzero(group[epochs[0]] == g) for g in range(5)]
    # two groups mingle at a time, so no group is spread over more than two groups' examples
    assert all(span.max() - span.min() < 10 for span in spans)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.0], ": the weight of each is 0"),
        ([-1.0], r"\.0\.weight=-1.0"),
        ([math.nan], "weight=nan"),
    ],
)
def test_weights_must_be_positive(weights, said):
    with pytest.raises(ValueError, match=f"^sources.*{said}"):
        mixture([numbers(5)], weights)


PLAIN = Layout((), Template(begin_text=1, end_text=2, begin_image=3, end_image=4))
EDIT = Example(
    (
        Segment(PICTURE, use="edit"),
        Segment("redden"),
        Segment("thought", "target"),
        Segment(PICTURE, "target", "edit"),
    )
)


def dropped(example, draws=0, layout=PLAIN, **rates):
    return drop_conditions(example, np.random.default_rng(draws), rates, layout.views).segments


read = PLAIN.views


def test_dropout_forgets_texts_pictures_and_single_views():
    for kept, segment in zip(dropped(EDIT), EDIT.segments, strict=True):
        assert kept.content is segment.content and kept.without == ()
    texts = [s.content for s in dropped(EDIT, text=1.0) if s.modality == "text"]
    assert texts == ["thought"]  # a target is never forgotten
    blind = dropped(EDIT, vit=1.0)
    assert [read(s) for s in blind if s.modality == "image"] == [("vae",), ("vae",)]
    none = dropped(EDIT, vit=1.0, vae=1.0, text=1.0)
    assert [(s.role, s.modality) for s in none] == [("target", "text"), ("target", "image")]
    assert read(none[-1]) == ()
    whole = dropped(EDIT, image=1.0, text=1.0)
    assert [(s.role, s.without) for s in whole] == [(s.role, s.without) for s in none]
    draws = [read(dropped(EDIT, seed, vit=0.5, vae=0.5)[0]) for seed in range(200)]
    share = {views: n / 200 for views, n in collections.Counter(draws).items()}
    assert all(0.15 < share[views] < 0.45 for views in [("vae", "vit"), ("vae",), ("vit",)])


def test_dropout_of_a_view_forgets_a_picture_that_has_no_other():
    layout = dataclasses.replace(PLAIN, uses={"edit": ("vae",)})
    draws = [dropped(EDIT, seed, layout, vae=0.5) for seed in range(200)]
    is_read = lambda s: s.modality == "image" and s.role == "context"
    kept = collections.Counter(sum(map(is_read, draw)) for draw in draws)
    assert kept.keys() == {0, 1}
    assert 0.4 < kept[0] / 200 < 0.6


def test_dropout_leaves_examples_that_draw_nothing():
    seen = Example((Segment(PICTURE), Segment("what?"), Segment("a cat", "target")))
    assert dropped(seen, text=1.0, vit=1.0) == seen.segments
    bad = BadRecord("file:1", "cut")
    assert drop_conditions(bad, types.SimpleNamespace(), {"text": 1.0}, PLAIN.views) is bad
