"""The configuration tree of a run -> frozen dataclasses that the modules take."""

import dataclasses
import importlib
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from unified.backbone import BackboneConfig
from unified.data.sources import FORMATS
from unified.generation.drawing import Drawing
from unified.interop import release
from unified.interop.options import of_each, options
from unified.nn.stack import remat_policy
from unified.sequence import LatentLane, Layout, PatchLane, TextLane
from unified.tokenizers.autoencoder import AutoencoderConfig
from unified.tokenizers.text import MARKS, TextTokenizer
from unified.tokenizers.vision import VisionConfig

LANES = {"text": TextLane, "patch": PatchLane, "latent": LatentLane}
VIEWS = {TextLane: "text", PatchLane: "vit", LatentLane: "vae"}  # that examples ask for
PARTS = {"backbone": BackboneConfig, "vision": VisionConfig, "autoencoder": AutoencoderConfig}
DTYPES = ("float32", "bfloat16", "float16")

T = TypeVar("T")


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
            if isinstance(lane, LatentLane) and lane.stride % self.autoencoder.stride:
                raise ValueError(
                    f"lane {lane.name!r}: stride {lane.stride} is not a multiple of the "
                    f"autoencoder's {self.autoencoder.stride} pixels"
                )
            if isinstance(lane, PatchLane):
                check_patches(lane, self.vision)
        patches = (PatchLane,) if self.vision else ()
        for kind in (TextLane, LatentLane, *patches):
            if (width := self.width(kind)) % 4:
                raise ValueError(f"embed_dim={width}: places in pictures need a multiple of 4")

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


def defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `config` may leave out, and what they are then. They depend on what it has:
    the kinds of its lanes, the formats of its sources, its benchmark."""
    model, data, benchmark = (dict(config.get(name, {})) for name in ("model", "data", "benchmark"))
    lanes = config.get("layout", {}).get("lanes", {})
    splits = {split: data.get(split, {}) for split in ("train", "validation")}
    measured = options(f"{benchmark.get('module')}:run", without=("extra",))
    if "sources" in benchmark:
        measured["sources"] = of_each(benchmark["sources"], "format", FORMATS)
    return {
        "marks": MARKS,
        "layout": {"lanes": of_each(lanes, "kind", LANES), "read_as": {}},
        "model": options(ARFlowConfig, without=("remat", "dtype"))
        | {part: options(kind) for part, kind in PARTS.items() if model.get(part)},
        "data": {"dropout": {}, "lookahead": 1, "workers": 0}
        | {split: of_each(x, "format", FORMATS, weight=1.0) for split, x in splits.items()},
        "drawing": vars(Drawing()),
        "benchmark": measured,
    }


def parse(config: Mapping[str, Any]) -> ARFlowConfig:
    """The one place where the configuration tree is read for the model.

    Raises ValueError where its numbers do not fit together, those of `drawing` too, which are not
    needed before the end of a run.
    """
    drawing(config)
    model = dict(config["model"])
    for name, kind in PARTS.items():
        if fields := model.get(name):
            model[name] = fill(kind, fields, f"model.{name}")
    model |= {"layout": layout(config), "remat": config["remat"], "dtype": config["compute_dtype"]}
    made = fill(ARFlowConfig, model, "model")
    check_lanes(made.layout, config)
    if (needed := tokenizer(config).vocab_size) > made.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={made.vocab_size} is less than the {needed} tokens of "
            f"{config['tokenizer']}: raise it"
        )
    return made


def fill(kind: type[T], fields: Mapping[str, Any], where: str) -> T:
    """A dataclass of the fields of `config.<where>`. Raises ValueError, saying what is wrong."""
    known = dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in known]
    needed = [f.name for f in known if f.default is f.default_factory is dataclasses.MISSING]
    if unknown := sorted(set(fields) - set(names)):
        raise ValueError(f"config.{where}: unknown {unknown}; there are {names}")
    if missing := sorted(set(needed) - set(fields)):
        raise ValueError(f"config.{where} lacks {missing}")
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.{where}: {error}") from error


def layout(config: Mapping[str, Any]) -> Layout:
    """Lanes and budgets, with the ids of the tokenizer's marks."""
    marks = tokenizer(config)
    spec = config["layout"]
    lanes: list[Any] = []
    for name, fields in spec["lanes"].items():
        fields = dict(fields)
        kind = fields.pop("kind", None)
        if kind not in LANES:
            raise ValueError(
                f"config.layout.lanes.{name}.kind={kind!r}: choose one of {sorted(LANES)}"
            )
        fields["tasks"] = tuple(fields.get("tasks", ()))
        for field, value in fields.items():
            least = 0 if field == "losses" else 1
            if isinstance(value, int) and value < least:
                raise ValueError(
                    f"config.layout.lanes.{name}.{field}={value} must be at least {least}"
                )
        lanes.append(fill(LANES[kind], {"name": name, **fields}, f"layout.lanes.{name}"))
    rest = {
        "begin_text": marks.begin_text,
        "end_text": marks.end_text,
        "begin_image": marks.begin_image,
        "end_image": marks.end_image,
        "image_position": spec["image_position"],
        "read_as": tuple(spec.get("read_as", {}).items()),
    }
    return fill(Layout, {"lanes": tuple(lanes), **rest}, "layout")


def check_lanes(made: Layout, config: Mapping[str, Any]) -> None:
    """Raises ValueError where every example of some kind would be refused: no lane has the view
    that it asks for, takes its task, or has room for the text that it teaches."""
    where, views = "config.layout.lanes", {lane.view for lane in made.lanes}
    for view, instead in made.read_as:
        if instead not in views:
            raise ValueError(f"config.layout.read_as.{view}={instead!r}: choose of {sorted(views)}")
    for kind, view in VIEWS.items():
        given = {lane.name: lane.view for lane in made.lanes if isinstance(lane, kind)}
        served = {*given.values(), *(dict(made.read_as) if kind is PatchLane else ())}
        if given and view not in served:
            raise ValueError(
                f"{where}: examples ask for the view {view!r}: give it to one of {[*given]}"
            )
    texts = [lane for lane in made.lanes if isinstance(lane, TextLane) and lane.view == "text"]
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


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a mistake in what is not needed before the end of a run: `benchmark`,
    whose options are those of `run` of its module, and what a `check` of that module asks of the
    config."""
    if "benchmark" not in config:
        raise ValueError("config lacks benchmark: name a module, as of unified.evaluation")
    options = dict(config["benchmark"])
    name = options.pop("module", None)
    try:
        module = importlib.import_module(name)
        run = module.run
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise ValueError(
            f"config.benchmark.module={name!r} must be a module with a function `run`: {error}"
        ) from error
    try:
        inspect.signature(run).bind(None, None, extra=None, **options)
    except TypeError as error:
        raise ValueError(f"config.benchmark: {error} of {name}.run") from None
    for option, value in options.items():
        if option.startswith("examples") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"config.benchmark.{option}={value!r} must be at least 1")
    if hasattr(module, "check"):
        module.check(config)


def drawing(config: Mapping[str, Any]) -> Drawing:
    """How the model draws, unless told otherwise."""
    made = fill(Drawing, config.get("drawing", {}), "drawing")
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
