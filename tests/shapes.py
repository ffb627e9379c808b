"""What the tests check at every call of the library: annotations of arrays, that is dtypes and
shapes, in which a letter has one size within a call."""

import functools
import operator
import types
import typing
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jaxtyping
import numpy as np
from beartype import beartype
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning

warnings.filterwarnings("ignore", category=BeartypeDecorHintPep585DeprecationWarning)


def checked(fn: Callable) -> Callable:
    """`fn`, of whose annotations only those with arrays are looked at: tests give wrong types on
    purpose. Where a JAX array is meant, numpy's does as well."""
    found = {name: x for name, x in fn.__annotations__.items() if has_array(x)}
    fn.__annotations__ = {name: widened(x) for name, x in found.items()}
    return beartype(fn)


def is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray)


def has_array(annotation: Any) -> bool:
    return is_array(annotation) or any(map(has_array, typing.get_args(annotation)))


def widened(annotation: Any) -> Any:
    """The annotation, with numpy's arrays wherever it has JAX's."""
    if is_array(annotation):
        kind = annotation.array_type
        both = kind | np.ndarray if kind is jax.Array else kind
        return annotation.dtype[both, annotation.dim_str]
    if not has_array(annotation):
        return annotation
    origin, inner = typing.get_origin(annotation), tuple(map(widened, typing.get_args(annotation)))
    if origin in (types.UnionType, typing.Union):
        return functools.reduce(operator.or_, inner)
    return origin[inner]
