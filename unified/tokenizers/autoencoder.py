"""KL autoencoder of pictures, in the architecture of Stable Diffusion 3 and FLUX.

`B` pictures, `H W` pixels, `h w` latent places (a side divided by `stride`), `C` channels.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from unified.tokenizers.convolution import ConvConfig, Decoder, Encoder


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(ConvConfig):
    """Defaults are FLUX's autoencoder; `unified/checkpoints/autoencoder` holds a small one.

    `scale` and `shift`, one number or one per latent channel, make normalised latents
    `(z - shift) * scale` of unit variance.
    """

    scale: float | tuple[float, ...] = 0.3611
    shift: float | tuple[float, ...] = 0.1159

    def __post_init__(self):
        super().__post_init__()
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(scale and math.isfinite(scale) for scale in scales):
            raise ValueError(
                f"scale={self.scale} must be a number other than 0: latents are shown divided by it"
            )
        for name in ("scale", "shift"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(value)} numbers for {self.latent_channels} latent_channels"
                )


class Autoencoder(nnx.Module):
    """Pixels are in [-1, 1]; activations follow the dtype of the input."""

    def __init__(self, cfg: AutoencoderConfig, *, rngs: nnx.Rngs):
        self.encoder = Encoder(cfg, 2 * cfg.latent_channels, rngs=rngs)
        self.decoder = Decoder(cfg, rngs=rngs)
        self.cfg = cfg

    @property
    def stride(self) -> int:
        return self.cfg.stride

    def encode(
        self, pixels: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        """Mean and log-variance of the posterior, not normalised.

        Raises ValueError where a side is no multiple of the stride.
        """
        mean, logvar = jnp.split(self.encoder(pixels), 2, axis=-1)
        return mean, logvar

    def decode(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Pixels of latents that are not normalised."""
        return self.decoder(z)

    def latents(
        self, pixels: Float[Array, "B H W 3"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "B h w C"]:
        """Normalised latents: a sample of the posterior, or its mean without a key."""
        mean, logvar = self.encode(pixels)
        z = mean if key is None else sample(key, mean, logvar)
        return (z - jnp.asarray(self.cfg.shift, z.dtype)) * jnp.asarray(self.cfg.scale, z.dtype)

    def tokens(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """What pictures are to a model: normalised latents."""
        return self.latents(pixels)

    def pixels(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Inverse of `latents`, up to what the autoencoder loses."""
        scale, shift = (jnp.asarray(v, latents.dtype) for v in (self.cfg.scale, self.cfg.shift))
        return self.decode(latents / scale + shift)


def sample(
    key: PRNGKeyArray, mean: Float[Array, "B h w C"], logvar: Float[Array, "B h w C"]
) -> Float[Array, "B h w C"]:
    """A draw from the posterior N(mean, exp(logvar))."""
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)


def kl_divergence(mean: Float[Array, "*B"], logvar: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each latent, in nats, float32."""
    mean, logvar = mean.astype(jnp.float32), logvar.astype(jnp.float32)
    return 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
