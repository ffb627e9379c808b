"""Metrics of a run: gathered over a window of steps, written to JSONL and TensorBoard.

A metric is a (sum, count) pair, so that a window's value is the mean over its tokens and not over
its steps. Step metrics stay on the device until the next step is under way; then they are fetched,
checked and added to the window.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from unified.interop import files
from unified.training.feed import Fed
from unified.training.step import Losses

Values = dict[str, float]


class NonFinite(ArithmeticError):
    """A loss or gradient that is not a number, or infinite."""

    def __init__(self, step: int, names: list[str]):
        super().__init__(f"step {step}: {', '.join(names)} not finite")
        self.step = step


class Window:
    """Sums and counts since the last log line."""

    def __init__(self, pairs: Mapping[str, Any] | None = None):
        self.pairs = {name: tuple(pair) for name, pair in (pairs or {}).items()}

    def add(self, pairs: Mapping[str, Any]) -> None:
        for name, (total, count) in pairs.items():
            old = self.pairs.get(name, (0.0, 0.0))
            self.pairs[name] = (old[0] + float(total), old[1] + float(count))

    def means(self) -> Values:
        """Metrics that counted nothing are left out."""
        return {name: total / count for name, (total, count) in self.pairs.items() if count}


class Monitor:
    """Follows the steps one behind, so that looking at losses never stops the device.

    `report(step, values)` is called for every step that is a multiple of `every`, with the means
    since the last report and the throughput. Steps count from 1.
    """

    def __init__(
        self,
        report: Callable[[int, Values], None],
        *,
        every: int,
        window: Mapping[str, Any] | None = None,
    ):
        self.window = Window(window)
        self._report, self._every = report, every
        self._pending: tuple[int, Losses, Fed] | None = None
        self._tokens = self._steps = 0
        self._busy = self._ideal = 0.0
        self._last: float | None = None

    def follow(self, step: int, metrics: Losses, fed: Fed) -> None:
        """Takes in a step just begun. Raises NonFinite for the one before."""
        self.catch_up()
        self._pending = (step, metrics, fed)

    def catch_up(self) -> None:
        """Waits for the step under way and takes its metrics. Raises NonFinite."""
        if self._pending is None:
            return
        (step, metrics, fed), self._pending = self._pending, None
        pairs = {name: (float(s), float(n)) for name, (s, n) in jax.device_get(metrics).items()}
        if not all(math.isfinite(pairs[name][0]) for name in ("loss", "grad_norm")):
            raise NonFinite(step, [name for name, (s, _) in pairs.items() if not math.isfinite(s)])
        padding = {"padding": (fed.slots - fed.tokens, fed.slots)} if fed.slots else {}
        self.window.add({**pairs, **padding})
        self._clock(fed)
        if step % self._every == 0:
            self._report(step, self._line(fed))

    def restart_clock(self) -> None:
        """Keeps what was done since the last step out of the throughput."""
        self._last = None

    def _clock(self, fed: Fed) -> None:
        now = time.perf_counter()
        if self._last is not None:
            self._busy += now - self._last
            self._steps += 1
            self._tokens += fed.tokens
            self._ideal += fed.ideal
        self._last = now

    def _line(self, fed: Fed) -> Values:
        values = self.window.means()
        values |= {f"input/{name}": float(value) for name, value in fed.metrics.items()}
        if self._steps and self._busy:
            values["seconds_per_step"] = self._busy / self._steps
            if self._tokens:
                values["tokens_per_second"] = self._tokens / self._busy
            if self._ideal:
                values["mfu"] = self._ideal / self._busy
        self.window = Window()
        self._busy, self._ideal, self._steps, self._tokens = 0.0, 0.0, 0, 0
        return values


class Journal:
    """Appends metrics to `metrics.jsonl` and TensorBoard under `folder`; each step once.

    `after` is the step that the run goes on from: later lines, of a run that was killed, go.
    With `write=False` (not the first process) it does nothing. Where a file cannot be written, a
    full disk say, `tell` is told once, and the run goes on: of the lines lost, none is half there.
    Raises ValueError for a `metrics.jsonl` of something else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        after: int = 0,
        write: bool = True,
        tell: Callable[[str], None] = logging.warning,
    ):
        self._write, self.tell, self._told = write, tell, False
        if not write:
            return
        path = folder / "metrics.jsonl"
        kept = [line for line in read(path) if line["step"] <= after]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(draft, path)
        self._file = path.open("ab", buffering=0)
        self._board = Board(folder / "tensorboard", after)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if not self._write:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        try:
            self._append((json.dumps({"step": step, **finite}) + "\n").encode())
            self._board.write(step, finite)
        except OSError as error:
            if not self._told:
                self.tell(f"step {step}: metrics cannot be written ({error}); the run goes on")
            self._told = True

    def _append(self, line: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            self._file.truncate(end)
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._write:
            with contextlib.suppress(OSError):  # told by then
                self._file.close()
            with contextlib.suppress(OSError):
                self._board.close()


class Board:
    """An event file of TensorBoard, written at once: a thread of its own could not say what fails.

    What other event files of the `folder` say of later steps than `after` goes.
    """

    def __init__(self, folder: Path, after: int):
        goes_on = folder.exists()
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        if goes_on:
            self._events.write_event(Event(step=after + 1, file_version="brain.Event:2"))
            begun = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=after + 1, session_log=begun))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            tag = name if "/" in name else f"train/{name}"
            event = Event(wall_time=time.time(), step=step, summary=scalar(tag, value))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last one cut short by a kill is left out.

    Raises ValueError for a line that no run has written, and where no file has that name.
    """
    content = files.read(epath.Path(path)) if os.path.lexists(path) else b""
    *whole, _ = content.split(b"\n")
    return [_line(text, path, number) for number, text in enumerate(whole, 1)]


def _line(text: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return line
    except ValueError:
        pass
    raise ValueError(f"{path}:{number} is no line of metrics: take it out, or move the file away")
