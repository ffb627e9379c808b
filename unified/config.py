"""The configuration tree of a model -> what it is made of: layout, parts, tokenizer, drawing."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from unified import names
from unified.backbone import BackboneConfig
from unified.data.sources import FORMATS
from unified.generation.drawing import Drawing
from unified.interop import release
from unified.interop.options import known, of_each, options
from unified.interop.schema import Source, check_trained, conform, fill
from unified.lanes import PatchLane, PictureLane, TextLane
from unified.lanes.layout import TEXT, USES, Layout, Template
from unified.model import UnifiedConfig
from unified.parts import KINDS
from unified.tokenizers.text import MARKS, TextTokenizer

LANES = {"text": TextLane, "patch": PatchLane, "picture": PictureLane}
MOST = 2**20  # of tokens in a lane
MOST_PIXELS = 2**26  # of the pictures that a lane holds: 64 megapixels


class LayoutFields(TypedDict):
    image_position: str
    lanes: Mapping[str, Mapping[str, Any]]
    uses: NotRequired[Mapping[str, Sequence[str]]]


class TemplateFields(TypedDict, total=False):
    """Marks of `Template`, as text in which special tokens may stand, in place of `marks`."""

    begin_text: str
    end_text: str
    begin_image: str
    end_image: str
    begin_context: str
    end_context: str
    begin_target: str
    end_target: str
    begin_document: str
    learnt: Sequence[str]


class ModelFields(TypedDict):
    """Beside them the networks that parts name. What lies in them is declared by the dataclasses
    that they become."""

    backbone: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]]


class BenchmarkFields(TypedDict, total=False):
    """The rest are arguments of `run` of the module."""

    module: str
    sources: Mapping[str, Source]


class Fields(TypedDict):
    """What a model needs of a config, and what it may have; the fields of training are declared by
    `unified.interop.schema`."""

    tokenizer: str
    compute_dtype: str
    remat: str
    layout: LayoutFields
    model: ModelFields
    marks: NotRequired[Mapping[str, str]]
    template: NotRequired[TemplateFields]
    drawing: NotRequired[Mapping[str, Any]]
    benchmark: NotRequired[BenchmarkFields]


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
        "template": {},
        "layout": {"lanes": of_each(lanes, "kind", LANES), "uses": {}},
        "model": {"backbone": options(BackboneConfig), **_optional(model.get("parts", {}))},
        "data": {"dropout": {}, "lookahead": 1, "workers": 0}
        | {split: of_each(x, "format", FORMATS, weight=1.0) for split, x in splits.items()},
        "drawing": vars(Drawing()),
        "benchmark": measured,
    }


def check_types(config: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the field, for one of another type; any may be absent."""
    conform(config, Fields, "config", needed=False)
    check_trained(config, needed=False)


def parse(config: Mapping[str, Any]) -> UnifiedConfig:
    """The one place where the configuration tree is read for the model.

    Raises ValueError where its numbers do not fit together, those of `drawing` too, which are not
    needed before the end of a run.
    """
    check_types(config)
    conform(config, Fields, "config")
    drawing(config)
    parts, kinds, used = {}, {}, {"backbone", "parts"}
    for view, spec in config["model"]["parts"].items():
        where = f"config.model.parts.{view}"
        kinds[view], kind = part_of(spec, where)
        fields = {name: value for name, value in spec.items() if name != "part"}
        for name, network, made in networks(kind, spec):
            if network not in config["model"]:
                known = sorted(set(config["model"]) - {"backbone", "parts"})
                raise ValueError(f"{where}.{name}={network!r} is none of config.model: {known}")
            fields[name] = conform(config["model"][network], made, f"config.model.{network}")
            used.add(network)
        parts[view] = fill(kind.config, fields, where)
    backbone = fill(BackboneConfig, config["model"]["backbone"], "config.model.backbone")
    row = layout(config)
    check_lanes(row, config)
    fields = {"layout": row, "backbone": backbone, "parts": parts, "kinds": kinds}
    how = {"remat": config["remat"], "dtype": config["compute_dtype"]}
    try:
        made = UnifiedConfig(**fields, **how)
    except ValueError as error:
        raise ValueError(f"config.model: {error}") from error
    if unknown := sorted(set(config["model"]) - used):
        raise ValueError(f"config.model: {unknown} are of no part; there are {sorted(used)}")
    needed, given = tokenizer(config).vocab_size, getattr(made.parts.get(TEXT), "vocab_size", 0)
    if needed > given:
        raise ValueError(
            f"config.model.parts.{TEXT}.vocab_size={given} is less than the {needed} tokens of "
            f"{config['tokenizer']}: raise it"
        )
    return made


def part_of(spec: Mapping[str, Any], where: str) -> tuple[str, Any]:
    """The import path of a part, and the part. Raises ValueError, naming the field."""
    given = spec.get("part") if hasattr(spec, "get") else None
    path = KINDS.get(given, given) if isinstance(given, str) else given
    try:
        kind = names.find("part", path)
        if not hasattr(kind, "config"):
            raise ValueError(f"part={given!r} is no part")
    except ValueError as error:
        raise ValueError(f"{where}.{error} (or one of {sorted(KINDS)})") from error
    return str(path), kind


def networks(kind: Any, spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The fields of a part that name a network of `config.model`, the names, and what it becomes:
    several parts may be made with the same numbers."""
    hints = typing.get_type_hints(kind.config)
    for name, value in spec.items():
        if isinstance(value, str) and dataclasses.is_dataclass(hints.get(name)):
            yield name, value, hints[name]


def _optional(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of parts, and of the networks that they name, are where they are left out."""
    found: dict[str, Any] = {"parts": {}}
    for view, spec in parts.items():
        kind: Any = known("part", KINDS.get(spec.get("part"), spec.get("part")))
        if hasattr(kind, "config"):
            found["parts"][view] = options(kind.config)
            found |= {network: options(made) for _, network, made in networks(kind, spec)}
    return found


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
    template = template_of(config, marks)
    uses = {name: tuple(views) for name, views in {**USES, **spec.get("uses", {})}.items()}
    rest = {"template": template, "image_position": spec["image_position"], "uses": uses}
    return fill(Layout, {"lanes": tuple(lanes), **rest}, "config.layout")


def template_of(config: Mapping[str, Any], tokenizer: TextTokenizer) -> Template:
    """The four marks of a packed sequence, and what `config.template` says instead. Raises
    ValueError, naming the field."""
    given = dict(config.get("template", {}))
    learnt = {"learnt": tuple(given.pop("learnt"))} if "learnt" in given else {}
    marks = {name: (getattr(tokenizer, name),) for name in MARKS}
    said = {name: tokenizer.encode_marks(text) for name, text in given.items()}
    return fill(Template, {**marks, **said, **learnt}, "config.template")


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
    if config.get("loss_weights", {}).get("text/nll") and not any(lane.losses for lane in texts):
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
