"""The vocabulary every other part speaks: segments, examples, lanes, packed batches.

An `Example` is what a data source yields. A `Layout` says how examples become a packed row: a
row is a few **streams** (parts of the sequence with weights of their own), each stream is a few
**lanes** (static, contiguous shares of the stream, one kind of content each). A `Batch` holds the
arrays of every lane. Because attention reads clocks and not places (`Tokens`), the order of
lanes is free, and routing a token to its weights is a static slice.

`B` rows, `n` slots of a lane, `m` text losses of a row, `N` pictures of a row, `H W` pixels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, dataclass_transform

import jax
import numpy as np

Role = Literal["context", "target"]
Array = Any  # numpy on the host, jax.Array inside a program
OPEN = 2**31 - 1  # stop of a key that is visible to the end of a document that still grows


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of an example: text, or a picture as uint8 pixels `[H W 3]`.

    `role`: `context` is read, `target` is predicted. `views` names, for a picture that is read,
    the lanes that read it, in order: `("vit",)` to understand it, `("vae", "vit")` to edit it.
    A target picture is always seen by the latent view `"vae"`.
    """

    content: str | np.ndarray
    role: Role = "context"
    views: tuple[str, ...] = ("vit",)

    @property
    def modality(self) -> Literal["text", "image"]:
        return "text" if isinstance(self.content, str) else "image"


@dataclasses.dataclass(frozen=True)
class Example:
    """Segments in reading order. `origin` names the file and row in error messages."""

    segments: tuple[Segment, ...]
    task: str = ""
    origin: str = ""


# Layout: static facts, shared by the packer and the model.


@dataclasses.dataclass(frozen=True)
class Lane:
    """`slots` tokens per row of `stream`, for one view of the content.

    `tasks` limits a lane to the named tasks (routing by task, as UniFork does); empty accepts all.
    A segment goes to the first lane that has its view and accepts its task.
    """

    name: str
    stream: str
    view: str
    tasks: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        raise NotImplementedError(type(self).__name__)


@dataclasses.dataclass(frozen=True)
class TextLane(Lane):
    """Token ids. `losses` is the most text predictions a row can hold."""

    budget: int = 0
    losses: int = 0

    @property
    def slots(self) -> int:
        return self.budget


@dataclasses.dataclass(frozen=True)
class PatchLane(Lane):
    """Pixel patches for a vision encoder: pictures of any size, packed patch by patch.

    Sides are rounded to whole patches of `patch` pixels, keeping the aspect ratio, so that the
    long side is at most `max_side` and the short side at least `min_side`.
    """

    budget: int = 0
    patch: int = 16
    min_side: int = 16
    max_side: int = 224

    @property
    def slots(self) -> int:
        return self.budget


@dataclasses.dataclass(frozen=True)
class LatentLane(Lane):
    """Whole pictures of one size for an autoencoder; `stride` pixels a side become one token."""

    count: int = 0
    height: int = 64
    width: int = 64
    stride: int = 8

    @property
    def tokens(self) -> int:
        """Tokens of one picture."""
        return (self.height // self.stride) * (self.width // self.stride)

    @property
    def slots(self) -> int:
        return self.count * self.tokens


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an example becomes tokens, and the budgets of a row.

    Every text segment is `begin_text ids end_text`; every view of a picture is
    `begin_image tokens end_image`, the two marks being text tokens with the attention of the
    picture. `image_position`: `shared` gives a whole picture one RoPE position (BAGEL),
    `sequential` one per token. `read_as`: pairs of a view that examples ask for and the view that
    serves instead, where lanes have no such view: a picture is read by its latents (Transfusion).
    Raises ValueError for another `image_position`.
    """

    lanes: tuple[TextLane | PatchLane | LatentLane, ...]
    begin_text: int
    end_text: int
    begin_image: int
    end_image: int
    image_position: Literal["shared", "sequential"] = "shared"
    read_as: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        if self.image_position not in ("shared", "sequential"):
            raise ValueError(
                f"image_position={self.image_position!r} must be 'shared' or 'sequential'"
            )

    def views(self, picture: Segment) -> tuple[str, ...]:
        """The views of lanes that read a picture, each once."""
        instead = dict(self.read_as)
        return tuple(dict.fromkeys(instead.get(view, view) for view in picture.views))

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in the order of their first lane."""
        return tuple(dict.fromkeys(lane.stream for lane in self.lanes))

    @property
    def slots(self) -> int:
        """Tokens per row over all streams; also the clock of padding, which sees nothing."""
        return sum(lane.slots for lane in self.lanes)

    def of_stream(self, stream: str) -> tuple[TextLane | PatchLane | LatentLane, ...]:
        return tuple(lane for lane in self.lanes if lane.stream == stream)

    def __getitem__(self, name: str) -> TextLane | PatchLane | LatentLane:
        return next(lane for lane in self.lanes if lane.name == name)


# Batch: arrays, one group per lane.


@dataclass_transform(frozen_default=True)
def struct(cls):
    """A frozen dataclass of arrays that is a JAX pytree."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    return jax.tree_util.register_dataclass(cls)


@struct
class Tokens:
    """What attention knows of tokens: int32, all `[B n]`.

    Query q sees key k iff `start[k] <= clock[q] < stop[k]`. Padding has `start = stop = 0` as a
    key and the largest clock as a query. `position` is the RoPE position.
    """

    clock: Array
    start: Array
    stop: Array
    position: Array


@struct
class TextTokens:
    tokens: Tokens
    ids: Array  # int32 [B n]
    loss_index: Array  # int32 [B m], slots that predict
    loss_target: Array  # int32 [B m], the id that follows
    loss_weight: Array  # float32 [B m], 0 where unused


@struct
class PatchTokens:
    tokens: Tokens
    patches: Array  # uint8 [B n patch*patch*3], order (row, column, channel)
    grid: Array  # int32 [B n 2], row and column of the patch in its picture
    first: Array  # int32 [B n], slot where the picture of this patch begins
    last: Array  # int32 [B n], slot after its end; first = last = 0 in padding


@struct
class LatentTokens:
    tokens: Tokens
    pixels: Array  # uint8 [B N H W 3]
    noised: Array  # bool [B N], predicted (True) or clean context (False)
    valid: Array  # bool [B N], False in padding


@struct
class Batch:
    lanes: Mapping[str, TextTokens | PatchTokens | LatentTokens]
