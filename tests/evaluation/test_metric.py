"""Numbers, and the table they make."""

import jax
import jax.numpy as jnp
import pytest

from unified.evaluation import metric
from unified.evaluation.loss import losses


def test_a_rate_comes_with_its_error_chance_and_number():
    metrics = metric.rate("heldout/vqa/colour", [True, True, True, False], chance=0.1)
    assert metrics == {
        "heldout/vqa/colour": 0.75,
        "heldout/vqa/colour.stderr": pytest.approx((0.75 * 0.25 / 4 + 1 / 64) ** 0.5 / 1.25),
        "heldout/vqa/colour.examples": 4.0,
        "heldout/vqa/colour.chance": 0.1,
    }


@pytest.mark.parametrize(
    ("p", "n", "error"),
    [(1.0, 1, 0.25), (0.0, 4, 0.1), (1.0, 24, 0.02), (0.5, 4, 0.2236), (0.5, 10_000, 0.005)],
)
def test_the_error_of_few_examples_does_not_vanish_and_that_of_many_is_the_usual_one(p, n, error):
    """Wilson: (p + z^2 / 2n +- z sqrt(p q / n + z^2 / 4n^2)) / (1 + z^2 / n), here for z = 1."""
    assert metric.wilson(p, n) == pytest.approx(error, rel=1e-3)


def test_what_is_most_telling_is_all_of_every_task_then_whole_tasks_in_order():
    names = ["a/draw/colour", "a/draw/all", "a/answer/what", "a/answer/where", "a/answer/all"]
    names += ["a/edit/all", "a/reconstruct/psnr", "a/loss/draw", "a/loss/draw/flow", "a/loss/all"]
    _, rows = metric.rows(dict.fromkeys(names, 1.0))
    least = ["a/draw/all", "a/answer/all", "a/edit/all", "a/reconstruct/psnr", "a/loss/all"]
    told = lambda n: [f"a/{r.task}/{r.measure}" for r in metric.most_telling(rows, n)]
    assert told(0) == least
    assert told(7) == ["a/draw/colour", *least]
    assert set(told(9)) == {*names} - {"a/loss/draw", "a/loss/draw/flow"}
    assert set(told(11)) == {*names}


def test_nothing_measured_is_nothing_reported():
    assert metric.rate("a/b/c", []) == {} == metric.mean("a/b/c", [])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1.0),
        ((0, 0, 4, 4), (2, 0, 6, 4), 8 / 24),
        ((0, 0, 4, 4), (4, 4, 8, 8), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_iou(a, b, expected):
    assert metric.iou(a, b) == metric.iou(b, a) == pytest.approx(expected)


def test_names_become_rows_and_columns_even_with_dots_in_them():
    metrics = metric.rate("validation/vqa/all", [True, False], 0.25)
    metrics |= metric.rate("heldout/vqa/all", [True]) | {"heldout/loss/edit/flow/t0.25-0.50": 0.4}
    columns, rows = metric.rows(metrics)
    assert columns == ["validation", "heldout"]
    assert [(row.task, row.measure) for row in rows] == [
        ("vqa", "all"),
        ("loss", "edit/flow/t0.25-0.50"),
    ]
    assert rows[0].cells["validation"] == metric.Cell(0.5, metric.wilson(0.5, 2), 0.25, 2.0)
    assert str(rows[0].cells["validation"]) == "50.0 ±28.9"
    assert str(rows[1].cells["heldout"]) == "0.400"


def test_rows_of_a_task_stand_together_and_all_comes_last():
    names = ("a/vqa/all", "a/vqa/count", "a/edit/all", "b/vqa/what")
    _, rows = metric.rows(dict.fromkeys(names, 1.0))
    assert [(row.task, row.measure) for row in rows] == [
        ("vqa", "count"),
        ("vqa", "what"),
        ("vqa", "all"),
        ("edit", "all"),
    ]


def test_a_name_without_a_measure_is_of_all_where_others_have_one():
    columns, rows = metric.rows({"validation/loss/caption": 1.0, "validation/loss": 2.0})
    assert columns == ["validation"]
    assert [(row.task, row.measure) for row in rows] == [("loss", "caption"), ("loss", "all")]


def test_short_names_are_rows_of_one_column():
    columns, rows = metric.rows({"head_norm": 2.0, "caption/text": 1.0})
    assert columns == ["value"]
    assert [(row.task, row.measure) for row in rows] == [("", "head_norm"), ("caption", "text")]


def test_losses_weigh_batches_by_their_counts_and_tasks_by_one():
    def loss(batch, key):
        return {"text": (batch.sum(), jnp.float32(len(batch))), "flow": (0.0, 0.0)}

    batches = {"caption": [jnp.array([1.0, 1.0, 1.0]), jnp.array([5.0])], "text": [jnp.zeros(2)]}
    weights = {"text": 3.0, "flow": 1.0}
    assert losses(loss, batches, weights, jax.random.key(0)) == {
        "validation/loss/caption/text": 2.0,
        "validation/loss/caption": 6.0,
        "validation/loss/text/text": 0.0,
        "validation/loss/text": 0.0,
        "validation/loss": 3.0,
    }


def test_losses_of_all_data_together_have_no_task_in_their_names():
    loss = lambda batch, key: {"text": (batch, 2.0)}
    found = losses(loss, {None: [1.0, 3.0]}, {"text": 2.0}, jax.random.key(0))
    assert found == {"validation/loss/text": 1.0, "validation/loss": 2.0}


def test_every_task_draws_the_same_noise():
    noise = lambda batch, key: {"noise": (jax.random.uniform(key), 1.0)}
    found = losses(noise, {"edit": [0, 1], "draw": [2, 3]}, {}, jax.random.key(3))
    assert found["validation/loss/edit/noise"] == found["validation/loss/draw/noise"]
