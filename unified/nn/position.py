"""Positions as features: rotary angles, sinusoids of time, 2-D sinusoids of a grid.

`B` batch, `T` position, `N` heads, `H` head dim, `D` embed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Rope(NamedTuple):
    """Cosines and sines of the rotary angles, float32 `[B T 1 H/2]`."""

    cos: Float[Array, "B T 1 h"]
    sin: Float[Array, "B T 1 h"]


def rope(
    position: Int[Array, "B T *A"], head_dim: int, theta: float, axes: Sequence[int] = ()
) -> Rope:
    """Angles of Su et al., arXiv 2104.09864: frequency `theta ** (-2 i / H)` for pair i.

    Of positions of several axes, pair i turns by that of `axes[i]` (M-RoPE, Wang et al., arXiv
    2409.12191); a position without is equal on all.
    """
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    by_pair = position[..., list(axes)] if position.ndim == 3 else position[..., None]
    angle = by_pair[..., None, :].astype(jnp.float32) * frequency
    return Rope(jnp.cos(angle), jnp.sin(angle))


def rotate(x: Float[Array, "B T N H"], rope: Rope) -> Float[Array, "B T N H"]:
    """Rotates the pairs `(i, i + H/2)` of every head (the half layout of NeoX, Llama and Qwen)."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    y = jnp.concatenate([a * rope.cos - b * rope.sin, b * rope.cos + a * rope.sin], axis=-1)
    return y.astype(x.dtype)


def sincos_time(time: Float[Array, "*B"], dim: int) -> Float[Array, "*B D"]:
    """`dim` features of a time in [0, 1]: cosines, then sines, of 10000 ** (-i / (dim / 2)) t.

    The time is not multiplied by 1000 (BAGEL's convention, not DiT's).
    """
    half = dim // 2
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = time[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def sincos_2d(grid: Int[Array, "*B 2"], dim: int, theta: float = 10_000.0) -> Float[Array, "*B D"]:
    """`dim` features of integer (row, column) coordinates, for pictures of any size.

    Four quarters: sin and cos of the column, then sin and cos of the row, frequencies
    theta ** (-k / (dim / 4)). Row `r * side + c` of BAGEL's frozen table is `sincos_2d((r, c))`. Of
    a grid much smaller than `theta` most features hardly vary: small pictures want a small one.
    Raises ValueError unless 4 divides `dim`.
    """
    if dim % 4:
        raise ValueError(f"2-D sinusoids need a width that 4 divides, not {dim}")
    frequency = theta ** (-jnp.arange(dim // 4, dtype=jnp.float32) / (dim // 4))
    row, column = (grid[..., i, None].astype(jnp.float32) * frequency for i in (0, 1))
    quarters = [jnp.sin(column), jnp.cos(column), jnp.sin(row), jnp.cos(row)]
    return jnp.concatenate(quarters, axis=-1)


def grid(height: int, width: int) -> Int[Array, "n 2"]:
    """Row and column of every cell of a picture of `height x width` tokens, row by row."""
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    return jnp.stack([rows.ravel(), columns.ravel()], axis=-1)
