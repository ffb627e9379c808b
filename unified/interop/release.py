"""A released model is a folder: `config.json`, `model.safetensors` and, say, `tokenizer.json`.

A parameter's name in the file is its path in the nested dict joined by "/", the same name that
freeze patterns and error messages use. Paths may be local, remote (anything `etils.epath` opens)
or inside this package (`unified/checkpoints/emoji`, wherever the package is installed).
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

WEIGHTS, CONFIG = "model.safetensors", "config.json"

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
    for file in map(epath.Path, files):
        (folder / file.name).write_bytes(file.read_bytes())
    text = json.dumps(config, indent=1, default=lambda node: node.to_dict())
    (folder / CONFIG).write_text(text + "\n")


def load(path: PathLike) -> tuple[Params, dict[str, Any]]:
    """Reads `(params, config)` of a release folder: numpy arrays in the stored dtype, plain json
    with tuples for lists.

    Raises `FileNotFoundError` that names the missing file, `ValueError` for a damaged one.
    `merge` checks the parameters against a model's and gives them its dtypes and keys (a place in
    an `nnx.List` is an int in the model, a string here).
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
        tensors = safetensors.deserialize((folder / WEIGHTS).read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"released model {os.fspath(path)!r} is damaged: {error}") from error
    return unflatten({name: _array(tensor) for name, tensor in tensors}), load_config(folder)


def load_config(folder: PathLike) -> dict[str, Any]:
    """`config.json` of a folder; tuples for lists, so that what is made of it can be hashed.

    Raises ValueError, naming the file, if it is damaged.
    """
    file = epath.Path(folder) / CONFIG
    try:
        if not isinstance(config := json.loads(file.read_text()), dict):
            raise ValueError("it holds no fields")
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged ({error}): copy it again (in a run: delete it, train.py writes it)"
        ) from error
    return _tuples(config)


def merge(params: Mapping[Any, Any], loaded: Mapping[Any, Any], path: PathLike = "") -> Params:
    """`loaded` values in the structure and dtypes of `params` (arrays or `ShapeDtypeStruct`s).

    Both must have the same names and shapes; otherwise `ValueError` lists every parameter that is
    missing, unexpected or of another shape. `path` says in the message where `loaded` is from.
    """
    want, have = flatten(params), flatten(loaded)
    problems = [f"missing: {name} {tuple(want[name].shape)}" for name in want if name not in have]
    problems += [f"unexpected: {name} {have[name].shape}" for name in have if name not in want]
    problems += [
        f"misshaped: {name} is {have[name].shape}, the model needs {tuple(leaf.shape)}"
        for name, leaf in want.items()
        if name in have and have[name].shape != tuple(leaf.shape)
    ]
    if problems:
        source = f" of {os.fspath(path)!r}" if path else ""
        lines = "\n  ".join(problems)
        raise ValueError(f"the parameters{source} do not fit the model:\n  {lines}")
    place = lambda at, leaf: np.asarray(have[_name(at)]).astype(leaf.dtype)
    return jax.tree_util.tree_map_with_path(place, dict(params))


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
    """Inverse of `flatten`, but that every key is a string."""
    nested: Params = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = leaf
    return nested


def _tuples(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _tuples(value) for key, value in node.items()}
    return tuple(map(_tuples, node)) if isinstance(node, list) else node


def _name(at: Iterable[Any]) -> str:
    return jax.tree_util.keystr(tuple(at), simple=True, separator="/")


def _stored(leaf: Any, storage: str | None) -> np.ndarray:
    array = np.asarray(leaf)
    if storage and jax.numpy.issubdtype(array.dtype, np.floating):
        array = array.astype(jax.numpy.dtype(storage))
    return np.ascontiguousarray(array).reshape(array.shape)


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
