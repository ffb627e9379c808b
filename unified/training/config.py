"""The training fields of a config: their defaults, their checks, and the file that keeps them.

A config file gives what its run is about; `complete` adds the fields of `defaults` that it left
out, so that every one can be seen and overridden: `--config.optimizer.learning_rate=1e-4`.
Fields that training does not know (`model`, `data`, ...) are the recipe's, which checks them; those
that it has defaults for can be overridden as well, and are in the config from then on.
"""

import difflib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from unified.interop import files
from unified.training.check import check, check_groups
from unified.training.config_file import read
from unified.training.nearest import nearest
from unified.training.optimizer import options
from unified.training.override import optimizer_of, override

log = logging.getLogger(__name__)

REQUIRED = ("recipe", "batch_size", "total_steps", "loss_weights")
# What takes fields and nothing else, in any recipe.
GROUPS = (
    *("mesh", "optimizer", "ema", "checkpoint", "validation", "load", "loss_weights"),
    *("data", "data.train.*", "data.validation.*", "layout", "layout.lanes", "layout.lanes.*"),
    *(
        "layout.uses",
        "model",
        "model.parts",
        "model.parts.*",
        "model.*.streams",
        "drawing",
        "drawing.read_back",
    ),
)
# What makes the state of a run what it is; the other fields may change while it is stopped.
STATE = ("recipe", "layout", "model", "optimizer", "ema", "freeze")


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
            "max_minutes": 0.0,  # after so long at most, the schedule is at its end; 0: no limit
        }
    )


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a file (`configs/x.py`, or `configs/x.py:argument`), complete and overridden.

    Overrides read `--config.a.b=value`, the value a Python literal or else a string. Raises
    ValueError for an unknown field, naming the nearest, and for a value of another type.
    """
    config = complete(read(path), optimizer_of(overrides))
    for text in overrides:
        override(config, text)
    return check(config, fields(config.optimizer.name))


def complete(config: ConfigDict, optimizer: str | None = None) -> ConfigDict:
    """`config` with the training fields that it lacks. Raises ValueError for misspelt ones.

    The options of the optimizer (`optimizer`, or the config's) are fields as well; options that
    the config gives to its own go where another takes its place.
    """
    check_groups(config, GROUPS)
    own = config.get("optimizer", {}).get("name", defaults().optimizer.name)
    base = fields(optimizer or own)
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
                given = config.get(field, ConfigDict()).to_dict()
                if field == "optimizer":
                    for key in given.keys() & (options(own).keys() - value.keys()):
                        log.warning("config.optimizer.%s is no option of %s", key, optimizer)
                        del given[key]
                for key in given:
                    if key not in value:
                        raise ValueError(f"unknown config.{field}.{key}; {nearest(key, value)}")
                value.update(given)
                config[field] = value
            elif field not in config:
                config[field] = value
    return config


def fields(optimizer: str) -> ConfigDict:
    """`defaults` with the options of an optimizer. Raises ValueError where Optax has none such."""
    base = defaults()
    base.optimizer.update(options(optimizer) | {"name": optimizer})
    return base


def keep(config: ConfigDict, path: Path) -> list[str]:
    """Writes the config as JSON; returns how it differs from the one that was there.

    The file is whole at any time, for those who read it while the run is starting.
    """
    changed = changes(config, path)
    new = path.with_suffix(".tmp")
    new.write_text(config.to_json_best_effort(indent=1) + "\n")
    new.replace(path)
    return [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items()]


def changes(config: ConfigDict, path: Path) -> dict[str, tuple[Any, Any]]:
    """(old, new) by name of the fields whose values differ from those that `keep` wrote.

    Raises ValueError for a file that is damaged.
    """
    if not os.path.lexists(path):
        return {}
    text = files.read(epath.Path(path)).decode(errors="replace")
    try:
        if not isinstance(old := json.loads(text), dict):
            raise ValueError("it holds no fields")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it, the same command writes it anew"
        ) from error
    old, new = _flat(old), _flat(json.loads(config.to_json_best_effort()))
    names = sorted(old.keys() | new.keys())
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def _flat(tree: Any, prefix: str = "config") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = [_flat(value, f"{prefix}.{name}") for name, value in tree.items()]
    return {name: value for part in parts for name, value in part.items()}
