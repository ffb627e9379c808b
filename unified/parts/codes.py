"""Pictures as codes of a quantizer, drawn one place after another.

What a picture is read by is its codes, each at its place. A target is read one code late: the token
of a place carries the code of the place before (the first a beginning of its own), and its hidden
state predicts the code that belongs there. So lanes of codes are causal, and a target, which lacks
its last code, is followed by a copy to be read, as the target of any part.

`B` rows, `N` pictures of a row, `T` codes of a picture, `K` codes there are, `D` embed.
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
from jaxtyping import Array, Bool, Float, Int, UInt8

from unified.generation.codes import generate_codes
from unified.generation.drawing import Drawing
from unified.generation.guidance import Guidance
from unified.heads.language import LanguageHead
from unified.lanes import PictureLane, PictureTokens
from unified.nn.flops import per_token
from unified.nn.linear import Linear
from unified.nn.position import grid, sincos_2d
from unified.nn.stack import normal, param
from unified.parts.part import Inputs, Place, Step, Sums
from unified.parts.picture import PicturePart
from unified.processes import autoregressive
from unified.processes.autoregressive import Sampling
from unified.sequence import Batch
from unified.tokenizers.pixels import to_bytes, to_float
from unified.tokenizers.quantizer import Quantizer, QuantizerConfig


@dataclasses.dataclass(frozen=True)
class CodesConfig:
    """`head_dim`: width of the hidden layer of the head (Janus has one); 0: the head is linear.
    `logits_chunk`: rows of logits that exist at a time. `position_theta`: of the 2-D sinusoids that
    say where in its picture a code is."""

    quantizer: QuantizerConfig
    head_dim: int = 0
    logits_chunk: int = 4096
    position_theta: float = 10_000.0

    def __post_init__(self):
        if self.head_dim < 0:
            raise ValueError(f"head_dim={self.head_dim} must be 0 or more")
        if self.logits_chunk < 1:
            raise ValueError(f"logits_chunk={self.logits_chunk} must be at least 1")
        if not 0 < self.position_theta < math.inf:
            raise ValueError(f"position_theta={self.position_theta} must be a positive number")

    def check(self, lanes: Sequence[PictureLane]) -> None:
        for lane in lanes:
            if lane.stride != self.quantizer.stride:
                raise ValueError(
                    f"lane {lane.name!r}: stride {lane.stride} is not that of the quantizer, "
                    f"{self.quantizer.stride} pixels"
                )
            if lane.sees != "causal":
                raise ValueError(
                    f"lane {lane.name!r}: sees={lane.sees!r}, but codes are drawn one after "
                    "another: make it 'causal'"
                )


class CodesPart(PicturePart):
    config: ClassVar[type] = CodesConfig
    main: ClassVar[str] = "nll"
    appends: ClassVar[bool] = True

    def __init__(self, cfg: CodesConfig, place: Place, *, rngs: nnx.Rngs):
        self.cfg, self.place = cfg, place
        K, D = cfg.quantizer.codebook_size, place.embed_dim
        self.quantizer = Quantizer(cfg.quantizer, rngs=rngs)
        self.embedding = param(normal(1.0), rngs, (K, D), ("vocab", "embed"))
        self.begin = param(normal(1.0), rngs, (D,), ("embed",))
        self.head = CodesHead(D, cfg.head_dim, K, rngs=rngs)

    # Training.

    def inputs(
        self, lane: PictureLane, content: PictureTokens, key: jax.Array | None = None
    ) -> Inputs:
        """The goal is the codes `[B N T]`."""
        codes = self.encode(content.pixels)
        late = jnp.pad(codes[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=-1)
        read = jnp.where(content.target[..., None], late, codes)
        x = self.embed(read, self.places(lane))
        return dataclasses.replace(Inputs.untimed(rearrange(x, "B N T D -> B (N T) D")), goal=codes)

    def embed(self, codes: Int[Array, "*B"], places: Float[Array, "*P D"]) -> Float[Array, "*B D"]:
        """Codes, -1 the beginning, each at a place."""
        table, begin = jnp.asarray(self.embedding), jnp.asarray(self.begin)
        x = jnp.where((codes < 0)[..., None], begin, table[jnp.maximum(codes, 0)])
        return (x + places).astype(self.place.dtype)

    def places(self, lane: PictureLane) -> Float[Array, "T D"]:
        where = grid(lane.rows, lane.columns)
        return sincos_2d(where, self.place.embed_dim, self.cfg.position_theta)

    def losses(self, lane: Any, hidden: jax.Array, content: PictureTokens, goal: Any) -> Sums:
        """`nll`: nats a code, of the targets."""
        args = (rearrange(hidden, "B n D -> (B n) D"), goal.ravel(), learnt(content, goal).ravel())
        return {"nll": autoregressive.loss(self.head, *args, chunk=self.cfg.logits_chunk)}

    def score(self, hidden: Float[Array, "B n D"], content: PictureTokens) -> Float[Array, "B"]:
        codes = self.encode(content.pixels)
        flat = rearrange(hidden, "B n D -> (B n) D")
        chunk = self.cfg.logits_chunk
        scores = autoregressive.score(self.head, flat, codes.ravel(), chunk=chunk)
        return jnp.where(learnt(content, codes), scores.reshape(codes.shape), 0).sum((1, 2))

    def flops(self, content: PictureTokens) -> int:
        """Logits count where there is a target; the frozen quantizer counts nothing."""
        each = content.tokens.clock.shape[-1] // content.target.shape[-1]
        return int(np.sum(content.target & content.valid)) * each * per_token(self.head)

    # Pictures and codes.

    def encode(self, pixels: UInt8[Array, "B N H W 3"]) -> Int[Array, "B N T"]:
        x = to_float(rearrange(pixels, "B N H W C -> (B N) H W C"))
        return rearrange(self.quantizer.tokens(x), "(B N) h w -> B N (h w)", N=pixels.shape[1])

    def decode(self, codes: Int[Array, "B T"], lane: PictureLane) -> Float[Array, "B H W 3"]:
        """Pictures, in [-1, 1] or beyond."""
        return self.quantizer.pixels(rearrange(codes, "B (h w) -> B h w", h=lane.rows))

    @staticmethod
    def plan(how: Drawing) -> Sampling:
        return how.sampling

    def draw(
        self,
        step: Step,
        cache: Any,
        lane: PictureLane,
        block: Batch,
        slots: Mapping[str, int],
        seeds: Int[Array, "B"],
        plan: Sampling,
        guidance: Guidance,
    ) -> tuple[UInt8[Array, "B H W 3"], dict[str, jax.Array]]:
        """A picture for each of the first rows of the contexts, at the place of the target picture
        in `block`, and what must be finite."""
        codes, scores = self.predict(step, cache, lane, block, slots, seeds, plan, guidance)
        shown = self.decode(codes, lane)
        return to_bytes(shown), {"log-probabilities": scores, "pixels": shown}

    def predict(
        self,
        step: Step,
        cache: Any,
        lane: PictureLane,
        block: Batch,
        slots: Mapping[str, int],
        seeds: Int[Array, "B"],
        sampling: Sampling,
        guidance: Guidance,
    ) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
        """The codes of such pictures, and the log-probability of each as of `generate_codes`."""
        content, places = block.lanes[lane.name], self.places(lane)
        for name in block.lanes.keys() - {lane.name}:  # the end mark comes after all codes: unseen
            _, cache = step(cache, Batch({name: block.lanes[name]}), {}, slots[name])

        def decode(cache: Any, before: jax.Array, place: jax.Array) -> tuple[jax.Array, Any]:
            at = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, place, 1, axis)
            one = lane.bare(jax.tree.map(lambda x: at(x, 1), content.tokens))
            given = {lane.name: Inputs.untimed(self.embed(before[:, None], at(places, 0)))}
            slot = slots[lane.name] + place
            hidden, cache = step(cache, Batch({lane.name: one}), given, slot)
            return self.head(hidden[lane.name][:, 0]), cache

        how: dict[str, Any] = {"places": lane.unit, "sampling": sampling, "guidance": guidance}
        return generate_codes(decode, cache, seeds, **how)


def learnt(content: PictureTokens, codes: Int[Array, "B N T"]) -> Bool[Array, "B N T"]:
    """Which codes are predicted."""
    return jnp.broadcast_to((content.target & content.valid)[..., None], codes.shape)


class CodesHead(nnx.Module):
    """Logits over the codes, float32, by one linear map, or two with a GELU between them."""

    def __init__(self, embed_dim: int, hidden_dim: int, num_codes: int, *, rngs: nnx.Rngs):
        sizes = (embed_dim, hidden_dim, ("embed", "mlp"))
        self.hidden = Linear(*sizes, rngs=rngs) if hidden_dim else None
        self.out = LanguageHead(hidden_dim or embed_dim, num_codes, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B K"]:
        return self.out(x if self.hidden is None else jax.nn.gelu(self.hidden(x)))
