"""Which implementation runs, decided when the platform is known: at lowering, not while tracing.

An implementation is a module with
- `forward(q, k, v, clock, start, stop, plan, *, scale, soft_cap, interpret) -> (out, lse)`,
- `backward(<the same>, out, lse, d_out, d_lse, *, scale, soft_cap, interpret) -> (dq, dk, dv)`,
- `default_plan(clock, start, stop) -> Plan`, for callers that have none,
- `is_best(q, k, v, plan, scale) -> bool`: whether a caller who names none gets it on its platform,
with shapes as in the package's `interval_attention`. Forward and backward share one custom_vjp, so
that what is saved between them is the same on every platform. They raise ValueError, with the
reason, for what they cannot do; a caller who named them meets it on that platform alone.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax

from pallas_kernels.interval_attention import gpu, reference, tpu
from pallas_kernels.interval_attention.plan import Plan
from pallas_kernels.interval_attention.refusal import refused
from pallas_kernels.interval_attention.width import in_32_bits

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


Plans = Mapping[str, Plan]  # by the name of the kernel


class Mask(NamedTuple):
    """Who sees whom: clock `[B T]`, start and stop `[B S]`, and the blocks to visit."""

    clock: jax.Array
    start: jax.Array
    stop: jax.Array
    plan: Plan | Plans | None

    def plan_of(self, name: str) -> Plan | None:
        """The plan that is meant for a kernel."""
        return self.plan.get(name) if isinstance(self.plan, Mapping) else self.plan


def make_plans(clock, start, stop) -> Plans:
    """A plan for each kernel, with the blocks that suit it best.

    Which one is used shows when the program is compiled for a platform; the others are dead code.
    """
    return {name: kernel.default_plan(clock, start, stop) for name, (_, kernel) in KERNELS.items()}


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
    if (name := call.implementation) is not None:
        platforms = {KERNELS[name][0]: False, "cpu": True}  # whether interpreted
        named = {p: _named(name, way, interpret, call) for p, interpret in platforms.items()}
        reason = f"{name!r} runs on {' and, interpreted, on '.join(platforms)}, not elsewhere"
        elsewhere = functools.partial(_refused, reason, way, call)
        return jax.lax.platform_dependent(*args, **named, default=elsewhere)
    best = {
        platform: functools.partial(_kernel, name, way, False, call)
        for name, (platform, kernel) in KERNELS.items()
        if not _is_partitioned() and kernel.is_best(*args[0], args[1].plan_of(name), call.scale)
    }
    default = functools.partial(_reference, way, call)
    return jax.lax.platform_dependent(*args, **best, default=default)


def _named(name: str, way: str, interpret: bool, call: Call):
    """A kernel that works, or fails with its reason where it is the platform's turn."""

    def run(qkv, *rest):
        try:
            return _kernel(name, way, interpret, call, qkv, *rest)
        except ValueError as error:
            return _refused(str(error), way, call, qkv, *rest)

    return run


def _refused(reason: str, way: str, call: Call, qkv, *rest):
    """Results of the right shapes, in a program that cannot be lowered."""
    q, *kv = qkv
    return _reference(way, call, (refused(q, reason), *kv), *rest)


def _is_partitioned() -> bool:
    """Whether the compiler cuts the program up over devices: it cannot cut a kernel, for which the
    call must stand in a `shard_map` (`context.py`)."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return any(size > 1 and kind != jax.sharding.AxisType.Manual for size, kind in axes)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
@in_32_bits
def _kernel(name: str, way: str, interpret: bool, call: Call, qkv, mask: Mask, *rest):
    """A kernel's forward or backward; the reference's if the plan has overflowed."""
    module = KERNELS[name][1]
    plan = mask.plan_of(name) or module.default_plan(*mask[:3])

    def kernel(qkv, mask, *rest):
        run = getattr(module, way)
        return run(*qkv, *mask[:3], mask.plan, *rest, interpret=interpret, **call.options)

    if plan.is_complete:
        return kernel(qkv, mask._replace(plan=plan), *rest)
    args = (qkv, mask._replace(plan=plan.bounded), *rest)
    return jax.lax.cond(plan.fits, kernel, functools.partial(_reference, way, call), *args)


def _reference(way: str, call: Call, qkv, mask: Mask, *rest):
    options = reference.Options(call.scale, call.soft_cap)
    return getattr(reference, way)(options, *qkv, *mask[:3], *rest)
