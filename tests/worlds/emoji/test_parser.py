"""The parser reads true pictures almost always, and a score is right by more than chance."""

import functools
import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unified.worlds.emoji import arrange, language
from unified.worlds.emoji.parser import parse
from unified.worlds.emoji.scene import Scene, Thing, render
from unified.worlds.emoji.score import score_edit, score_facts, score_scene
from unified.worlds.emoji.tasks import EmojiSource
from unified.worlds.emoji.truth import Truth
from unified.worlds.emoji.world import World

COUNT = 100
ANYTHING = World(any_pair=True)


def scene(i: int) -> Scene:
    return arrange.sample(random.Random(f"parser {i}"), ANYTHING)


def blurred(pixels):
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.8)))


def noisy(pixels):
    noise = np.random.default_rng(pixels.sum()).normal(0, 12, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def compressed(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


@functools.cache
def read_back(count, harm=None):
    return [parse(harm(render(scene(i))) if harm else render(scene(i))) for i in range(count)]


def test_true_pictures_are_read_exactly():
    scores = [score_scene(scene(i), seen.scene)["all"] for i, seen in enumerate(read_back(COUNT))]
    assert np.mean(scores) >= 0.99
    exact = [
        set(scene(i).things) == set(seen.scene.things) for i, seen in enumerate(read_back(COUNT))
    ]
    assert np.mean(exact) >= 0.97
    assert np.median([seen.residue for seen in read_back(COUNT)]) < 1e-3


@pytest.mark.parametrize("harm", [blurred, noisy, compressed])
def test_harmed_pictures_are_read_almost_as_well(harm):
    scores = [
        score_scene(scene(i), seen.scene)["all"]
        for i, seen in enumerate(read_back(COUNT // 3, harm))
    ]
    assert np.mean(scores) >= 0.96  # at most one wrong


def test_a_picture_of_something_else_is_right_by_chance_only():
    seen = read_back(COUNT)
    own, right = [], {}
    for i in range(COUNT):
        facts = language.facts(scene(i), random.Random(i))
        own.append(all(score_facts(facts, seen[i].scene).values()))
        for kind, good in score_facts(facts, seen[(i + 1) % COUNT].scene).items():
            right.setdefault(kind, []).append(good)
    assert np.mean(own) >= 0.99
    assert np.mean(right["all"]) == 0
    assert all(np.mean(right[kind]) <= 0.05 for kind in ("count", "colour", "binding", "position"))


def test_each_kind_of_mistake_fails_its_kind():
    apple, dog = "1f34e", "1f436"
    facts = language.read("a blue apple left of a red dog")

    def kinds(*things, background="white"):
        drawn = tuple(Thing(id, "flat", colour, x, 30, 18) for id, colour, x in things)
        seen = score_facts(facts, parse(render(Scene(drawn, background))).scene)
        return {kind for kind, good in seen.items() if not good} - {"all"}

    right = ((apple, "blue", 12), (dog, "red", 50))
    assert kinds(*right) == set()
    assert kinds(*right, background="light green") == {"background"}
    assert kinds((apple, "blue", 50), (dog, "red", 12)) == {"position"}
    assert kinds((apple, "red", 12), (dog, "blue", 50)) == {"binding", "position"}
    assert kinds(*right, (dog, "red", 31)) == {"count", "colour", "binding"}


def test_a_blank_picture_holds_nothing():
    seen = parse(np.full((64, 64, 3), 255, np.uint8))
    assert seen.scene == Scene(()) and seen.quality == ()


def test_noise_is_not_read_as_a_scene_that_fits():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert parse(noise).residue > 0.5


def test_a_wrong_shape_is_an_error():
    with pytest.raises(ValueError, match=r"\(64, 32, 3\): a square"):
        parse(np.zeros((64, 32, 3), np.uint8))


def test_a_larger_canvas_is_read_too():
    truth = arrange.sample(random.Random(5), World(side=128, any_pair=True))
    assert score_scene(truth, parse(render(truth)).scene)["all"]


def test_edits_succeed_when_carried_out_and_only_then():
    source = EmojiSource("heldout", {"edit": 1.0})
    kinds = set()
    for i in range(25):
        truth = source.truth(i)
        kinds.add(truth.kind)
        before, after = render(truth.before), render(truth.after)
        assert score_edit(truth, before, after)["all"], truth.prompt
        assert not score_edit(truth, before, before)["changed"], truth.prompt
    assert len(kinds) >= 4


def test_an_edit_that_harms_the_rest_fails():
    source = EmojiSource("train", {"edit": 1.0}, icons=0.0)
    checked = 0
    for i in range(60):
        truth = source.truth(i)
        kept = [t for t in truth.after.things if t in truth.before.things]
        if truth.kind != "recolour" or not kept:
            continue
        harmed = truth.after.with_things(t for t in truth.after.things if t != kept[0])
        score = score_edit(truth, render(truth.before), render(harmed))
        assert score == {"changed": False, "unchanged": False, "all": False} or (
            not score["unchanged"] and not score["all"]
        )
        checked += 1
    assert checked >= 3


def test_another_background_leaves_the_things_on_it_as_they_were():
    things = (Thing("1f34e", "flat", "blue", 16, 20, 24), Thing("1f436", "flat", None, 46, 40, 24))
    before, after = Scene(things), Scene(things, "light green")
    truth = Truth(
        "edit", "background", "make the background light green", before=before, after=after
    )
    shapeless = Image.fromarray(render(after)).filter(ImageFilter.GaussianBlur(1.5))
    score = lambda picture: score_edit(truth, render(before), picture)
    assert score(compressed(render(after)))["all"]
    assert score(np.asarray(shapeless)) == {"changed": True, "unchanged": False, "all": False}
