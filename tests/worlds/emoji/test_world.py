"""A world chosen by a config holds what it names, and nothing else."""

import random

import numpy as np
import pytest

from unified.worlds.emoji import arrange
from unified.worlds.emoji.language import members
from unified.worlds.emoji.parser import parse
from unified.worlds.emoji.scene import render
from unified.worlds.emoji.score import score_edit
from unified.worlds.emoji.tasks import TASKS, EmojiSource
from unified.worlds.emoji.world import EDITS, World, world

SINGLE = {
    "side": 32,
    "most": 1,
    "nouns": ("apple", "car", "dog"),
    "styles": ("flat",),
    "backgrounds": ("white", "light blue"),
    "questions": ("what", "colour"),
    "edits": ("recolour", "background"),
}


def test_scenes_questions_and_edits_are_of_the_world():
    source = EmojiSource(world=SINGLE, icons=0.0)
    truths = [source.truth(i) for i in range(300)]
    scenes = [scene for t in truths for scene in (t.before, t.after) if scene]
    assert {scene.side for scene in scenes} == {32}
    assert {g.noun for scene in scenes for g in members(scene)} == {"apple", "car", "dog"}
    assert {len(scene.things) for scene in scenes} == {1}
    assert {thing.style for scene in scenes for thing in scene.things} == {"flat"}
    assert {scene.background for scene in scenes} == {"white", "light blue"}
    assert {t.kind for t in truths if t.task == "vqa"} == {"what", "colour"}
    assert {t.kind for t in truths if t.task == "edit"} == {"recolour", "background"}


@pytest.mark.parametrize("split", ["validation", "heldout"])
def test_every_task_has_examples_of_a_small_world_in_every_split(split):
    for task in TASKS:
        source = EmojiSource(split, {task: 1.0}, world=SINGLE, icons=0.0)
        assert {source.truth(i).task for i in range(20)} == {task}


def test_the_parser_reads_single_things():
    source = EmojiSource(tasks={"generate": 1.0}, world=SINGLE, icons=0.0)
    truths = [source.truth(i).after for i in range(40)]
    assert [members(parse(render(scene)).scene) for scene in truths] == list(map(members, truths))


def test_a_true_edit_of_a_single_thing_is_right_and_none_is_wrong():
    source = EmojiSource(tasks={"edit": 1.0}, world=SINGLE, icons=0.0)
    for truth in map(source.truth, range(20)):
        before, after = render(truth.before), render(truth.after)
        assert score_edit(truth, before, after)["all"]
        assert not score_edit(truth, before, before)["all"]


def test_a_thing_that_moves_stays_on_the_canvas():
    everything = World(side=32, most=1, edits=("move", "recolour"))
    source = EmojiSource(tasks={"edit": 1.0}, world=vars(everything), icons=0.0)
    for truth in map(source.truth, range(50)):
        assert np.asarray(render(truth.after)).shape == (32, 32, 3)


def test_the_whole_world_is_the_default():
    assert world({}) == World()
    scene = arrange.sample(random.Random(0), World(side=128))
    assert scene.side == 128 and set(World().edits) == set(EDITS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nouns": ("apple", "unicorn")}, "world.nouns=.*unicorn.*choose from dog, cat"),
        ({"styles": ()}, "world.styles=.*choose from flat"),
        ({"nouns": ("apple",), "most": 1}, "more than world.most=1"),
        ({"side": 32}, "world.most=4: 1 to 1 on 32 pixels"),
        ({"side": 48}, "48 pixels a side: 32 for a single thing, or a multiple of 64"),
        ({"most": 0}, "world.most=0: 1 to 4"),
        ({"noun": ("apple",)}, r"world: unknown \['noun'\]"),
    ],
)
def test_a_world_that_cannot_be_names_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        EmojiSource(world=fields)
