"""Fields of a config from the command line: `--config.optimizer.learning_rate=1e-4`."""

import ast
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from unified import names
from unified.training.check import brief
from unified.training.nearest import nearest
from unified.training.optimizer import options

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
# What the fields beside these are depends on their value: a dict that names it does so, too.
KINDS = ("format", "kind", "module", "part")


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
            named = at == len(path) - 1 and isinstance(value, dict) and _is_map(path[:at])
            _add(config, path[:at], key, {key: {}} if named else {})
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


def _add(config: ConfigDict, path: tuple[str, ...], key: str, new: dict[str, Any]) -> None:
    """Adds a field that the config leaves out, as the recipe says it is then, or one that is `new`.
    Raises ValueError for one that the recipe does not know."""
    parent: Any = config
    fields: Any = optional(config)
    for name in path:
        parent, fields = parent[name], fields.get(name, {})
    fields = {**fields, **new} if new else fields
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
