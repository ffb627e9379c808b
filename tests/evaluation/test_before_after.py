"""A model before and after training, on the same examples."""

import json
import re

import numpy as np
import pytest

from unified.evaluation import before_after, report
from unified.sequence import Example, Segment
from unified.worlds.emoji.concept import ConceptSource

TAUGHT = {"format": "unified.worlds.emoji.concept:ConceptSource", "names": ("tiger",)}
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
EXAMPLE = Example((Segment("a dog"), Segment(PICTURE, role="target")), "draw")


class Model:
    """Draws the truth once it is trained, and before it nothing."""

    def __init__(self, trained=True):
        self.trained, self.asked = trained, []

    def before_training(self):
        self.before = Model(trained=False)
        return self.before

    def draw(self, requests, *, seeds, task):
        self.asked.append((seeds, task))
        if not self.trained:
            return [np.full((64, 64, 3), 255, np.uint8)] * len(requests)
        source = ConceptSource(TAUGHT["names"])
        return [source[i].segments[-1].content for i in range(len(requests))]


class Own:
    """A source that knows no more of its examples than they are."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return EXAMPLE


@pytest.fixture
def judged(tmp_path):
    model = Model()
    return model, before_after.run(model, tmp_path, sources={"new": TAUGHT}, examples=4), tmp_path


def test_what_was_taught_is_wrong_before_and_right_after(judged):
    _, metrics, folder = judged
    assert (metrics["before/new/all"], metrics["after/new/all"]) == (0.0, 1.0)
    assert metrics["before/new/all.examples"] == 4
    assert json.loads((folder / report.METRICS).read_text()) == metrics


def test_both_are_asked_the_same_with_the_same_seeds(judged):
    model, _, _ = judged
    assert model.asked == model.before.asked == [([0, 1, 2, 3], "generate")]


def test_the_pictures_stand_side_by_side_below_their_prompt(judged):
    page = (judged[2] / report.PAGE).read_text()
    labels = re.findall(r"(?:figcaption|dt)>([a-z]+)</", page)
    assert labels == ["prompt", "before", "after", "truth"] * 4
    assert (judged[2] / report.SHEET).exists()


def test_examples_of_ones_own_are_shown_without_a_verdict(tmp_path):
    own = {"format": "tests.evaluation.test_before_after:Own"}
    metrics = before_after.run(Model(), tmp_path, sources={"mine": own}, examples=2)
    assert metrics == {"before/mine/examples": 2.0, "after/mine/examples": 2.0}
    assert 'class="card"' in (tmp_path / report.PAGE).read_text()


@pytest.mark.parametrize("load", [{}, {"autoencoder": "unified/checkpoints/autoencoder"}])
def test_a_training_that_begins_with_nothing_has_no_before(load):
    with pytest.raises(ValueError, match=r"config\.load={'/': a release}"):
        before_after.check({"load": load})
