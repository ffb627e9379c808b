"""Tests run on eight virtual CPU devices; this must be said before JAX starts.

Those marked `gpu` run on a GPU: UNIFIED_TEST_PLATFORM=cuda python -m pytest -m gpu
"""

import gc
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the programs and the toy recipe

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

from tests import shapes, xla  # noqa: E402

PLATFORM = os.environ.get("UNIFIED_TEST_PLATFORM", "cpu")
os.environ["JAX_PLATFORMS"] = PLATFORM
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the suite is parallel already
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers on one GPU
if PLATFORM == "cpu":
    given = os.environ.get("XLA_FLAGS", "").split()
    names = [flag.partition("=")[0] for flag in given]
    missing = [f"{name}={value}" for name, value in xla.flags(8).items() if name not in names]
    os.environ["XLA_FLAGS"] = " ".join(given + missing)

# Where compiled programs are kept, and that none is but where `keep_compiled` says so.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "inf"

# Annotations of arrays are checked at every call (`shapes`).
install_import_hook("unified", f"{shapes.__name__}.{shapes.checked.__name__}")


def pytest_collection_finish():
    """What is imported by now stays: collecting garbage among it is a fifth of all tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture
def keep_compiled():
    """Keeps what the test compiles: for other workers, and other Pythons with the same JAX.

    Only for programs on one device: those of several, once kept, can wait for one another for ever
    (jaxlib 0.12, CPU).
    """
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", xla.SHORT)
    yield
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
