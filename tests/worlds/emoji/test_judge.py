"""Verdicts on literal scenes."""

import dataclasses

import pytest

from unified.worlds.emoji import icon, icons, judge
from unified.worlds.emoji.scene import Scene, Thing, render
from unified.worlds.emoji.sprites import concepts
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.vocabulary import NOUNS

FACTS = {"objects", "count", "colour", "binding", "position", "background", "style"}


def thing(noun, colour, x, y, size=18):
    return Thing(NOUNS[noun].id, "flat", colour, x, y, size)


APPLE, DOG = thing("apple", "blue", 14, 14), thing("dog", None, 48, 14)
SCENE = Scene((APPLE, DOG))


def changed(a, **fields):
    return dataclasses.replace(a, **fields)


def drawn(prompt, *things, background="white"):
    truth = Truth("generate", "scene", prompt, after=SCENE)
    return judge.judge_scene(truth, Scene(things, background)).measures


def wrong(measures):
    return {name for name, good in measures.items() if not good}


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        ((APPLE, DOG), set()),
        ((DOG, changed(APPLE, y=16)), set()),
        ((), {"objects", "count", "colour", "binding", "position", "style", "all"}),
        ((APPLE,), {"objects", "count", "colour", "binding", "position", "all"}),
        (
            (APPLE, DOG, changed(DOG, y=50)),
            {"count", "colour", "binding", "position", "all"},
        ),
        ((changed(APPLE, x=60), DOG), {"position", "all"}),
        ((changed(APPLE, colour="green"), DOG), {"colour", "binding", "position", "all"}),
        (
            (changed(APPLE, colour=None), changed(DOG, colour="blue")),
            {"colour", "binding", "position", "all"},
        ),
        ((changed(APPLE, style="3d"), changed(DOG, style="3d")), {"style", "all"}),
    ],
    ids=["same", "order", "empty", "missing", "one more", "moved", "green", "swapped", "style"],
)
def test_a_drawing_is_judged_by_what_was_asked(things, expected):
    assert wrong(drawn("a blue apple left of a dog", *things)) == expected


def test_colours_on_the_wrong_objects_fail_the_binding_alone():
    pear, cake = thing("pear", "red", 14, 14), thing("cake", "blue", 48, 14)
    swapped = changed(pear, colour="blue"), changed(cake, colour="red")
    prompt = "a red pear and a blue cake"
    assert not wrong(drawn(prompt, pear, cake))
    assert wrong(drawn(prompt, *swapped)) == {"binding", "all"}


def test_another_background_is_wrong():
    assert wrong(drawn("a blue apple and a dog", APPLE, DOG, background="light blue")) == {
        "background",
        "all",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a blue apple left of a dog", set()),
        ("a dog right of a blue apple", {"words"}),
        ("a dog and a blue apple", {"words"}),
        ("a dog left of a blue apple", {"words", "position", "all"}),
        ("two blue apples and a dog", {"words", "count", "colour", "binding", "all"}),
        ("an apple", {"words", "objects", "count", "colour", "binding", "all"}),
        ("blub", {"words", *FACTS, "all"}),
    ],
)
def test_a_caption_is_judged_by_what_it_states(text, expected):
    truth = Truth("caption", "scene", "caption", "a blue apple left of a dog", before=SCENE)
    assert wrong(judge.judge_caption(truth, text).measures) == expected


def test_an_answer_is_right_in_any_case():
    truth = Truth("vqa", "colour", "which colour is the apple?", "blue", before=SCENE)
    assert judge.judge_answer(truth, " Blue.").measures == {"colour": True, "all": True}
    assert judge.judge_answer(truth, "blue apple").measures == {"colour": False, "all": False}


def test_a_layout_asks_for_every_object_in_its_box():
    boxes = [" ".join(map(str, t.box)) for t in (APPLE, DOG)]
    prompt = f"layout: blue apple [{boxes[0]}], dog [{boxes[1]}]"
    truth = Truth("layout", "scene", prompt, after=SCENE)
    assert judge.judge_layout(truth, SCENE).measures["iou"] == 1.0
    near = judge.judge_layout(truth, Scene((changed(APPLE, x=16), DOG)))
    assert near.is_correct and 0.7 < near.measures["iou"] < 1
    far = judge.judge_layout(truth, Scene((changed(APPLE, x=30), DOG)))
    assert not far.is_correct and far.measures["count"] and not far.measures["boxes"]
    assert judge.judge_layout(truth, Scene((DOG,))).measures["iou"] == 0.5


def test_boxes_read_off_a_picture_are_those_of_its_objects_and_no_others():
    apple, dog = (" ".join(map(str, t.box)) for t in (APPLE, DOG))
    answer = f"layout: blue apple [{apple}], dog [{dog}]"
    truth = Truth("locate", "scene", "list the boxes", answer, before=SCENE)
    assert judge.judge_boxes(truth, answer).measures["iou"] == 1.0
    assert judge.judge_boxes(truth, f"layout: dog [{dog}], blue apple [{apple}]").is_correct
    swapped = judge.judge_boxes(truth, f"layout: blue apple [{dog}], dog [{apple}]")
    assert wrong(swapped.measures) == {"boxes", "iou", "all"}
    missing = judge.judge_boxes(truth, f"layout: dog [{dog}]")
    assert missing.measures["iou"] == 0.5 and not missing.is_correct
    nothing = judge.judge_boxes(truth, "a dog and an apple")
    assert nothing.measures.keys() == swapped.measures.keys() and not any(nothing.measures.values())


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((changed(APPLE, colour="green"), DOG), set()),
        ((APPLE, DOG), {"changed", "recolour", "all"}),
        (
            (changed(APPLE, colour="green"), changed(DOG, y=40)),
            {"changed", "unchanged", "recolour", "all"},
        ),
    ],
    ids=["done", "nothing done", "more than asked"],
)
def test_an_edit_is_done_nothing_more_and_nothing_less(drawn, expected):
    after = Scene((changed(APPLE, colour="green"), DOG))
    truth = Truth("edit", "recolour", "make the apple green", before=SCENE, after=after)
    verdict = judge.judge_edit(truth, render(Scene(drawn)))
    assert wrong(verdict.measures) == expected
    assert verdict.seen == judge.summary(Scene(drawn))


def test_an_icon_caption_is_judged_by_its_parts():
    before = icons.draw(concepts()["1f34e"], "3d", "light blue")
    answer = "3d icon of red apple on light blue"
    truth = Truth("caption", "icon", "caption", answer, before=before, icon=True)
    assert not wrong(icon.judge_caption(truth, "3d icon: red apple on light blue").measures)
    assert wrong(icon.judge_caption(truth, "icon of red apple").measures) == {
        "style",
        "background",
        "all",
    }
    assert not any(icon.judge_caption(truth, "a red apple").measures.values())


def test_an_icon_is_told_from_other_concepts_and_from_what_it_was():
    apple, pear = (icons.draw(concepts()[id], "flat") for id in ("1f34e", "1f350"))
    truth = Truth("generate", "icon", "icon of red apple", after=apple, icon=True)
    assert icon.judge_drawing(truth, render(apple)).is_correct
    assert wrong(icon.judge_drawing(truth, render(pear)).measures) == {"icon", "all"}
    done = icons.draw(concepts()["1f34e"], "3d")
    edit = Truth("edit", "icon style", "make it 3d", before=apple, after=done, icon=True)
    assert icon.judge_drawing(edit, render(done)).is_correct
    assert wrong(icon.judge_drawing(edit, render(apple)).measures) == {"icon", "icon style", "all"}
