"""Text: a table of embeddings, and a head that predicts the next id.

`B` rows, `T` tokens, `m` predictions of a row, `M` of all rows, `D` embed, `V` vocabulary.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from unified.generation.text import generate_text
from unified.heads.language import LanguageHead
from unified.lanes import TextLane, TextTokens
from unified.nn.flops import per_token
from unified.nn.stack import normal, param
from unified.parts.part import Inputs, Part, Place, Step, Sums
from unified.processes import autoregressive
from unified.processes.autoregressive import Sampling
from unified.sequence import Batch, Tokens


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """`logits_chunk`: rows of logits that exist at a time. `tied`: logits are products with the
    embeddings."""

    vocab_size: int
    logits_chunk: int = 4096
    tied: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "logits_chunk"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")


class TextPart(Part):
    config: ClassVar[type] = TextConfig
    lane: ClassVar[type] = TextLane
    main: ClassVar[str] = "nll"

    def __init__(self, cfg: TextConfig, place: Place, *, rngs: nnx.Rngs):
        self.cfg, self.place = cfg, place
        D = place.embed_dim
        self.embedding = param(normal(0.02), rngs, (cfg.vocab_size, D), ("vocab", "embed"))
        self.head = LanguageHead(D, cfg.vocab_size, tied=cfg.tied, rngs=rngs)

    def inputs(self, lane: Any, content: TextTokens, key: jax.Array | None = None) -> Inputs:
        return Inputs.untimed(self.embedding[content.ids].astype(self.place.dtype))

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        return self.head(hidden, self.embedding[...] if self.cfg.tied else None)

    def losses(self, lane: Any, hidden: jax.Array, content: TextTokens, goal: Any) -> Sums:
        """`nll`: nats a token. Logits are computed for the predicting tokens alone."""
        args = (*self._predicting(hidden, content), content.loss_weight.ravel())
        return {"nll": autoregressive.loss(self.logits, *args, chunk=self.cfg.logits_chunk)}

    @classmethod
    def counts(cls, content: TextTokens) -> dict[str, jax.Array]:
        return {"nll": content.loss_weight.sum()}

    def score(self, hidden: Float[Array, "B T D"], content: TextTokens) -> Float[Array, "B"]:
        args = self._predicting(hidden, content)
        scores = autoregressive.score(self.logits, *args, chunk=self.cfg.logits_chunk)
        return (scores.reshape(content.loss_weight.shape) * content.loss_weight).sum(1)

    def flops(self, content: TextTokens) -> int:
        """Logits count where there is a loss."""
        return int((np.asarray(content.loss_weight) > 0).sum()) * per_token(self.head)

    def _predicting(
        self, hidden: Float[Array, "B T D"], content: TextTokens
    ) -> tuple[Float[Array, "M D"], Int[Array, "M"]]:
        """Hidden states of the tokens that predict text, and the ids that follow them."""
        at_loss = jnp.take_along_axis(hidden, content.loss_index[..., None], axis=1)
        return rearrange(at_loss, "B m D -> (B m) D"), content.loss_target.ravel()

    def write(
        self,
        step: Step,
        cache: Any,
        lane: TextLane,
        last: Int[Array, "B"],
        *,
        slot: int,
        room: int,
        stop_ids: tuple[int, ...],
        sampling: Sampling,
        **place: Any,
    ) -> tuple[Int[Array, "B room"], Int[Array, "B"]]:
        """Ids that follow `last`, and their number, appended to a cache that has `room` from `slot`
        on; `place` and the rest as of `generate_text`."""

        def decode(cache: Any, ids: jax.Array, tokens: Tokens, slot: Any) -> tuple[jax.Array, Any]:
            block = Batch({lane.name: lane.bare(tokens, ids=ids)})
            hidden, cache = step(cache, block, {}, slot)
            return self.logits(hidden[lane.name][:, -1]), cache

        options: dict[str, Any] = {"slot": slot, "room": room, "stop_ids": stop_ids}
        return generate_text(decode, cache, last, sampling=sampling, **options, **place)
