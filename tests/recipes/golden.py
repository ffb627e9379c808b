"""Losses and gradients of the emoji configs as they were before a change: `python -m
tests.recipes.golden` writes `golden.json`, which the test beside compares with.

Weights are drawn from their names, so that they do not depend on the order in which a model makes
them; a parameter that is renamed keeps the name that it is drawn from (`NAMES`).
"""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from tests.recipes.small import VARIANTS
from unified.interop import release
from unified.recipes import packed

FILE = Path(__file__).with_suffix(".json")
ROWS = 2
NAMES = {  # beginning of a name -> that of the name that it had
    "parts/text/embedding": "embedding",
    "parts/text/head": "language",
    "parts/vit/encoder": "vision",
    "parts/vit/connector": "connector",
    "parts/vae/autoencoder": "autoencoder",
    "parts/vae/latent_in": "latent_in",
    "parts/vae/timestep": "timestep",
    "parts/vae/head": "flow",
}
LOSSES = {"text/nll": "text", "vae/flow": "flow"}


def old_name(name: str, names: dict[str, str] = NAMES) -> str:
    for new, old in names.items():
        if name == new or name.startswith(f"{new}/"):
            return old + name.removeprefix(new)
    return name


def draw(name: str, shape: tuple[int, ...], use: int) -> np.ndarray:
    rng = np.random.default_rng((zlib.crc32(name.encode()), use))
    scale = 0.5 / np.sqrt(shape[-2]) if len(shape) > 1 else 0.2
    return rng.normal(0, scale, shape).astype(np.float32)


def measure(variant: str) -> dict[str, Any]:
    """Sums and counts of the losses, and of the gradient by parameter: its norm, and its product
    with a random direction."""
    config = VARIANTS[variant].get_config()
    config.batch_size = ROWS
    config.data.lookahead = 8
    inputs = packed.inputs(config, "train")
    batch = next(inputs)
    inputs.close()
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model, nnx.Param)
    flat = {
        name: draw(old_name(name), leaf.shape, 0)
        for name, leaf in release.flatten(nnx.to_pure_dict(shapes)).items()
    }
    params = release.merge(nnx.to_pure_dict(shapes), release.unflatten(flat))

    @jax.jit
    def gradients(params, batch):
        def objective(params):
            losses = packed.loss(nnx.merge(graph, params), batch, jax.random.key(0))
            weights = config.loss_weights
            return sum(weights[n] * losses[n][0] / losses[n][1] for n in weights), losses

        return jax.grad(objective, has_aux=True)(params)

    found, losses = jax.device_get(gradients(params, batch))
    gradient = {
        old_name(name): np.asarray(leaf, np.float64)
        for name, leaf in release.flatten(found).items()
        if np.any(leaf)
    }
    return {
        "losses": {
            old_name(name, LOSSES): [float(x) for x in pair]
            for name, pair in sorted(losses.items())
        },
        "gradients": {
            name: [float(np.linalg.norm(g)), float(np.sum(g * draw(name, g.shape, 1)))]
            for name, g in sorted(gradient.items())
        },
    }


if __name__ == "__main__":
    numbers = {variant: measure(variant) for variant in VARIANTS}
    text = json.dumps(numbers, indent=1)
    FILE.write_text(re.sub(r"\[\s+(\S+),\s+(\S+)\s+\]", r"[\1, \2]", text) + "\n")
