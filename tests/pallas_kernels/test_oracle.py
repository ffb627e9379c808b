"""Every implementation against dense float64 attention: values, lse and gradients."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pallas_kernels.interval_attention import make_plan
from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import (
    BLOCK,
    each_in_float32,
    each_reference,
    inputs,
    run,
)

pytestmark = pytest.mark.usefixtures("keep_compiled")

LENGTH = 83  # a prime: no block divides it
LONG = 307  # also a prime: three blocks of a TPU kernel, the last one ragged
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03}  # of TPU kernels; worst seen: 5e-5, 0.013


def check(name, packing, qkv, cotangents, tolerance, **options):
    got = run(name, qkv, packing[:3], cotangents, tuple(options.items()))
    want = oracle.attention(*qkv, packing.mask, *cotangents, **options)
    for field, ours, theirs in zip(want._fields, got, want, strict=True):
        ours = np.asarray(ours, np.float64)
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance, err_msg=field)


HEADS = {  # N, K, H, V
    "one head": (1, 1, 16, 16),
    "grouped": (4, 2, 64, 64),
    "seven to one": (7, 1, 128, 128),
    "SigLIP": (2, 2, 72, 72),
    "wide values": (2, 1, 32, 40),
    "narrow values": (2, 1, 64, 16),
    "large": (2, 1, 256, 256),
    "nine to one": (9, 1, 16, 136),
}


@pytest.mark.parametrize("heads", HEADS)
@each_reference
def test_every_head_layout(implementation, heads):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS[heads])
    check(implementation, packing, qkv, cotangents, 3e-5)


@each_in_float32
def test_scale_and_soft_cap(implementation):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["grouped"])
    tolerance = 1e-4 if implementation == "tpu" else 3e-5
    check(implementation, packing, qkv, cotangents, tolerance, scale=0.2, soft_cap=1.5)


@each_reference
def test_bfloat16_stays_near_float64_and_keeps_its_dtype(implementation):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["grouped"], dtype=jnp.bfloat16)
    got = run(implementation, qkv, packing[:3], cotangents)
    assert [x.dtype.name for x in got] == ["bfloat16", "float32", *["bfloat16"] * 3]
    check(implementation, packing, qkv, cotangents, 0.06)


@each_reference
def test_queries_of_one_stream_against_keys_of_all(implementation):
    whole = oracle.pack(oracle.TYPICAL, LENGTH)
    some = np.arange(20, 51)
    packing = whole._replace(clock=whole.clock[:, some], mask=whole.mask[:, some])
    qkv, cotangents = inputs(2, len(some), LENGTH, *HEADS["grouped"])
    check(implementation, packing, qkv, cotangents, 3e-5)


@settings(max_examples=40, deadline=None)
@given(batch=st.tuples(*[oracle.rows(9)] * 2), seed=st.integers(0, 9))
@each_reference
def test_random_packings(implementation, batch, seed):
    packing = oracle.pack(batch, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["one head"], seed=seed)
    check(implementation, packing, qkv, cotangents, 3e-5)


@each_in_float32
def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient(implementation):
    packing = oracle.pack((oracle.LONG[0], oracle.TYPICAL[1]), LONG)
    blind = ~packing.mask.any(2)
    assert blind[0].any() and blind[1].all()
    qkv, cotangents = inputs(2, LONG, LONG, *HEADS["grouped"])
    out, lse, dq, dk, dv = run(implementation, qkv, packing[:3], cotangents)
    assert not out[blind].any() and not dq[blind].any()
    assert bool(jnp.all(lse[blind] == -jnp.inf))
    assert not dk[1].any() and not dv[1].any()


@settings(max_examples=100, deadline=None)
@given(st.tuples(oracle.rows(9)))
@example(oracle.TYPICAL)
def test_the_intervals_of_the_table_give_the_mask_of_the_rule(batch):
    packing = oracle.pack(batch, LENGTH)
    clock = packing.clock[:, :, None]
    see = (packing.start[:, None] <= clock) & (clock < packing.stop[:, None])
    np.testing.assert_array_equal(see, packing.mask)


ON_TPUS = (  # grouped heads below; compiling one takes seconds, so that not all meet
    ("seven to one", "bfloat16"),
    ("SigLIP", "bfloat16"),
    ("SigLIP", "float32"),
    ("wide values", "bfloat16"),
    ("narrow values", "float32"),
    ("large", "float32"),
    pytest.param("nine to one", "bfloat16", marks=pytest.mark.slow),
)


@pytest.mark.parametrize(("heads", "dtype"), ON_TPUS)
def test_every_head_layout_on_tpu_kernels_that_cross_blocks(heads, dtype):
    packing = oracle.pack(oracle.LONG, LONG)
    qkv, cotangents = inputs(2, LONG, LONG, *HEADS[heads], dtype=dtype)
    check("tpu", packing, qkv, cotangents, TOLERANCES[dtype])


@settings(max_examples=6, deadline=None)
@given(batch=st.tuples(*[oracle.rows(90)] * 2), seed=st.integers(0, 9))
@example(oracle.LONG, 0)
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_random_packings_on_tpu_kernels_that_cross_blocks(dtype, batch, seed):
    packing = oracle.pack(batch, LONG)
    qkv, cotangents = inputs(2, LONG, LONG, *HEADS["grouped"], dtype=dtype, seed=seed)
    check("tpu", packing, qkv, cotangents, TOLERANCES[dtype])


def test_the_long_rows_have_every_kind_of_block():
    plan = make_plan(*oracle.pack(oracle.LONG, LONG)[:3], block_q=BLOCK, block_k=BLOCK)
    assert plan.rows.full[1].any() and bool((plan.rows.partial[0] > 1).any())
    assert int(plan.stats.visited.sum()) < 2 * 3 * 3


def test_gradients_are_the_slopes_of_the_values():
    packing = oracle.pack(oracle.TYPICAL, 59)
    qkv, cotangents = inputs(2, 59, 59, 4, 2, 8, 8)
    qkv, cotangents = ([np.asarray(x, np.float64) for x in xs] for xs in (qkv, cotangents))
    options = {"scale": 0.3, "soft_cap": 2.0}
    attend = lambda *qkv: oracle.attention(*qkv, packing.mask, *cotangents, **options)

    def total(*qkv):
        out, lse = attend(*qkv)[:2]
        return (out * cotangents[0]).sum() + (np.where(lse > -np.inf, lse, 0) * cotangents[1]).sum()

    rng = np.random.default_rng(1)
    for i, gradient in enumerate(attend(*qkv)[2:]):
        step = [np.zeros_like(x) for x in qkv]
        step[i] = 1e-5 * rng.normal(size=qkv[i].shape)
        ahead, behind = (
            total(*(x + sign * d for x, d in zip(qkv, step, strict=True))) for sign in (1, -1)
        )
        np.testing.assert_allclose((ahead - behind) / 2, (gradient * step[i]).sum(), rtol=1e-6)
