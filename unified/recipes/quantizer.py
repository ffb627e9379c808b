"""Training a vector-quantized autoencoder of pictures: reconstruction, edges, and the codebook.

`B` and `N` pictures, `H W` pixels, `h w` latent places, `K` codes.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Int, UInt8

from unified.data.pipeline import Pipeline
from unified.evaluation import metric, report
from unified.recipes import pictures as pics
from unified.sequence import Batch
from unified.tokenizers.pixels import to_bytes, to_float
from unified.tokenizers.quantizer import Quantizer, QuantizerConfig, nearest, revival, rotated


def build(config: Mapping[str, Any], *, rngs: nnx.Rngs) -> Quantizer:
    """The model of a config. Raises ValueError where its fields make none."""
    return Quantizer(parse(config), rngs=rngs)


def parse(config: Mapping[str, Any]) -> QuantizerConfig:
    return pics.parse(config, QuantizerConfig)


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run."""
    pics.check(config, parse(config).stride)


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. Raises ValueError for one of
    another type."""
    return pics.defaults(config, QuantizerConfig)


def loss(model: Quantizer, batch: Batch, key: jax.Array) -> dict[str, tuple[Array, Array]]:
    """Sums over pictures, and their number; pixels are in [-1, 1].

    `l1`, `mse`, `edges`: as of the autoencoder. `codebook` and `commitment`: squared distance of a
    place and its code, with gradients to the code, and to the place. `revival`: of codes that the
    batch leaves unused, to the nearest place, over the places of a picture. `used`: the share of
    the codes that the batch uses, reported.
    """
    stop = jax.lax.stop_gradient
    pixels = to_float(pics.pictures_of(batch))
    z, codes = model.encode(pixels), model.codes
    tokens = nearest(stop(z), codes)
    chosen = codes[tokens]
    terms = pics.pixel_losses(model.decoder(rotated(z, chosen)) - pixels)
    apart = lambda a, b: jnp.sum(jnp.square(a - b), axis=-1).mean(axis=(1, 2))
    terms |= {"codebook": apart(stop(z), chosen), "commitment": apart(z, stop(chosen))}
    number = jnp.float32(pixels.shape[0])
    sums = {name: term.sum() for name, term in terms.items()}
    used = jnp.zeros(len(codes), bool).at[tokens].set(True)
    dead = revival(rearrange(z, "B h w C -> (B h w) C"), codes, used)
    sums |= {"revival": dead.sum() / tokens[0].size, "used": used.mean() * number}
    return {name: (total, number) for name, total in sums.items()}


def counts(model: Quantizer, batch: Batch) -> dict[str, Array]:
    number = jnp.float32(pics.pictures_of(batch).shape[0])
    return dict.fromkeys(("l1", "mse", "edges", "codebook", "commitment", "revival"), number)


def inputs(
    config: Mapping[str, Any],
    split: str,
    task: str | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> Pipeline:
    """Batches as of `pictures.inputs`."""
    return pics.inputs(config, split, task, rows, parse(config).stride)


# Evaluation.


def evaluate(
    model: Quantizer,
    config: Mapping[str, Any],
    folder: str | Path,
    losses: Mapping[str, float] | None = None,
) -> metric.Metrics:
    """PSNR and SSIM of `config.data.evaluation`, each source alone and all together, and how many
    of the codes they use.

    `losses` of validation, where they are known, are reported with the others.
    """
    groups = pics.held_out(config, model.stride)
    ways = {"reconstruction": functools.partial(reconstruct, model)}
    metrics, sections = pics.measure(groups, ways)
    tokens = {name: encode(model, pictures) for name, pictures in groups.items()}
    tokens["all"] = np.concatenate([*tokens.values()])
    metrics |= {f"{name}/codes/used": usage(model, x) for name, x in tokens.items()}
    metrics |= losses or {}
    report.write(folder, metrics, sections, "Quantizer")
    return metrics


def usage(model: Quantizer, tokens: Int[np.ndarray, "N h w"]) -> float:
    """The share of the codes that are among `tokens`."""
    return len(np.unique(tokens)) / model.cfg.codebook_size


def encode(model: Quantizer, pictures: UInt8[np.ndarray, "N H W 3"]) -> Int[np.ndarray, "N h w"]:
    split = nnx.split(model)
    return pics.in_chunks(lambda part, _: _tokens(*split, part), pictures)


def reconstruct(
    model: Quantizer, pictures: UInt8[np.ndarray, "N H W 3"]
) -> UInt8[np.ndarray, "N H W 3"]:
    """The same pictures through the quantizer."""
    split = nnx.split(model)
    return pics.in_chunks(lambda part, _: _again(*split, part), pictures)


@functools.partial(jax.jit, static_argnums=0)
def _tokens(graphdef, params, pixels):
    return nnx.merge(graphdef, params).tokens(to_float(pixels))


@functools.partial(jax.jit, static_argnums=0)
def _again(graphdef, params, pixels):
    model = nnx.merge(graphdef, params)
    return to_bytes(model.pixels(model.tokens(to_float(pixels))))
