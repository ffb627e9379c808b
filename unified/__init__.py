"""Unified multimodal models in JAX: one network that reads and generates text and images.

`unified.load()` gives an `Assistant` that answers, draws and edits. What it needs is imported when
it is first used, so `import unified` is quick and touches no device.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unified.inference import Assistant, load

__version__ = "0.1.0"
__all__ = ["Assistant", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from unified import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
