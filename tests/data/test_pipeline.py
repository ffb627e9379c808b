"""The whole input: exact resume for any prefetch and processes, bad records, validation."""

import json
import logging

import jax
import numpy as np
import pytest

from unified.data.pipeline import Pipeline, configured
from unified.data.rows import BadRecordsError, merge_states
from unified.data.sources import BadRecord
from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.layout import Layout, Template
from unified.sequence import Example, Segment

R = 4  # rows


def make_layout(text=32, vit=4, vae=2, size=16):
    lanes = (
        TextLane("text", "und", "text", budget=text, losses=text * 3 // 4),
        PatchLane("vit", "und", "vit", budget=vit, patch=8, min_side=8, max_side=size),
        PictureLane("vae", "gen", "vae", count=vae, height=size, width=size, stride=8),
    )
    return Layout(lanes, Template(begin_text=1, end_text=2, begin_image=3, end_image=4))


class Numbers:
    """Text, reading and drawing examples that say their number; `bad` ones cannot be read."""

    def __init__(self, n=30, bad=()):
        self.n, self.bad = n, bad

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        origin = f"numbers.jsonl:{i}"
        if i in self.bad:
            return BadRecord(origin, "truncated")
        picture = np.full((16, 8 + 8 * (i % 2), 3), i, np.uint8)
        answer = Segment(str(i), "target")
        kinds = {
            "text": (answer,),
            "read": (Segment(picture), answer),
            "draw": (Segment(picture, use="edit"), Segment(picture, "target")),
        }
        task = list(kinds)[i % 3]
        return Example(kinds[task], task, origin)


def encode(text):
    return [ord(letter) for letter in text]


def make(source=None, **kwargs):
    options = {"batch_size": R, "seed": 5, "dropout": {"vit": 0.3, "text": 0.3}, "lookahead": 6}
    return Pipeline([source or Numbers()], make_layout(), encode, **(options | kwargs))


def take(pipeline, n):
    return [next(pipeline) for _ in range(n)]


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_interrupted_is_uninterrupted(prefetch):
    want = take(make(prefetch=1), 9)
    first = make(prefetch=prefetch)
    assert_equal(take(first, 4), want[:4])
    state = json.loads(json.dumps(first.get_state()))
    first.close()
    second = make(prefetch=3 - prefetch, threads=1)
    take(second, 2)  # an iterator that has run is set back too
    second.set_state(state)
    assert second.get_state() == state
    assert_equal(take(second, 5), want[4:])


def test_two_processes_make_the_rows_of_one_and_continue_as_one():
    want = take(make(), 6)
    halves = [make(rows=range(0, 2)), make(rows=range(2, 4))]
    parts = [take(half, 3) for half in halves]
    join = lambda *leaves: np.concatenate(leaves)
    assert_equal([jax.tree.map(join, *pair) for pair in zip(*parts, strict=True)], want[:3])
    one = make()
    one.set_state(merge_states([half.get_state() for half in halves]))
    assert_equal(take(one, 3), want[3:])
    four = [make(rows=[r]) for r in range(R)]
    for process in four:
        process.set_state(merge_states([half.get_state() for half in halves]))
    parts = [take(process, 3) for process in four]
    assert_equal([jax.tree.map(join, *row) for row in zip(*parts, strict=True)], want[3:])


def test_a_state_of_another_batch_size_is_refused():
    with pytest.raises(ValueError, match="saved with batch_size 4; it can go on only"):
        make(batch_size=2).set_state(make().get_state())


def test_validation_shows_each_example_once_in_batches_that_end():
    runs = [list(make(num_examples=n, dropout=None, prefetch=0)) for n in (30, 30, 10**9)]
    assert_equal(runs[1], runs[0])
    assert_equal(runs[2], runs[0])
    targets = [b.lanes["text"].loss_target[b.lanes["text"].loss_weight > 0] for b in runs[0]]
    said = "".join(chr(i) if i != 2 else " " for i in np.concatenate(targets))
    drawn = [b.lanes["vae"].pixels[b.lanes["vae"].target][:, 0, 0, 0] for b in runs[0]]
    read = [i for i in range(30) if i % 3 < 2]
    assert sorted(map(int, said.split())) == read
    assert sorted(np.concatenate(drawn)) == [i for i in range(30) if i % 3 == 2]


def test_bad_records_are_logged_once_counted_and_kept_in_the_state(caplog):
    with caplog.at_level(logging.WARNING):
        pipeline = make(Numbers(bad=(3, 11)), max_bad_records=2)
        take(pipeline, 12)  # several epochs
    warnings = sorted(record.getMessage() for record in caplog.records)
    assert warnings == [f"bad record numbers.jsonl:{i}: truncated" for i in (11, 3)]
    again = make(Numbers(bad=(3, 11)), max_bad_records=2)
    again.set_state(pipeline.get_state())
    take(again, 1)
    assert pipeline.metrics()["bad_records"] == again.metrics()["bad_records"] == 2


def test_too_many_bad_records_stop_the_run_and_name_the_last():
    message = r"3 bad records, and max_bad_records is 2; the last is numbers\.jsonl:\d+: truncated"
    with pytest.raises(BadRecordsError, match=message):
        take(make(Numbers(bad=(3, 11, 12)), max_bad_records=2), 12)


def test_an_example_that_no_row_holds_is_a_bad_record(caplog):
    class Source(Numbers):
        def __getitem__(self, i):
            return TooLong()[i] if i == 4 else super().__getitem__(i)

    pipeline = make(Source())
    take(pipeline, 6)
    assert pipeline.metrics()["bad_records"] == 1
    assert "bad record long:4: larger than a row: needs text 101 (limit 32)" in caplog.text


class TooLong(Numbers):
    """Examples that no row holds."""

    def __getitem__(self, i):
        return Example((Segment("x" * 99),), "text", f"long:{i}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Numbers(30, bad=range(30)), "all 30 examples of a source are bad; the first, numbers"),
        (TooLong(30), "all 30 examples of a source are bad; the first, long:0: larger than a row"),
        (Numbers(200, bad=range(150)), "the first 101 of 200 examples of a source are bad"),
    ],
    ids=["unreadable", "too long", "more than are allowed"],
)
@pytest.mark.parametrize("others", [0, 1])
def test_a_source_without_a_good_record_ends_the_run_before_it_starts(source, message, others):
    sources = [Numbers()] * others + [source]
    with pytest.raises(BadRecordsError, match=message):
        Pipeline(sources, make_layout(), encode, batch_size=R)
    if others:
        left_out = Pipeline(sources, make_layout(), encode, batch_size=R, weights=[1.0, 0.0])
        assert next(left_out).lanes


