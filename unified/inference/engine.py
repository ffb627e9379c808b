"""The compiled programs: read contexts, judge and write text, draw latents, show pixels.

A recipe gives `tokenizer`, `drawing`, `prefill`, `score_text`, `decode_text` and `velocity`; its
model `cfg.layout`, `cfg.latent_dim`, `encode` and `decode`. Each program is compiled once for each
shape, and shared by all models of one graph.
"""

import dataclasses
import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.generation.text import generate_text
from unified.inference.context import Contexts
from unified.processes import rectified_flow
from unified.processes.autoregressive import Sampling
from unified.sequence import Array, Batch, LatentLane, TextLane


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
) -> tuple[jax.Array, jax.Array]:
    """Text after each context, in a text lane: ids `[B max_tokens]` and lengths `[B]`."""
    cache = _read(program, params, contexts.batch, ((lane.stream, max_tokens),))
    place = (contexts.clock, contexts.position)
    return _write(program, params, cache, place, seeds, lane, max_tokens, sampling)


def draw(
    program: Program,
    params: Any,
    contexts: Contexts,
    block: Batch,
    seeds: Array,
    guidance: Guidance,
    *,
    lane: LatentLane,
    steps: int,
    shift: float,
) -> jax.Array:
    """Pictures uint8 `[B H W 3]` after contexts `[C * B ...]`, stacked as guidance needs them."""
    cache = _read(program, params, contexts.batch, ())
    times = rectified_flow.schedule(steps, shift)
    return _show(
        program, params, _draw(program, params, cache, block, seeds, times, guidance, lane), lane
    )


@functools.partial(jax.jit, static_argnums=0)
def score(program: Program, params, batch: Batch) -> jax.Array:
    """Log-probability of the texts to be said in each row, given all before them: `[B]`."""
    return program.recipe.score_text(nnx.merge(program.graph, params), batch)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _read(program: Program, params, batch: Batch, room: tuple[tuple[str, int], ...]):
    """The cache of contexts, with `room` for more."""
    return program.recipe.prefill(nnx.merge(program.graph, params), batch, dict(room))


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7))
def _write(program: Program, params, cache, place, seeds, lane: TextLane, max_tokens, sampling):
    model = nnx.merge(program.graph, params)
    layout = model.cfg.layout
    clock, position = place
    return generate_text(
        functools.partial(program.recipe.decode_text, model, lane=lane.name),
        cache,
        jnp.full_like(clock, layout.begin_text),
        clock=clock,
        position=position,
        slot=cache.spans[lane.stream].start.shape[1] - max_tokens,
        keys=jax.vmap(jax.random.key)(seeds),
        max_tokens=max_tokens,
        stop_ids=(layout.end_text,),
        sampling=sampling,
    )


@functools.partial(jax.jit, static_argnums=(0, 7))
def _draw(program: Program, params, cache, block: Batch, seeds, times, guidance, lane: LatentLane):
    model = nnx.merge(program.graph, params)

    def velocity(x: jax.Array, time: jax.Array) -> jax.Array:
        head = jax.tree.map(lambda leaf: leaf[: len(x)], block)
        return program.recipe.velocity(model, cache.first(len(x)), head, x, time)

    noise = draw_noise(seeds, (lane.tokens, model.cfg.latent_dim))
    return generate_picture(velocity, noise, times, guidance)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _show(program: Program, params, latents, lane: LatentLane):
    return nnx.merge(program.graph, params).decode(latents, lane)


@functools.partial(jax.jit, static_argnums=(0, 3))
def reconstruct(program: Program, params, pixels, lane: LatentLane) -> jax.Array:
    """uint8 `[B H W 3]` through the latents of the model, and back."""
    model = nnx.merge(program.graph, params)
    return model.decode(model.encode(pixels[:, None])[:, 0], lane)
