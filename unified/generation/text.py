"""Text, one token at a time, inside one compiled loop.

All rows of a batch append to the cache at the same slot. Rows may have contexts of different
lengths (their own clocks and positions) and may end early: a finished row appends tokens with
empty intervals, which nothing sees, so each row is as if it were alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from unified.processes.autoregressive import GREEDY, Sampling, sample
from unified.sequence import OPEN, Tokens

NOT_FINITE = -1

# (state, ids [B 1], tokens [B 1], slot []) -> (logits [B V] of the next id, state)
DecodeStep = Callable[[Any, jax.Array, Tokens, jax.Array], tuple[jax.Array, Any]]


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the strings `stops`.

    They are found in the text and not while ids are drawn: one may begin or end inside a token.
    """
    return text[: min((text.find(stop) for stop in stops if stop in text), default=None)]


def generate_text(
    step: DecodeStep,
    state: Any,
    first: Int[Array, "B"],
    *,
    clock: Int[Array, "B"],
    position: Int[Array, "B"],
    slot: int | jax.Array,
    keys: Key[Array, "B"],
    max_tokens: int | jax.Array,
    room: int | None = None,
    stop_ids: Sequence[int],
    sampling: Sampling = GREEDY,
    pad_id: int = 0,
) -> tuple[Int[Array, "B room"], Int[Array, "B"]]:
    """Generated `(ids, lengths)`, without `first` and without the stop id; `pad_id` after the end.
    A row whose logits are not finite ends there, with the id `NOT_FINITE` after its end.

    `first` is the id that opens the text (the begin mark), `clock` and `position` are its place
    after the context, `slot` the free slot of the cache where all rows put it. `max_tokens` steps
    at most; the loop ends when every row has drawn one of `stop_ids`. `room` (default: as many) is
    the shape of the ids, where `max_tokens` is known to the program only when it runs.
    """
    stops = jnp.asarray(stop_ids, jnp.int32)

    def go_on(carry):
        n, _, _, lengths, _ = carry
        return (n < max_tokens) & jnp.any(lengths == n)

    def extend(carry):
        n, last, ids, lengths, state = carry
        going = lengths == n
        at = jnp.where(going, clock + n, 0)
        tokens = Tokens(
            clock=(clock + n)[:, None],
            start=at[:, None],
            stop=jnp.where(going, OPEN, 0)[:, None],
            position=(position + n)[:, None],
        )
        logits, state = step(state, last[:, None], tokens, slot + n)
        drawn = sample(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, n), sampling)
        failed = going & ~jnp.isfinite(logits).all(-1)
        going &= ~failed & ~jnp.isin(drawn, stops)
        last = jnp.where(going, drawn, jnp.where(failed, NOT_FINITE, pad_id)).astype(jnp.int32)
        return n + 1, last, ids.at[:, n].set(last), lengths + going, state

    (B,) = first.shape
    ids = jnp.full((B, max_tokens if room is None else room), pad_id, jnp.int32)
    start = (jnp.int32(0), first.astype(jnp.int32), ids, jnp.zeros(B, jnp.int32), state)
    _, _, ids, lengths, _ = jax.lax.while_loop(go_on, extend, start)
    return ids, lengths
