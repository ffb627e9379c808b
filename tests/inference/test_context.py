"""Where a request's tokens lie, in numbers."""

import dataclasses

import jax
import numpy as np
import pytest

from unified.inference.context import pack, picture_after, without
from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.layout import Layout, Template
from unified.sequence import OPEN, Segment

LAYOUT = Layout(
    (
        TextLane("text", "und", "text", budget=8, losses=4),
        PatchLane("vit", "und", "vit", budget=4, patch=8, min_side=16, max_side=16),
        PictureLane("wide", "gen", "vae", count=1, height=8, width=16, stride=8),
        PictureLane("square", "gen", "vae", count=1, height=16, width=16, stride=8),
    ),
    Template(begin_text=100, end_text=101, begin_image=102, end_image=103),
)
roomy = dataclasses.replace(
    LAYOUT, lanes=(dataclasses.replace(LAYOUT["text"], budget=128), *LAYOUT.lanes[1:])
)
PICTURE = Segment(np.zeros((16, 16, 3), np.uint8), use="edit")
TEXT = Segment("abc")
encode = lambda text: [ord(letter) for letter in text]


@pytest.fixture
def contexts():
    return pack([[TEXT], [PICTURE, TEXT], []], LAYOUT, encode)


def test_contexts_stay_open_and_say_where_they_go_on(contexts):
    np.testing.assert_array_equal(contexts.clock, [5, 6 + 6 + 5, 0])
    np.testing.assert_array_equal(contexts.position, [5, 1 + 1 + 5, 0])
    assert sorted(contexts.batch.lanes) == ["square", "text", "vit"]  # no request is wide
    text = contexts.batch.lanes["text"]
    assert text.ids.shape == (3, 128)  # rounded up
    np.testing.assert_array_equal(text.ids[0, :6], [100, 97, 98, 99, 101, 0])
    np.testing.assert_array_equal(text.tokens.stop[0, :6], [OPEN] * 5 + [0])
    np.testing.assert_array_equal(text.tokens.stop[2], 0)
    assert contexts.batch.lanes["square"].pixels.shape == (3, 1, 16, 16, 3)


def test_a_picture_comes_right_after_each_context(contexts):
    block = picture_after(contexts, LAYOUT["wide"], LAYOUT).lanes
    text, wide = block["text"], block["wide"]
    assert block.keys() == {"text", "wide"}
    np.testing.assert_array_equal(text.ids, [[102, 103]] * 3)
    np.testing.assert_array_equal(text.tokens.clock, [[5, 8], [17, 20], [0, 3]])
    np.testing.assert_array_equal(wide.tokens.clock, [[6, 7], [18, 19], [1, 2]])
    for tokens in (text.tokens, wide.tokens):
        np.testing.assert_array_equal(tokens.start, [[5, 5], [17, 17], [0, 0]])
        np.testing.assert_array_equal(tokens.stop, [[9, 9], [21, 21], [4, 4]])
        np.testing.assert_array_equal(tokens.position, [[5, 5], [7, 7], [0, 0]])


def test_guidance_drops_the_last_text_or_all_pictures():
    request = [TEXT, PICTURE, Segment("last"), PICTURE]
    assert without(request, "text") == [TEXT, PICTURE, PICTURE]
    assert without(request, "images") == [TEXT, Segment("last")]
    assert without([PICTURE], "text") == [PICTURE]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ([PICTURE, Segment("ab")], []),  # four marks of pictures, two of text
        ([Segment("abcdefg")], ["takes 9 tokens of lane 'text', and the model was trained on at "]),
        ([PICTURE, PICTURE], ["takes 8 tokens of lane 'vit'", "takes 2 pictures of lane 'square'"]),
    ],
    ids=["fits", "long", "many"],
)
def test_a_request_longer_than_a_row_of_the_training_is_warned_of(request_, said, caplog):
    pack([request_], LAYOUT, encode)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(said)
    for message, part in zip(messages, said, strict=True):
        assert part in message


def test_texts_of_many_lengths_have_one_shape():
    shapes = [
        jax.tree.map(np.shape, pack([[Segment("a" * n)]], roomy, encode)) for n in (1, 50, 126)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (
            [Segment("a" * 5000)],
            "takes 5002 tokens of lane 'text', and the model serves at most ",
        ),
        ([PICTURE] * 1025, "takes 4100 tokens of lane 'text', and the model serves at most "),
    ],
    ids=["text", "pictures"],
)
def test_a_request_that_is_too_long_is_refused(request_, told):
    with pytest.raises(ValueError, match=told):
        pack([request_], LAYOUT, encode)
