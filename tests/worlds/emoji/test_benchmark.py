"""The suite on models whose scores are known: one that knows the truth, and one that is blind."""

import json
import re

import numpy as np
import pytest

from unified.evaluation import metric, report
from unified.worlds.emoji import benchmark as emoji
from unified.worlds.emoji.tasks import TASKS, to_example

N, SEED = 2, 5


def key(request):
    return tuple(s.content if isinstance(s.content, str) else s.content.tobytes() for s in request)


class Oracle:
    """Knows every example of the suite, by what may be read of it."""

    def __init__(self, splits):
        self.known = {}
        for split in splits:
            for suite in emoji.SUITES:
                if emoji.has(split, suite, icons=True):
                    for truth in emoji.truths(suite, split, N, SEED, {}):
                        segments = to_example(truth).segments
                        self.known[key(segments[:-1])] = segments[-1]

    def answer(self, requests, *, task):
        return [self.known[key(request)].content for request in requests]

    def draw(self, requests, *, seeds, task):
        assert list(seeds) == list(range(SEED, SEED + N))
        return [self.known[key(request)].content for request in requests]

    def reconstruct(self, pictures):
        return pictures


class Blind:
    """Says the same and draws nothing, whatever it is asked."""

    def answer(self, requests, *, task):
        return ["a dog" if task == "caption" else "yes"] * len(requests)

    def draw(self, requests, *, seeds, task):
        return np.full((len(requests), 64, 64, 3), 255, np.uint8)

    def reconstruct(self, pictures):
        return np.full_like(pictures, 255)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    splits = ("validation", "heldout")
    folder = tmp_path_factory.mktemp("oracle")
    metrics = emoji.run(
        Oracle(splits), folder, examples_per_task=N, seed=SEED, splits=splits, extra={"a/b/c": 1.5}
    )
    return folder, metrics


def values(metrics):
    return {k: v for k, v in metrics.items() if k.rpartition(".")[2] not in metric.BESIDE}


def test_who_knows_the_truth_scores_one(oracle):
    found = values(oracle[1])
    assert found.pop("a/b/c") == 1.5
    for split in ("validation", "heldout"):
        assert found.pop(f"{split}/reconstruction/psnr") == emoji.EXACT
    tasks = {tuple(name.split("/")[:2]) for name in found}
    assert {("heldout", task) for task in TASKS} <= tasks
    assert ("validation", "edit icons") in tasks and ("heldout", "edit icons") not in tasks
    assert {name: value for name, value in found.items() if value != pytest.approx(1)} == {}


def test_rates_come_with_their_number_and_error(oracle):
    assert oracle[1]["heldout/generate/all.examples"] == N
    assert oracle[1]["heldout/generate/all.stderr"] == metric.wilson(1.0, N)
    assert 0 < oracle[1]["validation/vqa/all.chance"] < 0.6
    assert oracle[1]["heldout/generate/all.chance"] < 0.02  # of another picture
    assert oracle[1]["heldout/edit/all.chance"] == 0.0


def test_what_is_returned_is_written(oracle):
    folder, metrics = oracle
    assert json.loads((folder / report.METRICS).read_text()) == metrics
    page = (folder / report.PAGE).read_text()
    assert set(re.findall('class="card( [a-z]+|)"', page)) == {" right"}
    assert page.count("<img") > 40


@pytest.mark.parametrize(
    ("tasks", "n"),
    [
        (("caption", "vqa", "locate", "text"), 50),
        (("generate", "layout", "edit", "reconstruction"), 2),
    ],
    ids=["write", "draw"],
)
def test_who_does_not_look_scores_no_more_than_chance(tmp_path, tasks, n):
    metrics = emoji.run(
        Blind(), tmp_path, examples_per_task=n, splits=("validation",), tasks=tasks, icons=False
    )
    for task in tasks:
        name = f"validation/{task}/all"
        chance = metrics.get(f"{name}.chance", 0.0)
        assert metrics[name] <= chance + 3 * metrics[f"{name}.stderr"]
    assert metrics.get("validation/reconstruction/psnr", 0) < 20
    assert 'class="card wrong"' in (tmp_path / report.PAGE).read_text()


def test_always_the_commonest_answer_scores_chance():
    suite = next(s for s in emoji.SUITES if s.name == "vqa")
    known = emoji.truths(suite, "validation", 1000, 0, {})
    verdicts = emoji.look_away(suite, known)
    metrics = emoji.collect("x/vqa", verdicts[:200], verdicts)
    for kind in ("yes/no", "count", "all"):
        name = f"x/vqa/{kind}"
        assert abs(metrics[name] - metrics[f"{name}.chance"]) < 4 * metrics[f"{name}.stderr"]
    assert 0.4 < metrics["x/vqa/yes/no.chance"] < 0.6 and metrics["x/vqa/what.chance"] < 0.1


def test_examples_to_write_have_one_right_answer():
    suite = next(s for s in emoji.SUITES if s.name == "text")
    found = emoji.truths(suite, "validation", 100, 0, {})
    assert not {truth.kind for truth in found} & set(emoji.OPEN_KINDS)
    assert all(truth.prompt and truth.answer for truth in found)


def test_concepts_never_trained_on_are_measured_as_icons(tmp_path):
    oracle = Oracle(("concepts",))
    metrics = emoji.run(
        oracle, tmp_path, examples_per_task=N, seed=SEED, splits=("concepts",), tasks=("vqa",)
    )
    assert {name.split("/")[1] for name in metrics} == {"vqa icons"}
    assert metrics["concepts/vqa icons/all"] == 1.0
