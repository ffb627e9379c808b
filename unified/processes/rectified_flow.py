"""Rectified flow: straight paths between data (t = 0) and Gaussian noise (t = 1).

x_t = (1 - t) x_0 + t noise, velocity v = noise - x_0 (Liu et al. 2023; the conventions of BAGEL).
A time belongs to a picture: arrays are `[*batch ... D]`, times `[*batch]`. Everything is float32.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

Sums = tuple[jax.Array, jax.Array]  # (sum, count)


def shift_time(time: Float[Array, "*batch"], shift: float) -> Float[Array, "*batch"]:
    """t -> s t / (1 + (s - 1) t): moves times towards noise for s > 1 (Esser et al. 2024)."""
    return shift * time / (1 + (shift - 1) * time)


def times(key: Key[Array, ""], shape: tuple[int, ...], shift: float = 1.0) -> jax.Array:
    """Training times: the sigmoid of a standard normal, shifted."""
    return shift_time(jax.nn.sigmoid(jax.random.normal(key, shape)), shift)


def spread(first: int, count: int) -> np.ndarray:
    """Times `first .. first + count - 1` of an endless even sequence in (0, 1), float32 `[count]`.

    Steps of the golden ratio around the interval: the gaps between any five times in a row are
    less than a quarter, those of n times at most 1.9 / n (Weyl 1916; Steinhaus' three gaps).
    """
    step = (math.sqrt(5) - 1) / 2
    return ((0.5 + step * np.arange(first, first + count)) % 1).astype(np.float32)


def corrupt(
    key: Key[Array, ""], clean: Float[Array, "*batch_D"], time: Float[Array, "*batch"]
) -> tuple[jax.Array, jax.Array]:
    """`(x_t, target velocity)`. Where `time` is 0, x_t is `clean` exactly."""
    clean = clean.astype(jnp.float32)
    noise = jax.random.normal(key, clean.shape)
    time = _expand(time, clean.ndim)
    return (1 - time) * clean + time * noise, noise - clean


def loss(
    prediction: Float[Array, "*batch_D"],
    target: Float[Array, "*batch_D"],
    weight: Shaped[Array, "*batch"],
) -> Sums:
    """Squared error `(sum, count)`: mean over the last axis, summed over all others.

    `weight` covers the leading axes; the count is of tokens, so pictures of several sizes add up.
    """
    error = _error(prediction, target)
    weight = jnp.broadcast_to(_expand(weight.astype(jnp.float32), error.ndim), error.shape)
    return jnp.sum(weight * error), jnp.sum(weight)


def loss_by_time(
    prediction: Float[Array, "*batch_D"],
    target: Float[Array, "*batch_D"],
    weight: Shaped[Array, "*batch"],
    time: Float[Array, "*batch"],
    buckets: int = 4,
) -> dict[str, Sums]:
    """`loss` over equal intervals of time, keys such as `t0.25-0.50`; an interval has its end."""
    bucket = jnp.clip(jnp.ceil(time * buckets) - 1, 0, buckets - 1)
    return {
        f"t{i / buckets:.2f}-{(i + 1) / buckets:.2f}": loss(
            prediction, target, jnp.where(bucket == i, weight, 0)
        )
        for i in range(buckets)
    }


def schedule(steps: int, shift: float = 1.0) -> Float[np.ndarray, "steps"]:
    """Sampling times: `steps` points from 1 to 0, shifted; so `steps - 1` Euler steps, as BAGEL."""
    if steps < 2:
        raise ValueError(f"a schedule has at least 2 points (1 Euler step), got {steps}")
    even: Any = np.linspace(1.0, 0.0, steps)
    return np.asarray(shift_time(even, shift), np.float32)


def sample(
    predict: Callable[[jax.Array, jax.Array], jax.Array], noise: jax.Array, times: jax.Array
) -> jax.Array:
    """Follows the velocity `predict(x, t)` from `noise` at times[0] to times[-1] by Euler steps.

    `t` is a scalar, the same for the whole batch. The last point of `times` is not evaluated.
    """

    def step(x, interval):
        t, t_next = interval
        return x - predict(x, t).astype(jnp.float32) * (t - t_next), None

    return jax.lax.scan(step, noise.astype(jnp.float32), (times[:-1], times[1:]))[0]


def _error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    difference = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=-1)


def _expand(x: jax.Array, ndim: int) -> jax.Array:
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))
