"""Training a KL autoencoder of pictures: reconstruction, edges, and a little KL.

A batch is packed as for any model, one picture a row, so every source of the library serves; of
an example with several pictures, one is taken.

`B` pictures, `H W` pixels, `h w C` latents.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from unified.data.pipeline import Pipeline, configured
from unified.data.sources import FORMATS, BadRecord, Source, fingerprint, open_source
from unified.evaluation import metric, report
from unified.evaluation.card import Card, Section
from unified.evaluation.reconstruction import psnr, ssim
from unified.interop.options import check_each, of_each, options
from unified.interop.schema import Data, check_trained, conform, fill
from unified.lanes import PictureLane, TextLane
from unified.lanes.layout import Layout, Template
from unified.sequence import Batch, Example
from unified.tokenizers.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    kl_divergence,
    sample,
)
from unified.tokenizers.pixels import to_bytes, to_float

LANE = "vae"
MOST = 2**14  # pixels a side, and pictures to measure
SCALES = 3  # of the edge loss: full, half and quarter size
NOISE = (0.1, 0.3)  # deviations of the noise on normalised latents that `evaluate` tries
CHUNK = 32  # pictures at a time in `evaluate`
MEASURED = 512  # training pictures of each source, for the statistics of latents


class Fields(TypedDict):
    """What a model needs of a config; the fields of `model` are those of `AutoencoderConfig`."""

    model: Mapping[str, Any]


class Evaluated(Data):
    """What training and evaluation need of `data`."""

    side: int
    examples: int


def build(config: Mapping[str, Any], *, rngs: nnx.Rngs) -> Autoencoder:
    """The model of a config. Raises ValueError where its fields make none."""
    return Autoencoder(parse(config), rngs=rngs)


def parse(config: Mapping[str, Any]) -> AutoencoderConfig:
    check_trained(config, needed=False)
    conform(config, Fields, "config")
    return fill(AutoencoderConfig, config["model"], "config.model")


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run."""
    check_trained(config)
    conform(config["data"], Evaluated, "config.data")
    for field, least in (("side", parse(config).stride), ("examples", 1)):
        if not least <= (value := config["data"][field]) <= MOST:
            raise ValueError(f"config.data.{field}={value} must be from {least} to {MOST}")
    for split in ("train", "validation", "evaluation"):
        sources = config["data"].get(split, {})
        check_each(sources, FORMATS, f"config.data.{split}")
        if not sources and split != "validation":
            raise ValueError(f"config.data.{split} names no source, and evaluation needs one")


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. Raises ValueError for one of
    another type."""
    check_trained(config, needed=False)
    data = config.get("data", {})
    splits = {split: data.get(split, {}) for split in ("train", "validation")}
    return {
        "model": options(AutoencoderConfig),
        "data": {"dropout": {}, "lookahead": 1, "workers": 0}
        | {split: of_each(x, "format", FORMATS, weight=1.0) for split, x in splits.items()}
        | {"evaluation": of_each(data.get("evaluation", {}), "format", FORMATS)},
    }


def loss(model: Autoencoder, batch: Batch, key: jax.Array) -> dict[str, tuple[Array, Array]]:
    """Sums over pictures, and their number; pixels are in [-1, 1].

    `l1`, `mse`: of a pixel. `edges`: L1 of the differences of neighbouring pixels, over `SCALES`
    sizes; it asks for sharpness as a perceptual loss does, without weights from elsewhere. `kl`:
    nats a latent. `noise`: posterior deviation, reported.
    """
    pixels = to_float(pictures_of(batch))
    mean, logvar = model.encode(pixels)
    error = model.decode(sample(key, mean, logvar)) - pixels
    error = error.astype(jnp.float32)
    terms = {
        "l1": jnp.abs(error),
        "mse": jnp.square(error),
        "kl": kl_divergence(mean, logvar),
        "noise": jnp.exp(0.5 * logvar),
    }
    sums = {name: term.mean(axis=(1, 2, 3)).sum() for name, term in terms.items()}
    sums["edges"] = edges(error).sum()
    number = jnp.float32(pixels.shape[0])
    return {name: (total, number) for name, total in sums.items()}


def edges(error: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Mean size of horizontal plus vertical differences, summed over sizes halved each time."""
    total = jnp.zeros(error.shape[0])
    for scale in range(SCALES):
        if scale:
            B, H, W, C = error.shape
            error = error.reshape(B, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))
        for axis in (1, 2):
            total += jnp.abs(jnp.diff(error, axis=axis)).mean(axis=(1, 2, 3))
    return total


def counts(model: Autoencoder, batch: Batch) -> dict[str, Array]:
    number = jnp.float32(pictures_of(batch).shape[0])
    return dict.fromkeys(("l1", "mse", "edges", "kl"), number)


def pictures_of(batch: Batch) -> UInt8[Array, "B H W 3"]:
    tokens = batch.lanes[LANE]
    return tokens.pixels[:, 0]


# Input.


