"""Several processes that train as one: who speaks, what is agreed, what is gathered."""

import json
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

ADDRESS = re.compile(r"\S+:\d{1,5}")


def join() -> None:
    """Makes this process one of several.

    TPU pods, SLURM and Open MPI are recognised; elsewhere every process is told by
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Raises
    ValueError where there are none of these.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is not None and not ADDRESS.fullmatch(address):
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS={address!r} must be host:port of the first process, as in "
            "10.0.0.1:1234"
        )
    try:
        jax.distributed.initialize(
            num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID")
        )
    except Exception as error:  # each cluster has its own kinds
        why = " ".join(str(error).split())
        raise ValueError(
            f"--distributed: {why}: outside of TPU pods, SLURM and Open MPI set "
            "JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID for every process, or leave --distributed out for a single one"
        ) from error


def _number(name: str) -> int | None:
    if (text := os.environ.get(name)) is None:
        return None
    if not text.isdecimal():
        raise ValueError(f"{name}={text!r} is no whole number")
    return int(text)


def are_several() -> bool:
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """What the first process says; every process must ask."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(flag))) if are_several() else flag


def gather_json(value: Any) -> list[Any]:
    """The value of every process, in order; every process must ask."""
    if not are_several():
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(text)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(t[:n])) for t, n in zip(texts, sizes, strict=True)]


def gather_params(params: Any) -> Any:
    """All of every parameter in the memory of this process; every process must ask."""
    return multihost_utils.process_allgather(params, tiled=True) if are_several() else params
