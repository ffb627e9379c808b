"""Sprites and scenes are exactly what they say they are."""

import random

import numpy as np
import pytest

from unified.worlds.emoji import arrange, language, scene, sprites, vocabulary
from unified.worlds.emoji.scene import Scene, Spot, Thing
from unified.worlds.emoji.world import World

ANYTHING = World(any_pair=True)
APPLE, DOG = "1f34e", "1f436"


def scenes(count: int) -> list[Scene]:
    return [arrange.sample(random.Random(i), ANYTHING) for i in range(count)]


def test_the_table_is_whole():
    concepts = sprites.concepts()
    assert len(concepts) == 3006
    assert sum(c.tone == 0 for c in concepts.values()) == 1566
    assert sum(len(c.styles) for c in concepts.values()) == 10709
    assert concepts[APPLE].caption == "red apple"
    assert concepts[APPLE].i18n["fr"] == "pomme rouge"
    assert "fruit" in concepts[APPLE].tags


def test_a_skin_tone_has_the_tags_of_its_base():
    toned = next(c for c in sprites.concepts().values() if c.tone == 3)
    assert toned.tags == sprites.concepts()[toned.base].tags != ()


@pytest.mark.parametrize("style", sprites.STYLES)
@pytest.mark.parametrize("size", [18, 24, 56])
def test_a_sprite_fills_its_size(style, size):
    pixels = sprites.sprite(APPLE, style, size)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 4
    assert max(pixels.shape[:2]) == size
    assert not pixels.flags.writeable


def test_a_missing_drawing_says_which():
    toned = next(c for c in sprites.concepts().values() if c.tone)
    with pytest.raises(KeyError, match=f"no drawing of {toned.id}.*in style flat"):
        sprites.sprite(toned.id, "flat")


@pytest.mark.parametrize("colour", sprites.COLOURS)
@pytest.mark.parametrize("noun", ["apple", "panda", "house", "rocket"])
def test_the_mean_of_a_tinted_sprite_is_its_colour(noun, colour):
    pixels = sprites.sprite(vocabulary.NOUNS[noun].id, "flat", 24, colour).astype(float)
    mean = np.average(pixels[..., :3].reshape(-1, 3), axis=0, weights=pixels[..., 3].ravel())
    nearest = min(
        sprites.COLOURS, key=lambda c: np.abs(np.subtract(sprites.COLOURS[c], mean)).sum()
    )
    assert nearest == colour
    np.testing.assert_allclose(mean, sprites.COLOURS[colour], atol=24)


def test_tinting_keeps_the_order_of_luminance_and_the_alpha_plane():
    grey = np.arange(0, 250, 10, dtype=np.uint8)
    ramp = np.stack([grey, grey, grey, np.full_like(grey, 200)], -1)[None]
    tinted = sprites.tint(ramp, "blue")
    assert (np.diff(tinted[0, :, :3].astype(int), axis=0) >= 0).all()
    np.testing.assert_array_equal(tinted[..., 3], 200)


def test_every_object_of_scenes_is_a_base_concept_with_all_its_styles():
    assert len(vocabulary.NOUNS) == 48
    for noun in vocabulary.NOUNS.values():
        concept = sprites.concepts()[noun.id]
        assert concept.tone == 0 and set(vocabulary.STYLES) <= set(concept.styles)
        assert noun.kind in vocabulary.KINDS
        assert len(noun.colours) >= 5


def test_rendering_composes_by_alpha():
    picture = Scene((Thing(APPLE, "flat", "blue", 20, 30, 18),), "light green")
    pixels = scene.render(picture)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[0, 0], vocabulary.BACKGROUNDS["light green"])
    left, top, right, bottom = picture.things[0].box
    ink = picture.things[0].pixels
    inside = pixels[top:bottom, left:right]
    solid = ink[..., 3] == 255
    np.testing.assert_array_equal(inside[solid], ink[solid][:, :3])
    outside = pixels.copy()
    outside[top:bottom, left:right] = vocabulary.BACKGROUNDS["light green"]
    assert (outside == vocabulary.BACKGROUNDS["light green"]).all()


def test_boxes_and_masks_agree():
    for picture in scenes(50):
        owner = scene.mask(picture)
        for i, thing in enumerate(picture.things):
            rows, columns = np.nonzero(owner == i)
            left, top, right, bottom = thing.box
            assert max(right - left, bottom - top) == thing.size
            assert left <= columns.min() and columns.max() < right
            assert top <= rows.min() and rows.max() < bottom


def test_a_thing_off_the_canvas_is_an_error():
    with pytest.raises(ValueError, match="leaves the canvas of 64 pixels"):
        scene.render(Scene((Thing(APPLE, "flat", None, 2, 30, 18),)))


def test_things_of_random_scenes_never_touch():
    for picture in scenes(300):
        assert 1 <= len(picture.things) <= 5
        assert scene.fits([t.spot for t in picture.things], picture.side)
        assert len(language.members(picture)) <= 3


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((10, 30), (40, 30), "left of"),
        ((40, 30), (10, 38), "right of"),
        ((30, 10), (30, 40), "above"),
        ((30, 40), (30, 10), "below"),
        ((10, 10), (40, 40), None),
    ],
)
def test_relations_are_the_direction_that_dominates(a, b, said):
    assert scene.relation(Spot(*a, 18), Spot(*b, 18)) == said


def test_a_relation_of_groups_holds_for_every_pair():
    rng = random.Random(0)
    found = 0
    for picture in scenes(300):
        things = language.members(picture)
        told = language.facts(picture, rng)
        for i, said in told.relations:
            a, b = told.groups[i : i + 2]
            assert {scene.relation(p, q) for p in things[a] for q in things[b]} == {said}
            found += 1
    assert found > 100


def test_another_canvas_has_larger_things():
    picture = arrange.sample(random.Random(0), World(side=128, any_pair=True))
    assert scene.render(picture).shape == (128, 128, 3)
    assert {t.size for t in picture.things} <= {36, 48}
