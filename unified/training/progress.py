"""What a run shows while it runs: a bar in a terminal, one line per log elsewhere."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from unified.terminal import Terminal
from unified.training.feed import Fed


class Display:
    """Prints to the terminal of the first process; others stay silent (`show=False`)."""

    def __init__(self, total: int, losses: Iterable[str], *, show: bool = True):
        self.console = Terminal(quiet=not show)
        self._losses, self._total = tuple(losses), total
        self._begun = False
        self._bar: Progress | None = None
        if self.console.is_terminal and show:
            columns = (
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
            )
            self._bar = Progress(*columns, console=self.console, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task("compiling", total=total)

    def end(self, step: int) -> None:
        """The last step, if it is not the one said before."""
        self._total = step
        if self._bar:
            self._bar.update(self._task, total=step)

    def print(self, *objects: Any) -> None:
        self.console.print(*objects)

    def describe(
        self, config: Mapping[str, Any], num_params: tuple[int, int], workdir: Path, start: int
    ) -> None:
        """Says where the run computes, what it trains and where it writes."""
        devices, mesh = jax.devices(), dict(jax.sharding.get_abstract_mesh().shape)
        trained, frozen = num_params
        self.print(f"devices  {len(devices)} x {devices[0].device_kind}, mesh {mesh}")
        self.print(f"model    {trained:,} trained and {frozen:,} frozen parameters")
        rows, parts = config["batch_size"], config["accumulation"]
        self.print(f"batch    {rows} rows, {parts} micro-batches")
        self.print(f"writes   {workdir}" + (f", goes on after step {start}" if start else ""))

    def advance(self, step: int, fed: Fed) -> None:
        """After a step is on its way; the first time, says how large it is."""
        if not self._begun:
            self._begun = True
            if fed.slots:
                self.print(f"tokens   {fed.tokens:,} in {fed.slots:,} slots a step")
        if self._bar:
            self._bar.update(self._task, completed=step)

    def line(self, step: int, values: Mapping[str, float], *, at_most: float = math.inf) -> None:
        """Shows the losses of each process, throughput, waste and the time left, if it is known:
        `at_most` so many seconds.
        """
        losses = ("loss", *self._losses, "validation/loss")
        parts = [f"{name} {values[name]:.4g}" for name in losses if name in values]
        if "tokens_per_second" in values:
            parts.append(f"{_short(values['tokens_per_second'])} tok/s")
        if "padding" in values:
            parts.append(f"padding {values['padding']:.1%}")
        if "seconds_per_step" in values:
            left = min(values["seconds_per_step"] * (self._total - step), max(at_most, 0))
            parts.append(f"{values['seconds_per_step']:.3g} s/step  left {_clock(left)}")
        text = "  ".join(parts)
        if self._bar and "loss" in values:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self.print(f"step {step}/{self._total}  {text}")

    def close(self) -> None:
        """Ends the bar; printing goes on."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _short(number: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.3g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
