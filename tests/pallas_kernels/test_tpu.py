"""The TPU kernels, in Pallas's interpret mode, against the reference; and that TPUs get them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention import (
    interval_attention,
    make_plan,
    make_plans,
    tpu,
    tpu_backward,
)
from pallas_kernels.interval_attention.workload import causal, intervals

ROWS = (
    [[(30, "causal"), (90, "noise")], [(60, "full"), (40, "causal")], [(1, "causal")]],
    [[(150, "causal")], [(10, "causal"), (20, "full"), (33, "noise"), (5, "causal")]],
)


def inputs(T, S, N, K, H, V, dtype=jnp.float32, B=2, seed=0):
    """Queries, keys, values, and the clocks and intervals of a packed row of `S` tokens.

    The queries are the first `T` tokens of the row; those that are padding are blind.
    """
    rng = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, V))
    qkv = tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    rows = [intervals(ROWS[b], S, two_streams=b == 1) for b in range(B)]
    clock, start, stop = (np.concatenate(x) for x in zip(*rows, strict=True))
    return qkv, (clock[:, :T], start, stop)


def run(qkv, mask, implementation, plan=None, **options):
    """Output, lse, and gradients of some function of both."""

    def total(*qkv):
        attend = functools.partial(interval_attention, implementation=implementation, plan=plan)
        out, lse = attend(*qkv, *mask, return_lse=True, **options)
        weight = jnp.cos(jnp.arange(out.size).reshape(out.shape))
        seen = jnp.where(lse == -jnp.inf, 0.0, lse)
        return jnp.sum(out * weight) + jnp.sum(jnp.sin(seen)), (out, lse)

    (_, results), grads = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(*qkv)
    return *results, *grads


def close(got, want, tolerance=1e-4):
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = (np.asarray(x, np.float32) for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)


plan_128 = functools.partial(make_plan, block_q=128, block_k=128)

CASES = {  # T, S, N, K, H, V
    "one head, whole blocks": ((256, 256, 1, 1, 128, 128), {}),
    "grouped, ragged, capped": ((250, 300, 4, 2, 72, 16), {"soft_cap": 1.5, "scale": 0.3}),
    "one key head for ten, wide": ((130, 270, 10, 1, 16, 136), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_values_lse_and_gradients_match_the_reference(name):
    shape, options = CASES[name]
    qkv, mask = inputs(*shape)
    got = run(qkv, mask, "tpu", plan_128(*mask), **options)
    close(got, run(qkv, mask, "reference", **options))


def test_of_plans_for_all_kernels_each_takes_its_own():
    qkv, mask = inputs(256, 300, 2, 1, 8, 8)
    plans = make_plans(*mask)
    assert plans["tpu"].block_k == 384 and plans["gpu"].block_k == 128
    got = run(qkv, mask, "tpu", plans)
    np.testing.assert_array_equal(got[0], run(qkv, mask, "tpu", plans["tpu"])[0])
    with pytest.raises(ValueError, match=r"gpu.start has shape \(2, 299\)"):
        run(
            qkv,
            mask,
            "tpu",
            plans | {"gpu": make_plans(mask[0], mask[1][:, 1:], mask[2][:, 1:])["gpu"]},
        )


def test_rectangular_blocks_and_bfloat16():
    qkv, mask = inputs(300, 300, 2, 1, 64, 64, jnp.bfloat16)
    got = run(qkv, mask, "tpu", make_plan(*mask, block_q=128, block_k=256))
    close(got, run(qkv, mask, "reference"), 0.06)


def test_blind_queries_give_zeros_and_no_gradient():
    qkv, (clock, start, stop) = inputs(256, 256, 2, 1, 8, 8)
    clock = np.where(np.arange(256) % 3 == 0, 10_000, clock).astype(np.int32)
    out, lse, d_q, d_k, d_v = run(qkv, (clock, start, stop), "tpu")
    blind = clock == 10_000
    assert not out[blind].any() and not d_q[blind].any() and np.all(lse[blind] == -np.inf)
    assert np.isfinite(d_k).all() and np.isfinite(d_v).all() and d_v.any()


def test_keys_that_nobody_sees_get_zero_gradients():
    qkv, (clock, start, stop) = inputs(256, 384, 1, 1, 8, 8)
    d_k, d_v = run(qkv, (clock, start, np.where(start > 100, start, stop)), "tpu")[3:]
    hidden = start > 100
    assert not d_k[hidden].any() and not d_v[hidden].any() and d_v[~hidden].any()


def test_a_plan_that_overflows_falls_back_to_the_reference():
    qkv, _ = inputs(256, 256, 1, 1, 8, 8)
    mask = [np.repeat(x, 2, 0) for x in causal(256)]
    want = run(qkv, mask, "reference")
    for capacity, fits in ((2, False), (3, True)):
        plan = plan_128(*mask, capacity=capacity)
        assert bool(plan.fits) == fits and not plan.is_complete
        close(run(qkv, mask, "tpu", plan), want, 1e-4 if fits else 1e-6)


def test_a_plan_that_overflows_under_vmap_stays_within_its_lists():
    qkv, _ = inputs(256, 256, 1, 1, 8, 8)
    mask = [np.repeat(x, 2, 0) for x in causal(256)]
    plan = plan_128(*mask, capacity=2)
    for lists in (plan.bounded.rows, plan.bounded.columns):
        assert lists.begin.max() <= 2 and not (lists.full.any() or lists.partial.any())
    whole = plan_128(*mask, capacity=3)
    jax.tree.map(np.testing.assert_array_equal, whole.bounded, whole)

    def one(*args):
        *args, plan = jax.tree.map(lambda x: x[None], args)
        return interval_attention(*args, plan=plan, implementation="tpu")[0]

    got = jax.jit(jax.vmap(one))(*qkv, *mask, plan)
    close([got], run(qkv, mask, "reference")[:1], 1e-6)


def test_long_keys_go_in_spans_and_long_plans_row_by_row(monkeypatch):
    monkeypatch.setattr(tpu_backward, "KEY_BYTES", 1)  # one block of keys
    monkeypatch.setattr(tpu, "WORDS", 1)
    qkv, mask = inputs(200, 300, 2, 2, 32, 32)
    jax.clear_caches()
    close(run(qkv, mask, "tpu", plan_128(*mask)), run(qkv, mask, "reference"))
    jax.clear_caches()


def test_is_the_same_under_vmap_scan_and_remat():
    qkv, mask = inputs(256, 256, 2, 1, 16, 16)
    plan = plan_128(*mask)

    def total(q, k, v, mask, plan):
        out = interval_attention(q, k, v, *mask, plan=plan, implementation="tpu")
        return jnp.sum(out**2)

    def scanned(q, k, v):
        layer = jax.checkpoint(lambda c, k: (c + total(q, k, v, mask, plan), None))
        return jax.lax.scan(layer, 0.0, jnp.stack([k, k]))[0]

    want = jax.jit(jax.grad(total))(*qkv, mask, plan)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(*qkv), 2 * want, atol=1e-5)
    one = lambda *args: jax.grad(total)(*jax.tree.map(lambda x: x[None], args))[0]
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(*qkv, mask, plan), want, atol=1e-5)


def test_shards_of_rows_and_heads_give_the_whole():
    qkv, mask = inputs(256, 256, 4, 2, 16, 16)
    want = run(qkv, mask, "reference")
    mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    rows, heads = P("data"), P("data", None, "tensor")

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(heads, heads, heads, rows, rows, rows, rows),
        out_specs=(heads, heads),
        check_vma=False,
    )
    def attend(q, k, v, clock, start, stop, plan):
        options = {"plan": plan, "implementation": "tpu", "return_lse": True}
        return interval_attention(q, k, v, clock, start, stop, **options)

    plan = plan_128(*mask)
    out, lse = jax.jit(attend)(*qkv, *mask, plan)
    close((out, lse), want[:2])
    grads = jax.jit(jax.grad(lambda *qkv: jnp.sum(attend(*qkv, *mask, plan)[0] ** 2), (0, 1, 2)))
    reference = functools.partial(interval_attention, implementation="reference")
    whole = jax.jit(jax.grad(lambda *qkv: jnp.sum(reference(*qkv, *mask) ** 2), (0, 1, 2)))
    close(grads(*qkv), whole(*qkv))


def test_without_a_name_a_tpu_gets_the_kernel_and_a_cpu_the_reference():
    qkv, mask = inputs(256, 256, 1, 1, 16, 16)
    attend = jax.jit(jax.grad(lambda *args: jnp.sum(interval_attention(*args)), (0, 1, 2)))
    traced = attend.trace(*qkv, *mask)
    on_tpu, on_cpu = (traced.lower(lowering_platforms=(x,)).as_text() for x in ("tpu", "cpu"))
    assert on_tpu.count("tpu_custom_call") == 2
    assert "custom_call" not in on_cpu
    close(attend(*qkv, *mask), run_sum(qkv, mask), 1e-6)


def test_decoding_on_a_tpu_runs_the_reference_since_one_query_would_waste_a_block():
    (q, k, v), (clock, *keys) = inputs(1, 256, 1, 1, 16, 16)
    traced = jax.jit(interval_attention).trace(q, k, v, clock, *keys)
    assert "custom_call" not in traced.lower(lowering_platforms=("tpu",)).as_text()


def run_sum(qkv, mask):
    total = lambda *qkv: jnp.sum(interval_attention(*qkv, *mask, implementation="reference"))
    return jax.jit(jax.grad(total, (0, 1, 2)))(*qkv)


def test_blocks_that_a_tpu_cannot_have_and_plans_of_other_shapes_are_refused():
    qkv, mask = inputs(256, 256, 1, 1, 16, 16)
    with pytest.raises(ValueError, match="multiples of 128, but the plan has 64 x 128"):
        run(qkv, mask, "tpu", make_plan(*mask, block_q=64, block_k=128))
    other = plan_128(mask[0], *(x[:, 1:] for x in mask[1:]))
    with pytest.raises(ValueError, match=r"plan.start has shape \(2, 255\)"):
        run(qkv, mask, "tpu", other)


def test_the_compiler_is_left_no_kernel_to_cut_up_over_devices():
    qkv, mask = inputs(256, 256, 2, 1, 64, 64)
    program = lambda: str(jax.make_jaxpr(lambda *x: interval_attention(*x, *mask))(*qkv))
    assert "pallas_call" in program()
    for kind in (AxisType.Auto, AxisType.Explicit):
        with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(kind,))):
            assert "pallas_call" not in program()


def test_nothing_to_attend_with_and_plans_for_nobody_are_refused():
    qkv, mask = inputs(256, 256, 1, 1, 16, 16)
    with pytest.raises(ValueError, match="at least one of everything"):
        interval_attention(
            qkv[0], *(x[:, :0] for x in qkv[1:]), mask[0], *(x[:, :0] for x in mask[1:])
        )
    with pytest.raises(ValueError, match=r"plans for \['tpv'\]: the kernels are \['gpu', 'tpu'\]"):
        run(qkv, mask, None, {"tpv": plan_128(*mask)})
