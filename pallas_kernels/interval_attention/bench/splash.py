"""What JAX's splash attention costs on a TPU, by the same estimate as ours.

It has a causal mask. Its tables are left out, so that it evaluates the mask in every block and
skips none.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from pallas_kernels.interval_attention.bench import static
from pallas_kernels.interval_attention.bench.static import CHIPS, HEAD_DIM, Grid, Profile


def cost(options) -> None:
    """Prints cycles of a core per 512 x 512 pairs of a head, and per block of queries of a head."""
    block, heads = options.block, options.group
    with Profile.of(CHIPS[options.chip]) as profile:

        def cycles(grid: Grid) -> int:
            T, S = (n * block for n in grid)
            queries = profile.shape(jnp.bfloat16, heads, T, HEAD_DIM)
            keys = profile.shape(jnp.bfloat16, S, HEAD_DIM)
            statistics = profile.shape(jnp.float32, heads, T)
            args: tuple = (queries, keys, keys)
            if options.way == "backward":
                args += (statistics, queries, statistics)
            runs = kernels(options.way, heads, T, S, block, options.compute)
            return sum(profile.cycles(run, args) for run in runs)

        fit = static.fit(cycles, Grid(2, 2), heads)
    print(f"{options.chip} splash {options.way} {block}/{options.compute}:", end=" ")
    print(f"visit {fit.visit / (block / 512) ** 2:.0f}, row {fit.row:.0f}")


def kernels(way: str, heads: int, T: int, S: int, block: int, compute: int) -> list[Callable]:
    """One forward, two backward: for dk and dv, and for dq."""
    from jax.experimental.pallas.ops.tpu import splash_attention as library
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as inner

    blocks: Any = {f"block_{x}{of}": block for x in ("q", "kv") for of in ("", "_dkv", "_dq")}
    blocks |= {"block_kv_compute": compute, "block_kv_dkv_compute": compute}
    sizes = library.BlockSizes(**blocks)
    mask = library.MultiHeadMask([library.CausalMask((T, S))] * heads)
    made = library.make_splash_mqa_single_device(mask, block_sizes=sizes)
    infos = made.fwd_mask_info, made.dq_mask_info, made.dkv_mask_info
    forward, dq, dkv = (x._replace(data_next=None, block_mask=None) for x in infos)
    if way == "forward":
        return [type(made)(forward, None, None, **made.kwargs)]
    names = "mask_value", "is_mqa", "mask_function", "attn_logits_soft_cap", "interpret"
    common: dict[str, Any] = {name: made.kwargs[name] for name in names}
    common |= {f"{x}_layout": getattr(sizes, f"{x}_layout") for x in "qkv"}
    common |= {"bq": block, "bkv": block}
    of_keys = {"bkv_compute": compute, "use_fused_bwd_kernel": False, "mask_info": dkv}
    backward = [
        functools.partial(inner._splash_attention_bwd_dkv, **common, **of_keys),
        functools.partial(inner._splash_attention_bwd_dq, **common, mask_info=dq),
    ]
    return [_without_options(kernel) for kernel in backward]


def _without_options(kernel: Callable) -> Callable:
    """Without segments and sinks, which come after q, k and v."""
    return lambda q, k, v, *rest: kernel(q, k, v, None, None, *rest)
