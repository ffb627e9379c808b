"""Whether a checkpoint holds the state that is wanted: the same arrays, in shape and type."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from unified.training.step import TrainState
from unified.training.tree import Tree, path_name


class Misfit(ValueError):
    """A checkpoint holds another state than the one that is wanted."""


def difference(saved: Mapping[str, Any], wanted: TrainState) -> str:
    """The first array whose shape or type in a checkpoint is not the wanted one, in words; or
    nothing."""
    have, want = forms({**saved, "key": None}), forms(dataclasses.replace(wanted, key=None))
    nothing = ("absent", "")
    for name in [*want, *have]:
        there, here = have.get(name, nothing), want.get(name, nothing)
        if there != here:
            part = 0 if there[0] != here[0] else 1
            return f"{name} is {there[part]} there and {here[part]} here"
    return ""


def forms(tree: Tree) -> dict[str, tuple[str, str]]:
    """Shape and type by name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): (str(tuple(x.shape)), str(x.dtype)) for path, x in leaves}
