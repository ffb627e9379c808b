"""A run is read as far as it is whole, and what is damaged is named."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.interop import run
from unified.training.checkpoint import Checkpoints
from unified.training.step import TrainState


@pytest.mark.parametrize("part", ["state/d", "state"])
def test_a_damaged_checkpoint_is_named_with_the_older_one(part, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # threads that are late
    (tmp_path / "config.json").write_text("{}")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (4, 6):
            params = {"head": jnp.full(8, step, jnp.float32)}
            steps = jnp.asarray(step), jnp.asarray(9)
            state = TrainState(*steps, params, (), None, jax.random.key(0))
            checkpoints.save(step, state, {}, {})
    np.testing.assert_array_equal(run.load(tmp_path)[0]["head"], np.full(8, 6.0))
    for file in (tmp_path / "checkpoints" / "6" / part).iterdir():
        if file.is_file() and file.stat().st_size:
            os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"checkpoints/6' is damaged: delete it to use 4"):
        run.load(tmp_path)
