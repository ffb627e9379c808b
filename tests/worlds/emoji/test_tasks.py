"""Examples are deterministic, true, and keep what is held out apart."""

import collections
import re

import numpy as np
import pytest

from unified.worlds.emoji import icons, language, sprites, vocabulary
from unified.worlds.emoji.holdout import is_held_out_concept, is_held_out_pair
from unified.worlds.emoji.scene import OPPOSITE, fits, region, relation_of_groups
from unified.worlds.emoji.tasks import TASKS, EmojiSource, held_out_pairs
from unified.worlds.emoji.world import World

SHAPES = {  # task -> (modality, role) of its segments
    "caption": [("image", "context"), ("text", "context"), ("text", "target")],
    "vqa": [("image", "context"), ("text", "context"), ("text", "target")],
    "generate": [("text", "context"), ("image", "target")],
    "edit": [("image", "context"), ("text", "context"), ("image", "target")],
    "layout": [("text", "context"), ("image", "target")],
    "locate": [("image", "context"), ("text", "context"), ("text", "target")],
}


def truths(split="train", tasks=TASKS, count=600, **options):
    source = EmojiSource(split, tasks, **options)
    return [source.truth(i) for i in range(count)]


@pytest.mark.parametrize("task", SHAPES)
def test_the_segments_of_each_task(task):
    for i in range(10):
        example = EmojiSource("train", {task: 1.0})[i]
        assert example.task == task
        shape = [(s.modality, s.role) for s in example.segments]
        assert shape == SHAPES[task] + SHAPES[task][1:] * (len(shape) // 2 - len(SHAPES[task]) // 2)
        for segment in example.segments:
            if segment.modality == "image":
                assert segment.content.shape == (64, 64, 3) and segment.content.dtype == np.uint8
        if task == "edit":
            assert example.segments[0].use == "edit"
        assert example.origin == f"emoji/train/0/{i}"


def test_boxes_to_locate_are_those_of_the_picture_from_the_top_down():
    for truth in truths(tasks={"locate": 1.0}, count=50):
        _, boxes = language.read_layout(truth.answer)
        found = [box for _, box in boxes]
        assert sorted(found) == sorted(thing.box for thing in truth.before.things)
        assert found == sorted(found, key=lambda box: (box[1], box[0]))


def test_text_examples_have_a_target_and_at_most_one_context():
    lengths = collections.Counter()
    for i in range(200):
        roles = [s.role for s in EmojiSource("train", {"text": 1.0})[i].segments]
        assert roles in (["target"], ["context", "target"])
        lengths[len(roles)] += 1
    assert min(lengths.values()) > 5


def test_examples_depend_on_seed_split_and_index_alone():
    def key(source, i):
        return [
            s.content if isinstance(s.content, str) else s.content.tobytes()
            for s in source[i].segments
        ]

    a, b = EmojiSource("train", seed=3), EmojiSource("train", seed=3)
    backwards = {i: key(b, i) for i in reversed(range(20))}
    assert all(key(a, i) == backwards[i] for i in range(20))
    other = [EmojiSource("train", seed=4), EmojiSource("validation", seed=3)]
    assert all([key(s, i) for i in range(20)] != [key(a, i) for i in range(20)] for s in other)
    assert len({str(key(a, i)) for i in range(20)}) == 20


def test_weights_are_the_shares_of_tasks():
    counts = collections.Counter(t.task for t in truths(tasks={"vqa": 3.0, "edit": 1.0}))
    assert set(counts) == {"vqa", "edit"}
    assert 0.68 < counts["vqa"] / 600 < 0.82


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "unknown split 'test': choose one of train, validation"),
        ({"tasks": {"paint": 1.0}}, r"unknown tasks \['paint'\]: choose from caption"),
        ({"split": "concepts", "tasks": {"layout": 1.0}}, "no task with a positive weight"),
        ({"world": {"side": 96}}, "96 pixels a side: 32 for a single thing, or a multiple of 64"),
        ({"icons": 3}, "icons=3: a share is from 0 to 1"),
    ],
)
def test_wrong_options_are_errors_that_say_what_to_change(options, message):
    with pytest.raises(ValueError, match=message):
        EmojiSource(**options)


def test_an_index_past_the_end_is_an_error():
    source = EmojiSource(length=5)
    assert len(source) == 5
    with pytest.raises(IndexError, match="example 5 of 5"):
        source[5]


def pairs_in(truth):
    """Every (colour, noun) that pictures or text of a scene example show."""
    shown = {
        (thing.colour, vocabulary.BY_ID[thing.id].singular)
        for scene in (truth.before, truth.after)
        if scene is not None and not truth.icon
        for thing in scene.things
    }
    words = "|".join(sorted(vocabulary.BY_WORD, key=len, reverse=True))
    text = f"{truth.prompt} {truth.answer}"
    for colour, word in re.findall(rf"\b({'|'.join(sprites.COLOURS)}) ({words})\b", text):
        noun = vocabulary.BY_WORD[word]
        shown.add((None if colour == noun.natural else colour, noun.singular))
    return shown


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_never_joins_a_held_out_colour_and_object(split):
    scenes = [t for t in truths(split, count=2500) if not t.icon and t.kind not in ("definition",)]
    shown = set().union(*map(pairs_in, scenes))
    assert not [pair for pair in shown if is_held_out_pair(*pair)]
    assert {colour for colour, _ in shown} == {None, *sprites.COLOURS}
    assert {noun for _, noun in shown} == set(vocabulary.NOUNS)


