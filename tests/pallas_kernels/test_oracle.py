"""Every implementation against dense float64 attention: values, lse and gradients."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import (
    each_in_float32,
    each_reference,
    inputs,
    run,
)

LENGTH = 83  # a prime: no block divides it


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
}


@pytest.mark.parametrize("heads", HEADS)
@each_reference
def test_every_head_layout(implementation, heads):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS[heads])
    check(implementation, packing, qkv, cotangents, 3e-5)


@each_reference
def test_scale_and_soft_cap(implementation):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["grouped"])
    check(implementation, packing, qkv, cotangents, 3e-5, scale=0.2, soft_cap=1.5)


@each_reference
def test_bfloat16_stays_near_float64_and_keeps_its_dtype(implementation):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["grouped"], dtype=jnp.bfloat16)
    got = run(implementation, qkv, packing[:3], cotangents)
    assert [x.dtype.name for x in got] == ["bfloat16", "float32", *["bfloat16"] * 3]
    check(implementation, packing, qkv, cotangents, 0.06)


@each_in_float32
def test_queries_of_one_stream_against_keys_of_all(implementation):
    whole = oracle.pack(oracle.TYPICAL, LENGTH)
    some = np.arange(20, 51)
    packing = whole._replace(clock=whole.clock[:, some], mask=whole.mask[:, some])
    qkv, cotangents = inputs(2, len(some), LENGTH, *HEADS["grouped"])
    check(implementation, packing, qkv, cotangents, 3e-5)


def check_random(implementation, batch, seed, tolerance):
    packing = oracle.pack(batch, LENGTH)
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["one head"], seed=seed)
    check(implementation, packing, qkv, cotangents, tolerance)


random_packings = given(batch=st.tuples(oracle.rows, oracle.rows), seed=st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@random_packings
@each_reference
def test_random_packings(implementation, batch, seed):
    check_random(implementation, batch, seed, 3e-5)


@settings(max_examples=10, deadline=None)
@random_packings
def test_random_packings_on_interpreted_tpu_kernels(batch, seed):
    # Inverses are within 4e-6 (a step of Newton's from bfloat16), and gradients cancel.
    check_random("tpu", batch, seed, 3e-4)


@each_in_float32
def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient(implementation):
    packing = oracle.pack(oracle.TYPICAL, LENGTH)
    blind = ~packing.mask.any(2)
    assert blind.any() and blind[1].all()
    qkv, cotangents = inputs(2, LENGTH, LENGTH, *HEADS["grouped"])
    out, lse, dq, dk, dv = run(implementation, qkv, packing[:3], cotangents)
    assert not out[blind].any() and not dq[blind].any()
    assert bool(jnp.all(lse[blind] == -jnp.inf))
    assert not dk[1].any() and not dv[1].any()


@settings(max_examples=100, deadline=None)
@given(st.tuples(oracle.rows))
@example(oracle.TYPICAL)
def test_the_intervals_of_the_table_give_the_mask_of_the_rule(batch):
    packing = oracle.pack(batch, LENGTH)
    clock = packing.clock[:, :, None]
    see = (packing.start[:, None] <= clock) & (clock < packing.stop[:, None])
    np.testing.assert_array_equal(see, packing.mask)


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
