"""The configuration tree of a run -> frozen dataclasses that the modules take."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from unified.backbone import BackboneConfig
from unified.data.sources import FORMATS
from unified.generation.drawing import Drawing
from unified.interop import release
from unified.interop.options import known, of_each, options
from unified.interop.schema import check_trained, conform, fill
from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.layout import TEXT, USES, Layout, Template
from unified.nn.stack import remat_policy
from unified.recipes.ar_flow.fields import Fields
from unified.tokenizers.autoencoder import AutoencoderConfig
from unified.tokenizers.text import MARKS, TextTokenizer
from unified.tokenizers.vision import VisionConfig

LANES = {"text": TextLane, "patch": PatchLane, "picture": PictureLane}
PARTS = {"backbone": BackboneConfig, "vision": VisionConfig, "autoencoder": AutoencoderConfig}
DTYPES = ("float32", "bfloat16", "float16")
MOST = 2**20  # of tokens in a lane
MOST_PIXELS = 2**26  # of the pictures that a lane holds: 64 megapixels


@dataclasses.dataclass(frozen=True)
class ARFlowConfig:
    """`logits_chunk`: rows of logits that exist at a time; `dtype`: of activations (weights:
    float32); `remat`: as of `nn.stack.scan`.

    `vision` encodes what patch lanes hold; None if there is none. `sample_latents`: learn samples
    of the autoencoder's posterior (as BAGEL does), not its mean. `position_theta`: of the 2-D
    sinusoids that say where in its picture a patch or latent token is.
    """

    layout: Layout
    backbone: BackboneConfig
    autoencoder: AutoencoderConfig
    vocab_size: int
    vision: VisionConfig | None = None
    timestep_shift: float = 1.0
    sample_latents: bool = False
    position_theta: float = 10_000.0
    logits_chunk: int = 4096
    remat: str = "nothing_saveable"
    dtype: str = "float32"

    def __post_init__(self):
        remat_policy(self.remat)
        for name in ("timestep_shift", "position_theta"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must be a positive number")
        if self.logits_chunk < 1:
            raise ValueError(f"logits_chunk={self.logits_chunk} must be at least 1")
        if self.dtype not in DTYPES:
            raise ValueError(f"compute_dtype={self.dtype!r}: choose one of {DTYPES}")
        for lane in self.layout.lanes:
            if lane.stream not in self.backbone.streams:
                raise ValueError(
                    f"lane {lane.name!r} is in stream {lane.stream!r}; config.model.backbone has "
                    f"the streams {sorted(self.backbone.streams)}"
                )
            if isinstance(lane, PictureLane) and lane.stride % self.autoencoder.stride:
                raise ValueError(
                    f"lane {lane.name!r}: stride {lane.stride} is not a multiple of the "
                    f"autoencoder's {self.autoencoder.stride} pixels"
                )
            if isinstance(lane, PatchLane):
                check_patches(lane, self.vision)
        self.layout.check()
        patches = (PatchLane,) if self.vision else ()
        for kind in (TextLane, PictureLane, *patches):
            if (width := self.width(kind)) % 4:
                raise ValueError(f"embed_dim={width}: places in pictures need a multiple of 4")

    @property
    def latent_patch(self) -> int:
        """Latent places a side of one token."""
        strides = {lane.stride for lane in self.layout.lanes if isinstance(lane, PictureLane)}
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


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. They depend on what it has:
    the kinds of its lanes, the formats of its sources, its benchmark. Raises ValueError, naming the
    field, for one of another type."""
    check_types(config)
    model, data, benchmark = (dict(config.get(name, {})) for name in ("model", "data", "benchmark"))
    lanes = config.get("layout", {}).get("lanes", {})
    splits = {split: data.get(split, {}) for split in ("train", "validation")}
    run = getattr(known("module", benchmark.get("module")), "run", None)
    measured = options(run, without=("extra",))
    if "sources" in benchmark:
        measured["sources"] = of_each(benchmark["sources"], "format", FORMATS)
    return {
        "marks": MARKS,
        "layout": {"lanes": of_each(lanes, "kind", LANES), "uses": {}},
        "model": options(ARFlowConfig, without=("remat", "dtype"))
        | {part: options(kind) for part, kind in PARTS.items() if model.get(part)},
        "data": {"dropout": {}, "lookahead": 1, "workers": 0}
        | {split: of_each(x, "format", FORMATS, weight=1.0) for split, x in splits.items()},
        "drawing": vars(Drawing()),
        "benchmark": measured,
    }


