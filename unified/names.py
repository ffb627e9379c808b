"""Code that configs name: recipes, benchmarks, sources, parts. Nothing else imports by name.

The config of a run is a program (`--config FILE`) and may name any code. One that comes with
weights is data, from whoever made them: `check` lets it name only what this package has for such a
field. SECURITY.md says what else is trusted.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

PLACES = {
    "recipe": ("unified.recipes",),
    "module": ("unified.evaluation", "unified.worlds"),
    "format": ("unified.data", "unified.worlds"),
    "part": ("unified.parts",),
}
NEEDED = {"recipe": "build", "module": "run"}  # functions of modules; the others are classes
METHODS = {  # of those
    "format": ("__len__", "__getitem__"),
    "part": ("inputs", "losses", "counts"),
}
ALLOW = (
    "if you trust who made it, and what it names, allow it with unified.load(path, trust=True), or "
    "--trust on the command line"
)
# A format whose files name code, and where it lies: TFDS imports the features of `features.json`.
IMPORTING = ("tfds", "unified.data.source_tfds")


def find(field: str, name: Any) -> Any:
    """What a config means by `name` in a field called `field`, one of `PLACES`.

    A module, `package.module`, or a class that lies in one, `package.module:Class`. Raises
    ValueError where there is no such thing, or it lacks a function that the field needs.
    """
    module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    try:
        if not module or bool(colon) != (field in METHODS):
            raise ValueError("it is the name of none")
        found = importlib.import_module(module)
        part = getattr(found, NEEDED.get(field, attribute))
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        needed = NEEDED.get(field)
        form = f"a module with a function `{needed}`" if needed else "package.module:Class"
        raise ValueError(f"{field}={name!r} must be {form}: {error}") from error
    return part if colon else found


def check(config: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Raises ValueError where the config beside the weights at `path` names code that is not of
    this package, or other weights that are not on this machine, with the field and how to allow
    it."""
    for place, folder in _mapping(config.get("load")).items():
        if "://" in str(folder):
            raise ValueError(
                f"{os.fspath(path)!r}: config.load.{place}={folder!r} is elsewhere, and "
                f"a folder of weights may name none such: {ALLOW}"
            )
    for where, name in named(config):
        field = where.rpartition(".")[2]
        places = " or ".join(PLACES[field])
        if not is_ours(field, name):
            raise ValueError(
                f"{os.fspath(path)!r}: config.{where}={name!r} is no part of {places} that "
                f"a folder of weights may name: {ALLOW}"
            )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def named(tree: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where in a config names stand, and they: at any depth, so that none is overlooked."""
    parts = tree if isinstance(tree, Mapping) else {}
    parts = dict(enumerate(tree)) if isinstance(tree, list | tuple) else parts
    for key, value in parts.items():
        here = f"{where}.{key}" if where else str(key)
        if key in PLACES and isinstance(value, str):
            yield here, value
        yield from named(value, here)


def is_ours(field: str, name: str) -> bool:
    """Whether this package has for such a field what `name` means; classes have short names, too.

    What a module has only imported is not of the package.
    """
    if field in METHODS and ":" not in name:
        return name not in IMPORTING
    inside = tuple(f"{place}." for place in PLACES[field])
    if not f"{name.partition(':')[0]}.".startswith(inside):
        return False
    try:
        found = find(field, name)
    except ValueError:
        return False
    part = getattr(found, NEEDED[field]) if field in NEEDED else found
    origin = getattr(part, "__module__", "")
    made_here = f"{origin}.".startswith(inside) and origin not in IMPORTING
    methods = METHODS.get(field, ())
    is_one = field in NEEDED or isinstance(part, type)
    return made_here and is_one and all(hasattr(part, method) for method in methods)
