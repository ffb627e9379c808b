"""PyTorch's attention, for `bench.gpu`: FlexAttention with the masks of the rows, and cuDNN's."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pallas_kernels.interval_attention.bench.workload import Case, Heads

IMPLEMENTATIONS = ("flex", "torch-cudnn")


def torch() -> Any:
    try:
        import torch as module
    except ImportError as error:
        raise ModuleNotFoundError("PyTorch is not installed, and its attention left out") from error
    return module


def device() -> str:
    return torch().cuda.get_device_name() if torch().cuda.is_available() else "cpu"


def prepare(implementation: str, case: Case, heads: Heads, is_forward: bool):
    """`run()`, which only enqueues, and `wait(result)`."""
    q, k, v, d_out = arrays(case.length, heads)
    attend = attention(implementation, case)

    run: Callable[[], Any]
    if is_forward:
        run = functools.partial(attend, *(x.detach() for x in (q, k, v)))
    else:
        run = lambda: torch().autograd.grad(attend(q, k, v), (q, k, v), d_out)
    return run, lambda _: torch().cuda.synchronize() if torch().cuda.is_available() else None


@functools.cache
def arrays(length: int, heads: Heads):
    """Random q, k and v, and the gradient of the output, bfloat16, `[1 N S H]`."""
    where = "cuda" if torch().cuda.is_available() else "cpu"
    make = functools.partial(torch().randn, device=where, dtype=torch().bfloat16)
    N, K, H = heads
    qkv = (make(1, n, length, H, requires_grad=True) for n in (N, K, K))
    return *qkv, make(1, N, length, H)


def attention(implementation: str, case: Case) -> Callable:
    if implementation == "flex":
        return functools.partial(flex(), block_mask=block_mask(case), enable_gqa=True)
    return cudnn


def cudnn(q, k, v):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    attend = torch().nn.functional.scaled_dot_product_attention
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return attend(q, k, v, is_causal=True, enable_gqa=True)


@functools.cache
def flex() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    torch()._dynamo.config.recompile_limit = 64  # beyond it runs uncompiled; each shape is one
    return torch().compile(flex_attention, dynamic=False)


@functools.cache
def mask_arrays(length: int):
    """Clock, start and stop on the device, and the mask they make.

    They are written anew for each row, since a mask of other arrays would be compiled again.
    """
    where = "cuda" if torch().cuda.is_available() else "cpu"
    clock, start, stop = torch().zeros(3, length, device=where, dtype=torch().int32)

    def visible(row, head, query, key):
        return (start[key] <= clock[query]) & (clock[query] < stop[key])

    return (clock, start, stop), visible


def block_mask(case: Case):
    from torch.nn.attention.flex_attention import create_block_mask

    vectors, visible = mask_arrays(case.length)
    for vector, values in zip(vectors, case.mask, strict=True):
        vector.copy_(torch().from_numpy(np.ascontiguousarray(values[0])))
    where = vectors[0].device
    return create_block_mask(visible, None, None, case.length, case.length, device=where)
