"""Dense layers. `D` input, `F` output."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from unified.nn.stack import Init, param, scaled, zeros


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: Float[Array, "..."], w: Float[Array, "..."], num: int = 1) -> Float[Array, "..."]:
    """Sums products over the last `num` axes of `x` and the first `num` of `w`.

    `jnp.tensordot`, but the gradient of `w` is a product with `x`, not with the gradient of the
    output, on the left. XLA for CPU transposes the left side together with the elementwise work
    that makes it, and out of order that work (a SiLU's gradient, say) is several times slower.
    """
    return jnp.tensordot(x, w, num)


def _contract_fwd(x, w, num):
    return jnp.tensordot(x, w, num), (x, w)


def _contract_bwd(num, residuals, g):
    x, w = residuals
    rows = tuple(range(x.ndim - num))
    out = tuple(range(-(w.ndim - num), 0))
    return jnp.tensordot(g, w, (out, out)), jnp.tensordot(x, g, (rows, rows))


contract.defvjp(_contract_fwd, _contract_bwd)


class Linear(nnx.Module):
    """`x @ kernel + bias`, in the dtype of `x`."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        axes: tuple[str | None, str | None],
        *,
        bias: bool = True,
        init: Init | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = param(init or scaled(in_dim), rngs, (in_dim, out_dim), axes)
        self.bias = param(zeros, rngs, (out_dim,), axes[1:]) if bias else None

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        y = contract(x, self.kernel.astype(x.dtype))
        return y if self.bias is None else y + self.bias.astype(x.dtype)
