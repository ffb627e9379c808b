"""Where compiled programs are kept, so that those of the next process start at once."""

import os
import platform
from pathlib import Path

import jax


def keep() -> bool:
    """Lets JAX keep compiled programs in the user's cache folder: `~/.cache/unified`, or that of
    `$XDG_CACHE_HOME`, and there one for each machine, as others may share it. Without a limit.

    Leaves a cache that the user has set; returns whether there is one now: a user without a home,
    or with one that cannot be written to, has none.
    """
    if _folder():
        return True
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "unified" / platform.node()
        if not folder.is_absolute():  # no place at all, as the standard has it
            return False
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows of a home
        return False
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return True


def kept() -> str:
    """Whether and where a program is kept, in words."""
    return f"or reading what {folder} keeps" if (folder := _folder()) else "kept nowhere"


def _folder() -> str | None:
    return jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