def test_one_good_record_is_enough():
    source = Numbers(30, bad=set(range(30)) - {28})
    assert next(make(source, rows=[3])).lanes


def test_records_that_all_turn_bad_end_the_run():
    source = Numbers(30)
    pipeline = make(source, prefetch=0, max_bad_records=30)
    take(pipeline, 2)
    source.bad = range(30)
    with pytest.raises(BadRecordsError, match=r"the last 621 records read are all bad, as numbers"):
        take(pipeline, 100)


def test_what_cannot_be_is_refused_at_once():
    with pytest.raises(ValueError, match=r"dropout of \['vitt'\]"):
        make(dropout={"vitt": 0.1})
    with pytest.raises(ValueError, match=r"data.dropout=\{'vit': 2.0\}: a probability is from"):
        make(dropout={"vit": 2.0})
    with pytest.raises(ValueError, match=r"config\.data\.train names no source: add one"):
        configured({"data": {"train": {}}}, "train", None, make_layout(), encode)
    with pytest.raises(ValueError, match="the budget is 3: raise budget or lower max_side"):
        Pipeline([Numbers()], make_layout(vit=3), encode, batch_size=1)


def test_metrics_count_what_the_batches_hold():
    pipeline = make(prefetch=2)
    batches = take(pipeline, 3)
    metrics = pipeline.metrics()
    used = {
        name: np.mean([np.mean(batch.lanes[name].tokens.stop > 0) for batch in batches])
        for name in ("text", "vit", "vae")
    }
    for name, share in used.items():
        assert metrics[f"fill/{name}"] == pytest.approx(share)
    slots = {"text": 32, "vit": 4, "vae": 8}
    fill = sum(used[name] * n for name, n in slots.items()) / 44
    assert metrics["fill"] == pytest.approx(fill)
    tasks = sum(metrics[f"examples/{task}"] for task in ("text", "read", "draw"))
    assert metrics["examples"] == pytest.approx(tasks)
    assert pipeline.metrics() == {"bad_records": 0.0}  # since the last call


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 0), ("lookahead", 0), ("workers", -1), ("max_bad_records", -1)],
)
def test_numbers_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=f"data.{field}={value} must be at least"):
        make(**{field: value})
