"""Models come from a release, from a run in progress, or from the package."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import unified
from unified.inference import compiled
from unified.inference.request import read_picture
from unified.interop.release import flatten
from unified.training.checkpoint import Checkpoints
from unified.training.step import TrainState

pytestmark = pytest.mark.usefixtures("keep_compiled")

PAIR = (np.arange(768, dtype=np.uint8).reshape(16, 16, 3), "how many?")


def test_a_release_answers_as_the_model_that_was_saved(assistant, release):
    loaded = unified.load(release)
    assert loaded.answer([PAIR], max_tokens=6) == assistant.answer([PAIR], max_tokens=6)
    assert loaded.config["tokenizer"] == str(release / "tokenizer.json")


def test_a_run_is_read_from_its_newest_checkpoint_averaged_where_it_is(assistant, config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(assistant.config))
    params = jax.tree.map(np.asarray, assistant.params)
    ema = jax.tree.map(lambda x: x + 1, params)
    frozen = ema["parts"]["vae"]  # no average
    frozen["autoencoder"] = jax.tree.map(lambda _: None, frozen["autoencoder"])
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step, shift in ((5, 0.0), (10, 2.0)):
            move = lambda x, shift=shift: jnp.asarray(x + np.float32(shift))
            state = TrainState(
                step=jnp.asarray(step),
                end=jnp.asarray(step),
                params=jax.tree.map(move, params),
                opt_state={"count": jnp.zeros(())},
                ema=jax.tree.map(move, ema),
                key=jax.random.key(0),
            )
            checkpoints.save(step, state, {}, {})
    (tmp_path / "checkpoints/15.orbax-checkpoint-tmp-0").mkdir()  # half-written
    (tmp_path / "checkpoints/15/state").mkdir(parents=True)  # a copy that was cut short

    loaded = unified.load(tmp_path)
    before, after = flatten(params), flatten(loaded.params)
    for name, value in after.items():
        shift = 2.0 if name.startswith("parts/vae/autoencoder/") else 3.0
        np.testing.assert_allclose(value, before[name] + shift, atol=1e-5)


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'nowhere' is not a released model"):
        unified.load("nowhere")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        unified.load(tmp_path)


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "bad.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"bad\.png' is not a readable picture"):
        read_picture(tmp_path / "bad.png")
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png")


def test_loading_keeps_compiled_programs_if_asked(release, monkeypatch):
    asked = []
    monkeypatch.setattr(compiled, "keep", lambda: asked.append(True))
    unified.load(release)
    assert not asked
    unified.load(release, keep_compiled=True)
    assert asked


COMPILE = """
import jax
from unified.inference import compiled
jax.jit(jax.numpy.negative)(1.0)
print(compiled.keep())  # from here on
jax.jit(lambda x: x + 1)(1.0)
"""


def test_compiled_programs_are_kept_where_that_is_possible(tmp_path):
    def run(cache):
        env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        del env["JAX_COMPILATION_CACHE_DIR"]  # that of the tests
        del env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]
        command = [sys.executable, "-W", "error", "-c", COMPILE]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip(), done.stderr

    assert run(tmp_path) == ("True", "")
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("lambda" in path.name for path in kept)
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == ("False", "")


def test_a_user_without_a_home_keeps_nothing(monkeypatch, tmp_path):
    kept = lambda: (compiled.keep(), compiled.kept())
    monkeypatch.setattr(compiled, "_folder", lambda: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("a cache is set"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kept() == (False, "kept nowhere")
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiled.Path, "home", no_home)
    assert kept() == (False, "kept nowhere")


def test_a_model_of_bfloat16_computes_in_float32_on_a_cpu(assistant, tmp_path, monkeypatch):
    """And is saved as what it was."""
    config = {**assistant.config, "compute_dtype": "bfloat16"}
    monkeypatch.setattr(assistant, "config", config)
    assistant.save(tmp_path, storage=None)
    loaded = unified.load(tmp_path)
    assert loaded.config["compute_dtype"] == "bfloat16"
    assert nnx.merge(loaded.graph, loaded.params).cfg.dtype == "float32"
