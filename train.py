"""Trains what a config describes: `python train.py --config configs/emoji.py --workdir runs/emoji`.

Every field can be overridden: `--config.optimizer.learning_rate=1e-4 --config.total_steps=2000`.
Run the same command again to go on where it stopped: after a crash, a kill, or on another number
of devices, the losses are those of a run that did not stop. SIGTERM and Ctrl-C save first.

The folder `--workdir` holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and in
the end `release/` (weights for `unified` and `eval.py`) and `evaluation/`.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from unified import sharding
from unified.evaluation import report
from unified.interop import model as models
from unified.interop import release
from unified.training import config as configs
from unified.training import memory, processes, tree
from unified.training.checkpoint import Checkpoints
from unified.training.feed import Fed, Feed
from unified.training.metrics import Journal, Monitor, NonFinite, Values
from unified.training.nearest import nearest
from unified.training.optimizer import FALL
from unified.training.progress import Display
from unified.training.setup import Setup, prepare
from unified.training.step import TrainState, averaged
from unified.training.stop import Stop
from unified.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Run:
    config: ConfigDict
    recipe: ModuleType
    workdir: Path
    setup: Setup
    checkpoints: Checkpoints
    batches: Iterator[Fed]
    validate: Validation
    display: Display


@dataclasses.dataclass(frozen=True)
class Start:
    """The state, the steps it has seen, the one to end with, and what the log had gathered."""

    state: TrainState
    step: int
    end: int
    window: Any = None


def main(argv: list[str] | None = None) -> int:
    args, overrides = parse(sys.argv[1:] if argv is None else argv)
    memory.keep_freed_memory()
    if args.distributed:
        processes.join()
    with contextlib.ExitStack() as stack:
        try:
            run, start = begin(args, configs.load(args.config, overrides), stack)
        except (OSError, ValueError) as error:
            if sys.flags.dev_mode:
                raise
            print(f"train.py: error: {error}", file=sys.stderr)
            return 2
        try:
            state, signal, validated = train(run, start)
        except NonFinite as error:
            newest = run.checkpoints.newest
            run.display.print(f"{error}. Nothing saved; the last good checkpoint: {newest}")
            return 1
        if signal:
            run.display.print(f"{signal}: saved {run.checkpoints.newest}; the same command goes on")
        else:
            finish(run, state, validated)
    return 0


# Act 1: the state and the input, fresh or where the last run stopped.


def begin(
    args: argparse.Namespace, config: ConfigDict, stack: contextlib.ExitStack
) -> tuple[Run, Start]:
    """Raises ValueError or OSError for a mistake, before anything is written or takes long."""
    recipe = models.recipe_of(config)
    mesh = sharding.make_mesh(config.mesh)
    stack.enter_context(jax.set_mesh(mesh))
    setup = prepare(config, recipe, mesh)
    checkpoints = Checkpoints(args.workdir / "checkpoints", **config.checkpoint)
    stack.enter_context(checkpoints)
    if args.resume == "never" and checkpoints.latest is not None:
        raise ValueError(f"--resume=never, but {args.workdir} holds checkpoints; take another")
    restored = checkpoints.restore(setup.abstract)
    step = restored.step if restored else 0
    draw = functools.partial(draw_from, recipe, config, setup)
    validate = Validation(
        setup, functools.partial(draw, "validation"), seed=config.seed, **config.validation
    )
    inputs = draw("train")
    if restored:
        inputs.set_state(merged(inputs, restored.host["inputs"]))
    feed = Feed(inputs, setup.place, setup.ideal, start=step, every=config.log_every)
    first = next(stack.enter_context(feed))
    check(config, setup, validate, first.arrays)
    loaded = None if restored else load(config, setup)

    display = Display(config.total_steps, config.loss_weights, show=processes.is_first())
    stack.enter_context(display)
    batches = itertools.chain([first], feed)
    run = Run(config, recipe, args.workdir, setup, checkpoints, batches, validate, display)
    describe(run, step, keep(run))
    if restored:
        end = hurried_to(config, restored.host)
        return run, Start(restored.state, step, end, restored.host.get("window"))
    return run, Start(setup.init(config.seed, loaded), step, config.total_steps)


def draw_from(
    recipe: ModuleType, config: ConfigDict, setup: Setup, split: str, task: str | None = None
) -> Any:
    """The input of a split; with several processes, this one's rows of it."""
    rows = {"rows": setup.rows} if processes.are_several() else {}
    return recipe.inputs(config, split, task, **rows)


def merged(inputs: Any, states: list[Any]) -> Any:
    """The place in the data, from those of the processes that saved it."""
    return states[0] if len(states) == 1 else inputs.merge_states(states)


def check(config: ConfigDict, setup: Setup, validate: Validation, batch: Any) -> None:
    """Traces the step. Raises ValueError for what only the losses can tell of the config."""
    jax.eval_shape(setup.train_step, setup.abstract, batch, setup.abstract.step)
    if best := config.checkpoint.best:
        key = jax.random.key(config.seed)
        losses = jax.eval_shape(setup.eval_step, setup.abstract.params, batch, key)
        if best not in (known := validate.names(losses)):
            raise ValueError(f"checkpoint.best: no metric {best!r}; {nearest(best, known)}")


