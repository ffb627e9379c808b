"""Classifier-free guidance with any number of conditions.

The velocity is pushed away from what the model would do without the text, then from what it would
do without the pictures it was given, and so on (Ho & Salimans 2022; two conditions as in
InstructPix2Pix), and its norm is kept from growing (BAGEL). Each condition that is guided costs one
more context: one more row of the batch per sample.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Renorm = Literal["none", "global", "channel", "text_channel"]
Scale = float | Float[Array | np.ndarray, "*B"]
RENORMS = ("none", "global", "channel", "text_channel")


CONDITIONAL = "conditional"  # the context of which nothing is dropped


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("scales", "interval", "renorm_min"),
    meta_fields=("drops", "renorm"),
)
@dataclasses.dataclass(frozen=True)
class Guidance:
    """Terms, one after another, and renormalisation. A pytree: new numbers do not compile anew.

    `drops`: what the context of each term lacks, "text" or "images". `scales`: of each, a number,
        or an array `[B]` with one for each sample. 1 leaves the velocity as it is, more pushes
        further. (BAGEL has no image guidance without text guidance; here each works alone.)
    `interval`: guidance acts at times lo < t <= hi; None: at all, and no other step is compiled.
    `renorm`: the guided velocity is scaled by clip(|conditional| / |guided|, renorm_min, 1), with
        norms over a whole sample (`global`; BAGEL takes them over the whole batch, which makes a
        sample depend on its neighbours) or over each token (`channel`); `text_channel` does so
        per token after the text guidance and before what follows.
    """

    drops: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = ()
    interval: tuple[float, float] | None = (0.4, 1.0)
    renorm: Renorm = "global"
    renorm_min: float = 0.0

    def __post_init__(self):
        if self.renorm not in RENORMS:
            raise ValueError(f"renorm must be one of {', '.join(RENORMS)}, got {self.renorm!r}")

    @classmethod
    def of(cls, terms: Mapping[str, Scale], **options: Any) -> "Guidance":
        """The guidance of scales by what is dropped."""
        return cls(tuple(terms), tuple(terms.values()), **options)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The contexts needed, in the order of their rows in a batch."""
        return (CONDITIONAL, *self.drops)

    def is_active(self, time: float | Float[Array, ""]) -> bool | Bool[Array, ""]:
        low, high = self.interval or (0.0, 1.0)
        return (low < time) & (time <= high)


def combine(
    velocities: Mapping[str, Float[Array, "B *tokens D"]], guidance: Guidance
) -> Float[Array, "B *tokens D"]:
    """The guided velocity, float32, from that of each context."""
    conditional = velocities[CONDITIONAL].astype(jnp.float32)
    tokens, sample = -1, tuple(range(1, conditional.ndim))
    guided = conditional
    for drop, scale in zip(guidance.drops, guidance.scales, strict=True):
        guided = _push(guided, velocities[drop].astype(jnp.float32), scale)
        if guidance.renorm == "text_channel" and drop == "text":
            guided = _renorm(guided, conditional, tokens, guidance.renorm_min)
    if guidance.renorm in ("global", "channel"):
        axes = sample if guidance.renorm == "global" else tokens
        guided = _renorm(guided, conditional, axes, guidance.renorm_min)
    return guided


def _push(velocity: jax.Array, without: jax.Array, scale: Scale) -> jax.Array:
    scale = jnp.asarray(scale, jnp.float32)
    scale = scale.reshape(scale.shape + (1,) * (velocity.ndim - 1) * scale.ndim)
    return jnp.where(scale == 1, velocity, without + scale * (velocity - without))


def _renorm(guided: jax.Array, reference: jax.Array, axes: Any, smallest: Any) -> jax.Array:
    norm = lambda x: jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
    return guided * jnp.clip(norm(reference) / (norm(guided) + 1e-8), smallest, 1.0)
