"""Host memory: keep what one step frees for the next."""

import ctypes

# Parameters of mallopt, from glibc's malloc.h, and their values.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST = 2**31 - 1  # mallopt takes C ints


def keep_freed_memory() -> bool:
    """Tells glibc to serve large blocks from one heap and not to return them to the system.

    A step compiled for CPU takes its temporary buffers, hundreds of megabytes, from malloc, which
    by default maps and unmaps such blocks, so that every step pays for fresh pages. Call it before
    JAX starts its threads. Returns whether there is a glibc to tell (not on macOS or musl).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST))
    return all([mallopt(parameter, value) for parameter, value in settings])
