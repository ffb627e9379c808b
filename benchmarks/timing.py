"""Two ways to do the same work, timed call by call in turn, and how quiet the machine was.

Other programs only ever add to the time of a call, so the least is what the work takes, once a few
calls agree on it; how far the mean lies above it says how disturbed the measurement was. The ratio
is that of the leasts, and its range the quartiles of the ratios of neighbouring calls, which the
same programs disturbed.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

PAUSE = 0.02  # seconds, after which the threads of the side that ran wait asleep, not spinning
QUIET = 1.15  # mean over least
AGREEING, NEAR = 3, 1.05  # so many calls within this of the least confirm it
PATIENCE = 4  # times as long as without company, for a least that is not confirmed


class Calls(NamedTuple):
    """Seconds of each call of one side."""

    wall: list[float]
    cpu: list[float]  # of all threads of the process

    @property
    def least(self) -> float:
        return min(self.wall)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cores(self) -> float:
        """How many cores it had: less than when alone if others took them."""
        return sum(self.cpu) / sum(self.wall)

    @property
    def is_quiet(self) -> bool:
        return statistics.fmean(self.wall) < QUIET * self.least

    @property
    def is_confirmed(self) -> bool:
        return sum(seconds < NEAR * self.least for seconds in self.wall) >= AGREEING


class Race(NamedTuple):
    ours: Calls
    theirs: Calls
    load: float  # other runnable threads when it began, the average of a minute

    @property
    def ratio(self) -> float:
        """How many times as fast ours is, at the best of both."""
        return self.theirs.least / self.ours.least

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the pairs has a lower ratio than the first, a quarter a higher one."""
        both = zip(self.ours.wall, self.theirs.wall, strict=True)
        pairs = [theirs / ours for ours, theirs in both]
        if len(pairs) < 2:
            return pairs[0], pairs[0]
        low, _, high = statistics.quantiles(pairs, n=4, method="inclusive")
        return low, high

    @property
    def is_quiet(self) -> bool:
        return self.ours.is_quiet and self.theirs.is_quiet

    @property
    def is_confirmed(self) -> bool:
        return self.ours.is_confirmed and self.theirs.is_confirmed


def race(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, seconds: float) -> Race:
    """Calls both in turn, at least `pairs` times each and until `seconds` are over; longer, up to
    `PATIENCE` times, until the least times are confirmed."""
    result = Race(Calls([], []), Calls([], []), os.getloadavg()[0])
    begin = time.perf_counter()
    while True:
        for run, calls in ((ours, result.ours), (theirs, result.theirs)):
            time.sleep(PAUSE)
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            calls.wall.append(time.perf_counter() - wall)
            calls.cpu.append(time.process_time() - cpu)
        passed = time.perf_counter() - begin
        enough = len(result.ours.wall) >= pairs and passed >= seconds
        if enough and (result.is_confirmed or passed >= PATIENCE * seconds):
            return result
