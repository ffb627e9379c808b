"""What a config may say of training: the type of every field, the range of every number, and
fields that must agree."""

import math
import re
import reprlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from unified.interop.schema import MOST, WIDEST

INF = math.inf
LAST = 2**31 - 1  # JAX numbers have 32 bits
SHARE = (0, float(np.nextafter(np.float32(1), np.float32(0))))  # 1 is refused, in 32 bits too

RANGES = {  # first and last value; neither infinite nor "not a number"
    "batch_size": (1, MOST["batch_size"]),
    "total_steps": (1, LAST),
    "accumulation": (1, INF),
    "log_every": (1, INF),
    "seed": (0, LAST),
    "max_minutes": (0, INF),
    "optimizer.learning_rate": (0, INF),
    "optimizer.warmup_steps": (0, INF),
    "optimizer.final_fraction": (0, 1),
    "optimizer.clip_norm": (0, INF),
    "optimizer.weight_decay": (0, INF),
    "optimizer.eps": (0, INF),
    "optimizer.adam_weight_decay": (0, INF),
    "optimizer.ns_steps": (1, INF),
    "optimizer.b1": SHARE,
    "optimizer.b2": SHARE,
    "optimizer.adam_b1": SHARE,
    "optimizer.adam_b2": SHARE,
    "optimizer.beta": (0, 1),  # 1 in optimistic gradient descent
    "optimizer.momentum": (0, 1),
    "ema.decay": SHARE,
    "checkpoint.every": (1, INF),
    "checkpoint.keep": (1, INF),
    "validation.every": (0, INF),
}

# Values of the types of those that are left out; a name may give way to a list (`remat`).
KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a name"),
    tuple: ((tuple, list), "a list in brackets"),
}
REQUIRED = {"recipe": "", "batch_size": 8, "total_steps": 1, "loss_weights": {}}


def check(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """Returns `config`. Raises ValueError where a field has not the type of that of `fields` (of
    training, as they are left out), a number is out of its range, or fields contradict each other,
    saying what to change."""
    check_types(config, {**REQUIRED, **fields})
    check_lists(config)
    check_ranges(config)
    if config.batch_size % config.accumulation:
        raise ValueError(
            f"accumulation={config.accumulation} must divide batch_size={config.batch_size}"
        )
    if not config.loss_weights:
        raise ValueError("loss_weights is empty: name at least one loss of the recipe")
    if config.validation.every and config.validation.batches < 1:
        raise ValueError("validation.batches must be at least 1; set validation.every=0 for none")
    if config.checkpoint.best and not config.validation.every:
        raise ValueError("checkpoint.best needs validation: set validation.every")
    if config.checkpoint.best and config.checkpoint.every % config.validation.every:
        raise ValueError(
            f"checkpoint.best compares checkpoints by validation: checkpoint.every="
            f"{config.checkpoint.every} must be a multiple of {config.validation.every}"
        )
    return config


def check_groups(config: Mapping[str, Any], paths: Sequence[str]) -> None:
    """Raises ValueError for what should hold fields and holds something else; `*` is any name."""
    for path in paths:
        for where, value in _found(config, path.split("."), ()):
            if not isinstance(value, Mapping | ConfigDict):
                raise ValueError(
                    f"config.{'.'.join(where)}={brief(value)} must be a dict of fields"
                )


def _found(
    parent: Any, names: Sequence[str], where: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not names:
        yield where, parent
    elif isinstance(parent, Mapping | ConfigDict):
        for name in parent if names[0] == "*" else [names[0]]:
            if name in parent:
                yield from _found(parent[name], names[1:], (*where, name))


def check_types(config: Mapping[str, Any], like: Mapping[str, Any], path: str = "") -> None:
    """Raises ValueError, naming the field, for a value of another type than that of `like`, and for
    whole numbers beyond 64 bits anywhere."""
    for name, value in config.items():
        where, default = f"{path}{name}", like.get(name)
        if isinstance(default, Mapping | ConfigDict) and not isinstance(
            value, Mapping | ConfigDict
        ):
            raise ValueError(f"{where}={brief(value)} must be a dict of fields")
        if isinstance(value, Mapping | ConfigDict):
            inner = default if isinstance(default, Mapping | ConfigDict) else {}
            check_types(value, inner, f"{where}.")
        elif default is not None and where != "remat":
            kinds, said = KINDS[type(default)]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{where}={brief(value)} must be {said}")
            if isinstance(value, float) and WIDEST < abs(value) < INF:
                raise ValueError(f"{where}={value} is beyond 32 bits: at most {WIDEST:.3g}")
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int) and not -(2**63) <= number < 2**63:
                raise ValueError(f"{where}={brief(number)} is beyond 64 bits")


def check_lists(config: ConfigDict) -> None:
    """Raises ValueError for lists of what their fields do not take."""
    pairs = config.optimizer.multipliers
    if not all(isinstance(p, tuple | list) and len(p) == 2 and _is_number(p[1]) for p in pairs):
        raise ValueError(
            f"optimizer.multipliers={brief(pairs)} must be pairs of a pattern and a factor: "
            "(('head', 0.1),)"
        )
    if negative := [pair for pair in pairs if pair[1] < 0]:
        raise ValueError(f"optimizer.multipliers: {brief(negative[0])} must be at least 0")
    lists = {"freeze": config.freeze, "optimizer.no_decay": config.optimizer.no_decay}
    lists |= {"optimizer.multipliers": [pattern for pattern, _ in pairs]}
    for field, patterns in lists.items():
        for pattern in patterns:
            try:
                with warnings.catch_warnings(action="ignore"):
                    re.compile(pattern)
            except (OverflowError, RecursionError, TypeError, re.error) as error:
                raise ValueError(
                    f"{field}: {brief(pattern)} is no regular expression: {error}"
                ) from None
    for field, names in {
        "validation.tasks": config.validation.tasks,
        "load": [*config.load, *config.load.values()],
    }.items():
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f"{field}: {brief(name)} must be a name")


def brief(value: Any) -> str:
    """A value in a message of one line."""
    plain = value.to_dict() if isinstance(value, ConfigDict) else value
    return " ".join(reprlib.repr(plain).split())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= WIDEST


def check_ranges(config: ConfigDict) -> None:
    """Raises ValueError, naming the field. Those that the config has not are left out."""
    weights = config.get("loss_weights", {})
    fields = RANGES | {f"loss_weights.{name}": (-INF, INF) for name in weights}
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"loss_weights.{name}={brief(weight)} must be a number")
    for field, (first, last) in fields.items():
        if (value := _number(config, field)) is None:
            continue
        if not first <= value <= last or not math.isfinite(value):
            raise ValueError(f"{field}={value} must be {_span(first, last)}")


def _number(config: ConfigDict, field: str) -> float | None:
    """The value at a path. Raises ValueError if it is neither a number nor None."""
    parent, _, name = field.rpartition(".")
    fields = config.get(parent, {}) if parent else config
    if not hasattr(fields, "get"):
        raise ValueError(f"{parent}={fields!r} must be fields by name")
    value = fields.get(name)
    if value is not None and not isinstance(value, int | float):
        raise ValueError(f"{field}={value!r} must be a number")
    return value


def _span(first: float, last: float) -> str:
    if first == -INF:
        return "a finite number"
    if (first, last) == SHARE:
        return "in [0, 1)"
    return f"at least {first}" if last == INF else f"from {first} to {last}"
