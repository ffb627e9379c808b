"""Whether a config has the fields that code declares, and of the types that it declares.

Types are those that Python reads as well: of dataclasses, `TypedDict`s and functions. A type that
is none of JSON's says nothing here.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, TypeVar

import numpy as np

from unified.message import one_line

T = TypeVar("T")

LARGEST = 2**63  # whole numbers beyond are a mistake, whatever they count
LONGEST = 4096  # items of a list
WIDEST = float(np.finfo(np.float32).max)  # of numbers: models compute in 32 bits
SCALARS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


class Source(TypedDict):
    """What every source has; the rest is its own."""

    format: str
    weight: NotRequired[float]
    task: NotRequired[str]
    tasks: NotRequired[Mapping[str, float] | Sequence[str]]


class Data(TypedDict):
    """Any split is of use somewhere, and none everywhere."""

    threads: int
    prefetch: int
    max_bad_records: int
    train: NotRequired[Mapping[str, Source]]
    validation: NotRequired[Mapping[str, Source]]
    evaluation: NotRequired[Mapping[str, Source]]
    dropout: NotRequired[Mapping[str, float]]
    lookahead: NotRequired[int]
    workers: NotRequired[int]


class Validation(TypedDict):
    batches: int
    tasks: Sequence[str]
    every: NotRequired[int]


class Average(TypedDict, total=False):
    decay: float
    warmup: bool


class Checkpoint(TypedDict, total=False):
    every: int
    keep: int
    best: str


class Optimizer(TypedDict, total=False):
    """Beside the options of the optimizer that is named."""

    name: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    final_fraction: float
    clip_norm: float
    no_decay: Sequence[str]
    multipliers: Sequence[tuple[str, float]]


class Trained(TypedDict):
    """The fields of training (`unified.training.config`): those that evaluation needs, too, and
    those that are but a record of it."""

    seed: int
    batch_size: int
    loss_weights: Mapping[str, float]
    validation: Validation
    data: Data
    recipe: NotRequired[str]
    total_steps: NotRequired[int]
    accumulation: NotRequired[int]
    compute_dtype: NotRequired[str]
    remat: NotRequired[str]
    mesh: NotRequired[Mapping[str, int]]
    freeze: NotRequired[Sequence[str]]
    load: NotRequired[Mapping[str, str]]
    optimizer: NotRequired[Optimizer]
    ema: NotRequired[Average]
    log_every: NotRequired[int]
    checkpoint: NotRequired[Checkpoint]
    max_minutes: NotRequired[float]


MOST = {  # beyond, input takes all memory and time before anything is seen of it
    "batch_size": 2**16,
    "data.lookahead": 2**16,
    "data.prefetch": 2**10,
    "data.threads": 2**10,
    "data.workers": 2**10,
    "validation.batches": 2**20,
}


def check_trained(config: Mapping[str, Any], *, needed: bool = True) -> None:
    """Raises ValueError, naming the field, where a config is not as `Trained` has it; any field may
    be absent where none is `needed`."""
    conform(config, Trained, "config", needed=needed)
    for field, most in MOST.items():
        group, _, name = field.rpartition(".")
        value = (config.get(group, {}) if group else config).get(name, 0)
        if value > most:
            raise ValueError(f"config.{field}={value} must be at most {most}")
    for name, value in config.get("optimizer", {}).items():  # options of its own are of any type
        if isinstance(value, float) and WIDEST < abs(value) < math.inf:
            raise ValueError(f"config.optimizer.{name}={value} must be at most {WIDEST:.3g}")


def conform(value: Any, hint: Any, where: str, *, needed: bool = True) -> Any:
    """`value` as `hint` has it (tuples for lists, dataclasses for dicts). `where` names the field.

    Raises ValueError for another type, a number that is not finite, a field that is unknown to a
    dataclass or, where it is `needed`, absent.
    """
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    nested = lambda part, hint, name: conform(part, hint, f"{where}.{name}", needed=needed)
    if origin in SCALARS or origin in (None, types.NoneType, typing.Literal):
        if not _is(value, origin, arguments):
            raise _misfit(value, hint, where)
    elif origin in (typing.Union, types.UnionType):
        return _either(value, hint, where)
    elif typing.is_typeddict(origin) or dataclasses.is_dataclass(origin):
        is_made = isinstance(origin, type) and dataclasses.is_dataclass(origin)
        if is_made and isinstance(value, origin):
            return value
        if not _is_mapping(value):
            raise _misfit(value, hint, where)
        if is_made:
            return fill(origin, value, where)
        hints = typing.get_type_hints(origin)
        if needed and (missing := sorted(origin.__required_keys__ - set(value))):
            raise ValueError(f"{where} lacks {', '.join(missing)}")
        for name in filter(hints.__contains__, value):
            nested(value[name], hints[name], name)
    elif origin is tuple or origin is Sequence:
        if not isinstance(value, list | tuple) or len(value) > LONGEST:
            raise _misfit(value, hint, where)
        each = arguments if origin is tuple and arguments[-1:] != (...,) else None
        if each is not None and len(value) != len(each):
            raise _misfit(value, hint, where)
        each = each or (arguments or (Any,))[:1] * len(value)
        return tuple(nested(v, h, str(i)) for i, (v, h) in enumerate(zip(value, each, strict=True)))
    elif origin is Mapping:
        if not _is_mapping(value):
            raise _misfit(value, hint, where)
        key, each = arguments or (Any, Any)
        for name in value:
            nested(name, key, "name")
            nested(value[name], each, name)
    return value


def fill(kind: Callable[..., T], fields: Mapping[str, Any], where: str) -> T:
    """A dataclass of fields. Raises ValueError for one that is wrong, unknown or absent."""
    known = [field for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    names = [field.name for field in known]
    needed = [f.name for f in known if f.default is f.default_factory is dataclasses.MISSING]
    if unknown := sorted(set(fields) - set(names)):
        raise ValueError(f"{where}: unknown {_some(unknown)}; there are {names}")
    if missing := sorted(set(needed) - set(fields)):
        raise ValueError(f"{where} lacks {missing}")
    hints = typing.get_type_hints(kind)
    made = {name: conform(fields[name], hints[name], f"{where}.{name}") for name in fields}
    try:
        return kind(**made)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_call(call: Callable[..., Any], fields: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for a field that is an argument of `call`, but of another type. Arguments
    of a class are those of the classes that it inherits from, too."""
    for part in reversed(getattr(call, "__mro__", (call,))[:-1] or (call,)):
        for name, parameter in inspect.signature(part).parameters.items():
            if name in fields and parameter.annotation is not parameter.empty:
                conform(fields[name], parameter.annotation, f"{where}.{name}")


