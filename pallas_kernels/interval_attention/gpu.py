"""Interval attention on Hopper GPUs: arguments into the kernels' shapes, and results out of them.

The kernels are written for Mosaic GPU, since JAX has deprecated Triton for Pallas, and only Mosaic
reaches the asynchronous tensor cores and copies of Hopper (compute capability 9.0).

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
import math
import os

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.interval_attention import gpu_backward, gpu_forward
from pallas_kernels.interval_attention.gpu_forward import MAX_WARPGROUPS, Options
from pallas_kernels.interval_attention.gpu_tiles import PIECE
from pallas_kernels.interval_attention.gpu_warpgroup import ROWS
from pallas_kernels.interval_attention.manual import vary_alike
from pallas_kernels.interval_attention.plan import Plan, make_plan

TILE = ROWS * MAX_WARPGROUPS  # queries, or keys, that a program works for at a time
CAPACITY = 1 << 21  # visits of a list: all there can be in a row of 131,072 tokens, 8 MiB
WIDTH = 64  # head dims are padded to a multiple: a row of shared memory
MAX_WIDTH = 256
NEVER = 1e30  # stands for the lse of a query that sees no key: all its probabilities are zero
CAPABILITY = "9.0"
MIN_THREADS = 6  # of JAX's pool on a CPU: callers and warpgroups block one each in the simulator


def default_plan(clock: Array, start: Array, stop: Array) -> Plan:
    """The plan with the blocks that are best on Hopper."""
    blocks = {"block_q": TILE, "block_k": PIECE, "block_columns": TILE}
    return make_plan(clock, start, stop, **blocks, capacity=CAPACITY)


def obstacle(q, k, v, plan: Plan | None, scale: float, interpret: bool) -> str | None:
    """Why the kernels cannot do this call, or None."""
    dtypes = {x.dtype for x in (q, k, v)}
    if not interpret and not dtypes <= {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)}:
        return f"the tensor cores multiply 16-bit numbers and would round {q.dtype}"
    if len(dtypes) > 1:
        return f"q, k and v must have one dtype, not {q.dtype}, {k.dtype}, {v.dtype}"
    if scale <= 0:
        return f"the scale must be positive, not {scale}"
    if max(q.shape[-1], v.shape[-1]) > MAX_WIDTH:
        return f"head dims {q.shape[-1]} and {v.shape[-1]} are more than {MAX_WIDTH}"
    if plan is not None and any(n % TILE for n in (plan.block_q, plan.block_columns)):
        sizes = f"{plan.block_q} x {plan.block_columns}"
        return f"a GPU needs blocks of multiples of {TILE}, but the plan has {sizes}"
    if plan is not None and plan.block_k % PIECE:
        return f"a GPU needs blocks of multiples of {PIECE} keys, but the plan has {plan.block_k}"
    threads = max(os.cpu_count() or 1, jax.device_count())
    if interpret and threads < MIN_THREADS:
        return (
            f"JAX's simulator of a GPU stops for ever with {threads} threads: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={MIN_THREADS}"
        )
    return None


def is_best(q, k, v, plan: Plan | None, scale: float) -> bool:
    """Whether a caller who named no implementation gets these kernels on a GPU."""
    return obstacle(q, k, v, plan, scale, False) is None and _is_hopper()


def _is_hopper() -> bool:
    try:
        return all(device.compute_capability == CAPABILITY for device in jax.devices("cuda"))
    except RuntimeError:  # no such platform
        return False


def _multiprocessors() -> int:
    """Of this machine's GPUs; where there are none, of an H100 or H200."""
    try:
        return min(device.core_count for device in jax.devices("cuda"))
    except RuntimeError:  # no such platform
        return 132


def forward(q, k, v, clock, start, stop, plan: Plan, *, scale, soft_cap, interpret):
    """Outputs `[B T N V]` and lse `[B T N]`; shapes as in the package's `interval_attention`.

    Raises ValueError for what the kernels cannot do, with the reason.
    """
    (T, V), options = (q.shape[1], v.shape[3]), _options(q, k, v, plan, scale, soft_cap, interpret)
    arguments = _arguments(q, k, v, clock, start, stop, plan)
    out, lse = _run(gpu_forward.forward, options, *arguments, plan.rows)
    return out[:, :T, :, :V], lse.swapaxes(1, 2)[:, :T]


def backward(
    q, k, v, clock, start, stop, plan: Plan, out, lse, d_out, d_lse, *, scale, soft_cap, interpret
):
    """Gradients of q, k and v; `out` and `lse` as `forward` gave them."""
    options = _options(q, k, v, plan, scale, soft_cap, interpret)
    arguments = _arguments(q, k, v, clock, start, stop, plan)
    blind = lse == -jnp.inf
    less = jnp.einsum("btnv,btnv->btn", out, d_out, preferred_element_type=jnp.float32)
    less = less - jnp.where(blind, 0.0, d_lse)
    stats = jnp.stack([jnp.where(blind, NEVER, lse * math.log2(math.e)), less], 1)
    stats = jnp.pad(stats, ((0, 0), (0, 0), (0, -stats.shape[2] % plan.block_q), (0, 0)))
    d_out = _whole(d_out.astype(q.dtype), plan.block_q)
    stats = stats.transpose(0, 3, 1, 2)
    lists = plan.rows, plan.columns
    grads = _run(gpu_backward.backward, options, *arguments, d_out, stats, *lists)
    return tuple(d[:, : x.shape[1], :, : x.shape[3]] for d, x in zip(grads, (q, k, v), strict=True))


def _run(kernels, options: Options, *args):
    """On the chip, or simulated: in a callback, which hides the effects of the simulator.

    With them it could neither be differentiated under remat, nor be one of several platforms.
    """
    if options.simulated:
        results = jax.eval_shape(functools.partial(kernels, options), *args)
        simulate = functools.partial(_jitted(kernels), options)
        results = jax.pure_callback(simulate, results, *args, vmap_method="sequential")
    else:
        results = kernels(options, *args)
    return vary_alike((args, results))[1]


@functools.cache
def _jitted(kernels):
    return jax.jit(kernels, static_argnums=0)


def _options(q, k, v, plan: Plan, scale, soft_cap, interpret) -> Options:
    if reason := obstacle(q, k, v, plan, scale, interpret):
        raise ValueError(reason)
    blocks = plan.block_q, plan.block_k, plan.block_columns
    return Options(scale, soft_cap, *blocks, _multiprocessors(), interpret)


def _arguments(q, k, v, clock, start, stop, plan: Plan) -> tuple[Array, Array, Array, Array, Array]:
    """The kernels' arguments, padded to whole blocks; padding of keys is seen by none, and `ends`
    have a piece of it beyond the keys.
    """
    q, k, v = _whole(q, plan.block_q), _whole(k, plan.block_columns), _whole(v, plan.block_columns)
    clock = jnp.pad(clock, ((0, 0), (0, q.shape[1] - clock.shape[1])), mode="edge")
    ends = jnp.stack([start, stop], 1)
    ends = jnp.pad(ends, ((0, 0), (0, 0), (0, k.shape[1] + PIECE - ends.shape[2])))
    return q, k, v, clock[:, None], ends


def _whole(x: Array, block: int) -> Array:
    """`[B T N H]`, padded with zeros to whole blocks and to a width that can be swizzled."""
    grow = lambda n, to: (0, -n % to)
    return jnp.pad(x, ((0, 0), grow(x.shape[1], block), (0, 0), grow(x.shape[3], WIDTH)))
