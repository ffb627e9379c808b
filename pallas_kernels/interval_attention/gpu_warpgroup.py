"""What a warpgroup of the GPU kernels does, on the chip or simulated on a CPU, in one vocabulary.

On the chip, products run on the tensor cores and arrays have a layout over the threads. JAX's
simulator of Mosaic GPU knows threads, barriers and copies but (in JAX 0.10) neither products nor
layouts; there a product is a plain dot of what the references hold.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from pallas_kernels.interval_attention.gpu_tiles import rem

MATRIX = plgpu.Layout.WGMMA
PER_ROW, PER_COLUMN = MATRIX.reduce(1), MATRIX.reduce(0)  # one value for each row, each column

ROWS = 64  # of a product: what one warpgroup computes
SWIZZLE = 128  # bytes; a row of shared memory holds a multiple of them
REGISTERS = 240, 24  # of a thread that computes, that loads

INDEX = inspect.signature(plgpu.load).parameters.get("idx")
LOAD_NEEDS_INDEX = INDEX is not None and INDEX.default is INDEX.empty  # before JAX 0.11


def simulator() -> Any:
    """The value of `interpret` that runs a Mosaic GPU kernel on a CPU."""
    if hasattr(plgpu, "InterpretGPUParams"):
        return plgpu.InterpretGPUParams()
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # before JAX 0.11

    return InterpretGPUParams()


class Product(NamedTuple):
    """`a @ b`, or `a @ b.T`: `a` a reference or an array in registers, `b` a reference."""

    a: Any
    b: Any
    transposed: bool = False


class Warpgroup(NamedTuple):
    simulated: bool

    def full(self, shape, value, layout, dtype=jnp.float32):
        return self._in(layout, jnp.full(shape, value, dtype))

    def load(self, ref, layout):
        """A vector from shared memory."""
        if self.simulated:
            return ref[...]
        return plgpu.load(ref, *([()] if LOAD_NEEDS_INDEX else []), layout=layout)

    def products(self, products: Sequence[Product], meanwhile: Callable[[], None] | None = None):
        """Float32 products, issued together; `meanwhile` is called before they are awaited."""
        if self.simulated:
            if meanwhile:
                meanwhile()
            return [_dot(product) for product in products]

        def issue(*sums):
            for accumulator, product in zip(sums, products, strict=True):
                _multiply(accumulator, product)
            if meanwhile:
                meanwhile()
            return [accumulator[...] for accumulator in sums]

        shapes = [(p.a.shape[0], p.b.shape[0 if p.transposed else 1]) for p in products]
        return pl.run_scoped(issue, *(plgpu.ACC(shape, jnp.float32) for shape in shapes))

    def add_products(self, sums: Sequence[jax.Array], products: Sequence[Product]):
        """`sums`, each with a product added; issued together."""
        if self.simulated:
            return [x + _dot(p) for x, p in zip(sums, products, strict=True)]

        def issue(refs):
            for accumulator, product in zip(refs, products, strict=True):
                _multiply(accumulator, product)

        return pl.run_state(issue)([plgpu.ACC.init(x) for x in sums])

    def _in(self, layout, x):
        return x if self.simulated else plgpu.layout_cast(x, layout)


def _multiply(accumulator, product: Product) -> None:
    b = product.b.transpose((1, 0)) if product.transposed else product.b
    plgpu.wgmma(accumulator, product.a, b)


def _dot(product: Product) -> jax.Array:
    b = product.b[...]
    b = jax.lax.transpose(b, (1, 0)) if product.transposed else b
    return jax.lax.dot(product.a[...], b, preferred_element_type=jnp.float32)


def per_row(x, shape):
    return jax.lax.broadcast_in_dim(x, shape, (0,))


def per_column(x, shape):
    return jax.lax.broadcast_in_dim(x, shape, (1,))


def shared(*shape, dtype):
    """Shared memory in the order the tensor cores read, or plain for vectors."""
    if jnp.dtype(dtype).itemsize != 2:
        return plgpu.SMEM(shape, dtype)
    tiling = plgpu.TilingTransform((8, SWIZZLE // 2))
    return plgpu.SMEM(shape, dtype, transforms=(tiling, plgpu.SwizzleTransform(SWIZZLE)))


def launch(kernel, out_type, programs: int, scratch, *, warpgroups: int, simulated: bool):
    """`kernel(*inputs, *outputs, *scratch)` with `warpgroups` that compute and one that loads."""
    return plgpu.kernel(
        kernel,
        out_type=out_type,
        grid=(programs,),
        grid_names=("program",),
        scratch_types=scratch,
        num_threads=warpgroups + 1,
        thread_name="warpgroup",
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=simulator() if simulated else None,
    )


def in_roles(compute: Callable, load: Callable, warpgroups: int) -> None:
    """Runs `compute(index)` in the first `warpgroups`, `load()` in the last one."""
    index = jax.lax.axis_index("warpgroup")
    many, few = REGISTERS

    @pl.when(index < warpgroups)
    def _():
        plgpu.set_max_registers(many, action="increase")
        compute(index)

    @pl.when(index == warpgroups)
    def _():
        plgpu.set_max_registers(few, action="decrease")
        load()


def feed(steps, stages: int, supplies: Sequence[tuple[Any, Callable]], before=0) -> None:
    """Copies the inputs of every step into its slot as soon as that is free.

    `supplies`: pairs of the barriers at which the warpgroups that compute free the slots, and
    `copy(step, slot)`; `before` steps used the slots.
    """

    def turn(step, carry):
        slot = rem(before + step, stages)
        for free, copy in supplies:
            pl.when(before + step >= stages)(functools.partial(plgpu.barrier_wait, free.at[slot]))
            copy(step, slot)
        return carry

    jax.lax.fori_loop(0, steps, turn, None)


def drain(steps, stages: int, frees: Sequence[Any]) -> None:
    """Waits until the slots of all steps are free."""

    def turn(step, carry):
        for free in frees:
            plgpu.barrier_wait(free.at[rem(step, stages)])
        return carry

    jax.lax.fori_loop(jnp.maximum(steps - stages, 0), steps, turn, None)
