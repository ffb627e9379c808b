"""Building, losses, input and evaluation of the family."""

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from unified import names
from unified.evaluation import loss as evaluation_loss
from unified.inference import Assistant
from unified.lanes import PictureTokens, TextTokens
from unified.processes import autoregressive, rectified_flow
from unified.recipes.ar_flow.config import layout, parse, tokenizer
from unified.recipes.ar_flow.heldout import HeldOut, TimedLatents
from unified.recipes.ar_flow.model import ARFlow, ByName
from unified.sequence import Batch

if TYPE_CHECKING:
    from unified.data.pipeline import Pipeline

Sums = dict[str, tuple[jax.Array, jax.Array]]


def build(config: Mapping[str, Any], *, rngs: nnx.Rngs) -> ARFlow:
    """The model of a config. Raises ValueError where its numbers do not fit together."""
    return ARFlow(parse(config), rngs=rngs)


def loss(model: ARFlow, batch: Batch, key: jax.Array) -> Sums:
    """Sums and counts: `text` (nats a token), `flow` (squared error a latent token, mean over its
    numbers), and `flow/t<lo>-<hi>`, the same by flow time."""
    latents, times, targets = corrupt(model, batch, key)
    x, tokens, time = model.streams(batch, latents, times)
    hidden, _ = model.backbone(x, tokens, time=time, remat=model.cfg.remat)
    total: Sums = {}
    for name, h in model.lanes(hidden, batch).items():
        lane = batch.lanes[name]
        if isinstance(lane, TextTokens):
            terms = text_loss(model, h, lane)
        elif isinstance(lane, PictureTokens):
            terms = flow_loss(model, h, lane, targets[name], times[name])
        else:
            continue
        for term, sums in terms.items():
            total[term] = jax.tree.map(jnp.add, total[term], sums) if term in total else sums
    return total


def corrupt(model: ARFlow, batch: Batch, key: jax.Array) -> tuple[ByName, ByName, ByName]:
    """By latent lane: noised latents, flow times and target velocities. Context stays clean.

    Times are drawn, but for held-out pictures, which bring theirs.
    """
    latents, times, targets = {}, {}, {}
    for i, (name, lane) in enumerate(sorted(batch.lanes.items())):
        if isinstance(lane, PictureTokens):
            keys = jax.random.split(jax.random.fold_in(key, i), 3)
            sampling = keys[0] if model.cfg.sample_latents else None
            clean = jax.lax.stop_gradient(model.encode(lane.pixels, sampling))
            if isinstance(lane, TimedLatents):
                drawn = lane.times
            else:
                drawn = rectified_flow.times(keys[1], lane.target.shape, model.cfg.timestep_shift)
            times[name] = jnp.where(lane.target, drawn, 0.0)
            latents[name], targets[name] = rectified_flow.corrupt(keys[2], clean, times[name])
    return latents, times, targets


def text_loss(model: ARFlow, hidden: jax.Array, lane: TextTokens) -> Sums:
    """Next-token loss; logits are computed for the predicting tokens alone."""
    args = (*model.predicting(hidden, lane), lane.loss_weight.ravel())
    return {"text": autoregressive.loss(model.language, *args, chunk=model.cfg.logits_chunk)}


def flow_loss(model: ARFlow, hidden, lane: PictureTokens, target, time) -> Sums:
    """Velocity loss of the noised pictures, whole and by flow time."""
    velocity = model.velocity(hidden, lane.target.shape[1])
    args = (velocity, target, lane.target & lane.valid)
    by_time = rectified_flow.loss_by_time(*args, time)
    return {"flow": rectified_flow.loss(*args)} | {f"flow/{t}": v for t, v in by_time.items()}


def counts(batch: Batch) -> dict[str, jax.Array]:
    """The counts that `loss` returns for its objectives, from the batch alone."""
    text = [x.loss_weight.sum() for x in batch.lanes.values() if isinstance(x, TextTokens)]
    flow = [
        (x.target & x.valid).sum() * (x.tokens.clock.shape[-1] // x.target.shape[-1])
        for x in batch.lanes.values()
        if isinstance(x, PictureTokens)
    ]
    return {"text": sum(text, jnp.float32(0)), "flow": sum(flow, jnp.float32(0))}


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
    return pipeline if split == "train" else HeldOut(pipeline)


def evaluate(
    model: ARFlow,
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


def validation_losses(model: ARFlow, config: Mapping[str, Any]) -> dict[str, float]:
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
