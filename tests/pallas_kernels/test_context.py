"""A sharded sequence gives what one device gives, on eight virtual devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention import context, interval_attention, make_plan
from tests.pallas_kernels import oracle
from tests.pallas_kernels.implementations import BLOCK, inputs

LENGTH = 320


def sharding(data, length, tensor):
    mesh = jax.make_mesh(
        (data, length, tensor), ("data", "context", "tensor"), axis_types=(AxisType.Auto,) * 3
    )
    return context.Sharding(mesh, "data", "context", "tensor")


def results(attend, qkv, cotangents, **options):
    """Output, lse and the gradients in q, k, v."""

    @jax.jit
    def run(qkv, cotangents):
        outputs, backward = jax.vjp(lambda *qkv: attend(*qkv, return_lse=True, **options), *qkv)
        return *outputs, *backward(cotangents)

    return run(qkv, cotangents)


@pytest.mark.parametrize("parts", [(1, 8, 1), (2, 2, 2)], ids=["8", "2x2x2"])
@pytest.mark.parametrize("name", ["reference", "tpu"])
def test_values_lse_and_gradients_equal_those_of_one_device(name, parts):
    mask = oracle.pack(oracle.LONG, LENGTH)[:3]
    arrays = inputs(2, LENGTH, LENGTH, 4, 2, 16, 24)

    def run(attend, make_plan, arrays):
        plan = make_plan(*mask, block_q=BLOCK, block_k=BLOCK)
        options = {"plan": plan, "implementation": name, "soft_cap": 2.0}
        return results(lambda *qkv, **o: attend(*qkv, *mask, **o), *arrays, **options)

    want = run(interval_attention, make_plan, arrays)
    over = sharding(*parts)
    place = NamedSharding(over.mesh, P("data", "context", "tensor"))
    attend = functools.partial(context.interval_attention, sharding=over)
    make = functools.partial(context.make_plan, sharding=over)
    got = run(attend, make, jax.device_put(arrays, place))
    assert got[0].sharding.spec == place.spec
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_plan_holds_the_visits_of_every_device():
    clock, start, stop = oracle.pack(oracle.LONG, LENGTH)[:3]
    over = sharding(2, 4, 1)
    plan = context.make_plan(clock, start, stop, sharding=over, block_q=8, block_k=8)
    whole = make_plan(clock, start, stop, block_q=8, block_k=8)
    assert plan.rows.words.sharding.spec == P(("data", "context"))
    for ours, theirs in zip(plan.stats, whole.stats, strict=True):
        np.testing.assert_array_equal(ours.reshape(2, 4).sum(1), theirs)


def test_lowers_for_tpus_with_one_kernel_on_each_device_and_gathered_keys():
    over = sharding(1, 8, 1)
    shape = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct((1, 4096, *shape), dtype)
    vector = shape(dtype=jnp.int32)

    def loss(q, k, v, clock, start, stop):
        plan = context.make_plan(clock, start, stop, sharding=over, block_q=512, block_k=512)
        attend = functools.partial(context.interval_attention, sharding=over, plan=plan)
        return attend(q, k, v, clock, start, stop, implementation="tpu").astype(jnp.float32).sum()

    args = shape(4, 128), shape(2, 128), shape(2, 128), vector, vector, vector
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*args)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") >= 2  # forward and backward
    assert "all_gather" in text and "reduce_scatter" in text


def test_what_cannot_be_shared_out_is_refused():
    (q, k, v), _ = inputs(2, LENGTH, LENGTH, 4, 2, 16, 16)
    mask = oracle.pack(oracle.TYPICAL, LENGTH)[:3]
    with pytest.raises(ValueError, match="2 key heads cannot be shared out over 4 parts of axes"):
        context.interval_attention(q, k, v, *mask, sharding=sharding(2, 1, 4))
    with pytest.raises(ValueError, match="316 queries cannot be shared out over 8 parts"):
        cut = (q[:, 4:], k, v, mask[0][:, 4:], *mask[1:])
        context.interval_attention(*cut, sharding=sharding(1, 8, 1))
