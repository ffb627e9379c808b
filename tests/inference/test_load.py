"""Models come from a release, from a run in progress, or from the package."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import unified
from unified.inference.request import read_picture
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
    ema["autoencoder"] = jax.tree.map(lambda _: None, ema["autoencoder"])  # frozen: no average
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step, shift in ((5, 0.0), (10, 2.0)):
            move = lambda x, shift=shift: jnp.asarray(x) + shift
            state = TrainState(
                step=jnp.asarray(step),
                params=jax.tree.map(move, params),
                opt_state={"count": jnp.zeros(())},
                ema=jax.tree.map(move, ema),
                key=jax.random.key(0),
            )
            checkpoints.save(step, state, {}, {})
    (tmp_path / "checkpoints/15.orbax-checkpoint-tmp-0").mkdir()  # half-written
    (tmp_path / "checkpoints/15/state").mkdir(parents=True)  # a copy that was cut short

    loaded = unified.load(tmp_path)
    for name, shift in (("backbone", 3.0), ("autoencoder", 2.0)):
        want = jax.tree.map(lambda x, shift=shift: x + shift, params[name])
        close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
        jax.tree.map(close, loaded.params[name], want)


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
