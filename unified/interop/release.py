"""A released model is a folder: `config.json`, `model.safetensors`, `checksums.json` of its
parameters and, say, `tokenizer.json`.

A parameter's name in the file is its path in the nested dict joined by "/", the same name that
freeze patterns and error messages use. Paths may be local, remote (anything `etils.epath` opens)
or inside this package (`unified/checkpoints/emoji`, wherever the package is installed).
"""

import json
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from unified import checksum
from unified.interop import files as regular
from unified.message import one_line

WEIGHTS, CONFIG, CHECKSUMS = "model.safetensors", "config.json", "checksums.json"
LARGEST = 2**26  # bytes of a config, of checksums, of the header of weights
DEEPEST = 32  # levels of a config, and of the dict of parameters

PathLike = str | os.PathLike[str]
Params = dict[Any, Any]  # nested; leaves are arrays

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def save(
    path: PathLike,
    params: Mapping[Any, Any],
    config: Any,
    *,
    storage: str | None = None,
    files: Iterable[PathLike] = (),
) -> None:
    """Writes a release folder; what is there already is replaced.

    `config` is a json-able mapping or an `ml_collections.ConfigDict`. `storage` is the dtype that
    floating-point parameters are stored in (`"bfloat16"` halves the file; default: as they are).
    `files` are copied in beside the weights. `config.json` comes last: a folder that has one is
    complete.
    """
    folder = epath.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    flat = {name: _stored(leaf, storage) for name, leaf in flatten(params).items()}
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(flat))
    (folder / CHECKSUMS).write_text(json.dumps(checksum.checksums(flat), indent=1) + "\n")
    for file in map(epath.Path, files):
        (folder / file.name).write_bytes(file.read_bytes())
    text = json.dumps(config, indent=1, default=lambda node: node.to_dict())
    (folder / CONFIG).write_text(text + "\n")


def load(path: PathLike, *, verify: bool = True) -> tuple[Params, dict[str, Any]]:
    """Reads `(params, config)` of a release folder: numpy arrays in the stored dtype, plain json
    with tuples for lists.

    Nothing of it is run: the config is as it was found, see `unified.names.check`. Raises
    `FileNotFoundError` that names the missing file, `ValueError` for a damaged one. `merge` checks
    the parameters against a model's and gives them its dtypes and keys (a place in an `nnx.List` is
    an int in the model, a string here). `verify`: against their checksums, where there are some.
    """
    folder = resolve(path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).exists():
            what = "no such folder" if not folder.exists() else f"it has no {name}"
            raise FileNotFoundError(
                f"{os.fspath(path)!r} is not a released model: {what} "
                f"(a release is a folder with {CONFIG} and {WEIGHTS})"
            )
    try:
        tensors = safetensors.deserialize(_weights(folder / WEIGHTS))
        flat = {n: _array(n, tensor) for n, tensor in tensors}
        if verify and ((folder / CHECKSUMS).exists() or os.path.lexists(folder / CHECKSUMS)):
            _verify(flat, folder / CHECKSUMS)
        return unflatten(flat), load_config(folder)
    except (MemoryError, safetensors.SafetensorError, _Damaged) as error:
        why = one_line(error) or "it does not fit in memory"
        raise ValueError(f"released model {os.fspath(path)!r} is damaged: {why}") from error


class _Damaged(ValueError):
    """Weights that are a whole file, but of no model of ours."""


# What JSON raises that is of another form than it should be.
_UNREADABLE = (AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error)


def _weights(file: epath.Path) -> bytes:
    """The content of a file of weights, which is read whole where its size is as its header says.
    Raises _Damaged where it is not."""
    regular.check(file)
    size = file.stat().length
    with file.open("rb") as content:
        try:
            (length,) = struct.unpack("<Q", content.read(8))
            if length > min(size, LARGEST):
                raise ValueError(f"its length is {length} bytes")
            header = json.loads(content.read(length))
            ends = [x["data_offsets"][1] for name, x in header.items() if name != "__metadata__"]
            needed = 8 + length + max(ends, default=0)
        except _UNREADABLE as error:
            raise _Damaged(f"the header of {WEIGHTS} cannot be read: {error}") from error
        if size != needed:
            raise _Damaged(f"{WEIGHTS} has {size} bytes, its header says {needed}")
        content.seek(0)
        return content.read()


def _verify(flat: Mapping[str, np.ndarray], file: epath.Path) -> None:
    """Raises _Damaged, naming them, for parameters that are not those of the checksums."""
    try:
        wanted = json.loads(regular.read(file, LARGEST))
        if flat and not wanted:
            raise ValueError("it is empty")
        names = checksum.damaged(flat, {str(name): text for name, text in wanted.items()})
    except FileNotFoundError as error:
        raise _Damaged(error) from error
    except _UNREADABLE as error:
        raise _Damaged(f"{CHECKSUMS} holds no checksums: {error}") from error
    if names:
        raise _Damaged(f"not as they were saved: {checksum.several(names)}")


