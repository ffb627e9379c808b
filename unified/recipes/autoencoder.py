"""Training a KL autoencoder of pictures: reconstruction, edges, and a little KL.

`B` and `N` pictures, `H W` pixels, `h w C` latents.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from unified.data.pipeline import Pipeline
from unified.evaluation import metric, report
from unified.recipes import pictures as pics
from unified.sequence import Batch
from unified.tokenizers.autoencoder import Autoencoder, AutoencoderConfig, kl_divergence, sample
from unified.tokenizers.pixels import to_bytes, to_float

NOISE = (0.1, 0.3)  # deviations of the noise on normalised latents that `evaluate` tries
MEASURED = 512  # training pictures of each source, for the statistics of latents


def build(config: Mapping[str, Any], *, rngs: nnx.Rngs) -> Autoencoder:
    """The model of a config. Raises ValueError where its fields make none."""
    return Autoencoder(parse(config), rngs=rngs)


def parse(config: Mapping[str, Any]) -> AutoencoderConfig:
    return pics.parse(config, AutoencoderConfig)


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run."""
    pics.check(config, parse(config).stride)


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. Raises ValueError for one of
    another type."""
    return pics.defaults(config, AutoencoderConfig)


def loss(model: Autoencoder, batch: Batch, key: jax.Array) -> dict[str, tuple[Array, Array]]:
    """Sums over pictures, and their number; pixels are in [-1, 1].

    `l1`, `mse`: of a pixel. `edges`: L1 of the differences of neighbouring pixels, over several
    sizes; it asks for sharpness as a perceptual loss does, without weights from elsewhere. `kl`:
    nats a latent. `noise`: posterior deviation, reported.
    """
    pixels = to_float(pics.pictures_of(batch))
    mean, logvar = model.encode(pixels)
    terms = pics.pixel_losses(model.decode(sample(key, mean, logvar)) - pixels)
    latents = {"kl": kl_divergence(mean, logvar), "noise": jnp.exp(0.5 * logvar)}
    terms |= {name: x.mean(axis=(1, 2, 3)) for name, x in latents.items()}
    number = jnp.float32(pixels.shape[0])
    return {name: (term.sum(), number) for name, term in terms.items()}


def counts(model: Autoencoder, batch: Batch) -> dict[str, Array]:
    number = jnp.float32(pics.pictures_of(batch).shape[0])
    return dict.fromkeys(("l1", "mse", "edges", "kl"), number)


def inputs(
    config: Mapping[str, Any],
    split: str,
    task: str | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> Pipeline:
    """Batches as of `pictures.inputs`."""
    return pics.inputs(config, split, task, rows, parse(config).stride)


def evaluate(
    model: Autoencoder,
    config: Mapping[str, Any],
    folder: str | Path,
    losses: Mapping[str, float] | None = None,
) -> metric.Metrics:
    """PSNR and SSIM of `config.data.evaluation`, each source alone and all together, from the mean
    of the posterior; the same after noise on normalised latents; statistics of the latents.

    `losses` of validation, where they are known, are reported with the others.
    """
    model = normalised(model, **statistics(model, config))
    ways: dict[str, Any] = {"reconstruction": functools.partial(reconstruct, model)}
    for noise in NOISE:
        ways[f"latent noise {noise}"] = functools.partial(reconstruct, model, noise=noise)
    metrics, sections = pics.measure(pics.held_out(config, model.stride), ways)
    scale, shift = np.array(model.cfg.scale), np.array(model.cfg.shift)
    metrics |= {"all/latents/scale": float(scale), "all/latents/shift": float(shift)}
    metrics |= losses or {}
    report.write(folder, metrics, sections, "Autoencoder")
    return metrics


def statistics(model: Autoencoder, config: Mapping[str, Any]) -> dict[str, float]:
    """`scale` and `shift` that give latents of training pictures mean 0 and variance 1."""
    specs = config["data"]["train"].values()
    pictures = [pics.take(config, spec, MEASURED, model.stride) for spec in specs]
    latents = encode(model, np.concatenate(pictures))
    return {"scale": float(1 / latents.std()), "shift": float(latents.mean())}


def normalised(model: Autoencoder, scale: float, shift: float) -> Autoencoder:
    """The same weights with another normalisation of the latents."""
    graphdef, params = nnx.split(model)
    model = nnx.merge(graphdef, params)
    model.cfg = dataclasses.replace(model.cfg, scale=scale, shift=shift)
    return model


def encode(model: Autoencoder, pictures: np.ndarray) -> np.ndarray:
    """uint8 `[N H W 3]` -> means of the posterior, not normalised, `[N h w C]`."""
    split = nnx.split(model)
    return pics.in_chunks(lambda part, _: _means(*split, part), pictures)


def reconstruct(model: Autoencoder, pictures: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """uint8 `[N H W 3]` -> the same through the autoencoder; `noise` on normalised latents."""
    split = nnx.split(model)
    again = lambda part, first: _again(*split, part, jax.random.key(first), noise)
    return pics.in_chunks(again, pictures)


@functools.partial(jax.jit, static_argnums=0)
def _means(graphdef, params, pixels):
    return nnx.merge(graphdef, params).encode(to_float(pixels))[0]


@functools.partial(jax.jit, static_argnums=0)
def _again(graphdef, params, pixels, key, noise):
    model = nnx.merge(graphdef, params)
    latents = model.latents(to_float(pixels))
    latents += noise * jax.random.normal(key, latents.shape)
    return to_bytes(model.pixels(latents))
