import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from unified.interop import model as models
from unified.interop import release
from unified.recipes import autoencoder as recipe
from unified.recipes import pictures as pics
from unified.sequence import Example, Segment
from unified.training import config as configs


@pytest.fixture(scope="module")
def config() -> ConfigDict:
    """The committed config, small enough for a test."""
    config = configs.load("configs/autoencoder.py")
    widths = {
        "encoder_widths": (8, 8),
        "decoder_widths": (8, 8),
    }  # two channels in each of 4 groups
    config.model.update(**widths, latent_channels=4)
    config.data.update(side=32, examples=4)
    config.batch_size = 2
    return config


def test_input_resumes_exactly(config):
    inputs = recipe.inputs(config, "train")
    next(inputs)
    state = inputs.get_state()
    want = next(inputs).lanes[pics.LANE].pixels
    inputs.close()
    assert want.shape == (2, 1, 32, 32, 3)
    other = recipe.inputs(config, "train")
    other.set_state(state)
    np.testing.assert_array_equal(next(other).lanes[pics.LANE].pixels, want)
    other.close()


def test_processes_share_the_rows_of_a_batch(config):
    want = recipe.inputs(config, "train")
    parts = [recipe.inputs(config, "train", rows=[row]) for row in range(2)]
    pixels = lambda inputs: next(inputs).lanes[pics.LANE].pixels
    np.testing.assert_array_equal(np.concatenate([pixels(part) for part in parts]), pixels(want))
    for inputs in (want, *parts):
        inputs.close()
    with pytest.raises(ValueError, match=r"no source 'emojis' in config.data.train: \['emoji'\]"):
        recipe.inputs(config, "train", "emojis")


class Two:
    """Examples of two pictures; every third has none."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index % 3 == 2:
            return Example((Segment("no picture"),), origin=f"row {index}")
        picture = np.full((8, 8, 3), 10 * index, np.uint8)
        return Example((Segment("a"), Segment(picture), Segment(picture + np.uint8(1), "target")))


def test_every_example_gives_one_of_its_pictures():
    source = pics.OnePicture(Two())
    contents = [source[i].segments[0].content[0, 0, 0] for i in (0, 1, 3, 4)]
    assert contents == [0, 11, 31, 40]
    assert all(len(source[i].segments) == 1 for i in (0, 1))
    assert source[2].origin == "row 2" and "no picture" in source[2].reason


def test_edges_of_a_step_and_of_nothing():
    """A step of height 2 between the columns 3 and 4 of 8, seen at sizes 8, 4 and 2."""
    error = np.zeros((1, 8, 8, 3), np.float32)
    assert pics.edges(error + 7)[0] == 0
    error[:, :, 4:] = 2
    np.testing.assert_allclose(pics.edges(error), [2 / 7 + 2 / 3 + 2 / 1], rtol=1e-6)


def test_losses_reach_what_they_should_and_counts_agree(config):
    """The KL term alone says nothing to the decoder; reconstruction reaches every parameter."""
    model = recipe.build(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    leaves, treedef = jax.tree.flatten(nnx.to_pure_dict(params))
    rng = np.random.default_rng(0)
    noisy = treedef.unflatten([p + 0.1 * rng.normal(size=p.shape).astype("f") for p in leaves])
    inputs = recipe.inputs(config, "train")
    batch = next(inputs)
    inputs.close()

    @jax.jit
    @jax.jacrev
    def grads(params):
        losses = recipe.loss(nnx.merge(graphdef, params), batch, jax.random.key(0))
        return jnp.stack([losses["kl"][0], losses["mse"][0]])

    flat = {name: np.asarray(g) for name, g in release.flatten(grads(noisy)).items()}
    reached = {
        name: {k for k, g in flat.items() if np.abs(g[i]).max() > 1e-9}
        for i, name in enumerate(("kl", "mse"))
    }
    names = set(release.flatten(noisy))
    attention = {n for n in names if n.endswith("k/bias")}  # a shift of all keys changes nothing
    assert reached["kl"] | attention >= {n for n in names if n.startswith("encoder/")}
    assert not any(n.startswith("decoder/") for n in reached["kl"])
    assert reached["mse"] | attention >= names
    losses = jax.eval_shape(recipe.loss, model, batch, jax.random.key(0))
    assert set(config.loss_weights) <= set(losses)
    assert set(recipe.counts(None, batch)) >= set(config.loss_weights)
    assert set(map(float, recipe.counts(None, batch).values())) == {2.0}


def test_evaluation_measures_and_shows(config, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "MEASURED", 4)
    model = recipe.build(config, rngs=nnx.Rngs(0))
    metrics = recipe.evaluate(model, config, tmp_path)
    assert {"scenes/reconstruction/psnr", "icons/reconstruction/ssim"} <= set(metrics)
    assert metrics["all/reconstruction/psnr.examples"] == 8
    both = [metrics[f"{name}/reconstruction/psnr"] for name in ("scenes", "icons")]
    np.testing.assert_allclose(metrics["all/reconstruction/psnr"], np.mean(both))
    assert (tmp_path / "samples.png").stat().st_size > 1000
    measured = recipe.statistics(model, config)
    spec = config.data.train.emoji
    latents = recipe.encode(model, pics.take(config, spec, 4, model.stride))
    latents = (latents - measured["shift"]) * measured["scale"]
    np.testing.assert_allclose([latents.mean(), latents.std()], [0, 1], atol=1e-4)


def test_the_shipped_weights_reconstruct_held_out_pictures():
    """At least 30 dB, and normalised latents of variance one."""
    params, released = models.read("unified/checkpoints/autoencoder")
    model = models.assemble(params, released)
    for spec in released["data"]["evaluation"].values():
        pictures = pics.take(released, spec, 16, model.stride)
        metrics = pics.compare("held out", pictures, recipe.reconstruct(model, pictures))
        assert metrics["held out/psnr"] >= 30
        latents = (recipe.encode(model, pictures) - model.cfg.shift) * model.cfg.scale
        assert 0.7 < latents.std() < 1.4
