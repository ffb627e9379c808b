"""Vector-quantized autoencoder of pictures: one code of a codebook for every latent place.

The networks of the KL autoencoder around a nearest-neighbour search (VQ-VAE, van den Oord et al.,
arXiv 1711.00937) among directions in few dimensions, where all codes come to be used (ViT-VQGAN, Yu
et al., arXiv 2110.04627; LlamaGen's tokenizer has this form). Gradients pass the search by the
rotation trick (Fifty et al., arXiv 2410.06424), and codes that no place of a batch chooses are
pulled to the place nearest to them, so that none stays dead.

`B` pictures, `H W` pixels, `h w` latent places (a side divided by `stride`), `C` numbers of a code,
`K` codes, `n` places of a batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from unified.nn.stack import param, scaled
from unified.tokenizers.convolution import ConvConfig, Decoder, Encoder


@dataclasses.dataclass(frozen=True)
class QuantizerConfig(ConvConfig):
    """`codebook_size` codes of `latent_channels` numbers. Defaults are LlamaGen's VQ-16;
    `unified/checkpoints/quantizer` holds a small one."""

    encoder_widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    decoder_widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    latent_channels: int = 8
    codebook_size: int = 16_384

    def __post_init__(self):
        super().__post_init__()
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size={self.codebook_size} must be at least 2")


class Quantizer(nnx.Module):
    """Pixels are in [-1, 1]; activations follow the dtype of the input."""

    def __init__(self, cfg: QuantizerConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(cfg, cfg.latent_channels, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        shape = (cfg.codebook_size, cfg.latent_channels)
        self.codebook = param(scaled(cfg.latent_channels), rngs, shape, ("vocab", None))
        self.cfg = cfg

    @property
    def stride(self) -> int:
        return self.cfg.stride

    def encode(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Directions that the codes stand for, of length 1. Raises ValueError where a side is no
        multiple of the stride."""
        return unit(self.encoder(pixels))

    def tokens(self, pixels: Float[Array, "B H W 3"]) -> Int[Array, "B h w"]:
        """The code of every place."""
        return nearest(self.encode(pixels), self.codes)

    def pixels(self, tokens: Int[Array, "B h w"]) -> Float[Array, "B H W 3"]:
        """Inverse of `tokens`, up to what the quantizer loses."""
        return self.decoder(self.codes[tokens])

    @property
    def codes(self) -> Float[Array, "K C"]:
        """The codebook, of length 1 each."""
        return unit(jnp.asarray(self.codebook))


def unit(x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Vectors of length 1."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def nearest(z: Float[Array, "*B C"], codes: Float[Array, "K C"]) -> Int[Array, "*B"]:
    """The code of least distance; all are of length 1."""
    return jnp.argmax(z @ codes.T.astype(z.dtype), axis=-1)


def rotated(z: Float[Array, "*B C"], code: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """The code, with the gradient of `z` turned by the rotation that takes `z` to the code: moving
    `z` moves what the decoder sees as if the code were fixed to it. Both are of length 1."""
    z_, code = jax.lax.stop_gradient((z, code))
    between = unit(z_ + code)
    along = lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True)
    return z - 2 * along(between, z) * between + 2 * along(z_, z) * code


def revival(
    z: Float[Array, "n C"], codes: Float[Array, "K C"], used: Bool[Array, "K"]
) -> Float[Array, "K"]:
    """Squared distance of every code that is not `used` to the place nearest to it, 0 for others.
    Gradients reach the codes alone: a dead one moves until it is the nearest to some place."""
    z, here = jax.lax.stop_gradient((z, codes))
    apart = jnp.sum(jnp.square(z[nearest(here, z)] - codes), axis=-1)
    return jnp.where(used, 0.0, apart)
