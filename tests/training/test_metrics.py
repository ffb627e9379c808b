"""Windows average over tokens; the journal has each step once; a NaN stops with its step."""

import json
import math
import os
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from unified.sequence import Tokens
from unified.training.feed import Fed, Feed, count_tokens
from unified.training.metrics import Journal, Monitor, NonFinite, Window, read


def fed(tokens: int = 6, slots: int = 8) -> Fed:
    return Fed(arrays=None, state=None, tokens=tokens, slots=slots, metrics={"bad": 0}, ideal=0.5)


def metrics(loss: float, text: tuple[float, float] = (1.0, 1.0)):
    return {"loss": (jnp.array(loss), 1.0), "grad_norm": (1.0, 1.0), "text": text}


def test_window_is_the_mean_over_tokens_and_survives_json():
    window = Window()
    window.add({"text": (6.0, 2.0), "empty": (0.0, 0.0)})
    window = Window(json.loads(json.dumps(window.pairs)))
    window.add({"text": (2.0, 6.0)})
    assert window.means() == {"text": 1.0}


def test_monitor_reports_means_one_step_behind():
    lines = {}
    monitor = Monitor(lines.__setitem__, every=2)
    monitor.follow(1, metrics(3.0, (6.0, 2.0)), fed(tokens=4))
    monitor.follow(2, metrics(1.0, (2.0, 6.0)), fed(tokens=8))
    assert not lines
    monitor.follow(3, metrics(9.0), fed())
    assert list(lines) == [2]
    values = lines[2]
    assert (values["loss"], values["text"], values["padding"]) == (2.0, 1.0, 0.25)
    assert values["mfu"] == pytest.approx(0.5 / values["seconds_per_step"])
    assert values["tokens_per_second"] > 0
    assert values["input/bad"] == 0
    monitor.catch_up()
    assert monitor.window.means()["loss"] == 9.0


def test_loss_that_is_not_finite_is_reported_with_its_step():
    monitor = Monitor(lambda step, values: None, every=1)
    monitor.follow(41, metrics(1.0), fed())
    monitor.follow(42, metrics(math.inf), fed())
    with pytest.raises(NonFinite, match="step 42: loss not finite"):
        monitor.catch_up()


def test_journal_goes_on_after_a_kill_with_each_step_once(tmp_path):
    with Journal(tmp_path) as journal:
        for step in (1, 2, 3):
            journal.write(step, {"loss": step, "empty": math.nan})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "lo')
    with Journal(tmp_path, after=2) as journal:
        journal.write(3, {"loss": 30})
    assert read(path) == [{"step": 1, "loss": 1}, {"step": 2, "loss": 2}, {"step": 3, "loss": 30}]
    assert list((tmp_path / "tensorboard").glob("events*"))
    with Journal(tmp_path / "silent", write=False) as journal:
        journal.write(1, {"loss": 1})
    assert not (tmp_path / "silent").exists()


class Inputs:
    def __init__(self, end: int):
        self.index, self.end = 0, end

    def __iter__(self):
        return self

    def __next__(self):
        if self.index == self.end:
            raise RuntimeError("file gone")
        self.index += 1
        return np.full((2,), self.index)

    def get_state(self):
        return self.index

    def metrics(self):
        return {"read": self.index}


def test_feed_runs_ahead_yet_carries_the_state_of_each_batch():
    with Feed(Inputs(5), lambda batch: batch, start=11, every=2) as feed:
        for index in range(1, 6):
            item = next(feed)
            assert (item.arrays[0], item.state) == (index, index)
            assert item.metrics == ({"read": index} if index % 2 else {})  # steps 12, 14, ...
        with pytest.raises(RuntimeError, match="file gone"):
            next(feed)
        with pytest.raises(RuntimeError, match="file gone"):
            next(feed)


def test_closing_a_feed_ends_its_thread():
    before = set(threading.enumerate())
    with Feed(Inputs(1000), lambda batch: batch) as feed:
        next(feed)
    assert set(threading.enumerate()) <= before  # others may have ended meanwhile


def test_tokens_are_counted_without_padding():
    stop = np.array([[4, 4, 4, 0], [2, 2, 0, 0]])
    tokens = Tokens(clock=stop, start=stop, stop=stop, position=stop)
    assert count_tokens({"a": tokens, "b": np.ones(3)}) == (5, 8)
    assert count_tokens({"pixels": np.ones(3)}) == (0, 0)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_metrics_that_are_no_file_are_not_waited_for(make, tmp_path):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(OSError, match=r"metrics\.jsonl is not a file"):
        read(tmp_path / "metrics.jsonl")
