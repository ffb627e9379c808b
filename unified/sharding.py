"""Logical axis names -> mesh axes: the only file that spells a mesh axis.

Modules name the axes of their arrays (`constrain`, and `axes` of a parameter); a run makes a mesh.
`RULES` joins the two. Every mesh axis is used at most once per array, the leftmost name first, so
`("batch", "length", "embed")` shards rows of an activation and `("embed", "mlp")` both sides of a
weight with one table.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

MESH_AXES = ("data", "fsdp", "tensor")

RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layers": (),
}


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x` laid out over the mesh in use (`jax.set_mesh`) by the name of each axis.

    The identity without a mesh. Raises KeyError for a name that RULES lacks.
    """
    if len(names) != x.ndim:
        raise ValueError(f"{len(names)} axis names {names} for an array of shape {x.shape}")
    place = placement(x.shape, *names)
    return x if place is None else jax.lax.with_sharding_constraint(x, place[1])


def placement(shape: Sequence[int], *names: str | None) -> tuple[AbstractMesh, P] | None:
    """The mesh that the program is spread over by the compiler, and how an array lies on it.

    None on one device, and inside `shard_map`, where every device runs a program of its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    sizes = {name: size for name, size, kind in kinds if kind == AxisType.Auto}
    spec = partition(names, shape, sizes, strict=False)
    return None if math.prod(sizes.values()) == 1 else (mesh, spec)


def partition(
    names: Sequence[str | None],
    shape: Sequence[int],
    sizes: Mapping[str, int],
    *,
    strict: bool = True,
) -> P:
    """The mesh axes of each array axis, for a mesh of `sizes` (name -> devices).

    An axis that its mesh axes do not divide stays whole: that costs memory and changes no result.
    With `strict` a `tensor` axis that does not divide raises instead, because the work would then
    be repeated on every device of that axis.
    """
    free, entries = dict(sizes), []
    for name, size in zip(names, shape, strict=True):
        rule = () if name is None else RULES[name]
        axes = tuple(axis for axis in rule if free.get(axis, 1) > 1)
        ways = math.prod(free[axis] for axis in axes)
        if size % ways:
            if strict and "tensor" in axes:
                raise ValueError(f"mesh.tensor={ways} does not divide {name}={size}: lower it")
            axes = ()
        for axis in axes:
            del free[axis]
        entries.append(axes[0] if len(axes) == 1 else axes or None)
    return P(*entries)


def make_mesh(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes of `MESH_AXES`, in that order; absent ones have one device.

    `shape` maps axis -> devices; at most one may be -1, "all the rest". Raises ValueError where
    an axis is unknown or the product is not the number of devices.
    """
    for axis in shape:
        if axis not in MESH_AXES:
            near = difflib.get_close_matches(axis, MESH_AXES, 1, 0)[0]
            raise ValueError(
                f"unknown mesh axis {axis!r}; did you mean {near!r}? Known: {MESH_AXES}"
            )
    devices = jax.devices() if devices is None else devices
    sizes = [shape.get(axis, 1) for axis in MESH_AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes) < -1 or 0 in sizes:
        raise ValueError(f"mesh {dict(shape)}: sizes are positive; at most one is -1, the rest")
    sizes = [len(devices) // fixed if size == -1 else size for size in sizes]
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh {dict(shape)} does not fit {len(devices)} devices: the product of its axes must "
            "be that number; set one axis to -1 to take the rest"
        )
    kinds = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(sizes, MESH_AXES, devices=devices, axis_types=kinds)


def param_shardings(model: nnx.Module, mesh: Mesh) -> dict[str, Any]:
    """The sharding of every parameter of `model` (real or abstract), as the nested dict of params.

    A parameter without `axes` is replicated. Raises as `partition` does, naming the parameter.
    """

    def of(path: tuple, axes: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
        try:
            return NamedSharding(mesh, partition(axes, shape, dict(mesh.shape)))
        except (KeyError, ValueError) as error:
            error.add_note(f"in parameter {'/'.join(map(str, path))} with axes {axes}")
            raise

    return _map_axes(of, model)


@dataclasses.dataclass(frozen=True)
class Axes:
    """The logical names of a parameter's axes."""

    names: tuple[str | None, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """The axes apart from the stacking of layers."""
        return tuple(i for i, name in enumerate(self.names) if name != "layers")


def axes(model: nnx.Module) -> dict[str, Any]:
    """The `Axes` of every parameter of `model`, as the nested dict of params."""
    return _map_axes(lambda path, names, shape: Axes(tuple(names)), model)


def _map_axes(fn: Callable[[tuple, Sequence[str | None], Sequence[int]], Any], model: nnx.Module):
    """`fn(path, axes, shape)` of every parameter, as the nested dict of params."""

    def of(path: tuple, param: nnx.Variable) -> Any:
        shape = param.get_value().shape
        return fn(path, param.get_metadata().get("axes", (None,) * len(shape)), shape)

    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return nnx.to_pure_dict(nnx.from_flat_state([(path, of(path, leaf)) for path, leaf in flat]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis, the rows, over every data-parallel device."""
    return NamedSharding(mesh, P(RULES["batch"]))


def num_row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are cut into."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])
