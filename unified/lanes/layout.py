"""Static facts of a row, shared by the packer and the model: lanes, marks, and what is for what."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from unified.lanes.lane import Lane
from unified.sequence import Segment

Ids = tuple[int, ...]
DRAW = "draw"  # the use of a picture that is a target
USES = {"see": ("vit",), "edit": ("vae", "vit"), DRAW: ("vae",)}  # as BAGEL
TEXT = "text"  # the view that texts and marks have


@dataclasses.dataclass(frozen=True)
class Template:
    """The marks of a document, as ids of text tokens: a number, several, or none.

    Every text is `begin_text ids end_text`; every view of a picture is `begin_image tokens
    end_image`, these two with the attention of the picture. Around segments of one role that follow
    each other come the marks of a turn, `begin_context` and so on; `begin_document` opens all.

    `learnt`: the marks of targets that are predicted, too. With "begin_image" among them, a model
    decides by itself to draw.
    """

    begin_text: Ids = ()
    end_text: Ids = ()
    begin_image: Ids = ()
    end_image: Ids = ()
    begin_context: Ids = ()
    end_context: Ids = ()
    begin_target: Ids = ()
    end_target: Ids = ()
    begin_document: Ids = ()
    learnt: tuple[str, ...] = ("end_text",)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int):
                object.__setattr__(self, field.name, (value,))
        names = [field.name for field in dataclasses.fields(self) if field.name != "learnt"]
        if unknown := set(self.learnt) - set(names):
            raise ValueError(f"learnt={sorted(unknown)}: choose of {names}")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an example becomes tokens, and the budgets of a row.

    `uses`: the views that serve a use of pictures, in order: BAGEL reads what it edits by latents
    and patches; Transfusion sees by latents. `image_position`: `shared` gives a whole picture one
    RoPE position (BAGEL), `sequential` one per token, `grid` one of three axes, time, row and
    column (M-RoPE of Qwen2-VL), on which text is where it is on all. Raises ValueError for others.
    """

    lanes: tuple[Lane, ...]
    template: Template
    image_position: Literal["shared", "sequential", "grid"] = "shared"
    uses: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: USES, hash=False
    )

    def __post_init__(self):
        if self.image_position not in (kinds := ("shared", "sequential", "grid")):
            raise ValueError(f"image_position={self.image_position!r} must be one of {kinds}")

    def views(self, picture: Segment) -> tuple[str, ...]:
        """The views by which a picture is read."""
        return tuple(v for v in self.views_of(picture.use) if v not in picture.without)

    def views_of(self, use: str) -> tuple[str, ...]:
        """Raises ValueError for a use that has none."""
        if use not in self.uses:
            raise ValueError(f"no lane for use {use!r}: uses are {sorted(self.uses)}")
        return tuple(self.uses[use])

    def lane_for(self, view: str, task: str, content: Any = None) -> Lane:
        """The first lane with this view that accepts the task; of several, the one that suits the
        content best. Raises ValueError where there is none."""
        lanes = [lane for lane in self.lanes if lane.accepts(view, task)]
        if not lanes:
            known = sorted({lane.view for lane in self.lanes})
            raise ValueError(f"no lane for view {view!r} of task {task!r}; views are {known}")
        if content is None or len(lanes) == 1:
            return lanes[0]
        return max(lanes, key=lambda lane: lane.affinity(content))

    def budgets(self) -> dict[str, int]:
        """What a row can hold: slots of each lane, then what else its lanes bound."""
        slots = {lane.name: lane.slots for lane in self.lanes}
        return slots | {name: n for lane in self.lanes for name, n in lane.budgets().items()}

    def resized(self, sizes: Mapping[str, Mapping[str, int]]) -> "Layout":
        """The layout with these limits by lane, 0 for others."""
        lanes = tuple(lane.resized(dict(sizes.get(lane.name, {}))) for lane in self.lanes)
        return dataclasses.replace(self, lanes=lanes)

    def check(self) -> None:
        """Raises ValueError, saying what to change, where a lane cannot hold the least content."""
        if not any(lane.modality == "text" for lane in self.lanes):
            raise ValueError("a layout needs a text lane: the marks of pictures are text tokens")
        for lane in self.lanes:
            lane.check()

    @property
    def axes(self) -> tuple[int, ...]:
        """Behind every position: three numbers of a grid, or nothing."""
        return (3,) if self.image_position == "grid" else ()

    def positions(self, begin: int, cells: np.ndarray, end: int) -> tuple[np.ndarray, int]:
        """Positions of a picture whose tokens are in `cells` (row and column, `[n 2]`), between so
        many marks, as offsets `[size]` or `[size 3]`, and that of what follows."""
        size = begin + len(cells) + end
        if self.image_position == "shared":
            return np.zeros(size, np.int32), 1
        if self.image_position == "sequential":
            return np.arange(size, dtype=np.int32), size
        after = begin + int(cells.max(initial=-1)) + 1
        picture = begin + np.pad(cells, ((0, 0), (1, 0)))  # all at one time
        marks = np.r_[:begin, after : after + end]
        text = np.repeat(marks[:, None], 3, axis=1)
        return np.concatenate([text[:begin], picture, text[begin:]]).astype(np.int32), after + end

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in the order of their first lane."""
        return tuple(dict.fromkeys(lane.stream for lane in self.lanes))

    @property
    def slots(self) -> int:
        """Tokens per row over all streams; also the clock of padding, which sees nothing."""
        return sum(lane.slots for lane in self.lanes)

    def of_stream(self, stream: str) -> tuple[Lane, ...]:
        return tuple(lane for lane in self.lanes if lane.stream == stream)

    def __getitem__(self, name: str) -> Any:
        return next(lane for lane in self.lanes if lane.name == name)
