"""Codes of a picture, one place after another, inside one compiled loop, under guidance.

The rows of the batch are contexts, as in `generation/picture.py`: first the conditional ones, then
the same samples without what each term of the guidance drops.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unified.generation.guidance import Guidance, combine
from unified.processes.autoregressive import Sampling, restrict, sample

# (state, codes before [R], place []) -> (logits [R K] of the code at the place, state)
CodeStep = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


def generate_codes(
    step: CodeStep,
    state: Any,
    seeds: Int[Array, "B"],
    *,
    places: int,
    sampling: Sampling,
    guidance: Guidance,
) -> tuple[Int[Array, "B places"], Float[Array, "B places"]]:
    """Codes, and the log-probability of each where nothing is guided or excluded.

    The code before the first place is -1. Guidance acts on log-probabilities, at every place: they
    have no times, and nothing to normalise. It weighs the codes that `top_k` and `top_p` keep
    without it: among those that are unlikely anyway it would find some that are only less unlikely
    than without the text, and push them up. A sample depends on its own seed alone.
    """
    contexts, plain = guidance.contexts, dataclasses.replace(guidance, renorm="none")
    kept = dataclasses.replace(sampling, temperature=1.0)
    among = Sampling(sampling.temperature)
    keys = jax.vmap(jax.random.key)(seeds)

    def extend(carry: Any, place: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        before, state = carry
        logits, state = step(state, jnp.tile(before, len(contexts)), place)
        scores = jax.nn.log_softmax(logits.astype(jnp.float32))
        each = dict(zip(contexts, jnp.split(scores, len(contexts)), strict=True))
        [conditional, *_] = each.values()
        likely = jnp.isfinite(restrict(conditional, kept))
        guided = jnp.where(likely, combine(each, plain), -jnp.inf)
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
        code = sample(guided, own, among).astype(jnp.int32)
        chosen = jnp.take_along_axis(conditional, code[:, None], axis=-1)[:, 0]
        return (code, state), (code, chosen)

    start = jnp.full(seeds.shape, -1, jnp.int32)
    _, (codes, scores) = jax.lax.scan(extend, (start, state), jnp.arange(places))
    return codes.T, scores.T
