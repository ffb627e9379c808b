"""What a call may leave out, and is then: the optional fields of a config are those of what it
names, a dataclass, a function or a source.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from unified import names
from unified.interop.schema import check_call


def options(call: Callable[..., Any] | None, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of a function or class that have defaults, but for some, and these; none of
    None. Arguments that a class passes on by `**` are those of the class that it inherits from.
    """
    found: dict[str, Any] = {}
    for part in getattr(call, "__mro__", (call,) if callable(call) else ()):
        parameters = inspect.signature(part).parameters.values()
        found = {p.name: p.default for p in parameters if p.default is not p.empty} | found
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return {name: default for name, default in found.items() if name not in without}


def of_each(
    specs: Mapping[str, Mapping[str, Any]], kind: str, kinds: Mapping[str, Any], **others: Any
) -> dict[str, dict[str, Any]]:
    """What each spec may leave out: options of what its field `kind` says, by a name in `kinds` or,
    where it may be one, by import path, and `others`."""

    def made(value: Any) -> Any:
        value = kinds.get(value, value) if isinstance(value, str) else None
        return known(kind, value) if isinstance(value, str) and kind in names.PLACES else value

    call = lambda spec: found if callable(found := made(spec.get(kind))) else None
    return {name: {**options(call(spec)), **others} for name, spec in specs.items()}


def check_each(specs: Mapping[str, Any], kinds: Mapping[str, str], where: str) -> None:
    """Raises ValueError for a source that is not there, and for an option of one that is of another
    type than the source says."""
    for name, spec in specs.items():
        try:
            source = names.find("format", kinds.get(spec["format"], spec["format"]))
        except ValueError as error:
            raise ValueError(f"{where}.{name}.{error} (or one of {sorted(kinds)})") from error
        check_call(source, spec, f"{where}.{name}")


def known(field: str, name: Any) -> Any:
    """As `names.find`; None where there is nothing."""
    try:
        return names.find(field, name)
    except ValueError:
        return None
