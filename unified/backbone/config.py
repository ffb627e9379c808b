"""The plan of a backbone: which weights a token meets in each layer, and whom it sees there.

A stream is a part of the sequence with weights of its own. Two plans over the layers make the
published architectures: `shared` (all streams use the same weights) and `joint` (streams attend
to one another). Dense: all shared, all joint. Mixture of transformers (BAGEL, LMFusion): none
shared, all joint. Y (UniFork): the first layers shared. H (HBridge): the middle layers joint.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flax.core import FrozenDict

from unified.nn.block import BlockConfig
from unified.nn.mlp import MLPS

SHARED = "shared"  # name of the weights that all streams use
Ranges = str | Sequence[Sequence[int]]  # "all", "none", or [lo, hi) pairs


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Widths of a stream: of its tokens, and of its MLPs."""

    embed_dim: int
    mlp_dim: int


@dataclasses.dataclass(frozen=True)
class Run:
    """Layers `lo` to `hi` (exclusive) with one plan: stacked, and run by one scan."""

    lo: int
    hi: int
    shared: bool
    joint: bool


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Geometry and plan of a backbone; every impossible combination is a ValueError.

    Attention has one geometry for all streams, since their keys are joined; widths may differ.
    `shared` and `joint` are "all", "none" or a list of layer ranges [lo, hi). `active`, if given,
    has for each layer None or the flow times (lo, hi] at which tokens that carry a time run it
    (LaTtE-Flow); at other times they pass it unchanged and their keys there are invisible.

    `mlp`: `swiglu` (Llama, Qwen) or `gelu`. `rope_sections`: of the pairs of a head, how many turn
    by each axis of a position, for positions of several axes (M-RoPE: time, row, column); with
    `rope_interleaved` their pairs take turns (Qwen3-VL), else they lie in blocks (Qwen2-VL).
    """

    streams: Mapping[str, StreamConfig]
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    shared: Ranges = "none"
    joint: Ranges = "all"
    active: Sequence[Sequence[float] | None] | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    mlp: str = "swiglu"
    rope_theta: float = 1e6
    rope_sections: tuple[int, ...] = ()
    rope_interleaved: bool = False
    norm_eps: float = 1e-6

    def __post_init__(self):
        streams = {
            name: stream if isinstance(stream, StreamConfig) else StreamConfig(**stream)
            for name, stream in self.streams.items()
        }
        freeze = lambda name, value: object.__setattr__(self, name, value)
        freeze("streams", FrozenDict(streams))
        freeze("rope_sections", tuple(self.rope_sections))
        self._check_sizes()
        for plan in ("shared", "joint"):
            freeze(plan, _ranges(plan, getattr(self, plan), self.num_layers))
        if self.active is not None:
            freeze("active", _windows(self.active, self.num_layers))
        self._check_widths()

    def _check_sizes(self) -> None:
        counts = ("num_layers", "num_heads", "num_kv_heads", "head_dim")
        sizes = {name: getattr(self, name) for name in counts}
        for stream, widths in self.streams.items():
            sizes |= {f"{stream}.{k}": v for k, v in dataclasses.asdict(widths).items()}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}={size}: must be at least 1")
        if not self.streams or SHARED in self.streams:
            raise ValueError(f"streams {[*self.streams]}: name one or more, none of them 'shared'")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads="
                f"{self.num_kv_heads}, because every key head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: RoPE rotates pairs; make it even")
        if self.mlp not in MLPS:
            raise ValueError(f"mlp={self.mlp!r}: choose one of {sorted(MLPS)}")
        sections = self.rope_sections
        if sections and (sum(sections) != self.head_dim // 2 or min(sections) < 1):
            raise ValueError(
                f"rope_sections={sections} must share out the {self.head_dim // 2} pairs of a head"
            )
        for name in ("rope_theta", "norm_eps"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must be a positive number")

    def _check_widths(self) -> None:
        if self.shared and len(set(self.streams.values())) > 1:
            widths = {name: (s.embed_dim, s.mlp_dim) for name, s in self.streams.items()}
            raise ValueError(
                f"layers {list(self.shared)} are shared, but (embed_dim, mlp_dim) differ: "
                f"{widths}; give all streams the same widths or set shared='none'"
            )

    @property
    def runs(self) -> tuple[Run, ...]:
        """Neighbouring layers with the same plan, in order."""
        plan = lambda i: (_holds(self.shared, i), _holds(self.joint, i))
        pairs: Any = (*self.shared, *self.joint)
        ends = {0, self.num_layers, *itertools.chain(*pairs)}  # where a plan may change
        runs: list[Run] = []
        for lo, hi in itertools.pairwise(sorted(ends)):
            same = bool(runs) and (runs[-1].shared, runs[-1].joint) == plan(lo)
            runs.append(Run(runs.pop().lo if same else lo, hi, *plan(lo)))
        return tuple(runs)

    @property
    def rope_axes(self) -> tuple[int, ...]:
        """The axis of a position by which each pair of a head turns; none where all have one."""
        sections, pairs = self.rope_sections, range(self.head_dim // 2)
        if not self.rope_interleaved:
            return tuple(axis for axis, n in enumerate(sections) for _ in range(n))
        turns = [pair % len(sections) for pair in pairs if sections]
        full = [pair >= len(sections) * sections[axis] for pair, axis in enumerate(turns)]
        return tuple(0 if over else axis for axis, over in zip(turns, full, strict=True))

    def block(self, stream: str) -> BlockConfig:
        """The block of a stream, its outputs scaled down so that depth does not add variance."""
        return BlockConfig(
            embed_dim=self.streams[stream].embed_dim,
            mlp_dim=self.streams[stream].mlp_dim,
            mlp=self.mlp,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            qk_norm=self.qk_norm,
            qkv_bias=self.qkv_bias,
            norm_eps=self.norm_eps,
            out_gain=(2 * self.num_layers) ** -0.5,
        )

    def weights(self, shared: bool) -> dict[str, str]:
        """Name of the weights of a layer -> a stream whose widths they have."""
        names = [*self.streams]
        return {SHARED: names[0]} if shared else {name: name for name in names}


def _holds(ranges: Any, layer: int) -> bool:
    return any(lo <= layer < hi for lo, hi in ranges)


def _ranges(name: str, value: Ranges, num_layers: int) -> tuple[tuple[int, int], ...]:
    """Layer ranges as sorted, disjoint pairs."""
    if isinstance(value, str):
        if value not in ("all", "none"):
            raise ValueError(f"{name}={value!r}: write 'all', 'none' or a list of [lo, hi) ranges")
        return ((0, num_layers),) if value == "all" else ()
    ranges = tuple(sorted((int(lo), int(hi)) for lo, hi in value))
    for lo, hi in ranges:
        if not 0 <= lo < hi <= num_layers:
            raise ValueError(
                f"{name} range [{lo}, {hi}) must be non-empty and within [0, {num_layers}), "
                "the layers there are"
            )
    for (_, end), (begin, _) in itertools.pairwise(ranges):
        if begin < end:
            raise ValueError(f"{name} ranges {list(ranges)} overlap: merge them")
    return ranges


def _windows(value, num_layers: int) -> tuple[tuple[float, float] | None, ...]:
    """Flow-time windows, one a layer."""
    windows = tuple(w if w is None else (float(w[0]), float(w[1])) for w in value)
    if len(windows) != num_layers:
        raise ValueError(
            f"active has {len(windows)} windows for {num_layers} layers: give each one"
        )
    for window in windows:
        if window is not None and not 0 <= window[0] < window[1] <= 1:
            raise ValueError(f"active window (lo, hi] = {window}: needs 0 <= lo < hi <= 1")
    return windows
