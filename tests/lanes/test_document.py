"""Documents: literal rows, BAGEL's order, positions and mask, templates as values."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.batch import assemble, check_size
from unified.lanes.document import expand
from unified.lanes.layout import USES, Layout, Template
from unified.sequence import OPEN, Example, Segment

MARKS = Template(begin_text=1, end_text=2, begin_image=3, end_image=4)
WIDE = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)  # two patches, two latent tokens


def layout(text=16, losses=8, vit=4, vae=2, **kwargs):
    lanes = (
        TextLane("text", "und", "text", budget=text, losses=losses),
        PatchLane("vit", "und", "vit", budget=vit, patch=8, min_side=8, max_side=16),
        PictureLane("vae", "gen", "vae", count=vae, height=8, width=16, stride=8),
    )
    return Layout(lanes, MARKS, **kwargs)


SMALL = layout()


def encode(text):
    return [ord(letter) for letter in text]


def row_of(*examples, layout=SMALL, **kwargs):
    return assemble([[expand(example, layout, encode) for example in examples]], layout, **kwargs)


def tokens_in_order(batch):
    """clock, start, stop, position and a name of the lane of the real tokens of row 0, by clock."""
    columns = [
        np.stack([*(getattr(lane.tokens, f)[0] for f in ("clock", "start", "stop", "position"))])
        for lane in batch.lanes.values()
    ]
    names = np.repeat(list(batch.lanes), [c.shape[1] for c in columns])
    joined = np.concatenate(columns, axis=1)
    real = joined[2] > 0
    order = np.argsort(joined[0, real])
    return (*joined[:, real][:, order], names[real][order])


def mask_of(batch):
    clock, start, stop, _, _ = tokens_in_order(batch)
    return (start <= clock[:, None]) & (clock[:, None] < stop)


# a (text), a target picture that something follows, so that it is seen again, an answer; a new
# document.
DRAWN = Example((Segment("a"), Segment(WIDE, "target", "see"), Segment("b", "target")))
OTHER = Example((Segment("c"),))


def test_row_is_these_numbers():
    batch = row_of(DRAWN, OTHER)
    text, vit, vae = (batch.lanes[name] for name in ("text", "vit", "vae"))
    P = layout().slots  # the clock of padding
    a, b, c = encode("abc")
    ids = [1, a, 2, 3, 4, 3, 4, 1, b, 2, 1, c, 2, 0, 0, 0]
    np.testing.assert_array_equal(text.ids, [ids])
    clock = [0, 1, 2, 3, 6, 7, 10, 11, 12, 13, 14, 15, 16, P, P, P]
    np.testing.assert_array_equal(text.tokens.clock, [clock])
    start = [0, 1, 2, 3, 3, 7, 7, 11, 12, 13, 14, 15, 16, 0, 0, 0]
    np.testing.assert_array_equal(text.tokens.start, [start])
    stop = [14, 14, 14, 7, 7, 14, 14, 14, 14, 14, 17, 17, 17, 0, 0, 0]
    np.testing.assert_array_equal(text.tokens.stop, [stop])
    position = [0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 0, 1, 2, 0, 0, 0]
    np.testing.assert_array_equal(text.tokens.position, [position])
    np.testing.assert_array_equal(text.loss_index, [[7, 8, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(text.loss_target, [[b, 2, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(text.loss_weight, [[1, 1, 0, 0, 0, 0, 0, 0]])

    np.testing.assert_array_equal(vit.tokens.clock, [[8, 9, P, P]])
    np.testing.assert_array_equal(vit.tokens.start, [[7, 7, 0, 0]])
    np.testing.assert_array_equal(vit.tokens.stop, [[14, 14, 0, 0]])
    np.testing.assert_array_equal(vit.grid, [[[0, 0], [0, 1], [0, 0], [0, 0]]])
    np.testing.assert_array_equal(vit.first, [[0, 0, 0, 0]])
    np.testing.assert_array_equal(vit.last, [[2, 2, 0, 0]])
    np.testing.assert_array_equal(vit.patches[0, 1], WIDE[:, 8:].reshape(-1))

    np.testing.assert_array_equal(vae.tokens.clock, [[4, 5, P, P]])
    np.testing.assert_array_equal(vae.tokens.start, [[3, 3, 0, 0]])
    np.testing.assert_array_equal(vae.tokens.stop, [[7, 7, 0, 0]])
    np.testing.assert_array_equal(vae.tokens.position, [[3, 3, 0, 0]])
    np.testing.assert_array_equal(vae.target, [[True, False]])
    np.testing.assert_array_equal(vae.valid, [[True, False]])
    np.testing.assert_array_equal(vae.pixels[0, 0], WIDE)


def test_row_is_this_mask():
    want = """
        10000000000000000
        11000000000000000
        11100000000000000
        11111110000000000
        11111110000000000
        11111110000000000
        11111110000000000
        11100001111000000
        11100001111000000
        11100001111000000
        11100001111000000
        11100001111100000
        11100001111110000
        11100001111111000
        00000000000000100
        00000000000000110
        00000000000000111
    """
    want = [[int(bit) for bit in line] for line in want.split()]
    np.testing.assert_array_equal(mask_of(row_of(DRAWN, OTHER)).astype(int), want)


def test_open_end_keeps_clean_keys_alive_and_noised_ones_hidden():
    batch = row_of(DRAWN, open_end=True)
    text, vae = batch.lanes["text"].tokens, batch.lanes["vae"].tokens
    np.testing.assert_array_equal(text.stop[0, :10], [OPEN] * 3 + [7] * 2 + [OPEN] * 5)
    np.testing.assert_array_equal(vae.stop[0, :2], [7, 7])
    assert (text.clock[0, 10:] == OPEN).all()  # padding still sees nothing


def test_positions_may_be_one_a_token():
    example = Example((Segment(WIDE), Segment("a")))
    position = tokens_in_order(row_of(example, layout=layout(image_position="sequential")))[3]
    np.testing.assert_array_equal(position, [0, 1, 2, 3, 4, 5, 6])


def bagel_examples(texts):
    """The five samples of the golden pack, whose text ids stand for themselves."""
    picture = lambda rows, columns, side: np.zeros((rows * side, columns * side, 3), np.uint8)
    vit = lambda rows, columns: Segment(picture(rows, columns, 14), "context", "see")
    vae = lambda rows, columns, role: Segment(picture(rows, columns, 16), role, "latents")
    (s0, s1, s2, s3, s4) = texts
    said = lambda ids, role="context": Segment(json.dumps(ids), role)
    drawn = Segment(picture(4, 2, 16), "target", "edit")
    return [
        (said(s0[0]), said(s0[1], "target")),
        (vit(4, 3), said(s1[0]), said(s1[1], "target")),
        (said(s2[0]), vae(4, 4, "target")),
        (vae(4, 4, "context"), vit(4, 4), said(s3[0]), vae(2, 3, "target")),
        (vae(2, 3, "context"), vit(2, 4), said(s4[0]), drawn, said(s4[1]), vae(3, 2, "target")),
    ]


def test_order_positions_losses_and_mask_are_those_of_bagel():
    golden = json.loads((Path(__file__).parent / "bagel_packing.json").read_text())
    sizes = [(4, 4, 2), (2, 3, 2), (4, 2, 2), (3, 2, 1)]  # rows, columns, pictures of each bucket
    latents = (
        PictureLane(f"vae{r}x{c}", "gen", "vae", count=n, height=16 * r, width=16 * c, stride=16)
        for r, c, n in sizes
    )
    lanes = (
        TextLane("text", "und", "text", budget=84, losses=14),
        PatchLane("vit", "und", "vit", budget=44, patch=14, min_side=14, max_side=56),
        *latents,
    )
    marks = Template(begin_text=484, end_text=485, begin_image=492, end_image=493)
    bagel = Layout(lanes, marks, uses={**USES, "latents": ("vae",)})
    examples = [Example(segments) for segments in bagel_examples(golden["texts"])]
    batch = assemble([[expand(e, bagel, json.loads) for e in examples]], bagel)

    clock, _, _, position, lane = tokens_in_order(batch)
    np.testing.assert_array_equal(clock, np.arange(194))
    np.testing.assert_array_equal(position, golden["position"])
    np.testing.assert_array_equal(np.flatnonzero(lane == "text"), golden["text_index"])
    np.testing.assert_array_equal(np.flatnonzero(lane == "vit"), golden["vit_index"])
    is_vae = np.char.startswith(lane, "vae")
    np.testing.assert_array_equal(np.flatnonzero(is_vae), golden["vae_index"])
    text = batch.lanes["text"]
    np.testing.assert_array_equal(text.ids[0], golden["text_ids"])
    np.testing.assert_array_equal(text.tokens.clock[0, text.loss_index[0]], golden["loss_index"])
    np.testing.assert_array_equal(text.loss_target[0], golden["loss_target"])
    noised = [
        batch.lanes[la.name].tokens.clock[0].reshape(la.count, -1)[batch.lanes[la.name].target[0]]
        for la in bagel.of_stream("gen")
    ]
    noised = np.sort(np.concatenate([clocks.reshape(-1) for clocks in noised]))
    np.testing.assert_array_equal(noised, golden["noised_index"])
    mask = [[int(bit) for bit in f"{int(line, 16):0194b}"] for line in golden["mask"]]
    np.testing.assert_array_equal(mask_of(batch).astype(int), mask)


def test_a_picture_goes_to_the_bucket_nearest_in_aspect_and_a_task_to_its_lane():
    bucket = lambda name, h, w: PictureLane(
        name, "gen", "vae", count=1, height=h, width=w, stride=8
    )
    lanes = (
        TextLane("draw_text", "gen", "text", ("draw",), budget=8),
        TextLane("text", "und", "text", budget=8),
        *(bucket("square", 16, 16), bucket("wide", 8, 16), bucket("tall", 16, 8)),
    )
    routed = Layout(lanes, MARKS)
    lanes_of = lambda *shape: set(
        expand(
            Example((Segment(np.zeros((*shape, 3), np.uint8), "target"),), "draw"), routed, encode
        ).lanes
    )
    assert lanes_of(64, 64) == {"draw_text", "square"}
    assert lanes_of(64, 110) == {"draw_text", "wide"}
    assert lanes_of(110, 64) == {"draw_text", "tall"}
    assert set(expand(Example((Segment("a"),), "chat"), routed, encode).lanes) == {"text"}


def test_a_picture_is_read_by_its_latents_where_no_lane_has_patches():
    text, _, vae = SMALL.lanes
    dense = Layout((text, vae), MARKS, uses={"see": ("vae",), "edit": ("vae",)})
    before = Segment(WIDE, use="edit")
    for picture in (Segment(WIDE), before):  # a question, an edit: once, not once a view
        read = expand(Example((picture, Segment("a"))), dense, encode)
        assert read.lanes["vae"].target.tolist() == [False]
    with pytest.raises(ValueError, match="no lane for view 'vit'"):
        expand(Example((before,)), Layout((text, vae), MARKS), encode)


def test_an_example_larger_than_a_row_is_refused_with_its_size_and_the_limit():
    long = Example((Segment("x" * 20), *[Segment(WIDE)] * 3), origin="set.jsonl:7")
    message = r"set\.jsonl:7: larger than a row: needs text 28 \(limit 16\), vit 6 \(limit 4\)"
    with pytest.raises(ValueError, match=message):
        check_size(expand(long, SMALL, encode), SMALL)
    with pytest.raises(ValueError, match=r"needs text_losses 10 \(limit 8\); raise"):  # text fits
        check_size(expand(Example((Segment("x" * 9, "target"),)), SMALL, encode), SMALL)
    with pytest.raises(ValueError, match=r"set:1: no lane for use 'depth'"):
        expand(Example((Segment(WIDE, "context", "depth"),), origin="set:1"), layout(), encode)
    spans = expand(OTHER, layout(), encode)
    with pytest.raises(ValueError, match="needs 18 of 'text', more than its budget 16"):
        assemble([[spans] * 6], layout())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vit": 3}, "has 4 patches, the budget is 3: raise budget or lower max_side"),
        ({"vae": 0}, "count must be 1 or more"),
        ({"losses": 16}, "losses must be fewer than budget 16"),
    ],
)
def test_budgets_that_hold_no_picture_say_what_to_change(change, message):
    with pytest.raises(ValueError, match=message):
        layout(**change).check()


QWEN = Template(
    begin_text=(),
    begin_image=(7,),
    end_image=(8,),
    begin_context=(1, 5, 9),  # <|im_start|> user \n
    end_context=(2, 9),  # <|im_end|> \n
    begin_target=(1, 6, 9),
    end_target=(2, 9),
    learnt=("end_target",),
)


def test_a_template_of_chat_turns_is_qwens_row():
    """Segments of one role share a turn; of the marks, those that end an answer are learnt."""
    chat = layout(text=32, losses=16)
    chat = Layout(chat.lanes, QWEN, uses={"see": ("vit",)})
    a, b, c = encode("abc")
    turns = (Segment(WIDE), Segment("ab"), Segment("c", "target"), Segment("a"))
    text = row_of(Example(turns), layout=chat).lanes["text"]
    ids = [1, 5, 9, 7, 8, a, b, 2, 9, 1, 6, 9, c, 2, 9, 1, 5, 9, a, 2, 9]
    np.testing.assert_array_equal(text.ids[0, : len(ids)], ids)
    assert text.loss_weight.sum() == 3
    np.testing.assert_array_equal(text.loss_index[0, :3], [11, 12, 13])
    np.testing.assert_array_equal(text.loss_target[0, :3], [c, 2, 9])


def test_a_model_may_decide_by_itself_to_draw():
    """The mark that opens a picture is predicted by the token before."""
    template = dataclasses.replace(MARKS, learnt=("end_text", "begin_image"))
    draws = Layout(SMALL.lanes, template)
    text = row_of(Example((Segment("a"), Segment(WIDE, "target"))), layout=draws).lanes["text"]
    np.testing.assert_array_equal(text.loss_index[0, :2], [2, 0])
    np.testing.assert_array_equal(text.loss_target[0, :2], [3, 0])
    assert text.loss_weight.sum() == 1


def test_a_template_that_leaves_a_first_token_without_a_predecessor_is_refused():
    bare = Layout(SMALL.lanes, Template())
    with pytest.raises(ValueError, match="nothing predicts the first token: give the template"):
        expand(Example((Segment("a", "target"),)), bare, encode)
    with pytest.raises(ValueError, match=r"learnt=\['end'\]: choose of \['begin_text'"):
        Template(learnt=("end",))


def test_pictures_may_be_causal():
    """As codes are, whose targets are hidden from what follows all the same."""
    lanes = [dataclasses.replace(SMALL["vae"], sees="causal"), SMALL["text"]]
    causal = Layout(tuple(lanes), MARKS, uses={"see": ("vae",), "draw": ("vae",)})
    batch = row_of(Example((Segment(WIDE, "target"), Segment("a"))), layout=causal)
    clock, start, stop, _, _ = tokens_in_order(batch)
    np.testing.assert_array_equal(start, clock)
    np.testing.assert_array_equal(stop, [4] * 4 + [11] * 7)


def test_positions_of_a_grid_are_time_row_and_column():
    """As in Qwen2-VL: a picture at one time, and what follows after its longer side."""
    grid = layout(image_position="grid")
    tall = np.zeros((16, 8, 3), np.uint8)
    seen = row_of(Example((Segment(tall), Segment("a"))), layout=grid)
    text, vit = (seen.lanes[name].tokens.position[0] for name in ("text", "vit"))
    assert vit[:2].tolist() == [[1, 1, 1], [1, 2, 1]]
    marks_and_text = [0, 3, *range(4, 4 + text.max() - 3)]
    assert text[: len(marks_and_text)].tolist() == [[n] * 3 for n in marks_and_text]
    drawn = row_of(Example((Segment("a"), Segment(WIDE, "target"))), layout=grid)
    text, vae = (drawn.lanes[name].tokens.position[0] for name in ("text", "vae"))
    begin = int(text.max()) - 3  # of the picture: a mark, two columns, a mark
    assert vae[:2].tolist() == [[begin + 1] * 3, [begin + 1, begin + 1, begin + 2]]
