"""Types of arrays in a `jax.shard_map` that checks over which mesh axes they vary."""

from typing import TypeVar

import jax

Tree = TypeVar("Tree")


def vary_alike(tree: Tree) -> Tree:
    """The arrays, varying over every axis over which one of them does.

    A custom_vjp must give gradients of the types of its arguments, and a kernel has one type of
    results; going backward, the cast sums what is the same on all devices.
    """
    varying = lambda x: jax.typeof(x).manual_axis_type.varying
    axes = frozenset().union(*map(varying, jax.tree.leaves(tree)))

    def cast(x):
        missing = tuple(sorted(axes - varying(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def struct(shape, dtype, like: jax.Array) -> jax.ShapeDtypeStruct:
    """A result that varies as an argument does."""
    kind = jax.typeof(like).manual_axis_type
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind)