@dataclasses.dataclass(frozen=True)
class OnePicture:
    """The examples of a source, each as one of its pictures, to be reconstructed."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self.source)

    def __getitem__(self, index: int) -> Example | BadRecord:
        example = self.source[index]
        if isinstance(example, BadRecord):
            return example
        pictures = [segment for segment in example.segments if segment.modality == "image"]
        if not pictures:
            return BadRecord(example.origin, "no picture in this example")
        chosen = dataclasses.replace(pictures[index % len(pictures)], role="target")
        return dataclasses.replace(example, segments=(chosen,))


def lane(config: Mapping[str, Any]) -> PictureLane:
    side = config["data"]["side"]
    stride = parse(config).stride
    return PictureLane(LANE, "gen", "vae", count=1, height=side, width=side, stride=stride)


def no_text(text: str) -> Sequence[int]:
    """Ids of a text, of which the autoencoder reads none."""
    return ()


def inputs(
    config: Mapping[str, Any],
    split: str,
    task: str | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> Pipeline:
    """Batches of `config.data[split]`: its sources by name, or the one named `task`.

    `rows`: those that this process makes of the global batch (default: all).
    """
    marks = TextLane("text", "und", "text", budget=2)  # the picture's begin and end
    row = Layout((marks, lane(config)), Template(begin_image=(0,), end_image=(1,)))
    return configured(config, split, task, row, no_text, rows=rows, adapt=OnePicture)


def take(
    config: Mapping[str, Any], spec: Mapping[str, Any], n: int
) -> UInt8[np.ndarray, "N H W 3"]:
    """The first `n` good pictures of a source."""
    source, found = OnePicture(open_source(spec)), []
    for i in range(len(source)):
        example = source[i]
        if not isinstance(example, BadRecord):
            found.append(lane(config).write(example.segments[0].content, target=True)["pixels"])
        if len(found) == n:
            break
    return np.concatenate(found)


# Evaluation.


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
    n = config["data"]["examples"]
    groups = {k: take(config, spec, n) for k, spec in config["data"]["evaluation"].items()}
    metrics: metric.Metrics = dict(losses or {})
    sections, again = [], {}
    for name, pictures in groups.items():
        again[name] = reconstruct(model, pictures)
        metrics |= compare(f"{name}/reconstruction", pictures, again[name])
        for noise in NOISE:
            noisy = reconstruct(model, pictures, noise)
            metrics |= compare(f"{name}/latent noise {noise}", pictures, noisy)
        sections.append(Section(name, cards(pictures, again[name])))
    whole = [np.concatenate([x[name] for name in groups]) for x in (groups, again)]
    metrics |= compare("all/reconstruction", *whole)
    scale, shift = np.array(model.cfg.scale), np.array(model.cfg.shift)
    metrics |= {"all/latents/scale": float(scale), "all/latents/shift": float(shift)}
    report.write(folder, metrics, sections, "Autoencoder")
    return metrics


def statistics(model: Autoencoder, config: Mapping[str, Any]) -> dict[str, float]:
    """`scale` and `shift` that give latents of training pictures mean 0 and variance 1."""
    specs = config["data"]["train"].values()
    pictures = [take(config, spec, MEASURED) for spec in specs]
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
    return _in_chunks(_means, model, pictures)


def reconstruct(model: Autoencoder, pictures: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """uint8 `[N H W 3]` -> the same through the autoencoder; `noise` on normalised latents."""
    return _in_chunks(_again, model, pictures, noise)


def _in_chunks(fn, model: Autoencoder, pictures: np.ndarray, *args: float) -> np.ndarray:
    split = nnx.split(model)
    starts = range(0, len(pictures), CHUNK)
    chunks = [fn(*split, pictures[i : i + CHUNK], jax.random.key(i), *args) for i in starts]
    return np.concatenate(chunks)


@functools.partial(jax.jit, static_argnums=0)
def _means(graphdef, params, pixels, key):
    return nnx.merge(graphdef, params).encode(to_float(pixels))[0]


@functools.partial(jax.jit, static_argnums=0)
def _again(graphdef, params, pixels, key, noise):
    model = nnx.merge(graphdef, params)
    latents = model.latents(to_float(pixels))
    latents += noise * jax.random.normal(key, latents.shape)
    return to_bytes(model.pixels(latents))


def compare(name: str, pictures: np.ndarray, again: np.ndarray) -> metric.Metrics:
    metrics = metric.mean(f"{name}/psnr", map(float, psnr(pictures, again)))
    return metrics | metric.mean(f"{name}/ssim", map(float, ssim(pictures, again)))


def cards(pictures: np.ndarray, again: np.ndarray) -> tuple[Card, ...]:
    """Pictures beside their reconstructions."""
    pairs = zip(pictures, again, psnr(pictures, again), strict=True)
    return tuple(
        Card((("picture", p), ("again", q), ("PSNR", f"{value:.1f} dB"))) for p, q, value in pairs
    )
