"""How much of the hardware a run uses: model FLOPs over the peak of its devices (MFU).

MFU as in PaLM (arXiv 2204.02311, appendix B): what the model must compute, without what is
computed twice to save memory, so that it compares runs and not tricks.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from flax import nnx

# bfloat16 FLOP/s of a device without sparsity, as its vendor states them, by the beginning of
# `device_kind`; the longest one that fits counts.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
}


def peak(devices: Sequence[jax.Device]) -> float | None:
    """FLOP/s of all devices together; None where one is unknown, as CPUs are."""
    found = [[k for k in PEAKS if device.device_kind.startswith(k)] for device in devices]
    return sum(PEAKS[max(kinds, key=len)] for kinds in found) if all(found) else None


def ideal_seconds(
    recipe: Any, model: nnx.Module, devices: Iterable[jax.Device]
) -> Callable[[Any], float] | None:
    """Host batch -> seconds that its step would take at the peak of `devices`, 0 if unknown.

    None where the peak is unknown, or the recipe has no `flops(model, batch)`, which counts the
    rows that this process makes.
    """
    total = peak(tuple(devices))
    if total is None or not hasattr(recipe, "flops"):
        return None
    return lambda batch: jax.process_count() * (recipe.flops(model, batch) or 0.0) / total
