"""Kernels count in 32 bits, whatever JAX's flag for numbers of 64 bits says."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P, R = ParamSpec("P"), TypeVar("R")


def in_32_bits(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn`, traced as if numbers of 64 bits were off: a Python number is int32 or float32."""

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.enable_x64(False):
            return fn(*args, **kwargs)

    return run