def check_types(config: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the field, for one of another type; any may be absent."""
    conform(config, Fields, "config", needed=False)
    check_trained(config, needed=False)


def parse(config: Mapping[str, Any]) -> ARFlowConfig:
    """The one place where the configuration tree is read for the model.

    Raises ValueError where its numbers do not fit together, those of `drawing` too, which are not
    needed before the end of a run.
    """
    check_types(config)
    conform(config, Fields, "config")
    drawing(config)
    model = dict(config["model"])
    for name, kind in PARTS.items():
        if fields := model.get(name):
            model[name] = conform(fields, kind, f"config.model.{name}")
    model |= {"layout": layout(config), "remat": config["remat"], "dtype": config["compute_dtype"]}
    made = fill(ARFlowConfig, model, "config.model")
    check_lanes(made.layout, config)
    if (needed := tokenizer(config).vocab_size) > made.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={made.vocab_size} is less than the {needed} tokens of "
            f"{config['tokenizer']}: raise it"
        )
    return made


def layout(config: Mapping[str, Any]) -> Layout:
    """Lanes and budgets, with the ids of the tokenizer's marks."""
    marks = tokenizer(config)
    spec = config["layout"]
    lanes: list[Any] = []
    for name, fields in spec["lanes"].items():
        fields = dict(fields)
        kind = fields.pop("kind", None)
        if not isinstance(kind, str) or kind not in LANES:
            raise ValueError(
                f"config.layout.lanes.{name}.kind={kind!r}: choose one of {sorted(LANES)}"
            )
        where = f"config.layout.lanes.{name}"
        lane = fill(LANES[kind], {"name": name, **fields}, where)
        for field, value in vars(lane).items():
            least = 0 if field == "losses" else 1
            if isinstance(value, int) and not least <= value <= MOST:
                bound = f"at least {least}" if value < least else f"at most {MOST}"
                raise ValueError(f"{where}.{field}={value} must be {bound}")
        if lane.slots > MOST or lane.pixels > MOST_PIXELS:
            raise ValueError(
                f"{where} holds {lane.slots} tokens and {lane.pixels} pixels a row: "
                f"at most {MOST} and {MOST_PIXELS}"
            )
        lanes.append(lane)
    template = Template(**{name: getattr(marks, name) for name in MARKS})
    uses = {name: tuple(views) for name, views in {**USES, **spec.get("uses", {})}.items()}
    rest = {"template": template, "image_position": spec["image_position"], "uses": uses}
    return fill(Layout, {"lanes": tuple(lanes), **rest}, "config.layout")


def check_lanes(made: Layout, config: Mapping[str, Any]) -> None:
    """Raises ValueError where every example of some kind would be refused: no lane has the view
    that it asks for, takes its task, or has room for the text that it teaches; and for a lane that
    serves no use."""
    where, views = "config.layout.lanes", {lane.view for lane in made.lanes}
    for use, asked in made.uses.items():
        for view in asked:
            if view not in views:
                raise ValueError(f"config.layout.uses.{use}: {view!r} is none of {sorted(views)}")
    served = {TEXT, *(view for use in made.uses.values() for view in use)}
    for lane in made.lanes:
        if lane.view not in served:
            raise ValueError(
                f"{where}.{lane.name}.view={lane.view!r} serves no use: choose of {sorted(served)}"
            )
    texts: list[Any] = [lane for lane in made.lanes if lane.view == TEXT]
    if not all(lane.modality == "text" for lane in texts):
        raise ValueError(f"{where}: the view {TEXT!r} is of text lanes")
    if not texts:
        raise ValueError(f"{where}: texts and marks ask for the view {TEXT!r}: give it to a lane")
    if config.get("loss_weights", {}).get("text") and not any(lane.losses for lane in texts):
        raise ValueError(
            f"{where}.{texts[0].name}.losses=0 leaves no text to be learnt: raise it, or leave "
            "text out of config.loss_weights"
        )
    if all(lane.tasks for lane in texts):
        taken = {task for lane in texts for task in lane.tasks}
        for name, task in tasks(config.get("data", {})):
            if task not in taken:
                raise ValueError(
                    f"{where}: no text lane has task {task!r} of config.data.{name} among its tasks"
                )


def tasks(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The tasks that the sources name, each with the source that does."""
    for split in ("train", "validation"):
        for name, spec in data.get(split, {}).items():
            known = {**of_each({name: spec}, "format", FORMATS)[name], **spec}
            found = known.get("tasks", (known["task"],) if "task" in known else ())
            weights = dict(found) if hasattr(found, "keys") else dict.fromkeys(found, 1.0)
            yield from ((f"{split}.{name}", task) for task, weight in weights.items() if weight)


def drawing(config: Mapping[str, Any]) -> Drawing:
    """How the model draws, unless told otherwise."""
    made = fill(Drawing, config.get("drawing", {}), "config.drawing")
    for task, question in made.read_back.items():
        if not isinstance(question, str) or not question.strip():
            raise ValueError(
                f"config.drawing.read_back.{task}={question!r}: write the question that the model "
                "is asked of its picture, or leave the task out"
            )
    return made


def tokenizer(config: Mapping[str, Any]) -> TextTokenizer:
    """The text tokenizer of a run: a path, or a place in this package, and its marks."""
    return TextTokenizer(release.resolve(config["tokenizer"]), config.get("marks"))
