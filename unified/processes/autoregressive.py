"""Autoregressive prediction: the next id, its loss and its sampling.

`M` predictions, `D` embed, `B` rows, `V` vocab. Logits and losses are float32.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

Logits = Callable[[jax.Array], jax.Array]  # hidden [m D] -> logits [m V]
LEAST = 1e-6  # of temperatures and probabilities: in float32, logits over less are infinite


def loss(
    logits_fn: Logits,
    hidden: Float[Array, "M D"],
    targets: Int[Array, "M"],
    weights: Float[Array, "M"] | Bool[Array, "M"],
    *,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted cross entropy `(sum, count)` in nats; `chunk` logits rows exist at a time."""
    log_prob = score(logits_fn, hidden, targets, chunk=chunk)
    weights = weights.astype(jnp.float32)
    return -jnp.sum(weights * log_prob), jnp.sum(weights)


def score(
    logits_fn: Logits, hidden: Float[Array, "M D"], targets: Int[Array, "M"], *, chunk: int
) -> Float[Array, "M"]:
    """Log-probability of each target.

    The head runs on `chunk` rows at a time, and again in the backward pass, so memory does not
    grow with M x V. A chunk takes every n-th row: rows that are sharded over devices stay so.
    """

    @jax.checkpoint
    def score_chunk(args):
        hidden, targets = args
        logits = logits_fn(hidden).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    M = hidden.shape[0]
    n = -(-M // chunk)
    if n <= 1:
        return score_chunk((hidden, targets))
    rows = -(-M // n)
    hidden = jnp.pad(hidden, ((0, rows * n - M), (0, 0)))
    targets = jnp.pad(targets, (0, rows * n - M))
    strided = lambda x: jnp.moveaxis(x.reshape(rows, n, *x.shape[1:]), 1, 0)
    scores = jax.lax.map(score_chunk, (strided(hidden), strided(targets)))
    return jnp.moveaxis(scores, 0, 1).reshape(-1)[:M]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next id is drawn; static where a jitted function is given it.

    Logits are divided by `temperature` (0: greedy), then all but the `top_k` largest are excluded
    (0: none are), then all but the smallest set whose probability reaches `top_p` (nucleus
    sampling, Holtzman et al. 2020). Ties with the last one kept are kept.

    Raises ValueError, naming the field that is wrong.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not (self.temperature == 0 or LEAST <= self.temperature < math.inf):
            raise ValueError(f"temperature={self.temperature} must be 0 or at least {LEAST}")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} must be at least 0 (0: all ids)")
        if not LEAST <= self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must be at least {LEAST} and at most 1")


GREEDY = Sampling()


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, "B"], sampling: Sampling
) -> Int[Array, "B"]:
    """Draws one id per row. Each row has a key of its own, so it does not depend on the others."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    return jax.vmap(jax.random.categorical)(keys, restrict(logits, sampling))


def restrict(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """The logits that `sample` draws from: at the temperature, excluded ids at -inf."""
    logits = logits.astype(jnp.float32) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, sampling.top_k)[0][:, -1:]
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probability = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probability, axis=-1) - probability
        kept = jnp.where(before < sampling.top_p, ordered, jnp.inf)
        logits = jnp.where(logits < jnp.min(kept, axis=-1, keepdims=True), -jnp.inf, logits)
    return logits
