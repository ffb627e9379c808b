"""Floating-point operations that a network needs: a multiplication and an addition are two."""

import functools

import jax
import numpy as np
from flax import nnx

from unified.sequence import Tokens


@functools.lru_cache(256)  # asked of the same abstract modules at every step, and slow to find out
def per_token(module: nnx.Module) -> int:
    """Of one token that passes once through every kernel of a module's dense layers."""
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return 2 * sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")


def attention(num_layers: int, num_heads: int, head_dim: int, num_pairs: int) -> int:
    """Of scores and weighted values, for so many pairs of a query and a key that it sees."""
    return 4 * num_layers * num_heads * head_dim * num_pairs


def count(tokens: Tokens) -> int:
    """Tokens on the host that are no padding."""
    return int((tokens.stop > 0).sum())


def count_pairs(tokens: Tokens) -> int:
    """Pairs with `start[key] <= clock[query] < stop[key]`, in rows `[B n]` on the host."""
    total = 0
    for clock, start, stop in zip(np.sort(tokens.clock), tokens.start, tokens.stop, strict=True):
        total += int((np.searchsorted(clock, stop) - np.searchsorted(clock, start)).sum())
    return total
