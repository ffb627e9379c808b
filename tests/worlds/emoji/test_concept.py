"""Icons of a few concepts, by name."""

import pytest

from configs.finetune import TAUGHT
from unified.worlds.emoji import icons
from unified.worlds.emoji.concept import ConceptSource
from unified.worlds.emoji.holdout import is_held_out_concept
from unified.worlds.emoji.icon import judge_drawing
from unified.worlds.emoji.scene import render


def test_examples_show_the_concepts_named_and_no_other():
    source = ConceptSource(("tiger", "bicycle"), styles=("flat", "noto"), backgrounds=("white",))
    scenes = [source.truth(i).after for i in range(40)]
    shown = {(icons.of(s).caption, s.things[0].style, s.background) for s in scenes}
    styles = ("flat", "noto")
    assert shown == {(name, s, "white") for name in ("tiger", "bicycle") for s in styles}


def test_a_prompt_names_what_its_picture_shows():
    source = ConceptSource(("tiger",))
    truths = [source.truth(i) for i in range(20)]
    assert all("tiger" in t.prompt and judge_drawing(t, render(t.after)).is_correct for t in truths)


def test_what_the_finetuning_teaches_was_kept_from_training():
    source = ConceptSource(TAUGHT)
    bases = {icons.of(source.truth(i).after).base for i in range(40)}
    assert len(bases) == len(TAUGHT) and all(map(is_held_out_concept, bases))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"names": ("tigre",)}, "names: there is no 'tigre'"),
        ({"names": ("tiger",), "styles": ("oil",)}, "styles: there is no 'oil'"),
        ({"names": ("tiger",), "backgrounds": ("black",)}, "backgrounds: there is no 'black'"),
        ({"names": ()}, "no drawing of"),
    ],
)
def test_what_there_is_not_is_named(given, said):
    with pytest.raises(ValueError, match=said):
        ConceptSource(**given)
