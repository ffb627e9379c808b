"""Pictures as latents of an autoencoder, drawn by rectified flow.

A latent token is a patch of noised or clean latents, its place and its flow time.

`B` rows, `N` pictures of a row, `T` tokens of a picture, `P` numbers of a token, `D` embed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from unified.generation.drawing import Drawing
from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.heads.flow import FlowHead
from unified.heads.timestep import TimestepEmbedder
from unified.lanes import PictureLane, PictureTokens
from unified.nn.flops import count, per_token
from unified.nn.position import grid, sincos_2d
from unified.nn.stack import param, scaled
from unified.parts.part import Inputs, Place, Step, Sums
from unified.parts.picture import PicturePart
from unified.processes import rectified_flow
from unified.sequence import Array as AnyArray
from unified.sequence import Batch, struct
from unified.tokenizers.autoencoder import Autoencoder, AutoencoderConfig
from unified.tokenizers.pixels import to_bytes, to_float


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """`timestep_shift`: moves the times of training towards noise. `sample_latents`: learn samples
    of the autoencoder's posterior (as BAGEL does), not its mean. `position_theta`: of the 2-D
    sinusoids that say where in its picture a token is."""

    autoencoder: AutoencoderConfig
    timestep_shift: float = 1.0
    sample_latents: bool = False
    position_theta: float = 10_000.0

    def __post_init__(self):
        for name in ("timestep_shift", "position_theta"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must be a positive number")

    def check(self, lanes: Sequence[PictureLane]) -> None:
        for lane in lanes:
            if lane.stride % self.autoencoder.stride:
                raise ValueError(
                    f"lane {lane.name!r}: stride {lane.stride} is not a multiple of the "
                    f"autoencoder's {self.autoencoder.stride} pixels"
                )
        if len(strides := {lane.stride for lane in lanes}) != 1:
            raise ValueError(f"lanes of latents need one stride, found {sorted(strides)}")


@struct
class TimedPictures(PictureTokens):
    """Held-out pictures bring the flow time that they are measured at."""

    times: AnyArray  # float32 [B N], the flow time of targets, 0 elsewhere


class FlowPart(PicturePart):
    config: ClassVar[type] = FlowConfig
    main: ClassVar[str] = "flow"

    def __init__(self, cfg: FlowConfig, place: Place, *, rngs: nnx.Rngs):
        self.cfg, self.place = cfg, place
        self.patch = place.lanes[0].stride // cfg.autoencoder.stride  # latent places of a side
        self.latent_dim = self.patch**2 * cfg.autoencoder.latent_channels
        P, D = self.latent_dim, place.embed_dim
        self.autoencoder = Autoencoder(cfg.autoencoder, rngs=rngs)
        self.latent_in = param(scaled(P), rngs, (P, D), (None, "embed"))
        self.timestep = TimestepEmbedder(D, rngs=rngs)
        self.head = FlowHead(D, P, rngs=rngs)

    # Training.

    def inputs(
        self, lane: PictureLane, content: PictureTokens, key: jax.Array | None = None
    ) -> Inputs:
        """Targets are noised to a time that is drawn, or that held-out pictures bring; the goal is
        (target velocities `[B N T P]`, times `[B N]`)."""
        if key is None:
            times = jnp.zeros(content.target.shape)
            return self.noised(lane, self.encode(content.pixels), times)
        keys = jax.random.split(key, 3)
        sampling = keys[0] if self.cfg.sample_latents else None
        clean = jax.lax.stop_gradient(self.encode(content.pixels, sampling))
        if isinstance(content, TimedPictures):
            drawn = content.times
        else:
            drawn = rectified_flow.times(keys[1], content.target.shape, self.cfg.timestep_shift)
        times = jnp.where(content.target, drawn, 0.0)
        latents, goal = rectified_flow.corrupt(keys[2], clean, times)
        return dataclasses.replace(self.noised(lane, latents, times), goal=(goal, times))

    def noised(
        self, lane: PictureLane, latents: Float[Array, "B N T P"], time: Float[Array, "B N"]
    ) -> Inputs:
        """Embeds latents that are noised to the flow `time` of their picture (0: clean)."""
        x = latents.astype(self.place.dtype) @ self.latent_in.astype(self.place.dtype)
        where = grid(lane.rows, lane.columns)
        x = x + sincos_2d(where, x.shape[-1], self.cfg.position_theta).astype(x.dtype)
        x = x + self.timestep(time).astype(x.dtype)[:, :, None]
        return Inputs(rearrange(x, "B N T D -> B (N T) D"), jnp.repeat(time, lane.unit, axis=1))

    def losses(self, lane: Any, hidden: jax.Array, content: PictureTokens, goal: Any) -> Sums:
        """`flow`: squared error of the velocity a token, mean over its numbers, of the targets; and
        `flow/t<lo>-<hi>`, the same by flow time."""
        want, times = goal
        args = (self.velocity(hidden, times.shape[1]), want, content.target & content.valid)
        by_time = rectified_flow.loss_by_time(*args, times)
        return {"flow": rectified_flow.loss(*args)} | {f"flow/{t}": v for t, v in by_time.items()}

    def flops(self, content: PictureTokens) -> int:
        """Velocities count where there is a target; the frozen autoencoder counts nothing."""
        valid, tokens = int(np.sum(content.valid)), count(content.tokens)
        targets = int(np.sum(content.target & content.valid)) * (tokens // max(valid, 1))
        times = valid * per_token(self.timestep)
        return tokens * 2 * self.latent_in.size + targets * per_token(self.head) + times

    @classmethod
    def held_out(cls, content: PictureTokens, seen: int) -> tuple[TimedPictures, int]:
        """Training draws times where learning pays, so few of them are small: by a shift of 3, 1.4%
        lie below 0.25. A loss by time needs pictures at all of them, the same at every evaluation:
        they are spread evenly from the first picture on."""
        targets = content.target & content.valid
        times, new = np.zeros(targets.shape, np.float32), int(targets.sum())
        times[targets] = rectified_flow.spread(seen, new)
        return TimedPictures(**vars(content), times=times), seen + new

    # Pictures and latents.

    def velocity(self, hidden: Float[Array, "B n D"], num: int) -> Float[Array, "B N T P"]:
        """Velocities of `num` pictures a row, float32."""
        v = self.head(hidden).astype(jnp.float32)
        return rearrange(v, "B (N T) P -> B N T P", N=num)

    def encode(
        self, pixels: UInt8[Array, "B N H W 3"], key: jax.Array | None = None
    ) -> Float[Array, "B N T P"]:
        """Normalised latents as tokens: a sample of the posterior, or its mean without a key."""
        x = to_float(rearrange(pixels, "B N H W C -> (B N) H W C"))
        z = self.autoencoder.latents(x, key)
        spell = "(B N) (h p) (w q) C -> B N (h w) (p q C)"
        return rearrange(z, spell, N=pixels.shape[1], p=self.patch, q=self.patch)

    def decode(self, latents: Float[Array, "B T P"], lane: PictureLane) -> Float[Array, "B H W 3"]:
        """Pictures of clean latent tokens, in [-1, 1] or beyond."""
        p = self.patch
        z = rearrange(latents, "B (h w) (p q C) -> B (h p) (w q) C", h=lane.rows, p=p, q=p)
        return self.autoencoder.pixels(z)

    @staticmethod
    def plan(how: Drawing) -> Float[np.ndarray, "steps"]:
        """The flow times of the steps."""
        return rectified_flow.schedule(how.steps, how.shift)

    def draw(
        self,
        step: Step,
        cache: Any,
        lane: PictureLane,
        block: Batch,
        slots: Mapping[str, int],
        seeds: Int[Array, "B"],
        plan: Float[Array, "steps"],
        guidance: Guidance,
    ) -> tuple[UInt8[Array, "B H W 3"], dict[str, jax.Array]]:
        """A picture for each of the first rows of the contexts, at the place of the target picture
        in `block`, and what must be finite."""

        def velocity(x: jax.Array, time: jax.Array) -> jax.Array:
            rows = jax.tree.map(lambda leaf: leaf[: len(x)], block)
            at = jnp.broadcast_to(time, (len(x), 1))
            given = {lane.name: self.noised(lane, x[:, None], at)}
            hidden, _ = step(cache.first(len(x)), rows, given, None)
            return self.velocity(hidden[lane.name], 1)[:, 0]

        noise = draw_noise(seeds, (lane.unit, self.latent_dim))
        latents = generate_picture(velocity, noise, plan, guidance)
        shown = self.decode(latents, lane)
        return to_bytes(shown), {"latents": latents, "pixels": shown}
