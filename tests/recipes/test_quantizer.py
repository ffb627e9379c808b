import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

import unified
from unified.interop import model as models
from unified.interop import release
from unified.recipes import pictures as pics
from unified.recipes import quantizer as recipe
from unified.training import config as configs


@pytest.fixture(scope="module")
def config() -> ConfigDict:
    """The committed config, small enough for a test."""
    config = configs.load("configs/quantizer.py")
    config.model.update(encoder_widths=(8, 8), decoder_widths=(8, 8), codebook_size=512)
    config.data.update(side=32, examples=4)
    config.batch_size = 2
    return config


def test_losses_reach_what_they_should_and_counts_agree(config):
    """Pixels teach both networks and no code; codes are taught by the places, and the dead ones by
    those that no code takes."""
    model = recipe.build(config, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    leaves, treedef = jax.tree.flatten(nnx.to_pure_dict(params))
    rng = np.random.default_rng(0)
    noisy = treedef.unflatten([p + 0.1 * rng.normal(size=p.shape).astype("f") for p in leaves])
    inputs = recipe.inputs(config, "train")
    batch = next(inputs)
    inputs.close()
    terms = ("mse", "codebook", "commitment", "revival")

    @jax.jit
    @jax.jacrev
    def gradients(params):
        losses = recipe.loss(nnx.merge(graphdef, params), batch, jax.random.key(0))
        return jnp.stack([losses[term][0] for term in terms])

    flat = {name: np.asarray(g) for name, g in release.flatten(gradients(noisy)).items()}
    reached = {
        term: {name.split("/")[0] for name, g in flat.items() if np.abs(g[i]).max() > 1e-9}
        for i, term in enumerate(terms)
    }
    assert reached["mse"] == {"encoder", "decoder"}
    assert reached["codebook"] == reached["revival"] == {"codebook"}
    assert reached["commitment"] == {"encoder"}
    both = flat["codebook"][[1, 3]].any(-1)
    assert not (both[0] & both[1]).any()  # a code is used, or dead
    losses = jax.eval_shape(recipe.loss, model, batch, jax.random.key(0))
    assert set(config.loss_weights) <= set(losses)
    assert set(recipe.counts(None, batch)) >= set(config.loss_weights)
    assert set(map(float, recipe.counts(None, batch).values())) == {2.0}


def test_evaluation_measures_and_shows(config, tmp_path):
    model = recipe.build(config, rngs=nnx.Rngs(0))
    metrics = recipe.evaluate(model, config, tmp_path)
    assert {"scenes/reconstruction/psnr", "icons/reconstruction/ssim"} <= set(metrics)
    assert metrics["all/reconstruction/psnr.examples"] == 8
    used = [metrics[f"{name}/codes/used"] for name in ("scenes", "icons", "all")]
    assert 0 < max(used[:2]) <= used[2] <= 1
    assert (tmp_path / "samples.png").stat().st_size > 1000


def test_the_shipped_weights_show_held_out_pictures_by_all_their_codes():
    """At least 24 dB, and 95% of the codes used."""
    path = "unified/checkpoints/quantizer"
    params, released = models.read(path)
    model = models.assemble(params, released, path)
    groups = {
        name: pics.take(released, spec, 64, model.stride)
        for name, spec in released["data"]["evaluation"].items()
    }
    ways = {"reconstruction": lambda pictures: recipe.reconstruct(model, pictures)}
    metrics, _ = pics.measure(groups, ways)
    assert all(metrics[f"{name}/reconstruction/psnr"] >= 24 for name in groups)
    tokens = np.concatenate([recipe.encode(model, x) for x in groups.values()])
    assert recipe.usage(model, tokens) >= 0.95


def test_the_shipped_weights_load_alone():
    tokenizer = unified.load("unified/checkpoints/quantizer")
    picture = np.full((32, 24, 3), 255, np.uint8)
    codes = tokenizer.encode([picture])
    assert codes.shape == (1, 8, 6) and codes.dtype == np.int32
    assert np.abs(tokenizer.decode(codes).astype(int) - picture).max() < 20
