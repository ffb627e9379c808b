"""What the benchmark says of two sides does not depend on what else the machine did."""

import itertools
import types

import pytest

from benchmarks import timing


@pytest.fixture
def machine(monkeypatch):
    """`machine(delays)`: two calls of 2 and 3 seconds of CPU time, on a clock that only they and
    `delays`, which other programs add to each call, move."""
    clock = types.SimpleNamespace(wall=0.0, cpu=0.0)
    fake = types.SimpleNamespace(
        perf_counter=lambda: clock.wall, process_time=lambda: clock.cpu, sleep=lambda seconds: None
    )
    monkeypatch.setattr(timing, "time", fake)

    def sides(delays):
        delays = itertools.cycle(delays)

        def call(seconds):
            clock.cpu += seconds
            clock.wall += seconds + next(delays)

        return lambda: call(2.0), lambda: call(3.0)

    return sides


def test_both_sides_take_turns_until_the_pairs_and_the_seconds_are_over(machine):
    called = []
    ours, theirs = machine([0.0])
    sides = lambda: called.append("ours") or ours(), lambda: called.append("theirs") or theirs()
    timing.race(*sides, pairs=4, seconds=0.0)
    assert called == ["ours", "theirs"] * 4
    assert len(timing.race(*sides, pairs=1, seconds=51.0).ours.wall) == 11  # of 5 seconds


def test_least_times_are_waited_for_that_others_confirm(machine):
    delays = [9.0 + n for n in range(14)] + [0.0] * 8
    race = timing.race(*machine(delays), pairs=2, seconds=100.0)
    assert race.is_confirmed and len(race.ours.wall) == 10 and race.ratio == 1.5
    race = timing.race(*machine([9.0 + n for n in range(40)]), pairs=2, seconds=100.0)
    assert not race.is_confirmed and sum(race.ours.wall + race.theirs.wall) >= 400


@pytest.mark.parametrize(
    "delays", [[0.0], [0.0, 0.0, 9.0], [5.0, 0.0, 0.0, 1.0], [9.0] * 16 + [0.0] * 4]
)
def test_what_disturbs_some_calls_leaves_the_ratio(machine, delays):
    race = timing.race(*machine(delays), pairs=12, seconds=0.0)
    assert race.ratio == pytest.approx(1.5)
    assert race.is_quiet == (delays == [0.0])
    assert race.quartiles[0] <= 1.5 <= race.quartiles[1] or min(delays[:8]) > 0


def test_the_range_holds_the_middle_half_of_the_pairs(machine):
    quiet = timing.race(*machine([0.0]), pairs=4, seconds=0.0)
    assert quiet.quartiles == pytest.approx((1.5, 1.5))
    assert quiet.ours.cores == 1.0
    delays = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # pairs of 1, 1.5, 1.5 and 2
    loud = timing.race(*machine(delays), pairs=4, seconds=0.0)
    assert loud.quartiles == pytest.approx((1.375, 1.625))
    assert loud.ours.cores == pytest.approx(8 / 9)
