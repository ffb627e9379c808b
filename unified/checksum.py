"""A checksum of every array of a tree: the same on any mesh and any machine, without gathering.

The bits of an array are read as unsigned words w(i), i the flat index. A sum is that of w(i) * m(i)
mod 2**32, with odd factors m(i) that mix the bits of i: one word cannot change unnoticed, several
do once in about 2**32. A checksum is two such sums with factors of their own, and the type and
shape: `float32[2,8]:0f3a5c97b2e41d60`. The order of adding does not matter, so XLA adds up the
parts of a sharded array where they lie. It finds accidents, not forgery.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEEDS = (0x9E3779B9, 0x7F4A7C15)
CHUNK = 1 << 16  # words that numpy takes at a time, to stay in cache

Checksums = Mapping[str, str]


def checksums(tree: Any) -> dict[str, str]:
    """By path, joined by `/`, of every array of a tree: of JAX (random keys too) or of numpy."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in found}
    placed = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, jax.Array)}
    sums = jax.device_get(_device_sums(placed)) if placed else {}
    sums |= {name: _host_sums(np.asarray(leaves[name])) for name in leaves.keys() - placed.keys()}
    return {name: _said(leaf, *sums[name]) for name, leaf in leaves.items()}


def damaged(tree: Any, wanted: Checksums) -> list[str]:
    """Paths at which the arrays of a tree are not those whose checksums are given."""
    found = checksums(tree)
    names = sorted(found.keys() | wanted.keys())
    return [name for name in names if found.get(name) != wanted.get(name)]


def several(names: list[str], shown: int = 3) -> str:
    """The first of many names, and how many more there are, for a message of one line."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _said(leaf: Any, first: Any, second: Any) -> str:
    shape = ",".join(map(str, np.shape(leaf)))
    return f"{leaf.dtype}[{shape}]:{int(first):08x}{int(second):08x}"


@jax.jit
def _device_sums(arrays: dict[str, jax.Array]) -> dict[str, list[jax.Array]]:
    def of(array: jax.Array) -> list[jax.Array]:
        words = _device_words(array)
        index = jnp.zeros(words.shape, jnp.uint32)
        for axis, size in enumerate(words.shape):
            stride = math.prod(words.shape[axis + 1 :]) % 2**32
            place = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
            index += place * jnp.uint32(stride) if size > 1 else jnp.uint32(0)
        return [jnp.sum(words * _factors(index, s), dtype=jnp.uint32) for s in SEEDS]

    return {name: of(array) for name, array in arrays.items()}


def _device_words(array: jax.Array) -> jax.Array:
    """uint32; numbers of 64 bits are two words, the lower first, in a last axis."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag], -1)
    if array.dtype == bool:
        return array.astype(jnp.uint32)
    unsigned = jnp.dtype(f"uint{min(8 * array.dtype.itemsize, 32)}")
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _host_sums(array: np.ndarray) -> list[np.uint32]:
    flat = np.ascontiguousarray(array).reshape(-1)
    size = flat.dtype.itemsize
    words = flat.view(f"<u{min(size, 4)}" if size <= 8 else "<u4")
    totals = [np.uint32(0)] * len(SEEDS)
    for start in range(0, len(words), CHUNK):
        part = words[start : start + CHUNK].astype(np.uint32)
        index = (np.arange(start, start + len(part)) % 2**32).astype(np.uint32)
        sums = [np.sum(part * _factors(index, seed), dtype=np.uint32) for seed in SEEDS]
        totals = [np.add(*pair, dtype=np.uint32) for pair in zip(totals, sums, strict=True)]
    return totals


def _factors(index: Any, seed: int) -> Any:
    """Odd numbers that mix the bits of an index, as MurmurHash3 does in the end. `index` is of
    uint32, of numpy or JAX, whose arithmetic is mod 2**32."""
    as_word = np.uint32
    x = index ^ as_word(seed)
    x = (x ^ (x >> as_word(16))) * as_word(0x85EBCA6B)
    x = (x ^ (x >> as_word(13))) * as_word(0xC2B2AE35)
    return (x ^ (x >> as_word(16))) | as_word(1)
