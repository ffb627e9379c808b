"""The compiled programs: judge and write text, draw pictures, pass them through the autoencoder.

Each is one program, from arrays of the host to arrays of the host, compiled once for each shape and
shared by all models of one graph; what it computes is the business of the part of a lane.

What is not finite is neither a picture nor a text: FloatingPointError says what it was.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unified.generation.guidance import Guidance
from unified.generation.text import NOT_FINITE
from unified.inference import compiled
from unified.inference.context import Contexts
from unified.lanes import PictureLane, TextLane
from unified.processes.autoregressive import Sampling
from unified.sequence import Array, Batch

log = logging.getLogger(__name__)

ROOM_STEP = 64  # texts of many lengths share a program


def write(
    graph: nnx.GraphDef,
    params: Any,
    contexts: Contexts,
    seeds: Array,
    *,
    lane: TextLane,
    max_tokens: int,
    sampling: Sampling,
) -> tuple[np.ndarray, np.ndarray]:
    """Text after each context, in a text lane: ids `[B >=max_tokens]` and lengths `[B]`."""
    room = -(-max_tokens // ROOM_STEP) * ROOM_STEP
    what = f"writing at most {max_tokens} tokens"
    args = (graph, params, contexts, seeds, max_tokens, room, lane, sampling)
    ids, lengths = _run(what, _write, *args)
    _check("logits", ids != NOT_FINITE)
    return ids, lengths


def draw(
    graph: nnx.GraphDef,
    params: Any,
    contexts: Contexts,
    block: Batch,
    seeds: Array,
    plan: Any,
    guidance: Guidance,
    *,
    lane: PictureLane,
) -> np.ndarray:
    """Pictures uint8 `[B H W 3]` after contexts `[C * B ...]`, stacked as guidance needs them;
    `plan` as the part of the lane makes it."""
    args = (graph, params, contexts.batch, block, seeds, plan, guidance, lane)
    pictures, finite = _run(f"drawing {len(seeds)}", _draw, *args)
    for name, rows in finite.items():
        _check(name, rows)
    return pictures


def score(graph: nnx.GraphDef, params: Any, batch: Batch) -> np.ndarray:
    """Log-probability of the texts to be said in each row, given all before them: `[B]`."""
    scores = _run("judging", _score, graph, params, batch)
    _check("log-probabilities", np.isfinite(scores))
    return scores


def reconstruct(graph: nnx.GraphDef, params: Any, pixels: Array, lane: PictureLane) -> np.ndarray:
    """uint8 `[B H W 3]` through the latents of the model, and back."""
    pictures, finite = _run("reconstructing", _reconstruct, graph, params, pixels, lane)
    for name, rows in finite.items():
        _check(name, rows)
    return pictures


def _run(what: str, compute: Callable, *args: Any) -> Any:
    """`compute(*args)` on the host; the log says what it waits for."""
    log.info("compiling (%s)", compiled.kept())
    running = compute(*args)  # comes back when it is compiled
    log.info(what)
    return jax.device_get(running)


def _check(what: str, finite: np.ndarray) -> None:
    if not finite.all():
        raise FloatingPointError(
            f"the {what} are not finite: the weights of the model are damaged or too large, or a "
            "scale of the guidance is"
        )


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _write(graph, params, contexts: Contexts, seeds, max_tokens, room, lane: TextLane, sampling):
    model = nnx.merge(graph, params)
    template = model.layout.template
    cache = model.read(contexts.batch, {lane.stream: room})
    return model.part(lane).write(
        model.step,
        cache,
        lane,
        contexts.last,
        clock=contexts.clock,
        position=contexts.position,
        slot=cache.spans[lane.stream].start.shape[1] - room,
        keys=jax.vmap(jax.random.key)(seeds),
        max_tokens=max_tokens,
        room=room,
        stop_ids=template.end_text[:1] or template.end_target[:1],
        sampling=sampling,
    )


@functools.partial(jax.jit, static_argnums=(0, 7))
def _draw(graph, params, contexts: Batch, block: Batch, seeds, plan, guidance, lane: PictureLane):
    model = nnx.merge(graph, params)
    part = model.part(lane)
    room = model.room(block) if part.appends else {}
    cache = model.read(contexts, room)
    slots = model.free(cache, block) if room else {}
    how = (seeds, plan, guidance)
    pictures, finite = part.draw(model.step, cache, lane, block, slots, *how)
    return pictures, _finite(finite)


@functools.partial(jax.jit, static_argnums=0)
def _score(graph, params, batch: Batch) -> jax.Array:
    return nnx.merge(graph, params).score(batch)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _reconstruct(graph, params, pixels, lane: PictureLane):
    part = nnx.merge(graph, params).part(lane)
    pictures, finite = part.reconstruct(pixels[:, None], lane)
    return pictures, _finite(finite)


def _finite(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Whether all numbers of a row are, `[B]` each."""
    return {k: jnp.isfinite(x).all(axis=range(1, x.ndim)) for k, x in arrays.items()}
