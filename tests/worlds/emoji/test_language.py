"""What is said can be read back, word for word and fact for fact."""

import random

import pytest

from unified.worlds.emoji import arrange, language, vocabulary
from unified.worlds.emoji.language import Facts, Group, read, say
from unified.worlds.emoji.world import World

ANYTHING = World(any_pair=True)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a red apple", Facts((Group(1, "apple"),))),
        ("two green apples", Facts((Group(2, "apple", "green"),))),
        ("an owl and three blue cacti", Facts((Group(1, "owl"), Group(3, "cactus", "blue")))),
        (
            "draw a noto picture of two red apples to the left of a dog on a light blue background",
            Facts((Group(2, "apple"), Group(1, "dog")), ((0, "left of"),), "noto", "light blue"),
        ),
        (
            "a cat is under a bus and a pink key",
            Facts((Group(1, "cat"), Group(1, "bus"), Group(1, "key", "pink")), ((0, "below"),)),
        ),
    ],
)
def test_sentences_mean_what_they_say(text, facts):
    assert read(text) == facts


@pytest.mark.parametrize(
    "text", ["", "dog", "a mauve dog", "two dog and", "a dog left of", "six dogs"]
)
def test_what_is_not_a_sentence_is_an_error(text):
    with pytest.raises(ValueError, match="not an object with its number"):
        read(text)


def test_reading_inverts_saying():
    sentences = set()
    for i in range(2000):
        rng = random.Random(i)
        facts = language.facts(arrange.sample(rng, ANYTHING), rng)
        text = say(facts, rng)
        assert read(text) == facts, text
        sentences.add(text)
    assert len(sentences) > 1800


def test_one_fact_is_said_in_many_ways():
    facts = Facts((Group(2, "apple"), Group(1, "dog", "blue")), ((0, "left of"),), "flat", "white")
    said = {say(facts, random.Random(i)) for i in range(200)}
    assert len(said) >= 8
    assert {read(text) for text in said} == {facts}


def test_layouts_read_back():
    for i in range(300):
        rng = random.Random(i)
        scene = arrange.sample(rng, ANYTHING)
        facts, boxes = language.read_layout(language.say_layout(scene, rng))
        assert set(facts.groups) == set(language.members(scene))
        assert facts.style == scene.things[0].style and facts.background == scene.background
        want = sorted((vocabulary.BY_ID[t.id].singular, t.box) for t in scene.things)
        assert sorted((group.noun, box) for group, box in boxes) == want


def test_sentences_are_short():
    lengths = [
        len(language.describe(arrange.sample(random.Random(i), ANYTHING), random.Random(i)).split())
        for i in range(500)
    ]
    assert max(lengths) <= 24
    assert sum(lengths) / len(lengths) < 12
