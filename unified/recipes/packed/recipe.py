"""Building, losses, input and evaluation."""

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from unified import names
from unified.config import layout, parse, tokenizer
from unified.evaluation import loss as evaluation_loss
from unified.inference import Assistant
from unified.model import Unified
from unified.parts.part import Sums, add
from unified.recipes.packed.heldout import HeldOut
from unified.sequence import Batch

if TYPE_CHECKING:
    from unified.data.pipeline import Pipeline


def build(config: Mapping[str, Any], *, rngs: nnx.Rngs) -> Unified:
    """The model of a config. Raises ValueError where its numbers do not fit together."""
    return Unified(parse(config), rngs=rngs)


def loss(model: Unified, batch: Batch, key: jax.Array) -> Sums:
    """Sums and counts of every part, as `<view>/<term>`."""
    return model.losses(batch, key)


def counts(model: Unified, batch: Batch) -> dict[str, jax.Array]:
    """The counts that `loss` returns for its objectives, from the batch alone."""
    layout, total = model.layout, {}
    for part in model.cfg.parts:  # 0 where a batch has no lane of a part
        if main := model.cfg.kind(part).main:
            total[f"{part}/{main}"] = jnp.float32(0)
    for name, content in batch.lanes.items():
        view = layout[name].view
        found = model.cfg.kind(view).counts(content)
        total = add(total, {f"{view}/{term}": count for term, count in found.items()})
    return total


def flops(model: Unified, batch: Batch) -> float | None:
    """Operations of a step on host arrays, for the utilisation of the hardware (MFU)."""
    return model.flops(batch)


def inputs(
    config: Mapping[str, Any],
    split: str,
    task: str | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> "Pipeline | HeldOut":
    """Packed batches of `config.data[split]`: its sources by name, or the one named `task`.

    `rows`: those that this process makes of the global batch (default: all).
    """
    from unified.data.pipeline import configured  # Grain: only training waits for it

    encode = tokenizer(config).encode
    pipeline = configured(config, split, task, layout(config), encode, rows=rows)
    return pipeline if split == "train" else HeldOut(pipeline, parse(config))


def evaluate(
    model: Unified,
    config: Mapping[str, Any],
    folder: str | Path,
    losses: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Runs the benchmark that the config names, which writes its pictures and tables to `folder`.

    Validation losses, by task and flow time, are among the metrics: `losses`, where they are known.
    """
    options = dict(config["benchmark"])
    benchmark = names.find("module", options.pop("module"))
    extra = losses or validation_losses(model, config)
    return benchmark.run(Assistant(model, config), Path(folder), extra=extra, **options)


def validation_losses(model: Unified, config: Mapping[str, Any]) -> dict[str, float]:
    """Mean losses of the validation batches of each task, as training reports them."""
    graph, params = nnx.split(model)
    step = jax.jit(lambda params, batch, key: loss(nnx.merge(graph, params), batch, key))
    tasks, num = config["validation"]["tasks"] or (None,), config["validation"]["batches"]
    with contextlib.ExitStack() as stack:
        batches: dict[str | None, Iterable[Batch]] = {}
        for task in tasks:
            held_out = inputs(config, "validation", task)
            stack.callback(held_out.close)
            batches[task] = itertools.islice(held_out, num)
        key, weights = jax.random.key(config["seed"]), config["loss_weights"]
        return evaluation_loss.losses(lambda *args: step(params, *args), batches, weights, key)
