"""Tests run on eight virtual CPU devices; this must be said before JAX starts.

Those marked `gpu` run on a GPU: UNIFIED_TEST_PLATFORM=cuda python -m pytest -m gpu
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the programs and the toy recipe

PLATFORM = os.environ.get("UNIFIED_TEST_PLATFORM", "cpu")
os.environ["JAX_PLATFORMS"] = PLATFORM
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the suite is parallel already
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers on one GPU
if PLATFORM == "cpu":
    wanted = (
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",  # tests compile more than they compute: 3x faster
    )
    given = os.environ.get("XLA_FLAGS", "").split()
    names = [flag.partition("=")[0] for flag in given]
    missing = [flag for flag in wanted if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join(given + missing)

# Compiled programs are kept: for other workers, the next run, and another Python of the same JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
