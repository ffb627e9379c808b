"""Interval attention against a dense float64 softmax, and its masks as literal matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.interval_attention import interval_attention, reference

# Masks: what every key of DESIGN's table lets a query see. Rows are queries, columns keys.


def visible(clock, start, stop):
    """The boolean matrix that the function itself applies: equal scores, one-hot values."""
    T, S = len(clock), len(start)
    q, k = jnp.zeros((1, T, 1, 8)), jnp.zeros((1, S, 1, 8))
    intervals = (jnp.array([x], jnp.int32) for x in (clock, start, stop))
    weights = jax.jit(interval_attention)(q, k, jnp.eye(S)[None, :, None], *intervals)
    return np.asarray(weights[0, :, 0] > 0).astype(int)


MASKS = {
    "causal text": ([0, 1, 2], [0, 1, 2], [3, 3, 3], [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    "clean image in text": (
        [0, 1, 2, 3],
        [0, 1, 1, 3],
        [4, 4, 4, 4],
        [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
    ),
    "noised image, then text": (
        [0, 1, 2, 3],
        [0, 1, 1, 3],
        [4, 3, 3, 4],
        [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 1]],
    ),
    "two scales": (
        [0, 1, 2, 3],
        [0, 1, 1, 1],
        [4, 4, 4, 4],
        [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    ),
    "sliding window of 2": (
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]],
    ),
    "global reference": (
        [0, 1, 2],
        [0, 1, 0],
        [3, 3, 3],
        [[1, 0, 1], [1, 1, 1], [1, 1, 1]],
    ),
    "two documents and padding": (
        [0, 1, 2, 3, 5],
        [0, 1, 2, 3, 0],
        [2, 2, 4, 4, 0],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]],
    ),
    "streams laid one after another": (
        [0, 3, 1, 2],  # text, text, then a noised image between them
        [0, 3, 1, 1],
        [4, 4, 3, 3],
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]],
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_the_table_are_these_matrices(name):
    clock, start, stop, want = MASKS[name]
    np.testing.assert_array_equal(visible(clock, start, stop), want)


# Values and gradients against float64.


def dense(q, k, v, clock, start, stop, scale=None, soft_cap=None, d_out=None, d_lse=None):
    """Output, lse, and gradients of `sum(out d_out + lse d_lse)` in q, k, v; query by query."""
    q, k, v, d_out, d_lse = (np.asarray(x, np.float64) for x in (q, k, v, d_out, d_lse))
    (B, T, N, H), K = q.shape, k.shape[2]
    out, lse = np.zeros((B, T, N, v.shape[-1])), np.full((B, T, N), -np.inf)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    scale = H**-0.5 if scale is None else scale
    for b, t, n in np.ndindex(B, T, N):
        see, j = (start[b] <= clock[b, t]) & (clock[b, t] < stop[b]), n // (N // K)
        if not see.any():
            continue
        s = k[b, see, j] @ q[b, t, n] * scale
        slope = np.ones_like(s)
        if soft_cap:
            slope = 1 - np.tanh(s / soft_cap) ** 2
            s = soft_cap * np.tanh(s / soft_cap)
        lse[b, t, n] = s.max() + np.log(np.exp(s - s.max()).sum())
        p = np.exp(s - lse[b, t, n])
        out[b, t, n] = p @ v[b, see, j]
        d_p = v[b, see, j] @ d_out[b, t, n]
        d_s = p * (d_p - p @ d_p + d_lse[b, t, n]) * slope * scale
        dq[b, t, n] = d_s @ k[b, see, j]
        dk[b, see, j] += d_s[:, None] * q[b, t, n]
        dv[b, see, j] += p[:, None] * d_out[b, t, n]
    return out, lse, dq, dk, dv


def inputs(B, T, S, N, K, H, V, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, V))
    qkv = tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    clock = rng.integers(0, S, (B, T)).astype(np.int32)
    start = rng.integers(0, S, (B, S)).astype(np.int32)
    stop = start + rng.integers(0, S, (B, S)).astype(np.int32)  # some are empty
    clock[:, 0] = 3 * S  # a query that sees no key
    cotangents = rng.normal(size=(B, T, N, V)), rng.normal(size=(B, T, N))
    return qkv, (clock, start, stop), tuple(c.astype(np.float32) for c in cotangents)


def run(qkv, intervals, cotangents, chunk, **options):
    """Output, lse and the three gradients, from the reference."""

    @jax.jit
    def both(qkv, cotangents):
        attend = functools.partial(reference.interval_attention, chunk=chunk, **options)
        outputs, backward = jax.vjp(lambda *qkv: attend(*qkv, *intervals), *qkv)
        return *outputs, *backward(cotangents)

    return both(qkv, cotangents)


SHAPES = {
    "tiny": (1, 1, 1, 1, 1, 8, 8),
    "grouped": (2, 7, 19, 4, 2, 8, 8),
    "one key head, wide values": (2, 5, 32, 3, 1, 16, 24),
    "ragged": (1, 9, 17, 2, 2, 24, 8),
}
OPTIONS = {"plain": {}, "scaled and capped": {"scale": 0.7, "soft_cap": 1.5}}


@pytest.mark.parametrize("chunk", [1024, 2], ids=["whole", "chunked"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_lse_and_gradients_match_float64(shape, options, chunk):
    qkv, intervals, (d_out, d_lse) = inputs(*SHAPES[shape])
    got = run(qkv, intervals, (d_out, d_lse), chunk, **OPTIONS[options])
    want = dense(*qkv, *intervals, d_out=d_out, d_lse=d_lse, **OPTIONS[options])
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("chunk", [1024, 2], ids=["whole", "chunked"])
def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient(chunk):
    qkv, (clock, start, _), _ = inputs(*SHAPES["grouped"])

    def total(q, k, v):
        out, lse = reference.interval_attention(q, k, v, clock, start, start, chunk=chunk)
        return jnp.sum(out) + jnp.sum(jnp.where(lse == -jnp.inf, 0, lse)), (out, lse)

    grads, (out, lse) = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*qkv)
    assert not out.any() and bool(jnp.all(lse == -jnp.inf))
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("chunk", [1024, 2], ids=["whole", "chunked"])
def test_bfloat16_stays_near_float64_and_keeps_its_dtype(chunk):
    qkv, intervals, (d_out, d_lse) = inputs(*SHAPES["grouped"], dtype=jnp.bfloat16)
    got = run(qkv, intervals, (d_out.astype(jnp.bfloat16), d_lse), chunk)
    assert [x.dtype.name for x in got] == ["bfloat16", "float32", *["bfloat16"] * 3]
    want = dense(*qkv, *intervals, d_out=d_out, d_lse=d_lse)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours.astype(np.float32), theirs, atol=0.06, rtol=0.06)


@pytest.mark.parametrize("chunk", [1024, 2], ids=["whole", "chunked"])
def test_works_inside_jit_vmap_scan_and_remat(chunk):
    qkv, intervals, _ = inputs(*SHAPES["grouped"])

    def total(q, k, v):
        return jnp.sum(reference.interval_attention(q, k, v, *intervals, chunk=chunk)[0] ** 2)

    def scanned(q, k, v):
        layer = jax.checkpoint(lambda c, k: (c + total(q, k, v), None))
        return jax.lax.scan(layer, 0.0, jnp.stack([k, k]))[0]

    want = jax.jit(jax.grad(total))(*qkv)
    many = jax.jit(jax.vmap(jax.grad(total)))(*(jnp.stack([x, 2 * x]) for x in qkv))
    np.testing.assert_allclose(many[0], want, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(*qkv), 2 * want, atol=1e-5)


def test_memory_grows_with_keys_not_with_queries_times_keys():
    T, H = 2048, 8

    def temporary(S):
        args = [jax.ShapeDtypeStruct((1, n, 2, H), jnp.float32) for n in (T, S, S)]
        args += [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (T, S, S)]
        gradient = jax.grad(lambda *args: interval_attention(*args).sum(), (0, 1, 2))
        return jax.jit(gradient).lower(*args).compile().memory_analysis().temp_size_in_bytes

    few, many = (n * reference.SCORES // reference.MIN_CHUNK for n in (1, 2))  # keys
    scores = 2 * (many - few) * 4  # bytes for one query
    growth = temporary(many) - temporary(few)
    assert growth < (5 * reference.MIN_CHUNK + 10 * H) * scores < T * scores


def test_return_lse_adds_the_lse_and_nothing_else():
    qkv, intervals, _ = inputs(*SHAPES["grouped"])
    out, lse = interval_attention(*qkv, *intervals, return_lse=True)
    assert lse.shape == out.shape[:3]
    np.testing.assert_array_equal(out, interval_attention(*qkv, *intervals, plan=None))


def test_wrong_shapes_and_unknown_implementations_say_what_is_wrong():
    (q, k, v), (clock, start, stop), _ = inputs(*SHAPES["grouped"])
    with pytest.raises(ValueError, match=r"stop has shape \(2, 18\)"):
        interval_attention(q, k, v, clock, start, stop[:, 1:])
    with pytest.raises(ValueError, match="3 query heads cannot be shared out over 2"):
        interval_attention(q[:, :, :3], k, v, clock, start, stop)
    with pytest.raises(ValueError, match=r"'abacus'; choose one of \['reference'\]"):
        interval_attention(q, k, v, clock, start, stop, implementation="abacus")
