"""What recipes that learn to show pictures again share: their input, one picture a row, their
losses of pixels, and how well pictures come back.

A batch is packed as for any model, so every source of the library serves; of an example with
several pictures, one is taken.

`B` and `N` pictures, `H W` pixels.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from unified.data.pipeline import Pipeline, configured
from unified.data.sources import FORMATS, BadRecord, Source, fingerprint, open_source
from unified.evaluation import metric
from unified.evaluation.card import Card, Section
from unified.evaluation.reconstruction import psnr, ssim
from unified.interop.options import check_each, of_each, options
from unified.interop.schema import Data, check_trained, conform, fill
from unified.lanes import PictureLane, TextLane
from unified.lanes.layout import Layout, Template
from unified.sequence import Batch, Example

LANE = "picture"
MOST = 2**14  # pixels a side, and pictures to measure
SCALES = 3  # of the edge loss: full, half and quarter size
CHUNK = 32  # pictures at a time in evaluation


class Fields(TypedDict):
    """What a model needs of a config; the fields of `model` are those of its dataclass."""

    model: Mapping[str, Any]


class Evaluated(Data):
    """What training and evaluation need of `data`."""

    side: int
    examples: int


def parse(config: Mapping[str, Any], kind: Any) -> Any:
    """The config of a model, a dataclass `kind`. Raises ValueError where its fields make none."""
    check_trained(config, needed=False)
    conform(config, Fields, "config")
    return fill(kind, config["model"], "config.model")


def check(config: Mapping[str, Any], stride: int) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run."""
    check_trained(config)
    conform(config["data"], Evaluated, "config.data")
    for field, least in (("side", stride), ("examples", 1)):
        if not least <= (value := config["data"][field]) <= MOST:
            raise ValueError(f"config.data.{field}={value} must be from {least} to {MOST}")
    for split in ("train", "validation", "evaluation"):
        sources = config["data"].get(split, {})
        check_each(sources, FORMATS, f"config.data.{split}")
        if not sources and split != "validation":
            raise ValueError(f"config.data.{split} names no source, and evaluation needs one")


def defaults(config: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. Raises ValueError for one of
    another type."""
    check_trained(config, needed=False)
    data = config.get("data", {})
    splits = {split: data.get(split, {}) for split in ("train", "validation")}
    return {
        "model": options(kind),
        "data": {"dropout": {}, "lookahead": 1, "workers": 0}
        | {split: of_each(x, "format", FORMATS, weight=1.0) for split, x in splits.items()}
        | {"evaluation": of_each(data.get("evaluation", {}), "format", FORMATS)},
    }


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


def lane(config: Mapping[str, Any], stride: int) -> PictureLane:
    side = config["data"]["side"]
    return PictureLane(LANE, "gen", LANE, count=1, height=side, width=side, stride=stride)


def no_text(text: str) -> Sequence[int]:
    """Ids of a text, of which these models read none."""
    return ()


def inputs(
    config: Mapping[str, Any],
    split: str,
    task: str | None,
    rows: Sequence[int] | None,
    stride: int,
) -> Pipeline:
    """Batches of `config.data[split]`: its sources by name, or the one named `task`.

    `rows`: those that this process makes of the global batch (default: all).
    """
    marks = TextLane("text", "und", "text", budget=2)  # the picture's begin and end
    template, uses = Template(begin_image=(0,), end_image=(1,)), {"draw": (LANE,)}
    row = Layout((marks, lane(config, stride)), template, uses=uses)
    return configured(config, split, task, row, no_text, rows=rows, adapt=OnePicture)


def pictures_of(batch: Batch) -> UInt8[Array, "B H W 3"]:
    return batch.lanes[LANE].pixels[:, 0]


def take(
    config: Mapping[str, Any], spec: Mapping[str, Any], n: int, stride: int
) -> UInt8[np.ndarray, "N H W 3"]:
    """The first `n` good pictures of a source."""
    source, found = OnePicture(open_source(spec)), []
    for i in range(len(source)):
        example = source[i]
        if not isinstance(example, BadRecord):
            made = lane(config, stride).write(example.segments[0].content, target=True)
            found.append(made["pixels"])
        if len(found) == n:
            break
    return np.concatenate(found)


# Losses.


def pixel_losses(error: Float[Array, "B H W 3"]) -> dict[str, Float[Array, " B"]]:
    """Of each picture, means over its numbers, float32: `l1`, `mse`, and `edges`."""
    error = error.astype(jnp.float32)
    mean = lambda x: x.mean(axis=(1, 2, 3))
    return {"l1": mean(jnp.abs(error)), "mse": mean(jnp.square(error)), "edges": edges(error)}


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


# Evaluation.


def in_chunks(fn: Callable[[np.ndarray, int], Any], pictures: np.ndarray) -> np.ndarray:
    """`fn(some pictures, number of the first)` of all."""
    starts = range(0, len(pictures), CHUNK)
    return np.concatenate([fn(pictures[i : i + CHUNK], i) for i in starts])


def held_out(config: Mapping[str, Any], stride: int) -> dict[str, np.ndarray]:
    """The pictures of each source of `config.data.evaluation`, uint8 `[N H W 3]`."""
    n = config["data"]["examples"]
    return {k: take(config, spec, n, stride) for k, spec in config["data"]["evaluation"].items()}


def measure(
    groups: Mapping[str, np.ndarray], ways: Mapping[str, Callable[[np.ndarray], np.ndarray]]
) -> tuple[metric.Metrics, list[Section]]:
    """PSNR and SSIM of every group of pictures that come back by each of the `ways`; of the first
    way the same over all groups, and pairs to look at."""
    metrics: metric.Metrics = {}
    sections, first = [], []
    for group, pictures in groups.items():
        again = {way: back(pictures) for way, back in ways.items()}
        for way, shown in again.items():
            metrics |= compare(f"{group}/{way}", pictures, shown)
        first.append(again[next(iter(ways))])
        sections.append(Section(group, cards(pictures, first[-1])))
    whole = np.concatenate([*groups.values()]), np.concatenate(first)
    return metrics | compare(f"all/{next(iter(ways))}", *whole), sections


def compare(name: str, pictures: np.ndarray, again: np.ndarray) -> metric.Metrics:
    metrics = metric.mean(f"{name}/psnr", map(float, psnr(pictures, again)))
    return metrics | metric.mean(f"{name}/ssim", map(float, ssim(pictures, again)))


def cards(pictures: np.ndarray, again: np.ndarray) -> tuple[Card, ...]:
    """Pictures beside their reconstructions."""
    pairs = zip(pictures, again, psnr(pictures, again), strict=True)
    return tuple(
        Card((("picture", p), ("again", q), ("PSNR", f"{value:.1f} dB"))) for p, q, value in pairs
    )
