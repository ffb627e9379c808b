"""The training fields of a config: their defaults, overrides from the command line, checks.

A config file gives what its run is about; `complete` adds the fields of `defaults` that it left
out, so that every one can be seen and overridden: `--config.optimizer.learning_rate=1e-4`.
Fields that training does not know (`model`, `data`, ...) are the recipe's, which checks them.
"""

import ast
import difflib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unified.training.nearest import nearest
from unified.training.optimizer import options

REQUIRED = ("recipe", "batch_size", "total_steps", "loss_weights")


def defaults() -> ConfigDict:
    """Every optional training field. What each means stands beside it."""
    return ConfigDict(
        {
            "seed": 0,
            "accumulation": 1,  # micro-batches that the rows of a batch are cut into
            "compute_dtype": "float32",  # of activations; weights are float32 (for the recipe)
            "remat": "nothing_saveable",  # name in jax.checkpoint_policies (for the recipe)
            "mesh": {"data": 1, "fsdp": -1, "tensor": 1},  # -1: the remaining devices
            "freeze": (),  # patterns of parameter paths that are not trained
            "load": {},  # parameter path -> folder of released weights
            "optimizer": {
                "name": "adamw",  # any of Optax, its other options beside it by name
                "learning_rate": 1e-3,
                "schedule": "cosine",  # constant, cosine, linear, wsd
                "warmup_steps": 0,
                "final_fraction": 0.0,  # of the learning rate, at the end
                "clip_norm": 1.0,  # of all gradients together; 0: off
                "no_decay": (),  # patterns spared from weight decay, beside 1-D parameters
                "multipliers": (),  # (pattern, factor) pairs of the learning rate
            },
            "ema": {"decay": 0.0, "warmup": True},  # 0: no average; warm-up: (1+n)/(10+n) at most
            "log_every": 10,
            "checkpoint": {"every": 1000, "keep": 2, "best": ""},  # metric to keep the lowest of
            "validation": {"every": 0, "batches": 4, "tasks": ()},  # 0: never
            "max_minutes": 0.0,  # stop, save and evaluate after so long; 0: no limit
        }
    )


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a file (`configs/x.py`, or `configs/x.py:argument`), complete and overridden.

    Overrides read `--config.a.b=value`, the value a Python literal or else a string. Raises
    ValueError for an unknown field, naming the nearest, and for a value of another type.
    """
    file, _, argument = path.partition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise ValueError(f"--config {file}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([argument] if argument else []))
    config = complete(config, _value_of("--config.optimizer.name", overrides))
    for text in overrides:
        override(config, text)
    return check(config)


def complete(config: ConfigDict, optimizer: str | None = None) -> ConfigDict:
    """`config` with the training fields that it lacks. Raises ValueError for misspelt ones.

    The options of the optimizer (`optimizer`, or the config's) are fields as well.
    """
    base = defaults()
    named = config.get("optimizer", base.optimizer).get("name", base.optimizer.name)
    base.optimizer.update(options(optimizer or named))
    known = [*REQUIRED, *base]
    for field in config:
        close = difflib.get_close_matches(field, known, 1, 0.8)
        if field not in known and close:
            raise ValueError(f"config.{field}: did you mean {close[0]!r}?")
    missing = [field for field in REQUIRED if field not in config]
    if missing:
        raise ValueError(f"config lacks {', '.join(missing)}")
    with config.unlocked():
        for field, value in base.items():
            if isinstance(value, ConfigDict) and value:
                given = config.get(field, ConfigDict())
                for key in given:
                    if key not in value:
                        raise ValueError(f"unknown config.{field}.{key}; {nearest(key, value)}")
                value.update(given)
                config[field] = value
            elif field not in config:
                config[field] = value
    return config


def _value_of(field: str, overrides: Sequence[str]) -> str | None:
    values = [text.partition("=")[2] for text in overrides if text.startswith(field + "=")]
    return values[-1] if values else None


def override(config: ConfigDict, text: str) -> None:
    """Sets one field from `--config.a.b=value`."""
    path, equals, literal = text.partition("=")
    if not path.startswith("--config.") or not equals:
        raise ValueError(f"unknown argument {text!r}; a field is set by --config.a.b=value")
    *parents, last = path.removeprefix("--config.").split(".")
    for at, key in enumerate([*parents, last]):
        if not isinstance(config, ConfigDict) or key not in config:
            fields = config if isinstance(config, ConfigDict) else ()
            where = ".".join(["config", *parents[:at]])
            raise ValueError(f"unknown field {key!r} of {where}; {nearest(key, fields)}")
        if at < len(parents):
            config = config[key]
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(literal.lower(), literal)
    with config.ignore_type():
        config[last] = _as(config[last], value, path)


def _as(old: Any, new: Any, path: str) -> Any:
    """`new` in the type of `old`: whole numbers serve as floats, one value as a tuple.

    A name may give way to a list (`joint="all"` to ranges of layers).
    """
    if isinstance(old, ConfigDict) and isinstance(new, dict):
        return ConfigDict(new)
    if isinstance(old, tuple | list):
        return type(old)(new if isinstance(new, tuple | list) else (new,))
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    named = isinstance(old, str) and isinstance(new, tuple | list)
    if old is None or new is None or named or type(old) is type(new):
        return new
    kind = type(old).__name__
    raise ValueError(f"{path}={new!r}: expected {kind} like {old!r}")


def check(config: ConfigDict) -> ConfigDict:
    """Raises ValueError where training fields contradict each other, saying what to change."""
    for field in ("batch_size", "total_steps", "accumulation", "log_every"):
        if config[field] < 1:
            raise ValueError(f"{field}={config[field]} must be at least 1")
    if config.batch_size % config.accumulation:
        raise ValueError(
            f"accumulation={config.accumulation} must divide batch_size={config.batch_size}"
        )
    if not config.loss_weights:
        raise ValueError("loss_weights is empty: name at least one loss of the recipe")
    if config.checkpoint.every < 1 or config.checkpoint.keep < 1:
        raise ValueError("checkpoint.every and checkpoint.keep must be at least 1")
    if config.validation.every and config.validation.batches < 1:
        raise ValueError("validation.batches must be at least 1; set validation.every=0 for none")
    if config.checkpoint.best and not config.validation.every:
        raise ValueError("checkpoint.best needs validation: set validation.every")
    if config.checkpoint.best and config.checkpoint.every % config.validation.every:
        raise ValueError(
            f"checkpoint.best compares checkpoints by validation: checkpoint.every="
            f"{config.checkpoint.every} must be a multiple of {config.validation.every}"
        )
    if not 0 <= config.ema.decay < 1:
        raise ValueError(f"ema.decay={config.ema.decay} must be in [0, 1)")
    return config


def keep(config: ConfigDict, path: Path, *, write: bool = True) -> list[str]:
    """Writes the config as JSON; returns how it differs from the one that was there."""
    text = config.to_json_best_effort(indent=1)
    old = _flat(json.loads(path.read_text())) if path.exists() else None
    new = _flat(json.loads(text))
    if write:
        path.write_text(text + "\n")
    if old is None:
        return []
    fields = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [f"{name}: {old.get(name)!r} -> {new.get(name)!r}" for name in fields]


def _flat(tree: Any, prefix: str = "config") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = [_flat(value, f"{prefix}.{name}") for name, value in tree.items()]
    return {name: value for part in parts for name, value in part.items()}
