"""`configs/finetune.py`: what it starts from, what it trains, and what it leaves behind."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import train
from configs import finetune
from tests.recipes.small import small
from unified import sharding
from unified.evaluation import report
from unified.interop import model as models
from unified.interop import release
from unified.recipes import packed
from unified.training import config as configs
from unified.training import setup

CONFIG = "configs/finetune.py"


@pytest.fixture
def pictures(tmp_path):
    """A folder with three pictures and their captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ("red", "green", "blue")
    for name in names:
        Image.new("RGB", (64, 64), name).save(folder / f"{name}.png")
    lines = (json.dumps({"image": f"{name}.png", "caption": f"all {name}"}) for name in names)
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A release of a tiny model, and its sizes."""
    config = small(num_layers=1)
    config.model.backbone.joint = "all"
    model = packed.build(config, rngs=nnx.Rngs(0))
    folder = tmp_path_factory.mktemp("start")
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    release.save(folder, params, models.keep_tokenizer(folder, config.to_dict()), storage=None)
    return folder, config.model


def tiny(start, path=""):
    """The config of the program, on a model of no size."""
    folder, sizes = start
    config = configs.complete(finetune.get_config(path))
    config.model = sizes
    config.update({"load": {"/": str(folder)}, "batch_size": 1, "total_steps": 1})
    config.optimizer.warmup_steps = 0
    config.drawing.steps = 2
    config.benchmark.examples = 2
    return config


def test_the_config_fits_the_model_that_ships_and_trains_its_drawing_alone():
    config = configs.load(CONFIG)
    shipped = release.load_config(release.resolve(finetune.START))
    assert json.loads(config.model.to_json()) == json.loads(json.dumps(shipped["model"]))
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    trained = setup.make_objective(config, packed, model).trained
    names = [name for name, hit in release.flatten(trained).items() if hit]
    assert all(re.search("/gen/|^parts/vae/", name) for name in names)


@pytest.mark.slow
def test_pictures_of_ones_own_are_taught_and_stand_beside_what_is_drawn_before_and_after(
    start, pictures, tmp_path, monkeypatch, capsys, keep_compiled
):
    config = tiny(start, str(pictures))
    del config.benchmark.sources.old
    one = sharding.make_mesh({}, jax.devices()[:1])
    monkeypatch.setattr(train.sharding, "make_mesh", lambda *_: one)
    monkeypatch.setattr(train, "load_config", lambda *_: config)
    assert train.main(["--config", CONFIG, "--workdir", str(tmp_path)]) == 0, capsys.readouterr()

    page = (tmp_path / "evaluation" / report.PAGE).read_text()
    assert [f"all {name}" in page for name in ("red", "green", "blue")] == [True, True, False]
    assert re.findall(r"figcaption>([a-z]+)<", page) == ["before", "after", "truth"] * 2
    before, after = (release.flatten(release.load(f)[0]) for f in (start[0], tmp_path / "release"))
    same = {k for k, x in after.items() if (np.asarray(before[k], x.dtype) == x).all()}
    assert {k for k in after if k.startswith("parts/vae/autoencoder/")} <= same
    assert (
        "parts/vae/head/out/kernel" not in same
    )  # from zero, so that nothing below it moves in one step


def test_weights_that_training_began_with_are_those_of_every_release_it_loads(start):
    folder, _ = start
    params = release.load(folder)[0]
    half = release.unflatten({k: 0 * x for k, x in release.flatten(params).items()})
    found = models.started({"load": {"": str(folder)}}, half)
    assert all(
        (a == b).all()
        for a, b in zip(
            release.flatten(found).values(), release.flatten(params).values(), strict=True
        )
    )
    with pytest.raises(ValueError, match="missing: backbone"):
        models.started({"load": {}}, half)
