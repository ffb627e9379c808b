"""How tests have XLA compile, as they compile more than they compute."""

from importlib.metadata import version

SHORT = 0.05  # seconds of compiling that are not worth keeping
KEPT = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(SHORT)}  # by a process on one device


def flags(devices: int) -> dict[str, str]:
    """Values by name, for so many virtual CPU devices."""
    chosen = {
        "--xla_force_host_platform_device_count": str(devices),
        "--xla_backend_optimization_level": "0",  # compiles 3x faster
        "--xla_cpu_parallel_codegen_split_count": "1",  # the suite is parallel already
    }
    if version("jaxlib").startswith("0.10."):  # newer ones do not know it
        chosen["--xla_cpu_use_fusion_emitters"] = "false"  # and large programs 2x faster still
    return chosen


def line(devices: int) -> str:
    """The same as XLA_FLAGS has them."""
    return " ".join(f"{name}={value}" for name, value in flags(devices).items())
