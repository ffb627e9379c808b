"""The configuration tree of a run -> frozen dataclasses that the modules take."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from unified.backbone import BackboneConfig
from unified.generation.drawing import Drawing
from unified.interop import release
from unified.sequence import LatentLane, Layout, PatchLane, TextLane
from unified.tokenizers.autoencoder import AutoencoderConfig
from unified.tokenizers.text import TextTokenizer
from unified.tokenizers.vision import VisionConfig

LANES = {"text": TextLane, "patch": PatchLane, "latent": LatentLane}


@dataclasses.dataclass(frozen=True)
class ARFlowConfig:
    """`chunk`: rows of logits that exist at a time; `dtype`: of activations (weights: float32).

    `vision` encodes what patch lanes hold; None if there is none. `sample_latents`: learn samples
    of the autoencoder's posterior (as BAGEL does), not its mean.
    """

    layout: Layout
    backbone: BackboneConfig
    vision: VisionConfig | None
    autoencoder: AutoencoderConfig
    vocab_size: int
    timestep_shift: float = 1.0
    sample_latents: bool = False
    chunk: int = 4096
    remat: str = "nothing_saveable"
    dtype: str = "float32"

    def __post_init__(self):
        for lane in self.layout.lanes:
            if lane.stream not in self.backbone.streams:
                raise ValueError(
                    f"lane {lane.name!r} is in stream {lane.stream!r}; config.model.backbone has "
                    f"the streams {sorted(self.backbone.streams)}"
                )
            if isinstance(lane, LatentLane) and lane.stride % self.autoencoder.stride:
                raise ValueError(
                    f"lane {lane.name!r}: stride {lane.stride} is not a multiple of the "
                    f"autoencoder's {self.autoencoder.stride} pixels"
                )
            if isinstance(lane, PatchLane):
                check_patches(lane, self.vision)
        patches = (PatchLane,) if self.vision else ()
        for kind in (TextLane, LatentLane, *patches):
            self.width(kind)

    @property
    def latent_patch(self) -> int:
        """Latent places a side of one token."""
        strides = {lane.stride for lane in self.layout.lanes if isinstance(lane, LatentLane)}
        if len(strides) != 1:
            raise ValueError(f"latent lanes need one stride, found {sorted(strides)}")
        return strides.pop() // self.autoencoder.stride

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent token."""
        return self.latent_patch**2 * self.autoencoder.latent_channels

    def width(self, kind: type) -> int:
        """The embedding width of all lanes of a kind: their streams must agree on one."""
        streams = {lane.stream for lane in self.layout.lanes if isinstance(lane, kind)}
        widths = {self.backbone.streams[s].embed_dim for s in streams}
        if len(widths) != 1:
            raise ValueError(
                f"{kind.__name__}s are in streams {sorted(streams)} of widths {sorted(widths)}: "
                "config.layout needs at least one, and all in streams of equal embed_dim"
            )
        return widths.pop()


def check_patches(lane: PatchLane, vision: VisionConfig | None) -> None:
    """Raises ValueError if the encoder cannot read what the lane holds."""
    if vision is None:
        raise ValueError(f"lane {lane.name!r} holds patches, but there is no config.model.vision")
    if lane.patch != vision.patch:
        raise ValueError(
            f"lane {lane.name!r} has patches of {lane.patch} pixels, config.model.vision "
            f"of {vision.patch}"
        )
    if not vision.fits(lane.max_side, lane.max_side):
        raise ValueError(
            f"lane {lane.name!r}: pictures of {lane.max_side} pixels exceed the "
            f"{vision.side} patches a side of config.model.vision; raise side"
        )


def parse(config: Mapping[str, Any]) -> ARFlowConfig:
    """The one place where the configuration tree is read for the model.

    Raises ValueError where its numbers do not fit together, those of `drawing` too, which are not
    needed before the end of a run.
    """
    model = config["model"]
    drawing(config)
    if (needed := tokenizer(config).vocab_size) > model["vocab_size"]:
        raise ValueError(
            f"config.model.vocab_size={model['vocab_size']} is less than the {needed} tokens of "
            f"{config['tokenizer']}: raise it"
        )
    return ARFlowConfig(
        layout=layout(config),
        backbone=BackboneConfig(**model["backbone"]),
        vision=VisionConfig(**model["vision"]) if model.get("vision") else None,
        autoencoder=AutoencoderConfig(**model["autoencoder"]),
        vocab_size=model["vocab_size"],
        timestep_shift=model["timestep_shift"],
        sample_latents=model["sample_latents"],
        chunk=model["logits_chunk"],
        remat=config["remat"],
        dtype=config["compute_dtype"],
    )


def layout(config: Mapping[str, Any]) -> Layout:
    """Lanes and budgets, with the ids of the tokenizer's marks."""
    marks = tokenizer(config)
    spec = config["layout"]
    lanes = []
    for name, fields in spec["lanes"].items():
        fields = dict(fields)
        kind = fields.pop("kind")
        if kind not in LANES:
            raise ValueError(f"lane {name!r}: unknown kind {kind!r}; choose one of {sorted(LANES)}")
        fields["tasks"] = tuple(fields.get("tasks", ()))
        lanes.append(LANES[kind](name=name, **fields))
    return Layout(
        tuple(lanes),
        begin_text=marks.begin_text,
        end_text=marks.end_text,
        begin_image=marks.begin_image,
        end_image=marks.end_image,
        image_position=spec["image_position"],
        read_as=tuple(spec.get("read_as", {}).items()),
    )


def drawing(config: Mapping[str, Any]) -> Drawing:
    """How the model draws, unless told otherwise."""
    fields = dict(config.get("drawing", {}))
    known = [field.name for field in dataclasses.fields(Drawing)]
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"config.drawing: unknown {unknown}; there are {known}")
    try:
        return Drawing(**fields)
    except ValueError as error:
        raise ValueError(f"config.drawing: {error}") from None


def tokenizer(config: Mapping[str, Any]) -> TextTokenizer:
    """The text tokenizer of a run: a path, or a place in this package."""
    return TextTokenizer(release.resolve(config["tokenizer"]))
