"""Trains what a config describes: `python train.py --config configs/emoji.py --workdir runs/emoji`.

Every field can be overridden: `--config.optimizer.learning_rate=1e-4 --config.total_steps=2000`.
Run the same command again to go on where it stopped: after a crash, a kill, or on another number
of devices, the losses are those of a run that did not stop, if steps end it: what `max_minutes`
ends depends on a clock, which the next run does not set back. SIGTERM and Ctrl-C save first.

The folder `--workdir` holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and in
the end `release/` (weights for `unified` and `eval.py`) and `evaluation/`.
"""

import sys

from unified import interrupt

if __name__ == "__main__":  # before the imports, which take seconds
    interrupt.end_at_once("train.py")

import argparse
import contextlib
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from unified import devices, sharding
from unified.data.rows import BadRecordsError
from unified.evaluation import report
from unified.interop import model as models
from unified.interop import release
from unified.interop.run import CHECKPOINTS, reason
from unified.message import told
from unified.status import Warnings
from unified.training import memory, processes
from unified.training.beginning import check_memory, fresh, load
from unified.training.checkpoint import Checkpoints, Unsaved
from unified.training.config import load as load_config
from unified.training.feed import Fed, Feed
from unified.training.lock import Lock
from unified.training.metrics import Journal, Monitor, NonFinite, Values
from unified.training.nearest import nearest
from unified.training.optimizer import FALL
from unified.training.progress import Display
from unified.training.recipe import draw_from, recipe_of
from unified.training.resume import go_on, restore
from unified.training.setup import Setup, prepare
from unified.training.step import TrainState, averaged
from unified.training.stop import Stop, hurried, last_step
from unified.training.validation import Validation
from unified.training.workdir import folder_of, keep, left

MISTAKES = (OSError, ValueError, BadRecordsError)
FULL = "a step takes more memory than there is: lower batch_size, or raise accumulation"


@dataclasses.dataclass(frozen=True)
class Run:
    config: ConfigDict
    recipe: ModuleType
    workdir: Path
    setup: Setup
    checkpoints: Checkpoints
    batches: Iterator[Fed]
    validate: Validation
    journal: Journal
    display: Display


@dataclasses.dataclass(frozen=True)
class Start:
    """The state, the steps it has seen, the one to end with, and what lay beside the state."""

    state: TrainState
    step: int
    end: int
    host: dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    args, overrides = parse(sys.argv[1:] if argv is None else argv)
    memory.keep_freed_memory()
    with contextlib.ExitStack() as stack:
        stack.enter_context(Warnings())
        try:
            if args.distributed:
                processes.join()
            devices.find()
            run, start = begin(args, load_config(args.config, overrides), stack)
        except Exception as error:  # a config may ask the impossible in ways that nobody foresaw
            return told("train.py", error, MISTAKES)
        try:
            state, signal, validated = train(run, start)
        except (NonFinite, BadRecordsError, Unsaved) as error:
            return stopped(run, error)
        except jax.errors.JaxRuntimeError as error:
            if not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)):
                raise
            return stopped(run, MemoryError(f"{FULL} ({reason(error)})"))
        if signal:
            run.display.print(f"{signal}: saved {run.checkpoints.newest}; the same command goes on")
            return 0
        try:
            finish(run, state, validated)
        except ValueError as error:
            return told("train.py", error, MISTAKES)
        except OSError as error:
            return stopped(run, error)
    return 0


def stopped(run: Run, error: Exception) -> int:
    """Exit status after a run that should not go on as it is."""
    if isinstance(error, Unsaved):
        run.display.print(f"{error}. It was the second in a row: the run ends")
        return 1
    with contextlib.suppress(Unsaved):
        run.checkpoints.wait()  # one may just be on its way to the disk
    newest = run.checkpoints.newest
    run.display.print(f"{error}. Nothing saved; the last good checkpoint: {newest}")
    if isinstance(error, BadRecordsError):
        run.display.print(
            "mend the records or raise config.data.max_bad_records; the same command goes on there"
        )
    return 1


# Act 1: the state and the input, fresh or where the last run stopped.


def begin(
    args: argparse.Namespace, config: ConfigDict, stack: contextlib.ExitStack
) -> tuple[Run, Start]:
    """Raises ValueError or OSError for a mistake, before anything is written or takes long."""
    recipe = recipe_of(config)
    workdir = folder_of(args.workdir)
    lock = stack.enter_context(Lock(workdir))
    mesh = sharding.make_mesh(config.mesh)
    stack.enter_context(jax.set_mesh(mesh))
    setup = prepare(config, recipe, mesh)
    check_memory(setup)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, **config.checkpoint)
    stack.enter_context(checkpoints)
    if args.resume == "never" and checkpoints.latest is not None:
        raise ValueError(f"--resume=never, but {workdir} holds checkpoints; take another")
    restored = restore(checkpoints, setup, config, workdir)
    step, host = (restored.step, restored.host) if restored else (0, {})
    end = last_step(host, step, config.max_minutes, config.total_steps)
    draw = functools.partial(draw_from, recipe, config, setup)
    validate = Validation(
        setup, functools.partial(draw, "validation"), seed=config.seed, **config.validation
    )
    inputs = draw("train")
    if restored:
        go_on(inputs, host["inputs"], checkpoints, step)
    feed = Feed(inputs, setup.place, setup.ideal, start=step, every=config.log_every)
    first = next(stack.enter_context(feed))
    losses = setup.trace(first.arrays)
    if (best := config.checkpoint.best) and best not in (known := validate.names(losses)):
        raise ValueError(f"checkpoint.best: no metric {best!r}; {nearest(best, known)}")
    loaded = None if restored else load(config, setup)

    changed = keep(workdir, config)
    speaks = processes.is_first()
    journal = stack.enter_context(Journal(workdir, after=step, write=speaks))
    display = stack.enter_context(Display(end, config.loss_weights, show=speaks))
    checkpoints.tell = journal.tell = display.print
    display.describe(config, setup.num_params, workdir, step)
    for line in filter(None, [lock.taken_over, *changed]):
        display.print(line)
    if step >= end < config.total_steps:
        display.print(f"max_minutes={config.max_minutes:g} are over: raise it to train on")
    state = restored.state if restored else fresh(setup, config.seed, loaded)
    state = setup.ending(state, end)
    batches = itertools.chain([first], feed)
    run = Run(config, recipe, workdir, setup, checkpoints, batches, validate, journal, display)
    return run, Start(state, step, end, host)


