"""The state that a run begins with: drawn from a seed, or in part from released weights."""

import math
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from unified.interop import release
from unified.interop.run import reason
from unified.training import tree
from unified.training.setup import Setup
from unified.training.step import TrainState


def check_memory(setup: Setup) -> None:
    """Raises ValueError for a state that this machine cannot hold, before it is tried, where the
    state is in its own memory."""
    if jax.default_backend() != "cpu" or jax.process_count() > 1 or not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if (size := _bytes(setup)) > there:
        raise ValueError(
            f"the weights, averages and moments take {size:,} bytes, and this machine has "
            f"{there:,}: choose a smaller model or more devices"
        )


def _bytes(setup: Setup) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(setup.abstract))


def fresh(setup: Setup, seed: int, loaded: Any) -> TrainState:
    """The state of a run that begins. Raises ValueError where memory does not hold it."""
    try:
        return jax.block_until_ready(setup.init(seed, loaded))
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(
            f"the weights, averages and moments take {_bytes(setup):,} bytes, which cannot be had: "
            f"choose a smaller model or more devices ({reason(error)})"
        ) from error


def load(config: ConfigDict, setup: Setup) -> Any:
    """Released weights at the paths of `config.load`, None at other parameters."""
    params = setup.abstract.params
    parts = jax.tree.map(lambda _: None, params)
    for path, folder in config.load.items():
        want = tree.subtree(params, path)
        found = release.merge(want, release.load(folder)[0], folder)
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), found, want)
        parts = tree.put_subtree(parts, path, placed)
    return parts
