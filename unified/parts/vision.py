"""Pictures that are understood: patches through a vision encoder and a connector."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from unified.lanes import PatchLane, PatchTokens
from unified.nn.flops import attention, count, per_token
from unified.parts.part import Inputs, Part, Place
from unified.tokenizers.vision import Connector, VisionConfig, VisionEncoder


@dataclasses.dataclass(frozen=True)
class VisionPartConfig:
    """`position_theta`: of the 2-D sinusoids that say where in its picture a patch is."""

    encoder: VisionConfig
    position_theta: float = 10_000.0

    def __post_init__(self):
        if not 0 < self.position_theta < math.inf:
            raise ValueError(f"position_theta={self.position_theta} must be a positive number")

    def check(self, lanes: Sequence[PatchLane]) -> None:
        for lane in lanes:
            if lane.patch != self.encoder.patch:
                raise ValueError(
                    f"lane {lane.name!r} has patches of {lane.patch} pixels, its encoder of "
                    f"{self.encoder.patch}"
                )
            if not self.encoder.fits(lane.max_side, lane.max_side):
                raise ValueError(
                    f"lane {lane.name!r}: pictures of {lane.max_side} pixels exceed the "
                    f"{self.encoder.side} patches a side of its encoder; raise side"
                )


class VisionPart(Part):
    config: ClassVar[type] = VisionPartConfig
    lane: ClassVar[type] = PatchLane

    def __init__(self, cfg: VisionPartConfig, place: Place, *, rngs: nnx.Rngs):
        self.cfg, self.place = cfg, place
        self.encoder = VisionEncoder(cfg.encoder, rngs=rngs)
        widths = cfg.encoder.embed_dim, place.embed_dim
        self.connector = Connector(*widths, cfg.position_theta, rngs=rngs)

    def inputs(self, lane: Any, content: PatchTokens, key: jax.Array | None = None) -> Inputs:
        features = self.encoder(content, self.place.dtype, remat=self.place.remat)
        return Inputs.untimed(self.connector(features, content.grid))

    def flops(self, content: PatchTokens) -> int:
        cfg = self.cfg.encoder
        weights = per_token(self.encoder) + per_token(self.connector)
        seen = int(np.sum(content.last - content.first))  # a patch sees those of its picture
        heads = (cfg.num_layers, cfg.attention.num_heads, cfg.attention.head_dim)
        return count(content.tokens) * weights + attention(*heads, seen)
