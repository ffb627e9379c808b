"""The GPU kernels: simulated on a CPU against float64, and lowered for CUDA.

The simulator runs warpgroups, barriers and copies as threads, in any floating dtype; it knows
nothing of tensor cores, layouts and time, which only lowering (and a GPU) can check.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.interval_attention import gpu, interval_attention, make_plan
from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import inputs

pytestmark = pytest.mark.usefixtures("keep_compiled")

LONG, SHORT = oracle.EVERY_BLOCK, oracle.TYPICAL[0]

CASES = {  # rows, length, (N, K, H, V), options
    "grouped heads, ragged": ([LONG], 390, (2, 1, 64, 40), {}),
    "wide heads, capped": ([SHORT], 83, (1, 1, 144, 16), {"soft_cap": 1.5}),
}


def grad(qkv, intervals, cotangents, *, scale=None, soft_cap=None, interpret):
    """Output, lse and the three gradients."""
    options = {"scale": scale or qkv[0].shape[-1] ** -0.5, "soft_cap": soft_cap}
    options["interpret"] = interpret
    plan = gpu.default_plan(*intervals)
    results = gpu.forward(*qkv, *intervals, plan, **options)
    return *results, *gpu.backward(*qkv, *intervals, plan, *results, *cotangents, **options)


SLOW_SIMULATOR = jax.__version_info__ < (0, 11)  # many times slower on the long row


@pytest.mark.parametrize("case", list(CASES)[SLOW_SIMULATOR:])
def test_simulated_kernels_match_float64(case, monkeypatch):
    monkeypatch.setattr(gpu, "_multiprocessors", lambda: 3)  # fewer than there are tiles
    rows, length, heads, options = CASES[case]
    packing = oracle.pack(rows, length)
    qkv, cotangents = inputs(len(rows), length, length, *heads)
    run = jax.jit(lambda *args: grad(*args, interpret=True, **options))
    got = run(qkv, packing[:3], cotangents)
    want = oracle.attention(*qkv, packing.mask, *cotangents, **options)
    for field, ours, theirs in zip(want._fields, got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5, rtol=3e-5, err_msg=field)


def test_the_long_row_has_every_kind_of_block():
    plan = gpu.default_plan(*oracle.pack([LONG], 390)[:3])
    kinds = plan.rows.partial[0], plan.rows.full[0]
    assert kinds[0].any() and kinds[1].any()
    pieces = kinds[0] + kinds[1]  # two in a step
    assert bool((pieces > 4).any())  # more than the forward kernel has slots for
    assert bool((pieces % 2 == 1).any())  # a step that lacks one
    assert int(plan.stats.visited[0]) < plan.rows.full.shape[1] * plan.key_blocks


@pytest.mark.parametrize(
    ("heads", "kernels"),
    [((4, 2, 128, 128), 3), ((2, 1, 64, 64), 3), ((2, 2, 72, 72), 3), ((2, 1, 256, 256), 4)],
    ids=["BAGEL", "small", "SigLIP", "large"],
)
def test_kernels_lower_for_cuda_without_an_array_of_queries_times_keys(heads, kernels):
    (N, K, H, V), length = heads, 1000
    shape = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct((1, length, *shape), dtype)
    vector = shape(dtype=jnp.int32)
    qkv, cotangents = (
        (shape(N, H), shape(K, H), shape(K, V)),
        (shape(N, V), shape(N, dtype=jnp.float32)),
    )
    run = jax.jit(lambda *args: grad(*args, interpret=False))
    traced = run.trace(qkv, (vector, vector, vector), cotangents)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == kernels
    assert "1000x1000" not in text and "1024x1024" not in text


def test_callers_get_the_kernels_by_name_or_on_a_hopper_gpu(monkeypatch):
    mask = oracle.pack([SHORT], 83)[:3]
    qkv = tuple(x.astype(jnp.bfloat16) for x in inputs(1, 83, 83, 2, 1, 16, 16)[0])

    def kernels(name):
        def loss(*qkv):
            return interval_attention(*qkv, *mask, implementation=name).astype(jnp.float32).sum()

        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*qkv)
        return traced.lower(lowering_platforms=("cuda",)).as_text().count("@mosaic_gpu")

    assert kernels("gpu") == 3 and kernels(None) == 0  # there is no GPU here
    monkeypatch.setattr(gpu, "_is_hopper", lambda: True)
    assert kernels(None) == 3


@pytest.mark.slow
def test_runs_by_name_on_a_cpu_inside_scan_and_remat():
    mask = oracle.pack([SHORT], 83)[:3]
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(1, 83, 83, 1, 1, 16, 16)[0])

    def loss(name, q):
        attend = functools.partial(interval_attention, implementation=name)
        layer = jax.checkpoint(lambda q, _: (attend(q, k, v, *mask), None))
        return jnp.sum(jax.lax.scan(layer, q, length=2)[0].astype(jnp.float32) ** 2)

    got, want = (jax.jit(jax.grad(functools.partial(loss, name)))(q) for name in ("gpu", None))
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    np.testing.assert_allclose(got, want, atol=0.01 * np.abs(want).max())


def test_what_the_kernels_cannot_do_is_refused_with_the_reason():
    intervals = oracle.pack([SHORT], 83)[:3]
    half = lambda x: x.astype(jnp.bfloat16)
    qkv, _ = inputs(1, 83, 83, 2, 1, 16, 16)
    plan = make_plan(*intervals, block_q=64, block_k=128)
    options = {"scale": 1.0, "soft_cap": None, "interpret": False}
    with pytest.raises(ValueError, match="16-bit numbers and would round float32"):
        gpu.forward(*qkv, *intervals, gpu.default_plan(*intervals), **options)
    with pytest.raises(ValueError, match="blocks of multiples of 128, but the plan has 64 x 128"):
        gpu.forward(*map(half, qkv), *intervals, plan, **options)
    plan = make_plan(*intervals, block_q=128, block_k=32, block_columns=128)
    with pytest.raises(ValueError, match="multiples of 64 keys, but the plan has 32"):
        gpu.forward(*map(half, qkv), *intervals, plan, **options)
    with pytest.raises(ValueError, match="head dims 16 and 264 are more than 256"):
        gpu.forward(
            *inputs(1, 83, 83, 2, 1, 16, 264)[0], *intervals, plan, **options | {"interpret": True}
        )
