"""Parts of a parameter tree, chosen by path: `backbone/layers/mlp/up` matches a regular expression.

A part keeps the structure of the whole, with `None` (an empty subtree to JAX) for what is left
out; so gradients, moments and averages of a part take no memory for the rest.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from unified.training.nearest import nearest

Tree = Any


def path_name(path: tuple) -> str:
    """A JAX key path, joined by `/`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def match(tree: Tree, patterns: Iterable[str], *, field: str) -> Tree:
    """True at the leaves whose path contains a match of any pattern.

    Raises ValueError for a pattern that matches nothing, naming the config `field` it came from.
    """
    patterns = tuple(patterns)
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"{field}: {pattern!r} matches no parameter; paths look like {paths[:5]}"
            )
    found = lambda path, _: any(re.search(pattern, path_name(path)) for pattern in patterns)
    return jax.tree_util.tree_map_with_path(found, tree)


def select(tree: Tree, mask: Tree) -> Tree:
    """The leaves where `mask` is True."""
    return jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, tree)


def combine(part: Tree, rest: Tree) -> Tree:
    """`part`, and `rest` where `part` has nothing."""
    absent = lambda leaf: leaf is None
    return jax.tree.map(lambda a, b: b if a is None else a, part, rest, is_leaf=absent)


def subtree(tree: Mapping, path: str) -> Tree:
    """What lies at `path` in nested dicts; all of it at "" or "/". Raises ValueError if nothing."""
    for name in filter(None, path.split("/")):
        keys = {str(key): key for key in tree}
        if name not in keys:
            raise ValueError(f"no parameters at {path!r}: {nearest(name, keys)}")
        tree = tree[keys[name]]
    return tree


def put_subtree(tree: Mapping, path: str, value: Tree) -> Tree:
    """A copy of nested dicts with `value` at `path`, which must exist."""
    name, _, rest = path.strip("/").partition("/")
    if not name:
        return value
    return {
        key: put_subtree(child, rest, value) if str(key) == name else child
        for key, child in tree.items()
    }
