"""Host memory: keep what one step frees for the next."""

import ctypes
import importlib.metadata
import importlib.util
import os

# Parameters of mallopt, from glibc's malloc.h, and their values.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1  # mallopt takes C ints


def keep_freed_memory() -> bool:
    """Tells glibc to serve large blocks from one heap and not to return them to the system.

    A step compiled for CPU takes its temporary buffers, hundreds of megabytes, from malloc, which
    by default maps and unmaps such blocks, so that every step pays for fresh pages (docs/LOG.md).
    Call it before JAX makes threads. Does nothing where there may be an accelerator, whose host
    would rather have many heaps, or no glibc. Returns whether it did something.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not _cpu_only():
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST))
    return all([mallopt(parameter, value) for parameter, value in settings])


def _cpu_only() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return (
        platforms == "cpu" if platforms else not plugins and not importlib.util.find_spec("libtpu")
    )
