"""What all parts are: what the model does with the content of a view, on the device.

A part embeds what its lanes hold, and learns from the hidden states that come back. One that
predicts also generates: `write` of `parts/text.py`, or `plan` (numbers of how to draw, on the host)
and `draw`, with `reconstruct`, of `parts/flow.py`. It knows nothing of the others.

`B` rows, `n` tokens, `D` embed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.backbone.cache import UNTIMED
from unified.sequence import Tokens, struct

Sums = Mapping[str, tuple[jax.Array, jax.Array]]  # (sum, count) by term
# step(cache, batch, inputs by lane, slot to append at or None) -> (hidden by lane, cache)
Step = Callable[..., tuple[Mapping[str, jax.Array], Any]]


@struct
class Inputs:
    """Tokens of a lane as the backbone reads them: embeddings `[B n D]`, and the flow time of each
    `[B n]`, `UNTIMED` where it has none. `goal`: whatever the losses need to know."""

    x: Any
    time: Any
    goal: Any = None

    @classmethod
    def untimed(cls, x: Float[Array, "B n D"]) -> "Inputs":
        return cls(x, jnp.full(x.shape[:2], UNTIMED, jnp.float32))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a part is in the model: the lanes that it serves, the width of their streams, and how
    it computes (`dtype` of activations; `remat` as of `nn.stack.scan`)."""

    lanes: tuple[Any, ...]
    embed_dim: int
    dtype: str = "float32"
    remat: str = "nothing_saveable"


class Part(nnx.Module):
    """`config`: the dataclass of its fields, whose `check(lanes)`, if it has one, raises ValueError
    for lanes that it cannot serve. `main`: the term of its losses that is an objective, if any.
    `appends`: whether `draw` adds what it draws to the cache, at the slots that it is given."""

    config: ClassVar[type]
    lane: ClassVar[type]  # of the lanes that it serves
    main: ClassVar[str] = ""
    appends: ClassVar[bool] = False

    def __init__(self, cfg: Any, place: Place, *, rngs: nnx.Rngs):
        raise NotImplementedError(type(self).__name__)

    def inputs(self, lane: Any, content: Any, key: jax.Array | None = None) -> Inputs:
        """What the backbone reads of a lane; without a key, all of it as context."""
        raise NotImplementedError(type(self).__name__)

    def losses(self, lane: Any, hidden: Float[Array, "B n D"], content: Any, goal: Any) -> Sums:
        """Sums and counts by term, from the hidden states of the lane."""
        return {}

    @classmethod
    def counts(cls, content: Any) -> Mapping[str, jax.Array]:
        """The count of the main term, from the batch alone."""
        return {}

    def score(self, hidden: Float[Array, "B n D"], content: Any) -> Float[Array, "B"] | None:
        """Log-probability of the targets of each row, in nats; None where it has none."""
        return None

    def flops(self, content: Any) -> int:
        """Operations of a forward pass outside the backbone, for the tokens of host arrays."""
        return 0

    @classmethod
    def held_out(cls, content: Any, seen: int) -> tuple[Any, int]:
        """Content of held-out data with all that chance decides in training fixed, and how many
        targets have been `seen`, this content included."""
        return content, seen


def positions(tokens: Tokens) -> int:
    """Slots of a lane."""
    return tokens.clock.shape[-1]


def add(total: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs of (sum, count), or counts, by name, added up."""
    both = {**total}
    for name, pair in more.items():
        both[name] = jax.tree.map(jnp.add, both[name], pair) if name in both else pair
    return both


def one_width(widths: Sequence[int], view: str) -> int:
    """The width of the streams that a view is in. Raises ValueError where they differ."""
    if len(set(widths)) != 1:
        raise ValueError(
            f"the lanes of view {view!r} are in streams of widths {sorted(set(widths))}: "
            "config.layout needs at least one lane, and all in streams of equal embed_dim"
        )
    return widths[0]
