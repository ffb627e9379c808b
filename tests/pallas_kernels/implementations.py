"""The implementations that the tests go through, and what a test does with one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.interval_attention import interval_attention, make_plan, reference

BLOCK = 128  # of the TPU kernels in tests: the smallest, so that short rows have several

by_name = functools.partial(functools.partial, interval_attention, return_lse=True)


def tpu_in_blocks(q, k, v, clock, start, stop, **options):
    plan = make_plan(clock, start, stop, block_q=BLOCK, block_k=BLOCK)
    attend = by_name(implementation="tpu", plan=plan, **options)
    return attend(q, k, v, clock, start, stop)


REFERENCES = {
    "reference": reference.interval_attention,
    "reference, chunked": functools.partial(reference.interval_attention, chunk=16),
}
FLOAT32 = REFERENCES | {"tpu": tpu_in_blocks}
IMPLEMENTATIONS = FLOAT32 | {"gpu": by_name(implementation="gpu")}

# Kernels are interpreted, which is slow: they take part in a few of the tests.
each_reference = pytest.mark.parametrize("implementation", REFERENCES)
each_in_float32 = pytest.mark.parametrize("implementation", FLOAT32)
simulated = pytest.param("gpu", marks=pytest.mark.slow)
every_implementation = pytest.mark.parametrize("implementation", [*FLOAT32, simulated])


@functools.partial(jax.jit, static_argnums=(0, 4))
def run(name, qkv, intervals, cotangents, options=()):
    """Output, lse and the gradients in q, k, v."""
    attend = functools.partial(IMPLEMENTATIONS[name], **dict(options))
    outputs, backward = jax.vjp(lambda *qkv: attend(*qkv, *intervals), *qkv)
    return *outputs, *backward(cotangents)


def inputs(B, T, S, N, K, H, V, dtype=np.float32, seed=0):
    """Random q, k, v of a dtype, and cotangents of the output and the lse."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)
    qkv = draw(B, T, N, H), draw(B, S, K, H), draw(B, S, K, V)
    return jax.device_put((qkv, (draw(B, T, N, V), draw(B, T, N).astype(np.float32))))


def visible(name, clock, start, stop):
    """The boolean matrices `[B T S]` that an implementation applies, from vectors `[B T]`, `[B S]`.

    All scores are equal and the values are one-hot, so the output is the mask over its row sums.
    """
    (B, T), S = clock.shape, start.shape[1]
    V = -(-S // 8) * 8
    q, k = (jnp.zeros((B, n, 1, 16), jnp.bfloat16) for n in (T, S))
    v = jnp.broadcast_to(jnp.eye(S, V, dtype=q.dtype)[None, :, None], (B, S, 1, V))
    out = jax.jit(IMPLEMENTATIONS[name])(q, k, v, clock, start, stop)[0]
    return np.asarray(out[:, :, 0, :S] > 0)
