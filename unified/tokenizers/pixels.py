"""Bytes of pictures <-> floats, in one place."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_float(pixels: UInt8[Array, "*B"] | Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Bytes, or floats of that range -> float32 in [-1, 1]."""
    return pixels.astype(jnp.float32) / 127.5 - 1


def to_bytes(pixels: Float[Array, "*B"]) -> UInt8[Array, "*B"]:
    """[-1, 1] -> bytes, rounded; beyond, the nearest."""
    return jnp.round(jnp.clip(pixels + 1, 0, 2) * 127.5).astype(jnp.uint8)
