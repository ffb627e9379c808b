"""What a call may leave out, and is then: the optional fields of a config are those of what it
names, a dataclass, a function or a source.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any


def options(call: str | Callable[..., Any], *, without: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a function or class that have defaults, but for some, and these.

    `call` may be an import path, `package.module:name`; of what cannot be imported nothing is
    known. Arguments that a class passes on by `**` are those of the class that it inherits from.
    """
    found: dict[str, Any] = {}
    made = named(call) if isinstance(call, str) else call
    for part in getattr(made, "__mro__", (made,) if callable(made) else ()):
        parameters = inspect.signature(part).parameters.values()
        found = {p.name: p.default for p in parameters if p.default is not p.empty} | found
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return {name: default for name, default in found.items() if name not in without}


def of_each(
    specs: Mapping[str, Mapping[str, Any]], kind: str, kinds: Mapping[str, Any], **others: Any
) -> dict[str, dict[str, Any]]:
    """What each spec may leave out: options of what its field `kind` says, by a name in `kinds` or
    by import path, and `others`."""
    made = lambda spec: kinds.get(spec.get(kind), str(spec.get(kind)))
    return {name: {**options(made(spec)), **others} for name, spec in specs.items()}


def named(path: str) -> Any:
    """What lies at `package.module:name`; None where nothing does."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None
