"""Our model on a CPU beside an equivalent one in eager PyTorch with the same weights.

    python benchmarks/cpu.py            # the default config, a few minutes
    python benchmarks/cpu.py --quick    # a small one, seconds

Losses, gradients, texts and pictures of both sides are compared before anything is timed. Then
both take turns, call by call, and the ratio of their least times is reported with its range: above
1 means ours is faster. Both use as many threads as there are cores, at most two. The autoencoder,
which training freezes, is left out on both sides. Needs the parity extra.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import torch
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks import timing, torch_model, torch_programs, workload
from unified.config import layout
from unified.processes import rectified_flow
from unified.training import config as configs
from unified.training import memory

THREADS = 2
TOLERANCE = 1e-4


class Case(NamedTuple):
    """One measurement: two functions that do the same work and wait for its end."""

    name: str
    ours: Callable[[], Any]
    torch: Callable[[], Any]
    tokens: int  # processed by a call, for the rate


class Result(NamedTuple):
    case: Case
    race: timing.Race


def settings(quick: bool) -> ConfigDict:
    file = Path(__file__).parents[1] / "configs" / "emoji.py"
    config = configs.load(str(file), ["--config.optimizer.name=adamw"])  # which both sides have
    if quick:
        config.batch_size = 2
        config.model.backbone.num_layers = 2
        config.model.vision.num_layers = 1
        config.data.lookahead = 8
    return config


def check(name: str, got: Any, want: Any) -> None:
    """Raises AssertionError unless `got` is near, in units of the largest number of `want`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    scale = max(float(np.abs(want).max()), 1e-3)
    np.testing.assert_allclose(got / scale, want / scale, atol=TOLERANCE, rtol=0, err_msg=name)


def training(config: ConfigDict, network: workload.Network, model: torch_model.Model) -> Case:
    data = workload.train_data(config)
    theirs = (torch_programs.tensors(dict(data[0].lanes)), *map(torch_programs.tensors, data[1:]))
    weights = dict(config.loss_weights)
    c = config.optimizer
    trainer = torch_programs.Trainer.of(model, c.learning_rate, c.b2, c.weight_decay)

    value_and_grad = jax.jit(
        jax.value_and_grad(functools.partial(workload.objective, network, config))
    )
    loss, grads = value_and_grad(network.params, *data)
    their_loss = trainer.loss(*theirs, weights)
    their_loss.backward()
    check("loss", loss, their_loss.item())
    wanted = torch_model.weights(grads)
    for name, parameter in model.named_parameters():
        check(f"gradient of {name}", parameter.grad, wanted[name])

    optimizer = workload.make_optimizer(config)
    step = workload.make_train_step(network, config, optimizer)
    params = jax.tree.map(lambda x: x.copy(), network.params)
    state = [(params, optimizer.init(params))]

    def ours():
        state[0], loss = step(state[0], *data)
        return loss.block_until_ready()

    slots = config.batch_size * layout(config).slots
    return Case("train step", ours, lambda: trainer.step(*theirs, weights).item(), slots)


def decoding(config: ConfigDict, network, model, rows: int, num: int) -> Case:
    contexts = workload.questions(config, rows)
    [begin] = layout(config).template.begin_text
    read, write = workload.make_read(network), workload.make_write(network, begin, num)
    cache = read(network.params, contexts.batch, num)
    lanes = torch_programs.tensors(dict(contexts.batch.lanes))
    their_cache, tokens = torch_programs.read(model, lanes, num)
    place = [torch.from_numpy(x).long() for x in (contexts.clock, contexts.position)]
    first = torch.full((rows,), begin)
    ours = lambda: jax.block_until_ready(
        write(network.params, cache, contexts.clock, contexts.position)
    )
    theirs = lambda: torch_programs.write(model, their_cache, tokens, first, *place, num)
    np.testing.assert_array_equal(ours(), theirs(), err_msg="greedy text")
    return Case(f"decode, batch {rows}", ours, theirs, rows * num)


