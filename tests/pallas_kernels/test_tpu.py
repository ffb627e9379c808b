"""The TPU kernels, in Pallas's interpret mode, against the reference; and that TPUs get them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from pallas_kernels.interval_attention import (
    interval_attention,
    make_plan,
    make_plans,
    tpu,
    tpu_backward,
)
from pallas_kernels.interval_attention.bench.workload import causal, intervals
from tests.pallas_kernels import implementations

ROWS = (
    [[(30, "causal"), (90, "noise")], [(60, "full"), (40, "causal")], [(1, "causal")]],
    [[(150, "causal")], [(10, "causal"), (20, "full"), (33, "noise"), (5, "causal")]],
)


def inputs(T=300, S=300, N=2, K=1, H=16, V=16):
    """Queries, keys, values, and the clocks and intervals of two packed rows of `S` tokens.

    The queries are the first `T` tokens of the row; those that are padding are blind.
    """
    qkv, _ = implementations.inputs(2, T, S, N, K, H, V)
    rows = [intervals(documents, S, two_streams=b == 1) for b, documents in enumerate(ROWS)]
    clock, start, stop = (np.concatenate(x) for x in zip(*rows, strict=True))
    return qkv, (clock[:, :T], start, stop)


@functools.partial(jax.jit, static_argnames="implementation")
def run(qkv, mask, implementation, plan=None):
    """Output, lse, and gradients of some function of both."""

    def total(*qkv):
        attend = functools.partial(interval_attention, implementation=implementation, plan=plan)
        out, lse = attend(*qkv, *mask, return_lse=True)
        weight = jnp.cos(jnp.arange(out.size).reshape(out.shape))
        seen = jnp.where(lse == -jnp.inf, 0.0, lse)
        return jnp.sum(out * weight) + jnp.sum(jnp.sin(seen)), (out, lse)

    (_, results), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*qkv)
    return *results, *grads


def close(got, want, tolerance=1e-4):
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)


plan_128 = functools.partial(make_plan, block_q=128, block_k=128)


def test_rectangular_blocks_and_fewer_queries_than_keys():
    qkv, mask = inputs(T=170)
    got = run(qkv, mask, "tpu", make_plan(*mask, block_q=128, block_k=256))
    close(got, run(qkv, mask, "reference"))


def test_of_plans_for_all_kernels_each_takes_its_own():
    qkv, mask = inputs()
    plans = make_plans(*mask)
    assert plans["tpu"].block_k == 384 and plans["gpu"].block_k == 64
    unfit = make_plan(*mask, block_q=64, block_k=64)
    lower = lambda plan: run.lower(qkv, mask, "tpu", plan)
    lower(plans | {"gpu": unfit})
    with pytest.raises(ValueError, match="multiples of 128, but the plan has 64 x 64"):
        lower(plans | {"tpu": unfit})
    other = make_plans(mask[0], *(x[:, 1:] for x in mask[1:]))
    with pytest.raises(ValueError, match=r"gpu.start has shape \(2, 299\)"):
        lower(plans | {"gpu": other["gpu"]})


def test_keys_that_nobody_sees_get_zero_gradients():
    qkv, (clock, start, stop) = inputs()
    mask = clock, start, np.where(start > 100, start, stop)
    d_k, d_v = run(qkv, mask, "tpu", plan_128(*mask))[3:]
    hidden = start > 100
    assert not d_k[hidden].any() and not d_v[hidden].any() and d_v[~hidden].any()


def test_a_plan_that_overflows_falls_back_to_the_reference():
    qkv, few = inputs()
    many = [np.repeat(x, 2, 0) for x in causal(300)]
    for mask, fits in ((few, True), (many, False)):
        plan = plan_128(*mask, capacity=5)
        assert bool(plan.fits) == fits and not plan.is_complete
        close(run(qkv, mask, "tpu", plan), run(qkv, mask, "reference"), 1e-4 if fits else 1e-6)


def test_a_plan_that_overflows_under_vmap_stays_within_its_lists():
    qkv, _ = inputs()
    mask = [np.repeat(x, 2, 0) for x in causal(300)]
    plan = plan_128(*mask, capacity=5)
    for lists in (plan.bounded.rows, plan.bounded.columns):
        assert lists.begin.max() <= 5 and not (lists.full.any() or lists.partial.any())
    whole = plan_128(*mask, capacity=6)
    jax.tree.map(np.testing.assert_array_equal, whole.bounded, whole)

    def one(*args):
        *args, plan = jax.tree.map(lambda x: x[None], args)
        return interval_attention(*args, plan=plan, implementation="tpu")[0]

    got = jax.jit(jax.vmap(one))(*qkv, *mask, plan)
    close([got], run(qkv, mask, "reference")[:1], 1e-6)


@pytest.mark.slow
def test_long_keys_go_in_spans_and_long_plans_row_by_row(monkeypatch):
    monkeypatch.setattr(tpu_backward, "KEY_BYTES", 1)  # one block of keys
    monkeypatch.setattr(tpu, "WORDS", 1)
    qkv, mask = inputs()
    jax.clear_caches()
    want = run(qkv, mask, "reference")
    close(run(qkv, mask, "tpu", plan_128(*mask, span=2)), want)
    jax.clear_caches()


def test_of_long_rows_no_layer_makes_the_lists():
    length = 2 * tpu_backward.SPAN
    shape = lambda *shape: jax.ShapeDtypeStruct((1, length, *shape), jnp.bfloat16)
    vectors = [jax.ShapeDtypeStruct((1, length), jnp.int32)] * 3
    plans = jax.eval_shape(make_plans, *vectors)
    assert [x.words.shape for x in plans["tpu"].spans] == [(1, 68 * 34)] * 2
    args = (shape(1, 128),) * 3, vectors, "tpu", plans
    program = str(jax.make_jaxpr(run, static_argnums=2)(*args))
    assert program.count("name=interval_attention_backward") == 2 * 2  # on a TPU, interpreted
    assert "sort[" not in program


def test_is_the_same_under_vmap_scan_and_remat():
    qkv, mask = inputs()
    plan = plan_128(*mask)

    def gradient(name, q, k, v, mask, plan):
        attend = functools.partial(interval_attention, implementation=name, plan=plan)

        def scanned(q, k, v):
            layer = jax.checkpoint(lambda x, k: (x + attend(x, k, v, *mask), None))
            return jnp.sum(jax.lax.scan(layer, q, jnp.stack([k, 2 * k]))[0] ** 2)

        return jax.grad(scanned, (0, 1, 2))(q, k, v)

    one = lambda *args: gradient("tpu", *jax.tree.map(lambda x: x[None], args))
    got = jax.jit(jax.vmap(one))(*qkv, mask, plan)
    want = jax.jit(functools.partial(gradient, "reference"))(*qkv, mask, None)
    close([x[:, 0] for x in got], want, 1e-3)


def test_without_a_name_a_tpu_gets_the_kernel_and_a_cpu_the_reference():
    qkv, mask = inputs(256, 256, 1, 1, 16, 16)
    attend = jax.jit(jax.grad(lambda *args: jnp.sum(interval_attention(*args)), (0, 1, 2)))
    traced = attend.trace(*qkv, *mask)
    on_tpu, on_cpu = (traced.lower(lowering_platforms=(x,)).as_text() for x in ("tpu", "cpu"))
    assert on_tpu.count("tpu_custom_call") == 2
    assert "custom_call" not in on_cpu
    close(attend(*qkv, *mask), run_sum(qkv, mask), 1e-6)


def test_kernels_count_in_32_bits_in_a_program_of_64():
    qkv, mask = inputs(256, 256, 1, 1, 16, 16)
    with jax.enable_x64(True):
        attend = jax.jit(jax.grad(lambda *args: jnp.sum(interval_attention(*args)), (0, 1, 2)))
        traced = attend.trace(*qkv, *mask)
        assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 2
        close(attend(*qkv, *mask), run_sum(qkv, mask), 1e-6)


def test_decoding_on_a_tpu_runs_the_reference_since_one_query_would_waste_a_block():
    (q, k, v), (clock, *keys) = inputs(1, 256, 1, 1, 16, 16)
    traced = jax.jit(interval_attention).trace(q, k, v, clock, *keys)
    assert "custom_call" not in traced.lower(lowering_platforms=("tpu",)).as_text()


def run_sum(qkv, mask):
    total = lambda *qkv: jnp.sum(interval_attention(*qkv, *mask, implementation="reference"))
    return jax.jit(jax.grad(total, (0, 1, 2)))(*qkv)


def test_blocks_that_a_tpu_cannot_have_and_plans_of_other_shapes_are_refused():
    qkv, mask = inputs()
    with pytest.raises(ValueError, match="multiples of 128, but the plan has 64 x 128"):
        run(qkv, mask, "tpu", make_plan(*mask, block_q=64, block_k=128))
    other = plan_128(mask[0], *(x[:, 1:] for x in mask[1:]))
    with pytest.raises(ValueError, match=r"plan.start has shape \(2, 299\)"):
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
