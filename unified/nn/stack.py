"""Parameters with named axes, and stacks of equal layers that one scan runs through.

`D` embed, `L` layers.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

M = TypeVar("M", bound=nnx.Module)
Init = Callable[[jax.Array, Sequence[int]], jax.Array]


def param(
    init: Init, rngs: nnx.Rngs, shape: Sequence[int], axes: Sequence[str | None]
) -> nnx.Param:
    """A float32 parameter that knows the logical name of each of its axes."""
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(init(rngs.params(), shape), axes=tuple(axes))


def scaled(fan_in: int, gain: float = 1.0) -> Init:
    """Normal numbers of deviation `gain / sqrt(fan_in)`: outputs as large as inputs."""
    return normal(gain * fan_in**-0.5)


def normal(deviation: float) -> Init:
    return lambda key, shape: deviation * jax.random.normal(key, shape, jnp.float32)


def zeros(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    return jnp.zeros(shape, jnp.float32)


def ones(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    return jnp.ones(shape, jnp.float32)


def stack(make: Callable[[nnx.Rngs], M], n: int, axis: str, *, rngs: nnx.Rngs) -> M:
    """`n` independent copies of a module, as one module with a leading axis `axis`."""
    stacked = jax.vmap(lambda key: make(nnx.Rngs(key)))(jax.random.split(rngs.params(), n))

    def prepend(p: nnx.Param) -> nnx.Variable:
        return p.replace(axes=(axis, *p.axes))

    return jax.tree.map(prepend, stacked, is_leaf=lambda v: isinstance(v, nnx.Param))


def scan(
    layer: Callable[[Any, Any], tuple[Any, Any]],
    x: Any,
    layers: Any,
    *,
    remat: str = "nothing_saveable",
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """`x, y_i = layer(x, layers[i])` over the leading axis of every leaf of `layers`.

    Returns the last `x` and the `y_i` stacked. `remat` names one of `jax.checkpoint_policies`:
    what the backward pass may keep instead of computing it again.
    """
    if remat != "everything_saveable":
        layer = jax.checkpoint(layer, policy=remat_policy(remat), prevent_cse=False)
    return jax.lax.scan(layer, x, layers, unroll=unroll)


def remat_policy(name: str) -> Callable[..., bool]:
    """Looks up a policy; raises ValueError with the known names."""
    known = [policy for policy in vars(jax.checkpoint_policies) if policy.endswith("saveable")]
    if name not in known:
        raise ValueError(f"unknown remat policy {name!r}; choose one of {sorted(known)}")
    return getattr(jax.checkpoint_policies, name)
