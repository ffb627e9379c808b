"""What generation needs of the model: read a context, judge a text, say the next token, predict a
velocity.

`B` rows (requests, then their guidance contexts), `T` tokens, `P` numbers of a latent token.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from unified.backbone import Cache
from unified.lanes import PictureTokens, TextTokens
from unified.processes import autoregressive
from unified.recipes.ar_flow.model import ARFlow
from unified.sequence import Batch, Tokens


def prefill(model: ARFlow, batch: Batch, room: Mapping[str, int]) -> Cache:
    """The keys of a context, all of it clean, with `room[stream]` free slots behind them."""
    x, tokens, time = _read(model, batch)
    keys: Any = model.backbone(x, tokens, time=time, return_keys=True)[1]
    rows = next(iter(x.values())).shape[0]
    slots = {s: x_s.shape[1] + room.get(s, 0) for s, x_s in x.items()}
    cache = Cache.empty(model.cfg.backbone, rows, slots, jnp.dtype(model.cfg.dtype))
    return cache.append(keys, tokens, 0, time)


def score_text(model: ARFlow, batch: Batch) -> jax.Array:
    """Log-probability [B] of the texts of each row that are to be predicted, in nats. All pictures
    are clean."""
    x, tokens, time = _read(model, batch)
    hidden = model.lanes(model.backbone(x, tokens, time=time)[0], batch)
    total = jnp.zeros(len(next(iter(x.values()))))
    for name, lane in batch.lanes.items():
        if isinstance(lane, TextTokens):
            args, chunk = model.predicting(hidden[name], lane), model.cfg.logits_chunk
            scores = autoregressive.score(model.language, *args, chunk=chunk)
            total += (scores.reshape(lane.loss_weight.shape) * lane.loss_weight).sum(1)
    return total


def _read(model: ARFlow, batch: Batch) -> Any:
    """The embeddings of a batch without noise, their tokens and times, by stream."""
    latents, times = {}, {}
    for name, lane in batch.lanes.items():
        if isinstance(lane, PictureTokens):
            latents[name] = model.encode(lane.pixels)
            times[name] = jnp.zeros(lane.target.shape)
    return model.streams(batch, latents, times)


def decode_text(
    model: ARFlow, cache: Cache, ids: jax.Array, tokens: Tokens, slot, *, lane: str = "text"
) -> tuple[jax.Array, Cache]:
    """Appends text tokens `ids` [B T] at `slot` of their stream: logits [B V] of the next one."""
    stream = model.cfg.layout[lane].stream
    new = {stream: tokens}
    read: Any = model.backbone({stream: model.embed_text(ids)}, new, cache=cache, return_keys=True)
    hidden, keys = read
    return model.language(hidden[stream][:, -1]), cache.append(keys, new, slot)


def velocity(
    model: ARFlow, cache: Cache, block: Batch, latents: jax.Array, time: jax.Array
) -> jax.Array:
    """Velocity [B T P] of one noised picture a row at flow time [] or [B], given its context.

    `block` is the picture as the packer lays it out: its marks in the text lane, its tokens in one
    latent lane. Nothing is added to the cache.
    """
    name = next(n for n, lane in block.lanes.items() if isinstance(lane, PictureTokens))
    times = {name: jnp.broadcast_to(time, latents.shape[:1])[:, None]}
    x, tokens, token_time = model.streams(block, {name: latents[:, None]}, times)
    hidden, _ = model.backbone(x, tokens, time=token_time, cache=cache)
    return model.velocity(model.lanes(hidden, block)[name], 1)[:, 0]
