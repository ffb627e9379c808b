"""The end of a run that may take so long: the seconds of all its processes count together."""

import types

import pytest
from rich.console import Console

from unified.training import stop as module
from unified.training.progress import Display
from unified.training.stop import Stop, hurried, last_step


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass with the test alone."""
    now = [100.0]
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_seconds_used_before_count(clock):
    first = Stop(1.0)
    clock[0] += 40
    assert first.seconds_used == 40
    assert not first.has_passed(0.8, 1)
    second = Stop(1.0, used=first.seconds_used)
    assert (second.seconds_used, second.seconds_left) == (40, 20)
    clock[0] += 9
    assert second.has_passed(0.8, 2)
    assert not second.has_passed(1, 2)
    clock[0] += 11
    assert second.has_passed(1, 3)


def test_without_a_limit_no_time_is_over(clock):
    stop = Stop(0.0, used=1e9)
    assert not stop.has_passed(0.0, 1)


@pytest.mark.parametrize(
    ("host", "minutes", "want"),
    [
        ({}, 1.0, 100),  # as checkpoints were without these fields
        ({"hurried": [1.0, 30], "seconds": 50.0}, 1.0, 30),
        ({"hurried": [1.0, 300], "seconds": 50.0}, 1.0, 100),
        ({"hurried": [1.0, 30], "seconds": 60.0}, 1.0, 20),
        ({"hurried": [1.0, 30], "seconds": 60.0}, 2.0, 100),
        ({"hurried": None, "seconds": 60.0}, 0.0, 100),
    ],
)
def test_a_run_goes_on_to_the_step_that_its_time_allows(host, minutes, want):
    assert last_step(host, 20, minutes, 100) == want


@pytest.mark.parametrize(("step", "want"), [(8, 10), (1, 2), (79, 99), (90, 100)])
def test_the_steps_that_are_left_are_a_fifth_of_all(step, want):
    assert hurried(step, 100) == want


def test_the_bar_fills_when_the_end_comes_earlier(monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", True)
    with Display(400, ("text",)) as display:
        bar = display._bar
        display.end(267)
        bar.update(display._task, completed=267)
        assert bar.tasks[0].percentage == 100


def test_lines_count_to_the_end_that_was_told_last(capsys):
    display = Display(400, ("text",))
    display.end(267)
    display.line(260, {"loss": 1.0, "seconds_per_step": 2.0})
    assert "step 260/267" in (said := capsys.readouterr().out)
    assert "left 0:14" in said
