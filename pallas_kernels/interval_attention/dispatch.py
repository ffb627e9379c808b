"""Which implementation runs, decided when the platform is known: at lowering, not while tracing.

An implementation is a module with
- `forward(q, k, v, clock, start, stop, plan, *, scale, soft_cap, interpret) -> (out, lse)`,
- `backward(<the same>, out, lse, d_out, d_lse, *, scale, soft_cap, interpret) -> (dq, dk, dv)`,
- `default_plan(clock, start, stop) -> Plan`, for callers that have none,
with shapes as in the package's `interval_attention`. Forward and backward share one custom_vjp, so
that what is saved between them is the same on every platform.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.interval_attention import gpu, reference, tpu
from pallas_kernels.interval_attention.plan import Plan

# By name: the platform and the module.
KERNELS: dict[str, tuple[str, ModuleType]] = {"tpu": ("tpu", tpu), "gpu": ("cuda", gpu)}


class Call(NamedTuple):
    """Static facts of a call. `implementation` is the name of a kernel, or None."""

    implementation: str | None
    scale: float
    soft_cap: float | None

    @property
    def options(self) -> dict[str, Any]:
        return {"scale": self.scale, "soft_cap": self.soft_cap}


class Mask(NamedTuple):
    """Who sees whom: clock `[B T]`, start and stop `[B S]`, and the blocks to visit."""

    clock: jax.Array
    start: jax.Array
    stop: jax.Array
    plan: Plan | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(call: Call, q, k, v, mask: Mask):
    """Output `[B T N Hv]` and lse `[B T N]`."""
    return _run(call, "forward", (q, k, v), mask)


def _attend_fwd(call, q, k, v, mask):
    out, lse = attend(call, q, k, v, mask)
    return (out, lse), (q, k, v, mask, out, lse)


def _attend_bwd(call, residuals, cotangents):
    q, k, v, mask, *results = residuals
    return *_run(call, "backward", (q, k, v), mask, *results, *cotangents), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _run(call: Call, way: str, *args):
    """Forward or backward, on the platform being compiled for."""
    run = {
        platform: functools.partial(_kernel, name, way, False, call)
        for name, (platform, _) in KERNELS.items()
        if call.implementation in (None, name) and _suits(name, call, *args[:2])
    }
    if call.implementation is None:
        default = functools.partial(REFERENCE[way], call)
        return jax.lax.platform_dependent(*args, **run, default=default)
    run["cpu"] = functools.partial(_kernel, call.implementation, way, True, call)
    return jax.lax.platform_dependent(*args, **run)


def _suits(name: str, call: Call, qkv, mask: Mask) -> bool:
    """Whether a kernel runs on its platform: a named one does or fails; not every GPU can."""
    if call.implementation is not None:
        return True
    best = getattr(KERNELS[name][1], "is_best", None)
    return not _is_partitioned() and (best is None or best(*qkv, mask.plan, call.scale))


def _is_partitioned() -> bool:
    """Whether the compiler cuts the program up over devices: it cannot cut a kernel, for which the
    call must stand in a `shard_map` (`context.py`)."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return any(size > 1 and kind == jax.sharding.AxisType.Auto for size, kind in axes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _kernel(name: str, way: str, interpret: bool, call: Call, qkv, mask: Mask, *rest):
    """A kernel's forward or backward; the reference's if the plan has overflowed."""
    module = KERNELS[name][1]
    plan = mask.plan or module.default_plan(*mask[:3])

    def kernel(qkv, mask, *rest):
        run = getattr(module, way)
        return run(*qkv, *mask[:3], mask.plan, *rest, interpret=interpret, **call.options)

    args = (qkv, mask._replace(plan=plan), *rest)
    if plan.is_complete:
        return kernel(*args)
    return jax.lax.cond(plan.fits, kernel, functools.partial(REFERENCE[way], call), *args)


def _reference_forward(call: Call, qkv, mask: Mask):
    q, k, v = qkv
    run = reference.interval_attention
    return run(q, k, v, mask.clock, mask.start, mask.stop, **call.options)


def _reference_backward(call: Call, qkv, mask: Mask, out, lse, d_out, d_lse):
    q, k, v = qkv
    (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
    chunk = max(reference.MIN_CHUNK, reference.SCORES // max(B * N * S, 1))
    n = max(1, -(-T // chunk))
    C = -(-T // n)

    def split(x):  # [B T N ...] -> [n B K G C ...]
        x = jnp.pad(x, [(0, 0), (0, n * C - T)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(B, n, C, K, N // K, *x.shape[3:])
        return jnp.moveaxis(x, (1, 2), (0, 4))

    keys = reference.Keys(k.swapaxes(1, 2), v.swapaxes(1, 2), mask.start, mask.stop)
    clock = jnp.pad(mask.clock, ((0, 0), (0, n * C - T))).reshape(B, n, C).swapaxes(0, 1)
    d_q, d_keys, _ = reference._attend_bwd(
        reference.Options(**call.options),
        (split(q), keys, clock, split(out), split(lse)),
        (split(d_out), split(d_lse)),
    )
    d_q = jnp.moveaxis(d_q, (0, 4), (1, 2)).reshape(B, n * C, N, -1)[:, :T]
    return d_q, d_keys.k.swapaxes(1, 2), d_keys.v.swapaxes(1, 2)


REFERENCE: dict[str, Callable] = {"forward": _reference_forward, "backward": _reference_backward}
