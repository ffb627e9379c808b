"""A trained model from its folder: a release, or a run of `train.py`."""

import importlib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from etils import epath
from flax import nnx

from unified.interop import release, run
from unified.interop.release import Params, PathLike

DEFAULT = "unified/checkpoints/emoji"
TOKENIZER = "tokenizer.json"  # in a release, and in a run


def read(path: PathLike = DEFAULT) -> tuple[Params, dict[str, Any]]:
    """`(params, config)` of a release, or of a run's newest checkpoint (averaged where it is).

    Raises FileNotFoundError for a folder that is neither, ValueError for a damaged one.
    """
    folder = release.resolve(path)
    params, config = (run if run.is_run(folder) else release).load(path)
    if (folder / TOKENIZER).exists():
        config["tokenizer"] = os.fspath(folder / TOKENIZER)
    return params, config


def keep_tokenizer(folder: PathLike, config: Mapping[str, Any]) -> dict[str, Any]:
    """Copies the tokenizer of `config`, if it has one, to `folder`; the config that says so.

    `read` finds it there wherever the folder is moved to, and whatever becomes of the original.
    """
    if "tokenizer" not in config:
        return dict(config)
    file = release.resolve(config["tokenizer"])
    try:
        content = (file / TOKENIZER if file.is_dir() else file).read_bytes()
    except OSError as error:
        raise ValueError(
            f"config.tokenizer={config['tokenizer']!r} cannot be read: {error.strerror}: name a "
            f"{TOKENIZER} or its folder"
        ) from error
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / TOKENIZER).write_bytes(content)
    return {**config, "tokenizer": TOKENIZER}


def recipe_of(config: Mapping[str, Any]) -> ModuleType:
    """The module that `config.recipe` names. Raises ValueError where it cannot be imported."""
    try:
        return importlib.import_module(config["recipe"])
    except KeyError:
        raise ValueError("the config names no recipe: is it one of this library?") from None
    except ImportError as error:
        raise ValueError(f"config.recipe={config['recipe']!r}: {error}") from error


def assemble(params: Params, config: Mapping[str, Any], path: PathLike = "") -> nnx.Module:
    """The model that the recipe of `config` builds, with these parameters.

    Raises ValueError, naming `path` and every parameter that does not fit.
    """
    recipe = recipe_of(config)
    model = nnx.eval_shape(lambda: recipe.build(config, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model, nnx.Param)
    return nnx.merge(graph, release.merge(nnx.to_pure_dict(shapes), params, path))
