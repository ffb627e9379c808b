"""When to stop before the last step, or to hurry: a signal, or the time that the run may take.

Every process must stop after the same step. With one process a signal handler sets a flag; with
several the JAX coordination service carries the signal, and the first process reads the clock.
"""

import math
import signal
import time
from typing import Any

from jax.experimental import multihost_utils

from unified.training.processes import agree, are_several


class Stop:
    """A context manager that turns SIGTERM and Ctrl-C into a graceful end.

    A second signal acts as it did before, so a run that hangs can still be ended.
    """

    def __init__(self, max_minutes: float = 0.0, *, check_every: int = 1):
        self._seconds, self._begin = 60 * max_minutes or math.inf, time.monotonic()
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
    def seconds_left(self) -> float:
        return self._begin + self._seconds - time.monotonic()

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
