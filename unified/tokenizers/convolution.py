"""The convolutional networks between pictures and their latents, as in latent diffusion.

Residual convolutions with GroupNorm and swish, one self-attention at the lowest resolution,
stride-2 convolutions down, nearest-neighbour up. Parameter paths follow the published weights
(`encoder/down/0/block/1/conv1`), so those load by a map of names.

`B` pictures, `H W` pixels, `h w` latent places (a side divided by `stride`), `C` channels,
`T` places in reading order, `F` numbers of a place.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.stack import ones, param, scaled, zeros
from unified.sharding import constrain


@dataclasses.dataclass(frozen=True)
class ConvConfig:
    """Widths go from pixels to latents, one per level; every level but the last halves the sides.
    Blocks are the residual blocks of one level. Raises ValueError for sizes that make no network.
    """

    encoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    decoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    latent_channels: int = 16
    num_groups: int = 32
    channels: int = 3

    def __post_init__(self):
        for field in dataclasses.fields(self):  # JSON has lists, but a module's facts are hashed
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))
        for name in (
            "encoder_blocks",
            "decoder_blocks",
            "latent_channels",
            "num_groups",
            "channels",
        ):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise ValueError(
                f"encoder_widths {self.encoder_widths} and decoder_widths {self.decoder_widths} "
                "must have the same number of levels"
            )
        if not 1 <= len(self.encoder_widths) <= 16:
            raise ValueError(f"{len(self.encoder_widths)} levels of widths: from 1 to 16")
        for width in (*self.encoder_widths, *self.decoder_widths):
            if width < 1 or width % self.num_groups:
                raise ValueError(f"num_groups={self.num_groups} does not divide width {width}")

    @property
    def stride(self) -> int:
        """Pixels a side of one latent place."""
        return 2 ** (len(self.encoder_widths) - 1)


class Encoder(nnx.Module):
    def __init__(self, cfg: ConvConfig, outputs: int, *, rngs: nnx.Rngs):
        widths, groups = cfg.encoder_widths, cfg.num_groups
        incoming = (widths[0], *widths)
        self.stride = cfg.stride
        self.conv_in = Conv(3, cfg.channels, widths[0], rngs=rngs)
        self.down = nnx.List(
            Down(incoming[i], width, cfg.encoder_blocks, groups, i + 1 < len(widths), rngs=rngs)
            for i, width in enumerate(widths)
        )
        self.mid = Mid(widths[-1], groups, rngs=rngs)
        self.norm_out = GroupNorm(widths[-1], groups, rngs=rngs)
        self.conv_out = Conv(3, widths[-1], outputs, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w F"]:
        """Raises ValueError where a side is no multiple of the stride."""
        _, H, W, _ = pixels.shape
        if H % self.stride or W % self.stride:
            raise ValueError(f"{H}x{W} pixels: sides must be multiples of {self.stride}")
        x = self.conv_in(constrain(pixels, "batch", None, None, None))
        for level in self.down:
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm_out(self.mid(x))))


class Decoder(nnx.Module):
    def __init__(self, cfg: ConvConfig, *, rngs: nnx.Rngs):
        widths, groups = cfg.decoder_widths, cfg.num_groups
        incoming = (*widths[1:], widths[-1])
        self.conv_in = Conv(3, cfg.latent_channels, widths[-1], rngs=rngs)
        self.mid = Mid(widths[-1], groups, rngs=rngs)
        self.up = nnx.List(
            Up(incoming[i], width, cfg.decoder_blocks, groups, i > 0, rngs=rngs)
            for i, width in enumerate(widths)
        )
        self.norm_out = GroupNorm(widths[0], groups, rngs=rngs)
        self.conv_out = Conv(3, widths[0], cfg.channels, rngs=rngs)

    def __call__(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        x = self.mid(self.conv_in(constrain(z, "batch", None, None, None)))
        for level in reversed(self.up):  # as published, level 0 is the finest
            x = level(x)
        return self.conv_out(jax.nn.silu(self.norm_out(x)))


class Down(nnx.Module):
    """Residual blocks, then half the sides unless this is the last level."""

    def __init__(self, in_dim, dim, num_blocks, num_groups, resample: bool, *, rngs: nnx.Rngs):
        self.block = residual_blocks(in_dim, dim, num_blocks, num_groups, rngs=rngs)
        self.downsample = Resample(dim, rngs=rngs) if resample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.block:
            x = block(x)
        if self.downsample is None:
            return x
        # As published: one row and column of zeros after the picture, none before it.
        return self.downsample.conv(x, stride=2, padding=((0, 1), (0, 1)))


class Up(nnx.Module):
    """Residual blocks, then twice the sides (nearest neighbour) unless this is the last level."""

    def __init__(self, in_dim, dim, num_blocks, num_groups, resample: bool, *, rngs: nnx.Rngs):
        self.block = residual_blocks(in_dim, dim, num_blocks, num_groups, rngs=rngs)
        self.upsample = Resample(dim, rngs=rngs) if resample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.block:
            x = block(x)
        if self.upsample is None:
            return x
        B, H, W, D = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (B, H, 2, W, 2, D))
        return self.upsample.conv(x.reshape(B, 2 * H, 2 * W, D))


class Resample(nnx.Module):
    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.conv = Conv(3, dim, dim, rngs=rngs)


class Mid(nnx.Module):
    def __init__(self, dim: int, num_groups: int, *, rngs: nnx.Rngs):
        self.block_1 = ResidualBlock(dim, dim, num_groups, rngs=rngs)
        self.attn_1 = Attention(dim, num_groups, rngs=rngs)
        self.block_2 = ResidualBlock(dim, dim, num_groups, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.block_2(self.attn_1(self.block_1(x)))


def residual_blocks(in_dim, dim, num_blocks, num_groups, *, rngs: nnx.Rngs) -> nnx.List:
    make = lambda i: ResidualBlock(dim if i else in_dim, dim, num_groups, rngs=rngs)
    return nnx.List(map(make, range(num_blocks)))


class ResidualBlock(nnx.Module):
    def __init__(self, in_dim: int, dim: int, num_groups: int, *, rngs: nnx.Rngs):
        self.norm1 = GroupNorm(in_dim, num_groups, rngs=rngs)
        self.conv1 = Conv(3, in_dim, dim, rngs=rngs)
        self.norm2 = GroupNorm(dim, num_groups, rngs=rngs)
        self.conv2 = Conv(3, dim, dim, rngs=rngs, gain=0.0)  # starts as the identity
        self.nin_shortcut = Conv(1, in_dim, dim, rngs=rngs) if in_dim != dim else None

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W E"]:
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nnx.Module):
    """Single-head self-attention over all places of a picture, as a residual."""

    def __init__(self, dim: int, num_groups: int, *, rngs: nnx.Rngs):
        self.norm = GroupNorm(dim, num_groups, rngs=rngs)
        self.q = Conv(1, dim, dim, rngs=rngs)
        self.k = Conv(1, dim, dim, rngs=rngs)
        self.v = Conv(1, dim, dim, rngs=rngs)
        self.proj_out = Conv(1, dim, dim, rngs=rngs, gain=0.0)

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        B, H, W, D = x.shape
        h = self.norm(x)
        q, k, v = (proj(h).reshape(B, H * W, 1, D) for proj in (self.q, self.k, self.v))
        h_BTD = jax.nn.dot_product_attention(q, k, v)
        return x + self.proj_out(h_BTD.reshape(B, H, W, D))


class GroupNorm(nnx.Module):
    """Statistics over all pixels and the channels of a group, in float32."""

    def __init__(self, dim: int, num_groups: int, *, rngs: nnx.Rngs):
        self.scale = param(ones, rngs, (dim,), (None,))
        self.bias = param(zeros, rngs, (dim,), (None,))
        self.num_groups = num_groups

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        x32 = x.astype(jnp.float32)
        center = self._over_group(jnp.mean(x32, axis=(1, 2)))
        x32 = x32 - center[:, None, None]
        variance = self._over_group(jnp.mean(jnp.square(x32), axis=(1, 2)))
        gain = self.scale * jax.lax.rsqrt(variance + 1e-6)
        return (x32 * gain[:, None, None] + self.bias).astype(x.dtype)

    def _over_group(self, x_BD: jax.Array) -> jax.Array:
        B, D = x_BD.shape
        groups = x_BD.reshape(B, self.num_groups, -1)
        return jnp.broadcast_to(groups.mean(-1, keepdims=True), groups.shape).reshape(B, D)


class Conv(nnx.Module):
    """Same-size convolution; `padding` overrides what is added around the picture.

    The kernel is kept as the matrix that it is for one place, [row column in, out], so that
    optimizers that treat matrices in a way of their own (Muon) know it as one.
    """

    def __init__(self, size: int, in_dim: int, dim: int, *, rngs: nnx.Rngs, gain: float = 1.0):
        fan_in = size * size * in_dim
        self.size = size
        self.kernel = param(scaled(fan_in, gain), rngs, (fan_in, dim), (None, None))
        self.bias = param(zeros, rngs, (dim,), (None,))

    def __call__(self, x: Float[Array, "B H W D"], *, stride: int = 1, padding="SAME") -> jax.Array:
        kernel = self.kernel.astype(x.dtype).reshape(self.size, self.size, x.shape[-1], -1)
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=layout
        )
        return y + self.bias.astype(x.dtype)
