"""The GPU kernels on a Hopper GPU, in 16 bits: against float64, the reference, and themselves.

UNIFIED_TEST_PLATFORM=cuda python -m pytest -m gpu
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.interval_attention import gpu, interval_attention, make_plan, reference
from pallas_kernels.interval_attention.bench.workload import packing
from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import inputs

pytestmark = pytest.mark.gpu

BF16, F16 = jnp.bfloat16, jnp.float16
TOLERANCE = {BF16: 0.02, F16: 0.003}  # of the largest value; a step of the type is 0.008, 0.001
LSE_TOLERANCE = 1e-3

LENGTH = 390  # no block divides it

HEADS = {  # N, K, H, V, dtype
    "one head": (1, 1, 16, 16, F16),
    "grouped": (4, 2, 64, 64, BF16),
    "seven to one": (7, 1, 128, 128, BF16),
    "one key head": (6, 1, 32, 32, F16),
    "SigLIP": (2, 2, 72, 72, BF16),
    "wide values": (2, 1, 32, 40, F16),
    "narrow values": (2, 1, 128, 64, F16),
    "large": (2, 1, 256, 256, BF16),
    "large values": (2, 1, 144, 192, BF16),
}


@pytest.fixture(autouse=True, scope="module")
def hopper():
    if os.environ.get("UNIFIED_TEST_PLATFORM") != "cuda":
        pytest.skip("UNIFIED_TEST_PLATFORM is not cuda")
    assert gpu._is_hopper(), "this needs a Hopper GPU"


@functools.cache
def packed():
    """Rows with every kind of block, queries that see no key, and a row of nothing but those."""
    return oracle.pack([oracle.EVERY_BLOCK, *oracle.TYPICAL], LENGTH)


def attend(qkv, intervals, cotangents, plan=None, **options):
    """Output, lse and the gradients in q, k and v."""
    call = functools.partial(interval_attention, plan=plan, return_lse=True, **options)
    outputs, backward = jax.vjp(lambda *qkv: call(*qkv, *intervals), *qkv)
    return *outputs, *backward(cotangents)


def on_chip(*args, **options):
    """As `attend`, and certainly by the kernels."""
    lowered = jax.jit(functools.partial(attend, **options)).lower(*args)
    assert "@mosaic_gpu" in lowered.as_text()
    return lowered.compile()(*args)


def check(got, want, dtype):
    """Errors are parts of the largest value; what sees nothing, or is seen by none, has none."""
    want = oracle.Outputs(*want)
    blind, unseen = np.isneginf(want.lse), np.all(np.asarray(want.dv) == 0, -1)
    nothing = {"out": blind, "dq": blind, "dk": unseen, "dv": unseen}
    for field, ours, theirs in zip(oracle.Outputs._fields, got, want, strict=True):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        seen = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(ours), seen, err_msg=field)
        tolerance = LSE_TOLERANCE if field == "lse" else TOLERANCE[dtype]
        top = np.abs(theirs[seen]).max()
        np.testing.assert_allclose(ours[seen], theirs[seen], atol=tolerance * top, err_msg=field)
        if field in nothing:
            np.testing.assert_array_equal(ours[nothing[field]], 0, err_msg=field)


@pytest.mark.parametrize("heads", HEADS)
def test_every_head_layout_matches_float64(heads):
    packing, dtype = packed(), HEADS[heads][-1]
    qkv, cotangents = inputs(3, LENGTH, LENGTH, *HEADS[heads])
    got = on_chip(qkv, packing[:3], cotangents)
    check(got, oracle.attention(*qkv, packing.mask, *cotangents), dtype)


def test_scale_and_soft_cap():
    packing = packed()
    qkv, cotangents = inputs(3, LENGTH, LENGTH, *HEADS["grouped"])
    options = {"scale": 0.2, "soft_cap": 1.5}
    got = on_chip(qkv, packing[:3], cotangents, **options)
    check(got, oracle.attention(*qkv, packing.mask, *cotangents, **options), BF16)


def test_some_queries_against_all_keys():
    whole, some = packed(), np.arange(20, 151)
    packing = whole._replace(clock=whole.clock[:, some], mask=whole.mask[:, some])
    qkv, cotangents = inputs(3, len(some), LENGTH, *HEADS["grouped"])
    got = on_chip(qkv, packing[:3], cotangents)
    check(got, oracle.attention(*qkv, packing.mask, *cotangents), BF16)


@pytest.mark.parametrize("capacity", [1, 12])
def test_a_plan_whose_lists_are_shorter_than_all_blocks(capacity):
    packing = packed()
    sizes = {"block_q": gpu.TILE, "block_k": gpu.TILE, "capacity": capacity}
    plan = make_plan(*packing[:3], **sizes)
    assert bool(plan.fits) == (capacity == 12) and not plan.is_complete
    qkv, cotangents = inputs(3, LENGTH, LENGTH, *HEADS["grouped"])
    got = on_chip(qkv, packing[:3], cotangents, plan=plan)
    check(got, oracle.attention(*qkv, packing.mask, *cotangents), BF16)


@pytest.mark.parametrize("two_streams", [False, True], ids=["row order", "two streams"])
def test_a_row_of_16k_matches_the_reference_and_comes_out_the_same_each_time(two_streams):
    intervals = packing("mixed_16k", two_streams=two_streams)
    length = intervals[0].size
    qkv, cotangents = inputs(1, length, length, 7, 1, 128, 128, BF16)
    run = jax.jit(attend)
    got = run(qkv, intervals, cotangents)
    for _ in range(10):
        for first, again in zip(got, run(qkv, intervals, cotangents), strict=True):
            np.testing.assert_array_equal(first, again)  # kernels add up in one order

    with jax.default_matmul_precision("highest"):
        exact = [x.astype(jnp.float32) for x in (*qkv, cotangents[0])]
        options = reference.Options(128**-0.5)
        results = jax.jit(reference.forward, static_argnums=0)(options, *exact[:3], *intervals)
        backward = jax.jit(reference.backward, static_argnums=0)
        grads = backward(options, *exact[:3], *intervals, *results, exact[3], cotangents[1])
    check(got, (*results, *grads), BF16)
