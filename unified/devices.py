"""The devices that JAX computes on; a platform that is not there, told in a line."""

import os

import jax


def find() -> list[jax.Device]:
    """All devices. Raises ValueError where the platform that the user asks for is not there."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # assertion: a platform without its plugin
        asked = os.environ.get("JAX_PLATFORMS", "")
        what = f"JAX_PLATFORMS={asked}" if asked else "the devices of this machine"
        why = " ".join(str(error).split()).partition(" (")[0] or "not there"
        raise ValueError(
            f"{what}: {why}; unset JAX_PLATFORMS, set it to cpu, or install JAX for the platform: "
            'pip install ".[gpu]" or ".[tpu]"'
        ) from error
