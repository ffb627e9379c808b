"""Interval attention on TPUs: arguments into the shape of the kernels, and results out of it.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.interval_attention import tpu_backward, tpu_forward
from pallas_kernels.interval_attention.plan import Plan, make_plan
from pallas_kernels.interval_attention.tpu_tiles import (
    HEADS,
    HIDDEN,
    LANES,
    LOG2E,
    Tiles,
    Walk,
    bounds,
)
from pallas_kernels.interval_attention.visits import Visits

BLOCK = 512
MIN_QUERIES = 16  # fewer, as in decoding, would leave most of a block empty
DTYPES = {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)}
WORDS = 1 << 17  # that one call's plan may have: half of the scalar memory


def default_plan(clock: Array, start: Array, stop: Array) -> Plan:
    """The plan with the blocks that are best on TPUs."""
    fit = lambda length: min(BLOCK, -(-length // LANES) * LANES)
    block_q, block_k = fit(clock.shape[1]), fit(start.shape[1])
    sizes = {"block_q": block_q, "block_k": block_k, "span": tpu_backward.SPAN // block_k}
    return make_plan(clock, start, stop, **sizes)


def is_best(q, k, v, plan: Plan | None, scale: float) -> bool:
    """Whether a caller who named no implementation gets these kernels on a TPU."""
    return q.shape[1] >= MIN_QUERIES and _obstacle(q, k, v, plan, False) is None


def _obstacle(q, k, v, plan: Plan | None, interpret: bool) -> str | None:
    """Why the kernels cannot do this call, or None."""
    if plan is not None and (plan.block_q % LANES or plan.block_k % LANES):
        sizes = f"{plan.block_q} x {plan.block_k}"
        return f"a TPU needs blocks of multiples of {LANES}, but the plan has {sizes}"
    dtypes = [x.dtype for x in (q, k, v)]
    if interpret or (len({*dtypes}) == 1 and {*dtypes} <= DTYPES):
        return None
    names = ", ".join(map(str, dtypes))
    return f"a TPU takes q, k and v all in bfloat16 or all in float32, not in {names}"


def forward(q, k, v, clock, start, stop, plan: Plan, *, scale, soft_cap, interpret):
    """Outputs `[B T N V]` and lse `[B T N]`; shapes as in the package's `interval_attention`."""
    tiles = _tiles(q, k, v, plan, scale, soft_cap, interpret)
    (B, T, N, _), V = q.shape, v.shape[-1]

    run = lambda visits, *arrays: tpu_forward.forward(*_walk(tiles, visits), *arrays)
    arrays = _arguments(tiles, q, clock, k, v, start, stop)
    out, lse = _by_rows(run, plan.rows, *arrays)
    lse = lse.reshape(B, N, -1).swapaxes(1, 2)
    return out.reshape(B, -1, N, tiles.value_dim)[:, :T, :, :V], lse[:, :T]


def backward(
    q, k, v, clock, start, stop, plan: Plan, out, lse, d_out, d_lse, *, scale, soft_cap, interpret
):
    """Gradients of q, k and v; `out` and `lse` as `forward` gave them."""
    tiles = _tiles(q, k, v, plan, scale, soft_cap, interpret)
    blind = lse == -jnp.inf
    d_lse = jnp.where(blind, 0.0, d_lse)
    lse = jnp.where(blind, -HIDDEN, lse * LOG2E)  # makes every probability zero

    args = _arguments(tiles, q, clock, k, v, start, stop)
    length = args[0].shape[1]
    values = (_flat(x, length, tiles.value_dim) for x in (out, d_out))
    statistics = (_statistics(tiles, x, length) for x in (lse, d_lse))
    arrays: Any = (*args, *values, *statistics)

    stretches = [*plan.stretches(tpu_backward.max_blocks(tiles, k.dtype))]
    dtype = q.dtype if len(stretches) == 1 else jnp.float32  # of parts of a sum
    kernel = functools.partial(tpu_backward.backward, dtype=dtype)
    parts = []
    for blocks, visits in stretches:
        run = lambda visits, *x, on=blocks: kernel(*_walk(tiles, visits), *x, blocks=on)
        parts.append(_by_rows(run, visits, *arrays))
    d_q, *d_keys = zip(*parts, strict=True)
    grads = functools.reduce(jnp.add, d_q), *(jnp.concatenate(d, 1) for d in d_keys)
    return tuple(_heads(d, x).astype(x.dtype) for d, x in zip(grads, (q, k, v), strict=True))


def _tiles(q, k, v, plan: Plan, scale, soft_cap, interpret) -> Tiles:
    if reason := _obstacle(q, k, v, plan, interpret):
        raise ValueError(reason)
    N, H = q.shape[2:]
    shared = N // k.shape[2]
    heads = max(n for n in range(1, min(shared, HEADS) + 1) if shared % n == 0)
    dim, value_dim = (-(-dim // LANES) * LANES for dim in (H, v.shape[-1]))
    return Tiles(
        heads,
        shared // heads,
        dim,
        value_dim,
        plan.block_q,
        plan.block_k,
        scale,
        soft_cap,
        interpret,
    )


def _walk(tiles: Tiles, visits: Visits):
    words, begin = visits.words, visits.begin
    return Walk(tiles, words.shape[1]), words, begin[:, -1].max()


def _by_rows(run, visits: Visits, *args):
    """All rows of the batch at once, or one by one if their lists are too long for a call."""
    if visits.words.size <= WORDS or len(visits.words) == 1:
        return run(visits, *args)
    one = lambda row: run(*jax.tree.map(lambda x: x[None], row))
    return jax.tree.map(lambda x: x[:, 0], jax.lax.map(one, (visits, *args)))


def _arguments(tiles: Tiles, q, clock, k, v, start, stop):
    """The kernels' arguments, padded to whole blocks and lanes; padding of keys is seen by none."""
    whole = lambda length, block: -(-length // block) * block
    T, S = whole(q.shape[1], tiles.block_q), whole(k.shape[1], tiles.block_k)
    clock = jnp.pad(clock, ((0, 0), (0, T - clock.shape[1])), mode="edge")[:, None]
    start, stop = (jnp.pad(x, ((0, 0), (0, S - x.shape[1]))) for x in (start, stop))
    q, k, v = _flat(q, T, tiles.dim), _flat(k, S, tiles.dim), _flat(v, S, tiles.value_dim)
    return q, k, v, clock, bounds(start, stop)


def _flat(x: Array, length: int, dim: int) -> Array:
    """`[B T N H] -> [B length N*dim]`; no copy if nothing is padded."""
    B, T, N, H = x.shape
    x = jnp.pad(x, ((0, 0), (0, length - T), (0, 0), (0, dim - H)))
    return x.reshape(B, length, N * dim)


def _heads(x: Array, like: Array) -> Array:
    """The inverse of `_flat`: the padding of `[B length N*dim]` is cut off."""
    B, T, N, H = like.shape
    return x.reshape(B, x.shape[1], N, -1)[:, :T, :, :H]


def _statistics(tiles: Tiles, x: Array, length: int) -> Array:
    """`[B T N] -> [B N/heads heads length]`."""
    B, T, N = x.shape
    x = jnp.pad(x, ((0, 0), (0, length - T), (0, 0)))
    return x.swapaxes(1, 2).reshape(B, N // tiles.heads, tiles.heads, length)
