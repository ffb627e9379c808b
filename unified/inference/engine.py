"""The compiled programs: judge and write text, draw pictures, pass them through the autoencoder.

A recipe gives `tokenizer`, `drawing`, `prefill`, `score_text`, `decode_text` and `velocity`; its
model `cfg.layout`, `cfg.latent_dim`, `encode` and `decode`. Each is one program, from arrays of the
host to arrays of the host, compiled once for each shape and shared by all models of one graph.

What is not finite is neither a picture nor a text: FloatingPointError says what it was.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.generation.text import NOT_FINITE, generate_text
from unified.inference import compiled
from unified.inference.context import Contexts
from unified.lanes import PictureLane, TextLane
from unified.processes import rectified_flow
from unified.processes.autoregressive import Sampling
from unified.sequence import Array, Batch

log = logging.getLogger(__name__)

ROOM_STEP = 64  # texts of many lengths share a program


@dataclasses.dataclass(frozen=True)
class Program:
    """What is static of a model: the functions of its recipe, and its graph."""

    recipe: ModuleType
    graph: nnx.GraphDef

    def __post_init__(self):
        needed = ("tokenizer", "drawing", "prefill", "score_text", "decode_text", "velocity")
        if missing := [name for name in needed if not hasattr(self.recipe, name)]:
            raise ValueError(
                f"models of {self.recipe.__name__} neither answer nor draw: it has no "
                f"{', '.join(missing)}"
            )


def write(
    program: Program,
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
    args = (program, params, contexts, seeds, max_tokens, room, lane, sampling)
    ids, lengths = _run(what, _write, *args)
    _check("logits", ids != NOT_FINITE)
    return ids, lengths


def draw(
    program: Program,
    params: Any,
    contexts: Contexts,
    block: Batch,
    seeds: Array,
    guidance: Guidance,
    *,
    lane: PictureLane,
    steps: int,
    shift: float,
) -> np.ndarray:
    """Pictures uint8 `[B H W 3]` after contexts `[C * B ...]`, stacked as guidance needs them."""
    what = f"drawing {len(seeds)} in {steps} steps"
    times = rectified_flow.schedule(steps, shift)
    args = (program, params, contexts.batch, block, seeds, times, guidance, lane)
    pictures, latents, pixels = _run(what, _draw, *args)
    _check("latents", latents)
    _check("pixels", pixels)
    return pictures


def score(program: Program, params: Any, batch: Batch) -> np.ndarray:
    """Log-probability of the texts to be said in each row, given all before them: `[B]`."""
    scores = _run("judging", _score, program, params, batch)
    _check("log-probabilities", np.isfinite(scores))
    return scores


def reconstruct(program: Program, params: Any, pixels: Array, lane: PictureLane) -> np.ndarray:
    """uint8 `[B H W 3]` through the latents of the model, and back."""
    pictures, finite = _run("reconstructing", _reconstruct, program, params, pixels, lane)
    _check("pixels", finite)
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
def _write(
    program: Program, params, contexts: Contexts, seeds, max_tokens, room, lane: TextLane, sampling
):
    model = nnx.merge(program.graph, params)
    layout = model.cfg.layout
    cache = program.recipe.prefill(model, contexts.batch, {lane.stream: room})
    return generate_text(
        functools.partial(program.recipe.decode_text, model, lane=lane.name),
        cache,
        contexts.last,
        clock=contexts.clock,
        position=contexts.position,
        slot=cache.spans[lane.stream].start.shape[1] - room,
        keys=jax.vmap(jax.random.key)(seeds),
        max_tokens=max_tokens,
        room=room,
        stop_ids=layout.template.end_text[:1] or layout.template.end_target[:1],
        sampling=sampling,
    )


@functools.partial(jax.jit, static_argnums=(0, 7))
def _draw(program: Program, params, contexts: Batch, block: Batch, seeds, times, guidance, lane):
    model = nnx.merge(program.graph, params)
    cache = program.recipe.prefill(model, contexts, {})

    def velocity(x: jax.Array, time: jax.Array) -> jax.Array:
        head = jax.tree.map(lambda leaf: leaf[: len(x)], block)
        return program.recipe.velocity(model, cache.first(len(x)), head, x, time)

    noise = draw_noise(seeds, (lane.unit, model.cfg.latent_dim))
    latents = generate_picture(velocity, noise, times, guidance)
    pixels = model.decode(latents, lane)
    return pixels.astype(jnp.uint8), _finite(latents), _finite(pixels)


@functools.partial(jax.jit, static_argnums=0)
def _score(program: Program, params, batch: Batch) -> jax.Array:
    return program.recipe.score_text(nnx.merge(program.graph, params), batch)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _reconstruct(program: Program, params, pixels, lane: PictureLane):
    model = nnx.merge(program.graph, params)
    shown = model.decode(model.encode(pixels[:, None])[:, 0], lane)
    return shown.astype(jnp.uint8), _finite(shown)


def _finite(x: jax.Array) -> jax.Array:
    """Whether all numbers of a row are, `[B]`."""
    return jnp.isfinite(x).all(axis=range(1, x.ndim))
