"""Pictures from noise: rectified-flow sampling under guidance.

The rows of the batch are contexts: first the conditional ones, then the same samples without what
each term of the guidance drops. A model computes and caches all of them once; every step reuses
them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unified.generation.guidance import Guidance, combine
from unified.processes import rectified_flow


def draw_noise(seeds: Int[Array, "B"], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
    """Standard normal noise; the noise of a sample depends on its own seed alone."""
    draw = lambda seed: jax.random.normal(jax.random.key(seed), shape, jnp.float32)
    return jax.vmap(draw)(seeds)


def generate_picture(
    velocity: Callable[[jax.Array, jax.Array], jax.Array],
    noise: Float[Array, "B *tokens D"],
    times: Float[Array, "steps"],
    guidance: Guidance | None = None,
) -> Float[Array, "B *tokens D"]:
    """Latent tokens of clean pictures.

    `velocity(x [R ... D], t []) -> [R ... D]` is asked for the first R rows of the contexts: all
    `B * len(guidance.contexts)` of them where guidance is active, else the B conditional ones, so
    a step outside the interval costs no more than without guidance. `times` as from
    `rectified_flow.schedule`.
    """
    if guidance is None or len(guidance.contexts) == 1:
        return rectified_flow.sample(velocity, noise, times)
    contexts = guidance.contexts

    def guided(x, t):
        rows = jnp.concatenate([x] * len(contexts))
        by_context = dict(zip(contexts, jnp.split(velocity(rows, t), len(contexts)), strict=True))
        return combine(by_context, guidance)

    def conditional(x, t):
        return velocity(x, t).astype(jnp.float32)

    def predict(x, t):
        return jax.lax.cond(guidance.is_active(t), guided, conditional, x, t)

    always = guidance.interval is None
    return rectified_flow.sample(guided if always else predict, noise, times)
