"""Classifier-free guidance with two conditions, text and pictures.

The velocity is pushed away from what the model would do without the text, and without the
pictures it was given (Ho & Salimans 2022; two conditions as in InstructPix2Pix), and its norm is
kept from growing (BAGEL). Each condition that is guided costs one more context: one more row of
the batch per sample.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Renorm = Literal["none", "global", "channel", "text_channel"]
Scale = float | Float[Array | np.ndarray, "B"] | None
RENORMS = ("none", "global", "channel", "text_channel")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("text_scale", "image_scale", "interval", "renorm_min"),
    meta_fields=("renorm",),
)
@dataclasses.dataclass(frozen=True)
class Guidance:
    """Scales and renormalisation. A pytree: new numbers do not compile anew.

    `text_scale`, `image_scale`: a number, or an array `[B]` with one for each sample. 1 leaves the
        conditional velocity as it is, more pushes further; None says that there is no such
        context. (BAGEL has no image guidance without text guidance; here each works alone.)
    `interval`: guidance acts at times lo < t <= hi; None: at all, and no other step is compiled.
    `renorm`: the guided velocity is scaled by clip(|conditional| / |guided|, renorm_min, 1), with
        norms over a whole sample (`global`; BAGEL takes them over the whole batch, which makes a
        sample depend on its neighbours) or over each token (`channel`); `text_channel` does so
        per token after the text guidance and before the image guidance.
    """

    text_scale: Scale = 4.0
    image_scale: Scale = None
    interval: tuple[float, float] | None = (0.4, 1.0)
    renorm: Renorm = "global"
    renorm_min: float = 0.0

    def __post_init__(self):
        if self.renorm not in RENORMS:
            raise ValueError(f"renorm must be one of {', '.join(RENORMS)}, got {self.renorm!r}")

    @property
    def contexts(self) -> tuple[str, ...]:
        """The contexts needed, in the order of their rows in a batch."""
        without_text = () if self.text_scale is None else ("without_text",)
        without_images = () if self.image_scale is None else ("without_images",)
        return ("conditional", *without_text, *without_images)

    def is_active(self, time: Float[Array, ""]) -> Bool[Array, ""]:
        low, high = self.interval or (0.0, 1.0)
        return (low < time) & (time <= high)


def combine(
    conditional: Float[Array, "B *tokens D"],
    without_text: Float[Array, "B *tokens D"] | None,
    without_images: Float[Array, "B *tokens D"] | None,
    guidance: Guidance,
) -> Float[Array, "B *tokens D"]:
    """The guided velocity, float32. A condition without a context (None) is not guided."""
    conditional = conditional.astype(jnp.float32)
    tokens, sample = -1, tuple(range(1, conditional.ndim))
    guided = _push(conditional, without_text, guidance.text_scale)
    if guidance.renorm == "text_channel":
        guided = _renorm(guided, conditional, tokens, guidance.renorm_min)
    guided = _push(guided, without_images, guidance.image_scale)
    if guidance.renorm in ("global", "channel"):
        axes = sample if guidance.renorm == "global" else tokens
        guided = _renorm(guided, conditional, axes, guidance.renorm_min)
    return guided


def _push(velocity: jax.Array, without: jax.Array | None, scale: Any) -> jax.Array:
    if without is None or scale is None:
        return velocity
    without = without.astype(jnp.float32)
    scale = jnp.asarray(scale, jnp.float32)
    scale = scale.reshape(scale.shape + (1,) * (velocity.ndim - 1) * scale.ndim)
    return jnp.where(scale == 1, velocity, without + scale * (velocity - without))


def _renorm(guided: jax.Array, reference: jax.Array, axes: Any, smallest: Any) -> jax.Array:
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
    return guided * jnp.clip(norm(reference) / (norm(guided) + 1e-8), smallest, 1.0)
