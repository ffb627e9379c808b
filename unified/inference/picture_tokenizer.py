"""A trained tokenizer of pictures alone: pictures to latents or codes, and back.

`N` pictures, `H W` pixels, `h w` latent places.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped, UInt8

from unified.inference.request import Picture, read_list, read_picture
from unified.tokenizers.pixels import to_bytes, to_float


@runtime_checkable
class PictureNetwork(Protocol):
    """What turns pictures into tokens and back."""

    stride: int

    def tokens(self, pixels: Float[Array, "B H W 3"]) -> Shaped[Array, "B h w *C"]: ...
    def pixels(self, tokens: Shaped[Array, "B h w *C"]) -> Float[Array, "B H W 3"]: ...


class PictureTokenizer:
    """Wraps a network of `unified.tokenizers`. `stride`: pixels a side of a latent place."""

    def __init__(self, model: PictureNetwork, config: Mapping[str, Any]):
        self.graph, params = nnx.split(model, nnx.Param)
        self.params = jax.device_put(nnx.to_pure_dict(params))
        self.config = config
        self.stride = model.stride

    def encode(self, pictures: Sequence[Picture]) -> Shaped[np.ndarray, "N h w *C"]:
        """Normalised latents (means of the posterior) `[N h w C]`, or codes `[N h w]`. Raises
        ValueError for pictures of several sizes, or of sides that are not whole strides."""
        return np.asarray(_encode(self.graph, self.params, self._read(pictures)))

    def decode(
        self, tokens: Shaped[Array | np.ndarray, "N h w *C"]
    ) -> UInt8[np.ndarray, "N H W 3"]:
        return np.asarray(_decode(self.graph, self.params, tokens))

    def reconstruct(self, pictures: Sequence[Picture]) -> UInt8[np.ndarray, "N H W 3"]:
        """Pictures through their tokens and back."""
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
    return nnx.merge(graph, params).tokens(to_float(pixels))


@functools.partial(jax.jit, static_argnums=0)
def _decode(graph, params, tokens):
    return to_bytes(nnx.merge(graph, params).pixels(tokens))
