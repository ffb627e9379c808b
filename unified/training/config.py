"""The training fields of a config: their defaults, overrides from the command line, checks.

A config file gives what its run is about; `complete` adds the fields of `defaults` that it left
out, so that every one can be seen and overridden: `--config.optimizer.learning_rate=1e-4`.
Fields that training does not know (`model`, `data`, ...) are the recipe's, which checks them; those
that it has defaults for can be overridden as well, and are in the config from then on.
"""

import ast
import difflib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from unified import names
from unified.interop import release
from unified.training.check import brief, check, check_groups
from unified.training.config_file import read
from unified.training.nearest import nearest
from unified.training.optimizer import options

log = logging.getLogger(__name__)

REQUIRED = ("recipe", "batch_size", "total_steps", "loss_weights")
# Fields whose names are the user's: a dict takes their place.
MAPS = (
    "load",
    "loss_weights",
    "data.*",  # sources by name, and rates of dropout by view
    "data.*.*.*",  # options of a source
    "layout.lanes",
    "layout.uses",
    "template",
    "model.backbone.streams",
    "model.parts",
    "drawing.read_back",
    "benchmark.sources",
    "benchmark.sources.*.*",
)
# Where these lie: what takes fields and nothing else, in any recipe.
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
# What the fields beside these are depends on their value: a dict that names it does so, too.
KINDS = ("format", "kind", "module", "part")


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


def optimizer_of(overrides: Sequence[str]) -> str | None:
    """The name that overrides give to the optimizer, if they do."""
    names: list[str | None] = [None]
    for path, value, text in map(_parse, overrides):
        if path == ("optimizer", "name"):
            names.append(value if isinstance(value, str) else text)
        elif path == ("optimizer",) and isinstance(value, dict) and "name" in value:
            names.append(str(value["name"]))
    return names[-1]


def override(config: ConfigDict, text: str) -> None:
    """Sets one field from `--config.a.b=value`, or several, if the value is a dict."""
    _set(config, *_parse(text))


def _parse(text: str) -> tuple[tuple[str, ...], Any, str]:
    """The names on the way to a field, its value, and how that is written."""
    path, equals, literal = text.partition("=")
    if not path.startswith("--config.") or not equals:
        raise ValueError(f"unknown argument {text!r}; a field is set by --config.a.b=value")
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = {"true": True, "false": False, "none": None}.get(literal.lower(), literal)
    return tuple(path.removeprefix("--config.").split(".")), value, literal


def _set(config: ConfigDict, path: tuple[str, ...], value: Any, text: str | None = None) -> None:
    """Fields that a dict does not name stay, but for those of `MAPS`, and where it says of which
    of `KINDS` it is. Where a name stood, `text` is one: "none" or "2024" as well."""
    parent: Any = config
    for at, key in enumerate(path):
        if not isinstance(parent, ConfigDict) or key not in parent:
            _add(config, path[:at], key)
        if at < len(path) - 1:
            parent = parent[key]
    old = parent[path[-1]]
    if (
        isinstance(old, str)
        and text is not None
        and not isinstance(value, str | tuple | list | dict)
    ):
        value = text
    merges = isinstance(old, ConfigDict) and isinstance(value, dict) and bool(old)
    if merges and not _is_map(path) and not any(kind in value for kind in KINDS):
        for key, part in value.items():
            _set(config, (*path, str(key)), part)
        return
    if value is None and old is not None and not _may_be_none(config, path):
        raise ValueError(f"--config.{'.'.join(path)}=None: expected {_like(old)}")
    with parent.ignore_type():
        parent[path[-1]] = _as(old, value, f"--config.{'.'.join(path)}")


def _may_be_none(config: ConfigDict, path: tuple[str, ...]) -> bool:
    """Whether a field is None where a config leaves it out."""
    known: Any = {**optional(config), "optimizer": options(config.optimizer.name)}
    for name in path:
        if not isinstance(known, dict) or name not in known:
            return False
        known = known[name]
    return known is None


def _add(config: ConfigDict, path: tuple[str, ...], key: str) -> None:
    """Adds a field that the config leaves out, as the recipe says it is then. Raises ValueError for
    one that the recipe does not know."""
    parent: Any = config
    fields: Any = optional(config)
    for name in path:
        parent, fields = parent[name], fields.get(name, {})
    if not isinstance(parent, ConfigDict) or key not in fields:
        known = {*parent, *fields} if isinstance(parent, ConfigDict) else ()
        where = ".".join(["config", *path])
        raise ValueError(f"unknown field {key!r} of {where}; {nearest(key, known)}")
    with config.unlocked():
        parent[key] = fields[key]


def optional(config: ConfigDict) -> dict[str, Any]:
    """The fields that the recipe lets a config leave out, and what they are then, nested."""
    try:
        recipe = names.find("recipe", config.get("recipe"))
    except ValueError:  # told by whom needs it
        return {}
    return recipe.defaults(config) if hasattr(recipe, "defaults") else {}


def _is_map(path: tuple[str, ...]) -> bool:
    """Whether a pattern of `MAPS`, in which `*` is any one name, is this path."""
    patterns = (pattern.split(".") for pattern in MAPS)
    return any(
        len(names) == len(path)
        and all(name in ("*", part) for name, part in zip(names, path, strict=True))
        for names in patterns
    )


def _as(old: Any, new: Any, path: str) -> Any:
    """`new` in the type of `old`: whole numbers serve as floats, one value as a tuple of such.

    A name may give way to a list and a list to a name (`joint="all"`, or ranges of layers).
    """
    if isinstance(old, ConfigDict) and isinstance(new, dict):
        return ConfigDict(new)
    if isinstance(old, tuple | list):
        if isinstance(new, tuple | list):
            return type(old)(new)
        is_name = isinstance(new, str) and bool(old) and not isinstance(old[0], str)
        return new if is_name else type(old)((new,))
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    named = isinstance(old, str) and isinstance(new, tuple | list)
    if old is None or new is None or named or type(old) is type(new):
        return new
    raise ValueError(f"{path}={brief(new)}: expected {_like(old)}")


def _like(old: Any) -> str:
    if isinstance(old, ConfigDict):
        return f"a group of fields, set one by one: {', '.join(map(str, old)) or 'none as yet'}"
    return f"{type(old).__name__} like {brief(old)}"


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
    text = release.read_file(epath.Path(path)).decode(errors="replace")
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