def load(config: ConfigDict, setup: Setup) -> Any:
    """Released weights at the paths of `config.load`, None at other parameters."""
    params = setup.abstract.params
    parts = jax.tree.map(lambda _: None, params)
    for path, folder in config.load.items():
        want = tree.subtree(params, path)
        found = release.merge(want, release.load(folder)[0], folder)
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), found, want)
        parts = tree.put_subtree(parts, path, placed)
    return parts


def keep(run: Run) -> list[str]:
    """Makes the folder of the run, which can be read from anywhere from now on; returns how the
    config differs from the one that was there."""
    if not processes.is_first():
        return []
    run.checkpoints.folder.mkdir(parents=True, exist_ok=True)
    models.keep_tokenizer(run.workdir, run.config)
    return configs.keep(run.config, run.workdir / release.CONFIG)


def describe(run: Run, start: int, changes: list[str]) -> None:
    """Says where the run computes, what it trains and where it writes."""
    config, show = run.config, run.display.print
    devices, (trained, frozen) = jax.devices(), run.setup.num_params
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    show(f"devices  {len(devices)} x {devices[0].device_kind}, mesh {mesh}")
    show(f"model    {trained:,} trained and {frozen:,} frozen parameters")
    show(f"batch    {config.batch_size} rows, {config.accumulation} micro-batches")
    show(f"writes   {run.workdir}" + (f", goes on after step {start}" if start else ""))
    for change in changes:
        show(f"changed  {change}")


# Act 2: step, log, evaluate, save.


def train(run: Run, start: Start) -> tuple[TrainState, str | None, Values]:
    """The state at the end, the signal that ended the run early, if one did, and validation."""
    config, setup, validate, state = run.config, run.setup, run.validate, start.state

    def report(step: int, values: Values) -> None:
        journal.write(step, values)
        run.display.line(step, values, at_most=stop.seconds_left)

    monitor = Monitor(report, every=config.log_every, window=start.window)
    signal, validated, end = None, {}, start.end
    last = setup.everywhere(end)
    with (
        Journal(run.workdir, after=start.step, write=processes.is_first()) as journal,
        Stop(config.max_minutes, check_every=config.log_every) as stop,
    ):
        for step in range(start.step + 1, end + 1):
            with jax.transfer_guard("disallow"):
                fed = next(run.batches)
                state, metrics = setup.train_step(state, fed.arrays, last)
                monitor.follow(step, metrics, fed)
            run.display.advance(step, fed)

            if end == config.total_steps and stop.has_passed(1 - FALL, step):
                end = hurry(run, step)
                last = setup.everywhere(end)
            signal = stop.signalled(step)
            ending = bool(signal) or step == end or stop.has_passed(1, step)
            validating = not signal and validate.is_due(step, ending)
            if validating or ending or step % config.checkpoint.every == 0:
                monitor.catch_up()  # raises where the state is not worth keeping
                validated = validate(averaged(state)) if validating else {}
                if validated:
                    report(step, validated)
                if ending or step % config.checkpoint.every == 0:
                    save(run, step, end, state, fed, monitor, validated)
                monitor.restart_clock()
            if ending:
                break
    run.checkpoints.wait()
    return state, signal, validated


def hurry(run: Run, step: int) -> int:
    """The step to end with when all but the last share of the time is over: as many more steps as
    that share of all, so that the learning rate falls in time."""
    end = min(math.ceil(step / (1 - FALL)), run.config.total_steps)
    if end < run.config.total_steps:
        limit = f"max_minutes={run.config.max_minutes:g}"
        run.display.print(f"{limit}: the run and its learning rate come to an end by step {end}")
    return end


def hurried_to(config: ConfigDict, host: dict[str, Any]) -> int:
    """The step to end with: that of the last run, if it had to hurry and this may take as long."""
    minutes, end = host.get("hurried") or (None, 0)
    same = minutes == config.max_minutes
    return min(int(end), config.total_steps) if same else config.total_steps


def save(run: Run, step: int, end: int, state: TrainState, fed: Fed, monitor, validated) -> None:
    """Everything that the next run needs to go on as this one would have."""
    hurried = (run.config.max_minutes, end) if end < run.config.total_steps else None
    inputs = processes.gather_json(fed.state)
    host = {"inputs": inputs, "window": monitor.window.pairs, "hurried": hurried}
    run.checkpoints.save(step, state, host, validated)


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
        model = nnx.merge(run.setup.task.model, params)
        folder = run.workdir / "evaluation"
        values = run.recipe.evaluate(model, run.config, folder, validated or None)
    run.display.print(report.table(values, f"evaluation after {int(state.step)} steps"))


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The program's own arguments, and the overrides of config fields."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a Python file with get_config()")
    parser.add_argument("--workdir", type=Path, help="default: runs/<name of the config>")
    parser.add_argument("--resume", choices=("auto", "never"), default="auto")
    parser.add_argument("--distributed", action="store_true", help="one of several processes")
    args, overrides = parser.parse_known_args(argv)
    args.workdir = args.workdir or Path("runs") / Path(args.config.partition(":")[0]).stem
    return args, overrides


if __name__ == "__main__":
    sys.exit(main())
