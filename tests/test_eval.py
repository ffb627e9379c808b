"""The program on a toy recipe: from a run, from a release, and from what is neither."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from ml_collections import ConfigDict

import eval as program
from tests.training import toy_config, toy_recipe
from unified.interop import model as models
from unified.interop import release
from unified.training import config as configs
from unified.training.checkpoint import Checkpoints
from unified.training.override import override
from unified.training.step import TrainState

CONFIG = toy_config.__file__


@pytest.fixture(scope="module")
def params():
    return nnx.to_pure_dict(nnx.state(toy_recipe.Toy(16, rngs=nnx.Rngs(0)), nnx.Param))


@pytest.fixture(scope="module")
def released(params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    release.save(folder, params, toy_config.get_config())
    return folder


@pytest.fixture(scope="module")
def trained(params, tmp_path_factory):
    """A run whose averaged parameters are twice those of `params`."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(configs.load(CONFIG).to_json_best_effort())
    state = TrainState(
        step=jnp.asarray(7),
        end=jnp.asarray(7),
        params=params,
        opt_state={"count": jnp.zeros(())},
        ema=jax.tree.map(lambda x: 2 * x, params),
        key=jax.random.key(0),
    )
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, state, {}, {})
    return folder


def norm(folder):
    return json.loads((folder / "result.json").read_text())["head_norm"]


def test_a_run_is_evaluated_by_its_averaged_weights(trained, params, capsys):
    assert program.main(["--config", CONFIG, "--checkpoint", str(trained)]) == 0
    want = 2 * float(jnp.linalg.norm(params["head"]))
    assert norm(trained / "evaluation") == pytest.approx(want)
    printed = capsys.readouterr().out
    assert "head_norm" in printed and f"{want:.3f}" in printed
    assert f"wrote {trained / 'evaluation'}" in printed


def test_a_release_is_evaluated_as_its_own_config_says(released, params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert program.main(["--checkpoint", str(released), "--trust"]) == 0
    want = float(jnp.linalg.norm(params["head"]))
    assert norm(tmp_path / "evaluation" / released.name) == pytest.approx(want)


def test_fields_that_a_release_leaves_out_can_be_overridden():
    config = ConfigDict(release.load_config(release.resolve(models.DEFAULT)))
    for text in ("drawing.renorm=channel", "benchmark.seed=3"):
        override(config, f"--config.{text}")
    assert (config.drawing.renorm, config.benchmark.seed) == ("channel", 3)


def test_the_output_can_be_elsewhere(released, tmp_path):
    output = tmp_path / "some" / "where"
    args = ["--config", CONFIG, "--checkpoint", str(released), "--output", str(output)]
    assert program.main([*args, "--config.data.delay=0.0"]) == 0
    assert norm(output) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nowhere"], "'nowhere' is not a released model: no such folder"),
        (["--checkpoint", "x" * 5000], "x' is not a released model: no such folder"),
        (["--config", "none.py"], "--config none.py: no such Python file"),
        (["--config", CONFIG, "--config.model.width=8"], "do not fit the model"),
        (["--config.model.widht=8"], "did you mean 'width'?"),
        (["--config.batch_size=0"], "batch_size=0 must be from 1 to 65536"),
        (["--output", "taken/x"], "Not a directory: 'taken/x'"),
        (["--config", CONFIG, "--outptu=x"], "unknown argument '--outptu=x'"),
    ],
    ids=["checkpoint", "long", "config", "shapes", "field", "range", "output", "argument"],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    arguments, message, released, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    given = [] if "--checkpoint" in arguments else ["--checkpoint", str(released), "--trust"]
    (tmp_path / "taken").touch()
    assert program.main([*given, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("eval.py: error: ") and message in error
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
