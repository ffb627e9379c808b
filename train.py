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
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from flax import nnx
from ml_collections import ConfigDict

from unified import sharding
from unified.evaluation import report
from unified.interop import release
from unified.training import config as configs
from unified.training import memory, processes, tree
from unified.training.checkpoint import Checkpoints
from unified.training.feed import Fed, Feed
from unified.training.metrics import Journal, Monitor, NonFinite
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
    display: Display


def main(argv: list[str] | None = None) -> int:
    args, config = parse(sys.argv[1:] if argv is None else argv)
    memory.keep_freed_memory()
    if args.distributed:
        processes.join()
    recipe = importlib.import_module(config.recipe)
    mesh = sharding.make_mesh(config.mesh)
    with (
        jax.set_mesh(mesh),
        Display(config.total_steps, config.loss_weights, show=processes.is_first()) as display,
        Checkpoints(args.workdir / "checkpoints", **config.checkpoint) as checkpoints,
    ):
        setup = prepare(config, recipe, mesh)
        run = Run(config, recipe, args.workdir, setup, checkpoints, display)
        try:
            state, stopped = train(run, *begin(run, fresh=args.resume == "never"))
        except NonFinite as error:
            display.print(f"{error}. Nothing saved; the last good checkpoint: {checkpoints.newest}")
            return 1
        if stopped:
            display.print(f"{stopped}: saved {checkpoints.newest}; the same command goes on")
        else:
            finish(run, state)
    return 0


# Act 1: the state and the input, fresh or where the last run stopped.


def begin(run: Run, *, fresh: bool) -> tuple[TrainState, int, dict[str, Any]]:
    """The state, the steps it has seen, and what the host knew then."""
    if fresh and run.checkpoints.latest is not None:
        raise SystemExit(f"--resume=never, but {run.workdir} holds checkpoints; take another")
    restored = run.checkpoints.restore(run.setup.abstract)
    changes = configs.keep(run.config, run.workdir / "config.json", write=processes.is_first())
    describe(run, restored.step if restored else 0, changes)
    if restored:
        return restored.state, restored.step, restored.host
    return run.setup.init(run.config.seed, load(run)), 0, {}


def load(run: Run) -> Any:
    """Released weights at the paths of `config.load`, None at other parameters."""
    params = run.setup.abstract.params
    parts = jax.tree.map(lambda _: None, params)
    for path, folder in run.config.load.items():
        want = tree.subtree(params, path)
        found = release.merge(want, release.load(folder)[0], folder)
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), found, want)
        parts = tree.put_subtree(parts, path, placed)
    return parts


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


def train(run: Run, state: TrainState, start: int, host: dict) -> tuple[TrainState, str | None]:
    """The state at the end, and the signal that ended the run early, if one did."""
    config, setup, inputs = run.config, run.setup, draw(run, "train")
    if host:
        inputs.set_state(merged(inputs, host["inputs"]))
    validate = validation(run)

    def report(step: int, values: dict[str, float]) -> None:
        journal.write(step, values)
        run.display.line(step, values, at_most=stop.seconds_left)

    monitor = Monitor(report, every=config.log_every, window=host.get("window"))
    signal = None
    with (
        Journal(run.workdir, after=start, write=processes.is_first()) as journal,
        Stop(config.max_minutes, check_every=config.log_every) as stop,
        Feed(inputs, setup.place, start=start, every=config.log_every) as feed,
    ):
        for step in range(start + 1, config.total_steps + 1):
            with jax.transfer_guard("disallow"):
                fed = next(feed)
                state, metrics = setup.train_step(state, fed.arrays)
                monitor.follow(step, metrics, fed)
            run.display.advance(step, fed)

            signal = stop.signalled(step)
            ending = bool(signal) or step == config.total_steps or stop.out_of_time(step)
            validating = not signal and validate.is_due(step, ending)
            if validating or ending or step % config.checkpoint.every == 0:
                monitor.catch_up()  # raises where the state is not worth keeping
                validated = validate(averaged(state)) if validating else {}
                if validated:
                    report(step, validated)
                if ending or step % config.checkpoint.every == 0:
                    save(run, step, state, fed, monitor, validated)
                monitor.restart_clock()
            if ending:
                break
    run.checkpoints.wait()
    return state, signal


def save(run: Run, step: int, state: TrainState, fed: Fed, monitor: Monitor, validated) -> None:
    """Everything that the next run needs to go on as this one would have."""
    places = processes.gather_json(fed.state)
    host = {"inputs": places, "window": monitor.window.pairs}
    run.checkpoints.save(step, state, host, validated)


def draw(run: Run, split: str, task: str | None = None) -> Any:
    """The input of a split; with several processes, this one's rows of it."""
    rows = {"rows": run.setup.rows} if processes.are_several() else {}
    return run.recipe.inputs(run.config, split, task, **rows)


def merged(inputs: Any, states: list[Any]) -> Any:
    """The place in the data, from those of the processes that saved it."""
    return states[0] if len(states) == 1 else inputs.merge_states(states)


def validation(run: Run) -> Validation:
    inputs = lambda task: draw(run, "validation", task)
    return Validation(run.setup, inputs, seed=run.config.seed, **run.config.validation)


# Act 3: what came of it.


def finish(run: Run, state: TrainState) -> None:
    """Releases the (averaged) weights, evaluates them and prints the table."""
    params = processes.gather_params(averaged(state))
    if not processes.is_first():
        return
    release.save(run.workdir / "release", params, run.config)
    run.display.close()
    run.display.print(f"released {run.workdir / 'release'}; evaluating")
    alone = sharding.make_mesh({}, jax.local_devices()[:1])  # the other processes take no part
    with jax.set_mesh(alone) if processes.are_several() else contextlib.nullcontext():
        model = nnx.merge(run.setup.task.model, params)
        values = run.recipe.evaluate(model, run.config, run.workdir / "evaluation")
    run.display.print(report.table(values, f"evaluation after {int(state.step)} steps"))


def parse(argv: list[str]) -> tuple[argparse.Namespace, ConfigDict]:
    """The program's own arguments, and the config with its overrides."""
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
    args.workdir.mkdir(parents=True, exist_ok=True)
    try:
        return args, configs.load(args.config, overrides)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