def sampling(config: ConfigDict, network, model, rows: int, steps: int) -> Case:
    contexts, block = workload.prompts(config, rows)
    times = np.asarray(rectified_flow.schedule(steps + 1, workload.SHIFT))
    noise = workload.sampling_noise(config, rows)
    cache = workload.make_read(network)(network.params, contexts.batch, 0)
    draw = workload.make_draw(network, times)
    lanes = torch_programs.tensors(dict(contexts.batch.lanes))
    after = torch_programs.tensors(dict(block.lanes))
    their_cache, tokens = torch_programs.read(model, lanes, sum(map(_slots, after.values())))
    given = (tokens, after, *map(torch_programs.tensors, (noise, times)))
    ours = lambda: jax.block_until_ready(draw(network.params, cache, block, noise))
    theirs = lambda: torch_programs.draw(model, their_cache, *given, *workload.GUIDANCE.scales)
    check("picture", ours(), theirs())
    return Case(f"draw {rows} pictures, {steps} steps", ours, theirs, rows * steps * noise.shape[1])


def _slots(lane) -> int:
    return lane.tokens.clock.shape[1]


def run(quick: bool, pairs: int, seconds: float) -> Iterator[Result]:
    """Checks and measures case by case. Raises AssertionError where the two sides differ."""
    config = settings(quick)
    network = workload.Network.of(config)
    tokens, steps = (4, 2) if quick else (64, 24)

    def model() -> torch_model.Model:
        fresh = torch_model.Model(config.model.to_dict(), workload.latent_dim(config))
        fresh.load_state_dict(torch_model.weights(network.params))
        return fresh

    make = [
        lambda: training(config, network, model()),
        lambda: decoding(config, network, model(), 1, tokens),
        lambda: decoding(config, network, model(), 8, tokens),
        lambda: sampling(config, network, model(), 4, steps),
    ]
    for case in (m() for m in make):
        case.ours(), case.torch()
        yield Result(case, timing.race(case.ours, case.torch, pairs, seconds))


def line(result: Result) -> str:
    case, race = result
    ours, theirs = (f"{x.least * 1e3:.1f} ms" for x in (race.ours, race.theirs))
    return f"{case.name}: ours {ours}, torch {theirs}, torch / ours {race.ratio:.2f}"


def show(results: list[Result]) -> None:
    threads, cores = torch.get_num_threads(), os.cpu_count()
    versions = f"jax {jax.__version__}, torch {torch.__version__}"
    title = f"{versions}, {threads} threads of {cores} cores; ms: least (median)"
    table = Table(title=title)
    for column in ("", "ours", "torch", "torch / ours", "tokens/s", "pairs", "load", "cores had"):
        table.add_column(column, no_wrap=True)
    for case, race in results:
        times = (f"{x.least * 1e3:.1f} ({x.median * 1e3:.1f})" for x in (race.ours, race.theirs))
        ratio = "{:.2f} ({:.2f} to {:.2f})".format(race.ratio, *race.quartiles)
        rate, pairs = f"{case.tokens / race.ours.least:,.0f}", str(len(race.ours.wall))
        had = f"{race.ours.cores:.2f}, {race.theirs.cores:.2f}"
        table.add_row(case.name, *times, ratio, rate, pairs, f"{race.load:.1f}", had)
    Console(width=130).print(table)
    if loud := [case.name for case, race in results if not race.is_quiet]:
        print(f"disturbed, mean over least above {timing.QUIET}: {'; '.join(loud)}")
    if loud := [case.name for case, race in results if not race.is_confirmed]:
        print(f"least times that nothing confirms, so take the range: {'; '.join(loud)}")


def limit_threads() -> None:
    """Two threads for each side. XLA takes as many as the cores that it may use when it starts."""
    torch.set_num_threads(min(THREADS, os.cpu_count() or 1))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it works")
    parser.add_argument("--pairs", type=int, default=12, help="of calls for each case, at least")
    parser.add_argument("--seconds", type=float, default=30, help="for each case, at least")
    flags = parser.parse_args()
    limit_threads()
    memory.keep_freed_memory()  # as train.py does; it serves both sides
    if flags.quick:  # compiles more than it computes
        flag = " --xla_backend_optimization_level=0"
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + flag
    print("checking and measuring case by case", flush=True)
    results = []
    for result in run(flags.quick, *((2, 0.0) if flags.quick else (flags.pairs, flags.seconds))):
        print(line(result), flush=True)
        results.append(result)
    show(results)


if __name__ == "__main__":
    main()