# Act 2: step, log, evaluate, save.


def train(run: Run, start: Start) -> tuple[TrainState, str | None, Values]:
    """The state at the end, the signal that ended the run early, if one did, and validation."""
    config, setup, validate, state = run.config, run.setup, run.validate, start.state

    def report(step: int, values: Values) -> None:
        run.journal.write(step, values)
        run.display.line(step, values, at_most=stop.seconds_left)

    monitor = Monitor(report, every=config.log_every, window=start.host.get("window"))
    signal, validated, end = None, {}, start.end
    limit = {"used": start.host.get("seconds", 0.0), "check_every": config.log_every}
    with Stop(config.max_minutes, **limit) as stop:
        for step in range(start.step + 1, end + 1):
            with jax.transfer_guard("disallow"):
                fed = next(run.batches)
                state, metrics = setup.train_step(state, fed.arrays)
                monitor.follow(step, metrics, fed)
            run.display.advance(step, fed)

            if end == config.total_steps and stop.has_passed(1 - FALL, step):
                end = hurry(run, step)
                state = setup.ending(state, end)
            signal = stop.signalled(step)
            ending = bool(signal) or step == end or stop.has_passed(1, step)
            validating = not signal and validate.is_due(step, ending)
            if validating or ending or step % config.checkpoint.every == 0:
                monitor.catch_up()  # raises where the state is not worth keeping
                validated = validate(averaged(state)) if validating else {}
                if validated:
                    report(step, validated)
                if ending or step % config.checkpoint.every == 0:
                    keeping = functools.partial(save, run, step, end, state, fed, monitor, stop)
                    keeping(validated)
                    if ending and not run.checkpoints.wait():
                        keeping(validated)  # once more; raises if that fails too
                        run.checkpoints.wait()
                monitor.restart_clock()
            if ending:
                break
    return state, signal, validated


def hurry(run: Run, step: int) -> int:
    """The step to end with, now that it is time for the learning rate to fall; says so."""
    end = hurried(step, run.config.total_steps)
    if end < run.config.total_steps:
        limit = f"max_minutes={run.config.max_minutes:g}"
        run.display.print(f"{limit}: the run and its learning rate come to an end by step {end}")
        run.display.end(end)
    return end


def save(
    run: Run, step: int, end: int, state: TrainState, fed: Fed, monitor: Monitor, stop: Stop, values
) -> None:
    """Everything that the next run needs to go on as this one would have."""
    host = {
        "inputs": processes.gather_json(fed.state),
        "window": monitor.window.pairs,
        "hurried": (run.config.max_minutes, end) if end < run.config.total_steps else None,
        "seconds": stop.seconds_used,
    }
    run.checkpoints.save(step, state, host, values)


# Act 3: what came of it.


def finish(run: Run, state: TrainState, validated: Values) -> None:
    """Releases the (averaged) weights, evaluates them and prints the table."""
    params = processes.gather_params(averaged(state))
    if not processes.is_first():
        return
    released = run.workdir / "release"
    release.save(released, params, models.keep_tokenizer(released, run.config))
    run.display.close()
    run.display.print(f"released {released}; evaluating")
    alone = sharding.make_mesh({}, jax.local_devices()[:1])  # the other processes take no part
    with jax.set_mesh(alone) if processes.are_several() else contextlib.nullcontext():
        model = nnx.merge(run.setup.objective.model, params)
        folder = run.workdir / "evaluation"
        values = run.recipe.evaluate(model, run.config, folder, validated or None)
    said = left(run.workdir, folder, model)
    step, total = int(state.step), run.config.total_steps
    after = f"{step} steps" if step == total else f"{step} of {total} steps, as the time was over"
    run.display.print(report.table(values, f"evaluation after {after}", report.LINES - len(said)))
    for line in said:
        run.display.print(line)


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The program's own arguments, and the overrides of config fields."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a Python file with get_config()")
    parser.add_argument("--workdir", help="default: runs/<name of the config>")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto")
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    args, overrides = parser.parse_known_args(argv)
    if args.workdir is None:
        args.workdir = str(Path("runs", Path(args.config.partition(":")[0]).stem))
    return args, overrides


if __name__ == "__main__":
    sys.exit(main())
