"""Interval attention over a mesh: the sequence sharded (context parallel), and rows and heads.

The compiler cannot partition a Pallas kernel, so each device runs it on its own queries, against
all keys of its rows and heads. Keys and values are gathered over the axes of the sequence; going
backward their gradients are summed and scattered. Nothing is approximated.

Keys are gathered and not passed round a ring because the work of packed rows is uneven. In a ring
all devices wait, at every step, for the one with most blocks to visit; with gathered keys each goes
through its own list. Over 8 devices and blocks of 128, the rows of `bench/packings.json` would take
a ring 1.06 to 1.5 times as many visits one after another in row order, and 1.27 to 1.9 times in two
streams. Of grouped heads, keys and values are small: at 128k tokens, 4 key heads of 128 and
bfloat16 they take 256 MiB of a device while a layer runs.

The slowest device still has 1.1 to 2.6 times the mean to do, if each holds a stretch of the row.
Attention reads clocks and not places, so a packer may deal out blocks in turn, which makes that
1.06 to 1.6.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `Hv` value dim.
"""

import functools
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from pallas_kernels import interval_attention as single
from pallas_kernels.interval_attention.dispatch import Plans
from pallas_kernels.interval_attention.plan import Plan

Axes = str | tuple[str, ...] | None


class Sharding(NamedTuple):
    """The mesh, and its axes over which each dimension is sharded, major first."""

    mesh: Mesh | AbstractMesh
    batch: Axes = None
    length: Axes = None  # of queries and of keys
    heads: Axes = None  # of queries and of keys

    def size(self, axes: Axes) -> int:
        """Into how many parts `axes` divide a dimension."""
        names = (axes,) if isinstance(axes, str) else axes or ()
        size = 1
        for name in names:
            size *= self.mesh.shape[name]
        return size

    @property
    def devices(self) -> P:
        """How a plan is sharded: one for each part of the rows and of the queries."""
        flat = [(axes,) if isinstance(axes, str) else axes or () for axes in self[1:3]]
        return P(flat[0] + flat[1])


def interval_attention(
    q,
    k,
    v,
    clock,
    start,
    stop,
    *,
    sharding: Sharding,
    plan: Plan | Plans | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    implementation: str | None = None,
    return_lse: bool = False,
):
    """As the package's `interval_attention`, on global arrays inside or outside `jax.jit`.

    `plan` must come from `make_plan` or `make_plans` of this module, with the same sharding.

    Raises ValueError if an axis does not divide its dimension, and what the implementation raises.
    """
    _check(q, k, sharding)
    axes = sharding.length
    gather = functools.partial(jax.lax.all_gather, axis_name=axes, axis=1, tiled=True)

    def local(q, k, v, clock, start, stop, plan):
        if axes:
            k, v = gather(k), gather(v)
        return single.interval_attention(
            *(q, k, v, clock, start, stop),
            plan=plan,
            implementation=implementation,
            scale=scale,
            soft_cap=soft_cap,
            return_lse=True,
        )

    tokens = P(sharding.batch, sharding.length)
    heads = P(*tokens, sharding.heads)
    out, lse = jax.shard_map(
        local,
        mesh=sharding.mesh,
        in_specs=(
            heads,
            heads,
            heads,
            tokens,
            P(sharding.batch),
            P(sharding.batch),
            sharding.devices,
        ),
        out_specs=(heads, heads),
        check_vma=False,
    )(q, k, v, clock, start, stop, plan)
    return (out, lse) if return_lse else out


def make_plan(clock, start, stop, *, sharding: Sharding, **sizes) -> Plan:
    """The package's `make_plan` for the queries of every device; `sizes` are its options.

    All arrays lead with the parts of the batch and, within each, of the sequence.
    """
    make = functools.partial(single.make_plan, **sizes)
    return _on_every_device(make, sharding)(clock, start, stop)


def make_plans(clock, start, stop, *, sharding: Sharding) -> Plans:
    """The package's `make_plans` for the queries of every device."""
    return _on_every_device(single.make_plans, sharding)(clock, start, stop)


def _on_every_device(make, sharding: Sharding):
    return jax.shard_map(
        make,
        mesh=sharding.mesh,
        in_specs=(P(sharding.batch, sharding.length), P(sharding.batch), P(sharding.batch)),
        out_specs=sharding.devices,
        check_vma=False,
    )


def _check(q, k, sharding: Sharding) -> None:
    wanted = {
        "rows": (q.shape[0], sharding.batch),
        "queries": (q.shape[1], sharding.length),
        "keys": (k.shape[1], sharding.length),
        "key heads": (k.shape[2], sharding.heads),
    }
    for what, (n, axes) in wanted.items():
        if n % (parts := sharding.size(axes)):
            raise ValueError(f"{n} {what} cannot be shared out over {parts} parts of axes {axes}")
