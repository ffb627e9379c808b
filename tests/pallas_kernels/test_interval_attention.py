"""Interval attention: its masks as literal matrices, its interface and its transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention import gpu, interval_attention, make_plan, reference
from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import (
    IMPLEMENTATIONS,
    each_in_float32,
    each_reference,
    inputs,
    visible,
)

# What every key of the table in docs/kernels.md lets a query see: rows are queries, columns keys.
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


@each_in_float32
def test_masks_of_the_table_are_these_matrices(implementation):
    length = max(len(clock) for clock, *_ in MASKS.values())
    pad = lambda x, fill: np.pad(x, (0, length - len(x)), constant_values=fill)
    clock = np.stack([pad(clock, 99) for clock, *_ in MASKS.values()]).astype(np.int32)
    start, stop = (
        np.stack([pad(mask[i], 0) for mask in MASKS.values()]).astype(np.int32) for i in (1, 2)
    )
    got = visible(implementation, clock, start, stop).astype(int)
    for (name, (*_, want)), matrix in zip(MASKS.items(), got, strict=True):
        n = len(want)
        np.testing.assert_array_equal(matrix[:n, :n], want, err_msg=name)
        assert not matrix[n:].any() and not matrix[:, n:].any()


LENGTH = 53


@each_reference
def test_works_inside_jit_vmap_scan_and_remat(implementation):
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 2, 1, 16, 16)

    def total(q, k, v):
        return jnp.sum(IMPLEMENTATIONS[implementation](q, k, v, *intervals)[0] ** 2)

    def scanned(q, k, v):
        layer = jax.checkpoint(lambda c, k: (c + total(q, k, v), None))
        return jax.lax.scan(layer, 0.0, jnp.stack([k, k]))[0]

    want = jax.jit(jax.grad(total))(*qkv)
    many = jax.jit(jax.vmap(jax.grad(total)))(*(jnp.stack([x, 2 * x]) for x in qkv))
    np.testing.assert_allclose(many[0], want, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(*qkv), 2 * want, atol=2e-5)


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
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 4, 2, 8, 8)
    out, lse = interval_attention(*qkv, *intervals, return_lse=True)
    assert lse.shape == out.shape[:3]
    np.testing.assert_array_equal(out, interval_attention(*qkv, *intervals, plan=None))


def test_wrong_shapes_and_unknown_implementations_say_what_is_wrong():
    clock, start, stop = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    (q, k, v), _ = inputs(2, LENGTH, LENGTH, 4, 2, 8, 8)
    with pytest.raises(ValueError, match=r"stop has shape \(2, 52\)"):
        interval_attention(q, k, v, clock, start, stop[:, 1:])
    with pytest.raises(ValueError, match="3 query heads cannot be shared out over 2"):
        interval_attention(q[:, :, :3], k, v, clock, start, stop)
    with pytest.raises(ValueError, match=r"'abacus'; choose one of .*'reference'"):
        interval_attention(q, k, v, clock, start, stop, implementation="abacus")
    with pytest.raises(ValueError, match=r"q has shape \(2, 53, 4\), but must have four axes"):
        interval_attention(q[..., 0], k, v, clock, start, stop)
    with pytest.raises(ValueError, match="soft_cap=0 must be positive; leave it out"):
        interval_attention(q, k, v, clock, start, stop, soft_cap=0)
    with pytest.raises(TypeError, match="3 is no plan: make one with make_plan"):
        interval_attention(q, k, v, clock, start, stop, plan=3)


def test_clocks_of_any_integer_type_count_alike_and_others_are_refused():
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 1, 1, 16, 16)
    attend = jax.jit(functools.partial(interval_attention, implementation="tpu"))
    want = attend(*qkv, *intervals)
    np.testing.assert_array_equal(attend(*qkv, *(x.astype("int16") for x in intervals)), want)
    with pytest.raises(ValueError, match="clock counts tokens and must be int32, not float32"):
        interval_attention(*qkv, intervals[0].astype("float32"), *intervals[1:])


def test_a_plan_whose_blocks_suit_no_kernel_leaves_the_call_to_the_reference():
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 1, 1, 16, 16)
    plan = make_plan(*intervals, block_q=64, block_k=64)
    lowered = jax.jit(interval_attention).trace(*qkv, *intervals, plan=plan)
    text = lowered.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" not in text


ROWS, HEADS = P("devices"), P(None, None, "devices")
SHARED = {"rows": ((ROWS,) * 6, ROWS), "query heads": ((HEADS, *[P()] * 5), HEADS)}


def total_in_a_shard_map(what: str):
    """The sum of the squared outputs, whose arguments are shared out over two devices."""
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    given, result = SHARED[what]
    attend = jax.shard_map(interval_attention, mesh=mesh, in_specs=given, out_specs=result)
    return lambda *args: jnp.sum(attend(*args).astype(jnp.float32) ** 2)


@pytest.mark.parametrize("what", SHARED)
def test_gradients_in_a_shard_map_are_those_of_one_device(what):
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 2, 1, 16, 16)
    alone = lambda *args: jnp.sum(interval_attention(*args) ** 2)
    grad = lambda total: jax.jit(jax.grad(total, (0, 1, 2)))(*qkv, *intervals)
    for got, want in zip(grad(total_in_a_shard_map(what)), grad(alone), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("what", SHARED)
def test_kernels_stand_in_a_shard_map(what, platform, monkeypatch):
    monkeypatch.setattr(gpu, "_is_hopper", lambda: True)
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 2, 1, 16, 16, "bfloat16")
    traced = jax.jit(jax.grad(total_in_a_shard_map(what), (0, 1, 2))).trace(*qkv, *intervals)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("tpu_custom_call") + text.count("@mosaic_gpu") >= 2


REFUSED = {
    "gpu": ("cuda", "float32", "16-bit numbers and would round float32"),
    "tpu": ("tpu", "float16", "all in bfloat16 or all in float32, not in float16, float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_named_kernel_is_refused_where_it_cannot_run_and_only_there(name):
    platform, dtype, reason = REFUSED[name]
    intervals = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    qkv, _ = inputs(2, LENGTH, LENGTH, 1, 1, 16, 16, dtype)

    def total(implementation, *qkv):
        return interval_attention(*qkv, *intervals, implementation=implementation).sum()

    def lower(platform, implementation=name, transform=jax.grad):
        traced = jax.jit(transform(functools.partial(total, implementation))).trace(*qkv)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    lower("cpu")
    assert "custom_call" not in lower(platform, None)  # the reference
    with pytest.raises(ValueError, match=f"'{name}' runs on .* not elsewhere"):
        lower("rocm")
    batched = lambda f: lambda *qkv: jax.vmap(f)(*(x[None] for x in qkv))
    for transform in (jax.grad, jax.checkpoint, batched):
        with pytest.raises(ValueError, match=reason):
            lower(platform, transform=transform)