def _is(value: Any, kind: Any, choices: Sequence[Any]) -> bool:
    """Whether a value is of a scalar kind; `true` is no number, as in JSON."""
    if kind is typing.Literal:
        return isinstance(value, str | int) and value in choices
    if kind in (None, types.NoneType):
        return value is None
    if kind in (bool, str) or isinstance(value, bool):
        return kind is not int and isinstance(value, kind)
    if isinstance(value, int):
        return abs(value) < LARGEST
    return kind is float and isinstance(value, float) and abs(value) <= WIDEST


def _is_mapping(value: Any) -> bool:
    return hasattr(value, "keys") and hasattr(value, "__getitem__")  # a ConfigDict is no Mapping


def _either(value: Any, hint: Any, where: str) -> Any:
    for option in typing.get_args(hint):
        try:
            return conform(value, option, where)
        except ValueError as error:
            if _is_mapping(value) and dataclasses.is_dataclass(option):
                raise  # it says which of the fields is wrong
            del error
    raise _misfit(value, hint, where)


def _misfit(value: Any, hint: Any, where: str) -> ValueError:
    shown = one_line(repr(value.to_dict() if hasattr(value, "to_dict") else value), 60)
    return ValueError(f"{where}={shown} must be {_words(hint)}")


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first of many names, each of them in brief."""
    shown = [one_line(name, 60) for name in names[:most]]
    return f"{shown}{f' and {len(names) - most} more' if len(names) > most else ''}"


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is tuple and arguments[-1:] != (...,):
        return f"a list of {len(arguments)}: {', '.join(map(_words, arguments))}"
    if origin in (tuple, Sequence):
        return f"a list (of each: {_words(arguments[0])})"
    if origin in (None, types.NoneType):
        return "null"
    return SCALARS.get(origin, "fields by name")