def load_config(folder: PathLike) -> dict[str, Any]:
    """`config.json` of a folder; tuples for lists, so that what is made of it can be hashed.

    Raises ValueError, naming the file, if it is damaged: no JSON, no fields, the same field twice,
    or deeper than any config.
    """
    file = epath.Path(folder) / CONFIG
    try:
        config = json.loads(regular.read(file, LARGEST).decode(), object_pairs_hook=_once)
        if not isinstance(config, dict):
            raise ValueError("it holds no fields")
        return _tuples(config)
    except (RecursionError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({one_line(error)}): copy it again (in a run: delete it, train.py "
            "writes it)"
        ) from error


def merge(params: Mapping[Any, Any], loaded: Mapping[Any, Any], path: PathLike = "") -> Params:
    """`loaded` values in the structure and dtypes of `params` (arrays or `ShapeDtypeStruct`s).

    Both must have the same names, shapes and kinds of numbers, all of them finite; otherwise
    `ValueError` names the parameters that are missing, unexpected, or something else. `path` says
    in the message where `loaded` is from.
    """
    want, have = flatten(params), flatten(loaded)
    problems = [f"missing: {name} {tuple(want[name].shape)}" for name in want if name not in have]
    problems += [f"unexpected: {name} {have[name].shape}" for name in have if name not in want]
    problems += [
        f"misshaped: {name} is {have[name].shape}, the model needs {tuple(leaf.shape)}"
        for name, leaf in want.items()
        if name in have and have[name].shape != tuple(leaf.shape)
    ]
    problems += [
        f"mistyped: {name} is {have[name].dtype}, the model needs {leaf.dtype}"
        for name, leaf in want.items()
        if name in have and _kind(have[name]) != _kind(leaf)
    ]
    _refuse(problems, "do not fit the model", path)

    def place(at: Any, leaf: Any) -> np.ndarray:
        with np.errstate(over="ignore"):  # what the narrower dtype cannot hold is named below
            return np.asarray(have[_name(at)]).astype(leaf.dtype)

    merged = jax.tree_util.tree_map_with_path(place, dict(params))
    numbers = {n: leaf for n, leaf in flatten(merged).items() if _kind(leaf) == np.inexact}
    broken = [name for name, leaf in numbers.items() if not np.isfinite(leaf).all()]
    _refuse(broken, "hold numbers that are not finite", path)
    return merged


def _refuse(problems: list[str], what: str, path: PathLike, most: int = 3) -> None:
    """Raises ValueError with the first of the problems, and how many there are, in one line."""
    if problems:
        source = f" of {os.fspath(path)!r}" if path else ""
        more = f"; and {len(problems) - most} more" if len(problems) > most else ""
        raise ValueError(
            one_line(f"the parameters{source} {what}: {'; '.join(problems[:most])}{more}")
        )


def _kind(leaf: Any) -> type:
    """Which numbers an array holds: bool is neither whole numbers nor floats."""
    kinds = (np.bool_, np.integer, np.inexact)
    return next(k for k in kinds if jax.numpy.issubdtype(leaf.dtype, k))


def resolve(path: PathLike) -> epath.Path:
    """Where `path` is: as given if that exists, else inside the installed package."""
    given = epath.Path(path)
    if not given.exists() and given.parts and given.parts[0] == __package__.split(".")[0]:
        return epath.resource_path(given.parts[0]).joinpath(*given.parts[1:])
    return given


def flatten(params: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested dict -> dict by "/"-joined name."""
    return {_name(at): leaf for at, leaf in jax.tree_util.tree_leaves_with_path(dict(params))}


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Inverse of `flatten`, but that every key is a string. Raises ValueError for a name that goes
    on where another ends (`a` and `a/b`)."""
    nested: Params = {}
    for name in sorted(flat):
        *parents, last = name.split("/")
        if len(parents) >= DEEPEST:
            raise _Damaged(f"{name!r} is deeper than {DEEPEST} levels")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise _Damaged(f"{name!r} clashes with another name, which ends at {key!r}")
        node[last] = flat[name]
    return nested


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object. Raises ValueError where one is there twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"{twice!r} is there twice")
    if wrong := [name for name in fields if "." in name or name.startswith("__")]:
        raise ValueError(f"{wrong[0]!r} is no name of a field")
    return fields


def _tuples(node: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"it is deeper than {DEEPEST} levels")
    if isinstance(node, dict):
        return {key: _tuples(value, depth + 1) for key, value in node.items()}
    return tuple(_tuples(part, depth + 1) for part in node) if isinstance(node, list) else node


def _name(at: Iterable[Any]) -> str:
    return jax.tree_util.keystr(tuple(at), simple=True, separator="/")


def _stored(leaf: Any, storage: str | None) -> np.ndarray:
    array = np.asarray(leaf)
    if storage and jax.numpy.issubdtype(array.dtype, np.floating):
        array = array.astype(jax.numpy.dtype(storage))
    return np.ascontiguousarray(array).reshape(array.shape)


def _array(name: str, tensor: Mapping[str, Any]) -> np.ndarray:
    if tensor["dtype"] not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise _Damaged(f"{name!r} is stored as {tensor['dtype']}; read are {known}")
    return np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
