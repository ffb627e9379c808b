"""Trains what a config describes: `python train.py --config configs/emoji.py --workdir runs/emoji`.

Every field can be overridden: `--config.optimizer.learning_rate=1e-4 --config.total_steps=2000`.
Run the same command again to go on where it stopped: after a crash, a kill, or on another number
of devices, the losses are those of a run that did not stop. SIGTERM and Ctrl-C save first.

The folder `--workdir` holds `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and in
the end `release/` (weights for `unified` and `eval.py`) and `evaluation/`.
"""

import argparse
import importlib
import sys
from pathlib import Path

import jax
from flax import nnx
from jax.experimental import multihost_utils

from unified import sharding
from unified.interop import release
from unified.training import config as configs
from unified.training import tree
from unified.training.checkpoint import Checkpoints
from unified.training.feed import Feed
from unified.training.metrics import Journal, Monitor, NonFinite
from unified.training.progress import Display
from unified.training.setup import Setup, prepare
from unified.training.step import averaged
from unified.training.stop import Stop
from unified.training.validation import Validation


def main(argv: list[str] | None = None) -> int:
    args, config = parse(sys.argv[1:] if argv is None else argv)
    if args.distributed:
        jax.distributed.initialize()
    args.workdir.mkdir(parents=True, exist_ok=True)
    recipe = importlib.import_module(config.recipe)
    mesh = sharding.make_mesh(config.mesh)
    display = Display(config.total_steps, tuple(config.loss_weights), show=jax.process_index() == 0)
    checkpoints = Checkpoints(
        args.workdir / "checkpoints", keep=config.checkpoint.keep, best=config.checkpoint.best
    )
    try:
        with jax.set_mesh(mesh):
            return run(args, config, recipe, prepare(config, recipe, mesh), display, checkpoints)
    except NonFinite as error:
        display.close()
        good = checkpoints.latest
        where = "there is no checkpoint" if good is None else f"{checkpoints.folder / str(good)}"
        print(f"{error}; stopped, nothing saved. Last good checkpoint: {where}", file=sys.stderr)
        return 1
    finally:
        display.close()
        checkpoints.close()


def run(args, config, recipe, setup: Setup, display: Display, checkpoints: Checkpoints) -> int:
    # Act 1: the state and the input, fresh or where the last run stopped.
    inputs = recipe.inputs(config, "train", None)
    restored = checkpoints.restore(setup.abstract) if args.resume == "auto" else None
    if restored:
        state, start, host = restored.state, restored.step, restored.host
        inputs.set_state(host["inputs"])
    else:
        if checkpoints.latest is not None:
            raise SystemExit(f"{args.workdir} holds checkpoints: give another --workdir")
        state, start, host = setup.init(config.seed, loaded(config, setup)), 0, {}
    describe(args, config, setup, display, start)

    # Act 2: those who watch.
    first = jax.process_index() == 0
    journal = Journal(args.workdir, after=start, write=first)
    monitor = Monitor(every=config.log_every, window=host.get("window"))
    validate = Validation(
        setup,
        lambda task: recipe.inputs(config, "validation", task),
        config.validation.tasks if config.validation.every else (),
        config.validation.batches,
    )
    latest = host.get("validation", {})  # the last validation, by which the best is chosen

    def log(line) -> None:
        if line:
            step, values = line
            journal.write(step, values)
            left = monitor.seconds_per_step * (config.total_steps - step)
            display.line(step, values, min(left, stop.seconds_left))

    def save(step: int, fed) -> None:
        log(monitor.catch_up())  # raises where the state is not worth keeping
        host = {"inputs": fed.state, "window": monitor.window.pairs, "validation": latest}
        checkpoints.save(step, state, host, latest)
        monitor.pause()

    # Act 3: step, log, evaluate, save.
    signal = None
    with Feed(inputs, setup.place) as feed, Stop(config.max_minutes) as stop:
        for step in range(start + 1, config.total_steps + 1):
            with jax.transfer_guard("disallow"):
                fed = next(feed)
                state, metrics = setup.train_step(state, fed.arrays)
                log(monitor.follow(step, metrics, fed))
            display.advance(step)
            if step == start + 1 and fed.slots:
                display.print(f"tokens   {fed.tokens:,} in {fed.slots:,} slots a step")

            if config.validation.every and step % config.validation.every == 0:
                log(monitor.catch_up())
                latest = validate(averaged(state), config.seed)
                journal.write(step, latest)
                display.print(f"step {step}  validation loss {latest['validation/loss']:.4g}")
                monitor.pause()

            signal = stop.signalled(step)
            ending = signal or step == config.total_steps or stop.out_of_time(step)
            if ending or step % config.checkpoint.every == 0:
                save(step, fed)
            if ending:
                break
    checkpoints.wait()
    journal.close()
    display.close()
    if signal:
        display.print(f"{signal}: saved {checkpoints.folder / str(step)}; run again to go on")
        return 0

    # Act 4: what came of it.
    params = averaged(state)
    if jax.process_count() > 1:
        params = multihost_utils.process_allgather(params, tiled=True)
    if first:
        release.save(args.workdir / "release", params, config)
        display.print(f"released {args.workdir / 'release'}; evaluating")
        model = nnx.merge(setup.task.model, params)
        values = recipe.evaluate(model, config, args.workdir / "evaluation")
        display.table(f"evaluation after {int(state.step)} steps", values)
    return 0


def parse(argv: list[str]):
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
    try:
        return args, configs.load(args.config, overrides)
    except ValueError as error:
        parser.error(str(error))


def loaded(config, setup: Setup):
    """Released weights at the paths of `config.load`, None elsewhere."""
    params = setup.abstract.params
    parts = jax.tree.map(lambda _: None, params)
    for path, folder in config.load.items():
        want = tree.subtree(params, path)
        found = release.merge(want, release.load(folder)[0], folder)
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), found, want)
        parts = tree.put_subtree(parts, path, placed)
    return parts


def describe(args, config, setup: Setup, display: Display, start: int) -> None:
    """Says where the run computes, what it trains and where it writes; keeps its config."""
    devices, (trained, frozen) = jax.devices(), setup.num_params
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    display.print(f"devices  {len(devices)} x {devices[0].device_kind}, mesh {mesh}")
    display.print(f"model    {trained:,} trained and {frozen:,} frozen parameters")
    display.print(f"batch    {config.batch_size} rows in {config.accumulation} micro-batches")
    display.print(f"writes   {args.workdir}" + (f", goes on after step {start}" if start else ""))
    if jax.process_index() == 0:
        (args.workdir / "config.json").write_text(config.to_json_best_effort(indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
