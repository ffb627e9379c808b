"""When to stop before the last step, or to hurry: a signal, or the time that the run may take.

Every process must stop after the same step. With one process a signal handler sets a flag; with
several the JAX coordination service carries the signal, and the first process reads the clock.

A run that goes on after a stop has what is left of its minutes: a checkpoint tells how many seconds
are used. What a clock ends is not the same run twice, unlike what steps end.
"""

import math
import signal
import time
from collections.abc import Mapping
from typing import Any

from jax.experimental import multihost_utils

from unified.training.optimizer import FALL
from unified.training.processes import agree, are_several


def hurried(step: int, total_steps: int) -> int:
    """The step to end with when all but the last share of the time is over: as many more steps as
    that share of all, so that the learning rate falls in time."""
    return min(math.ceil(step / (1 - FALL)), total_steps)


def last_step(host: Mapping[str, Any], step: int, max_minutes: float, total_steps: int) -> int:
    """The step to end with after a checkpoint at `step` that holds `host`: that which the run had
    brought forward if it still may take as long, and `step` itself if its time is over."""
    if 0 < 60 * max_minutes <= host.get("seconds", 0.0):
        return step
    minutes, end = host.get("hurried") or (None, 0)
    return min(int(end), total_steps) if minutes == max_minutes else total_steps


class Stop:
    """A context manager that turns SIGTERM and Ctrl-C into a graceful end.

    A second signal acts as it did before, so a run that hangs can still be ended. `used`: seconds
    of the time that were over before.
    """

    def __init__(self, max_minutes: float = 0.0, *, used: float = 0.0, check_every: int = 1):
        self._seconds, self._begin = 60 * max_minutes or math.inf, time.monotonic() - used
        self._check_every = check_every
        self._signal: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if not are_several():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore()

    @property
    def seconds_used(self) -> float:
        return time.monotonic() - self._begin

    @property
    def seconds_left(self) -> float:
        return self._seconds - self.seconds_used

    def signalled(self, step: int) -> str | None:
        """The name of the signal to stop for after `step`, the same on every process."""
        if are_several() and multihost_utils.reached_preemption_sync_point(step):
            self._signal = "SIGTERM"
        return self._signal

    def has_passed(self, share: float, step: int) -> bool:
        """Whether a share of the time is over after `step`, the same on every process; several
        look only now and then."""
        if self._seconds == math.inf or (are_several() and step % self._check_every):
            return False
        return agree(self.seconds_left <= (1 - share) * self._seconds)

    def _caught(self, number: int, _: Any) -> None:
        self._signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
