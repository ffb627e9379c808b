"""A tiny model of the default recipe with random weights, and the release that holds it."""

import jax
import numpy as np
import pytest
from flax import nnx

from configs.emoji import get_config
from unified.inference import Assistant
from unified.recipes import packed


@pytest.fixture(scope="session")
def config():
    config = get_config()
    for lane, sizes in {
        "text": {"budget": 96, "losses": 40},
        "vit": {"budget": 16, "min_side": 16, "max_side": 16},
        "vae": {"count": 3, "height": 16, "width": 16},
    }.items():
        config.layout.lanes[lane].update(sizes)
    width = {"embed_dim": 32, "mlp_dim": 48}
    config.model.backbone.update(
        {"streams": {"und": width, "gen": width}, "num_layers": 2, "num_heads": 2, "head_dim": 16}
    )
    config.model.vision.update({"embed_dim": 32, "mlp_dim": 48, "num_layers": 1, "num_heads": 2})
    widths = (4, 4, 4, 4)
    config.model.autoencoder.update(
        {"encoder_widths": widths, "decoder_widths": widths, "encoder_blocks": 1,
         "decoder_blocks": 1, "num_groups": 2, "latent_channels": 4, "scale": 1.0, "shift": 0.0}
    )  # fmt: skip
    return config


@pytest.fixture(scope="session")
def assistant(config):
    """Its weights are large, so that what it says and draws depends on all it reads."""
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model, nnx.Param)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(0, 0.4, x.shape).astype(x.dtype)
    model = nnx.merge(graph, jax.tree.map(draw, nnx.to_pure_dict(shapes)))
    return Assistant(model, {**config.to_dict(), "drawing": {"steps": 3}})


@pytest.fixture(scope="session")
def release(assistant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    assistant.save(folder, storage=None)
    return folder