def test_every_held_out_example_has_a_pair_that_training_lacks():
    for truth in truths("heldout", {t: w for t, w in TASKS.items() if t != "text"}):
        assert any(is_held_out_pair(*pair) for pair in pairs_in(truth)), truth
        assert not truth.icon


def test_held_out_pairs_leave_most_of_every_colour_and_object():
    assert len(held_out_pairs(World())) >= 20
    for noun in vocabulary.NOUNS.values():
        held = sum(is_held_out_pair(c, noun.singular) for c in noun.colours)
        assert held <= len(noun.colours) / 2


def test_held_out_concepts_are_in_their_own_split_only():
    assert all(is_held_out_concept(icons.of(t.before or t.after).base) for t in truths("concepts"))
    for truth in truths(icons=1.0, tasks={"caption": 1, "generate": 1, "edit": 1, "vqa": 1}):
        for scene in (truth.before, truth.after):
            assert scene is None or not is_held_out_concept(icons.of(scene).base)
    held = sum(is_held_out_concept(c.id) for c in sprites.concepts().values() if not c.tone)
    assert 50 < held < 120


def test_captions_and_prompts_say_what_is_drawn():
    for truth in truths(tasks={"caption": 1, "generate": 1}, icons=0.0):
        scene = truth.before or truth.after
        told = language.read(truth.answer or truth.prompt)
        assert sorted(told.groups, key=repr) == sorted(language.members(scene), key=repr)
        assert (told.style, told.background) == (scene.things[0].style, scene.background)


def test_answers_are_among_their_choices_and_true():
    kinds = collections.Counter()
    for truth in truths(tasks={"vqa": 1}, count=1500):
        kinds[truth.kind] += 1
        assert truth.answer in truth.choices
        assert truth.chance == 1 / len(truth.choices)
        assert truth.answer not in truth.prompt.split() or truth.kind == "yes/no" or truth.icon
        groups = {} if truth.icon else language.members(truth.before)
        if truth.kind == "count":
            noun = next(
                vocabulary.BY_WORD[w.strip("?")]
                for w in truth.prompt.split()[::-1]
                if w.strip("?") in vocabulary.BY_WORD
            )
            asked = [g for g in groups if g.noun == noun.singular]
            told = [g for g in asked if g.word and f"{g.word} " in truth.prompt] or asked
            assert vocabulary.NUMBERS.index(truth.answer) == sum(g.count for g in told)
        if truth.kind == "colour":
            assert truth.answer in {g.word for g in groups}
        if truth.kind == "background":
            assert truth.answer == truth.before.background
    assert min(kinds.values()) > 20 and len(kinds) == 11


def test_yes_and_no_are_balanced_and_where_is_true():
    answers, places = collections.Counter(), 0
    for truth in truths(tasks={"vqa": 1}, count=2500, icons=0.0):
        if truth.kind == "yes/no":
            answers[truth.answer] += 1
        if truth.kind == "where":
            things = language.members(truth.before)
            related = {relation_of_groups(a, b) for a in things.values() for b in things.values()}
            corners = {region(t, truth.before.side) for t in truth.before.things}
            assert truth.answer in related | corners
            assert truth.answer in corners or OPPOSITE[truth.answer] in related
            places += 1
    assert 0.4 < answers["yes"] / answers.total() < 0.6 and places > 100


def test_edits_change_what_their_kind_says():
    kinds = collections.Counter()
    for truth in truths(tasks={"edit": 1}, count=1000):
        before, after = truth.before, truth.after
        kinds[truth.kind] += 1
        assert before != after
        gone, new = set(before.things) - set(after.things), set(after.things) - set(before.things)
        attribute = {"recolour": "colour", "move": "spot", "style": "style"}.get(truth.kind)
        if attribute:
            assert len(gone) == len(new)
            assert {t.id for t in gone} == {t.id for t in new}
            assert not {getattr(t, attribute) for t in gone} & {getattr(t, attribute) for t in new}
        if truth.kind == "add":
            assert not gone and len(new) == 1
        if truth.kind == "remove":
            assert not new and gone and after.things
        if truth.kind == "replace":
            assert sorted(t.spot for t in gone) == sorted(t.spot for t in new)
        assert (before.background != after.background) == (truth.kind == "background")
        if not truth.icon:
            assert fits([t.spot for t in after.things], 64)
    assert set(kinds) == {
        *("recolour", "add", "remove", "replace", "move", "style", "background"),
        *("icon style", "icon tone", "icon word"),
    }


def test_a_larger_picture_shows_the_same_kind_of_scene():
    source = EmojiSource(world={"side": 128})
    pictures = [s.content for i in range(20) for s in source[i].segments if s.modality == "image"]
    assert {p.shape for p in pictures} == {(128, 128, 3)}


def test_training_asks_up_to_so_many_questions_about_a_picture_and_validation_one():
    asked = lambda split: {
        1 + len(EmojiSource(split, {"vqa": 1.0}, icons=0.0, questions=3).truth(i).earlier)
        for i in range(60)
    }
    assert asked("train") == {1, 2, 3}
    assert asked("validation") == {1}
