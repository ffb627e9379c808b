"""Keys and values of tokens already read, so that what follows them need not read them again.

A cached key keeps its interval, so it is visible to later queries exactly as it would be in one
pass; a row that is shorter than its neighbours is filled up with keys whose interval is empty.

`B` rows, `S` slots of a stream, `T` new tokens, `L` layers of a run, `K` key heads, `H` head dim.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from unified.backbone.config import BackboneConfig
from unified.sequence import Tokens, struct

KeysValues = tuple[Float[Array, "L B S K H"], Float[Array, "L B S K H"]]
UNTIMED = -1.0  # the time of a token that carries none


class Span(NamedTuple):
    """Who sees the keys of a stream: intervals and flow times, all `[B S]`."""

    start: Int[Array, "B S"]
    stop: Int[Array, "B S"]
    time: Float[Array, "B S"]

    @classmethod
    def of(cls, tokens: Tokens, time: Float[Array, "B S"] | None = None) -> "Span":
        untimed = jnp.full(tokens.start.shape, UNTIMED, jnp.float32)
        return cls(tokens.start, tokens.stop, untimed if time is None else time)

    def within(self, window: Float[Array, "2"] | None):
        """Start and stop in a layer that runs in the flow times (lo, hi] only."""
        if window is None:
            return self.start, self.stop
        return self.start, jnp.where(is_active(self.time, window), self.stop, self.start)


def is_active(time: Float[Array, "B S"], window: Float[Array, "2"]):
    """Whether a token runs a layer: it carries no time (< 0), or one in (lo, hi]."""
    return (time < 0) | ((window[0] < time) & (time <= window[1]))


@struct
class Cache:
    """Keys per run of layers and stream, `[L B S K H]` each, and their spans per stream."""

    keys: tuple[Mapping[str, KeysValues], ...]
    spans: Mapping[str, Span]

    @classmethod
    def empty(
        cls, cfg: BackboneConfig, rows: int, slots: Mapping[str, int], dtype=jnp.float32
    ) -> "Cache":
        """Room for `slots[stream]` tokens a row, which nobody sees yet."""
        heads = (cfg.num_kv_heads, cfg.head_dim)
        empty = lambda run, n: jnp.zeros((run.hi - run.lo, rows, n, *heads), dtype)
        keys = tuple({s: (empty(run, n),) * 2 for s, n in slots.items()} for run in cfg.runs)
        none = lambda n: jnp.zeros((rows, n), jnp.int32)
        untimed = lambda n: jnp.full((rows, n), UNTIMED, jnp.float32)
        return cls(keys, {s: Span(none(n), none(n), untimed(n)) for s, n in slots.items()})

    def append(
        self,
        keys: tuple[Mapping[str, KeysValues], ...],
        tokens: Mapping[str, Tokens],
        at: int | Int[Array, ""] | Mapping[str, int | Int[Array, ""]],
        time: Mapping[str, Float[Array, "B T"]] | None = None,
    ) -> "Cache":
        """The cache with new keys in the slots from `at`, an offset for all rows (per stream).

        Arguments as given to and returned by the backbone. Raises ValueError if a static offset
        leaves too little room; an offset that is traced must be checked by the caller.
        """
        at = at if isinstance(at, Mapping) else dict.fromkeys(keys[0], at)
        spans = {s: Span.of(tokens[s], (time or {}).get(s)) for s in keys[0]}
        for s, span in spans.items():
            room, new = self.spans[s].start.shape[1], span.start.shape[1]
            if isinstance(at[s], int) and at[s] + new > room:
                raise ValueError(f"stream {s!r}: {new} tokens at {at[s]} exceed {room} slots")

        def write(old, new, s: str, axis: int):
            put = jax.lax.dynamic_update_slice_in_dim
            return jax.tree.map(lambda o, n: put(o, n.astype(o.dtype), at[s], axis), old, new)

        runs = tuple(
            {**old, **{s: write(old[s], new[s], s, 2) for s in new}}
            for old, new in zip(self.keys, keys, strict=True)
        )
        new_spans = {s: write(self.spans[s], span, s, 1) for s, span in spans.items()}
        return Cache(runs, {**self.spans, **new_spans})

    def first(self, rows: int) -> "Cache":
        """The cache of the first `rows` rows of the batch."""
        keys = jax.tree.map(lambda x: x[:, :rows], self.keys)
        return Cache(keys, jax.tree.map(lambda x: x[:rows], self.spans))
