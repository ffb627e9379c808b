"""A trained model from its folder: a release, or a run of `train.py`."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from etils import epath
from flax import nnx

from unified import names
from unified.interop import files, release, run
from unified.interop.release import Params, PathLike
from unified.message import one_line

DEFAULT = "unified/checkpoints/emoji"
TOKENIZER = "tokenizer.json"  # in a release, and in a run


def read(
    path: PathLike = DEFAULT, *, trust: bool = False, verify: bool = True
) -> tuple[Params, dict[str, Any]]:
    """`(params, config)` of a release, or of a run's newest checkpoint (averaged where it is).

    The folder is data, from whoever made it: its config may name code of this package alone, and a
    tokenizer in the folder or in this package. `trust` allows any, as a program of one's own.
    `verify` compares the parameters with the checksums that were saved beside them.

    Raises FileNotFoundError for a folder that is neither, ValueError for a damaged one and for a
    config that is not trusted.
    """
    folder = release.resolve(path)
    params, config = (run if run.is_run(folder) else release).load(path, verify=verify)
    if not trust:
        names.check(config, path)
    if not isinstance(config.get("tokenizer", ""), str):
        raise ValueError(f"{os.fspath(path)!r}: config.tokenizer must be the name of a file")
    if (folder / TOKENIZER).exists():
        config["tokenizer"] = os.fspath(folder / TOKENIZER)
    elif "tokenizer" in config and not trust:
        config["tokenizer"] = os.fspath(_inside(folder, config["tokenizer"]))
    return params, config


def _inside(folder: epath.Path, name: str) -> epath.Path:
    """The file that a config means, in its folder or this package. Raises ValueError."""
    parts = name.split("/")
    packaged = parts[0] == __package__.split(".")[0]
    place = release.resolve(name) if packaged else folder.joinpath(*parts)
    if {"", ".."} & {*parts} or not files.is_file(place):
        raise ValueError(
            f"{os.fspath(folder)!r}: config.tokenizer={name!r} is no file beside the weights or in "
            f"this package: put it there as {TOKENIZER}"
        )
    return place


def keep_tokenizer(folder: PathLike, config: Mapping[str, Any]) -> dict[str, Any]:
    """Copies the tokenizer of `config`, if it has one, to `folder`; the config that says so.

    `read` finds it there wherever the folder is moved to, and whatever becomes of the original.
    """
    if "tokenizer" not in config:
        return dict(config)
    file = release.resolve(config["tokenizer"])
    try:
        content = files.read(file / TOKENIZER if file.is_dir() else file)
    except OSError as error:
        raise ValueError(
            f"config.tokenizer={config['tokenizer']!r} cannot be read ({error.strerror or error}): "
            f"name a {TOKENIZER} or its folder"
        ) from error
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / TOKENIZER).write_bytes(content)
    return {**config, "tokenizer": TOKENIZER}


def recipe_of(config: Mapping[str, Any]) -> ModuleType:
    """The module that `config.recipe` names. Raises ValueError where there is none."""
    if "recipe" not in config:
        raise ValueError("the config names no recipe: is it one of this library?")
    try:
        return names.find("recipe", config["recipe"])
    except ValueError as error:
        raise ValueError(f"config.{error}") from error


def assemble(params: Params, config: Mapping[str, Any], path: PathLike = "") -> nnx.Module:
    """The model that the recipe of `config` builds, with these parameters.

    Raises ValueError, naming `path`, for a config that makes no model and for parameters that do
    not fit it, before any memory is used.
    """
    with config_of(path):
        model = shapes(config, most=len(release.flatten(params)))
    graph, needed = nnx.split(model, nnx.Param)
    return nnx.merge(graph, release.merge(nnx.to_pure_dict(needed), params, path))


@contextlib.contextmanager
def config_of(path: PathLike) -> Iterator[None]:
    """What is wrong with a config is told in one line, with the folder that it is from, if any."""
    try:
        yield
    except ValueError as error:
        raise ValueError(one_line(f"{os.fspath(path)!r}: {error}" if path else error)) from error


def shapes(config: Mapping[str, Any], most: int) -> nnx.Module:
    """The model of a config without its numbers, as far as it may have `most` parameters.

    Raises ValueError where its fields make none.
    """
    recipe = recipe_of(config)
    return nnx.eval_shape(lambda: recipe.build(config, rngs=_Counted(most)))


class _Counted(nnx.Rngs):
    """Keys for a model of at most `most` parameters, which draws one for each, or for several that
    are stacked: whatever numbers a config asks for, building comes to an end."""

    def __init__(self, most: int):
        super().__init__(0)
        self.left = 2 * most + 100  # a recipe may draw others

    def __getattr__(self, name: str) -> Any:
        stream = super().__getattr__(name)
        self.left -= 1
        if self.left < 0:
            raise ValueError("config.model asks for more parameters than lie beside it")
        return stream


def started(config: Mapping[str, Any], params: Params) -> Params:
    """The weights that the training of `config` began with, in the structure of `params`: those of
    the releases in `config.load`, at their places.

    Raises ValueError for every parameter that these do not give.
    """
    found: dict[str, Any] = {}
    for place, folder in config.get("load", {}).items():
        above = [*filter(None, place.split("/"))]
        part = release.flatten(release.load(folder)[0])
        found |= {"/".join([*above, name]): leaf for name, leaf in part.items()}
    return release.merge(params, release.unflatten(found), "config.load")
