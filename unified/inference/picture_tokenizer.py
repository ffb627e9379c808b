"""A trained autoencoder of pictures alone: pictures to latents, and back.

`N` pictures, `H W` pixels, `h w` latent places, `C` channels.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from unified.inference.request import Picture, read_list, read_picture
from unified.tokenizers.autoencoder import Autoencoder
from unified.tokenizers.pixels import to_bytes, to_float


class PictureTokenizer:
    """Wraps an autoencoder. `stride`: pixels a side of a latent place."""

    def __init__(self, model: Autoencoder, config: Mapping[str, Any]):
        self.graph, params = nnx.split(model, nnx.Param)
        self.params = jax.device_put(nnx.to_pure_dict(params))
        self.config = config
        self.stride = model.cfg.stride

    def encode(self, pictures: Sequence[Picture]) -> Float[np.ndarray, "N h w C"]:
        """Normalised latents, the means of the posterior. Raises ValueError for pictures of several
        sizes, or of sides that are not whole strides."""
        return np.asarray(_encode(self.graph, self.params, self._read(pictures)))

    def decode(self, latents: Float[Array | np.ndarray, "N h w C"]) -> UInt8[np.ndarray, "N H W 3"]:
        return np.asarray(_decode(self.graph, self.params, latents))

    def reconstruct(self, pictures: Sequence[Picture]) -> UInt8[np.ndarray, "N H W 3"]:
        """Pictures through their latents and back."""
        return self.decode(self.encode(pictures))

    def _read(self, pictures: Sequence[Picture]) -> UInt8[np.ndarray, "N H W 3"]:
        read = [read_picture(picture) for picture in read_list(pictures, "pictures")]
        sizes = sorted({picture.shape[:2] for picture in read})
        if len(sizes) != 1 or any(side % self.stride for side in sizes[0]):
            raise ValueError(
                f"pictures of (height, width) {sizes}: give some of one size, whose sides are "
                f"multiples of {self.stride}"
            )
        return np.stack(read)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graph, params, pixels):
    return nnx.merge(graph, params).latents(to_float(pixels))


@functools.partial(jax.jit, static_argnums=0)
def _decode(graph, params, latents):
    return to_bytes(nnx.merge(graph, params).pixels(latents))
