"""The model: parts that embed what lanes hold, and one backbone that all their tokens meet in.

`B` rows, `T` tokens of a stream, `n` of a lane, `D` embed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core import FrozenDict

from unified import names
from unified.backbone import Backbone, BackboneConfig, Cache
from unified.backbone.flops import forward_flops
from unified.lanes import Lane
from unified.lanes.layout import Layout
from unified.nn.stack import remat_policy
from unified.parts.part import Inputs, Part, Place, Sums, add, one_width
from unified.sequence import Batch, Tokens
from unified.sharding import constrain

DTYPES = ("float32", "bfloat16", "float16")
ByLane = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class UnifiedConfig:
    """`parts`: the config of each view that lanes have, made by the class that `kinds` names
    (`package.module:Class`). `dtype`: of activations (weights: float32); `remat`: as of
    `nn.stack.scan`. Raises ValueError for what does not fit together."""

    layout: Layout
    backbone: BackboneConfig
    parts: Mapping[str, Any]
    kinds: Mapping[str, str]
    remat: str = "nothing_saveable"
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "parts", FrozenDict(self.parts))
        object.__setattr__(self, "kinds", FrozenDict(self.kinds))
        remat_policy(self.remat)
        if self.dtype not in DTYPES:
            raise ValueError(f"compute_dtype={self.dtype!r}: choose one of {DTYPES}")
        if self.layout.axes not in ((), (axes := len(self.backbone.rope_sections),)):
            raise ValueError(
                f"image_position={self.layout.image_position!r} gives positions of 3 axes, and "
                f"rope_sections of the backbone shares out {axes}"
            )
        for lane in self.layout.lanes:
            if lane.stream not in self.backbone.streams:
                raise ValueError(
                    f"lane {lane.name!r} is in stream {lane.stream!r}; config.model.backbone has "
                    f"the streams {sorted(self.backbone.streams)}"
                )
            if lane.view not in self.parts:
                raise ValueError(
                    f"lane {lane.name!r} has view {lane.view!r}, but config.model.parts has no "
                    f"such part, only {sorted(self.parts)}"
                )
        for view, part in self.parts.items():
            lanes, kind = self.lanes_of(view), self.kind(view)
            if wrong := [lane.name for lane in lanes if not isinstance(lane, kind.lane)]:
                raise ValueError(
                    f"lane {wrong[0]!r} is no {kind.lane.__name__}, as the part of its view "
                    f"{view!r} needs"
                )
            if (width := self.width(view)) % 4:
                raise ValueError(f"embed_dim={width}: places in pictures need a multiple of 4")
            if hasattr(part, "check"):
                part.check(lanes)
        self.layout.check()

    def kind(self, view: str) -> Any:
        return names.find("part", self.kinds[view])

    def lanes_of(self, view: str) -> tuple[Any, ...]:
        return tuple(lane for lane in self.layout.lanes if lane.view == view)

    def width(self, view: str) -> int:
        streams = [self.backbone.streams[lane.stream] for lane in self.lanes_of(view)]
        return one_width([stream.embed_dim for stream in streams], view)


class Unified(nnx.Module):
    """Parameters: `parts/<view>/...`, and `backbone/...`."""

    def __init__(self, cfg: UnifiedConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg

        def make(view: str) -> Part:
            place = Place(cfg.lanes_of(view), cfg.width(view), cfg.dtype, cfg.remat)
            return cfg.kind(view)(cfg.parts[view], place, rngs=rngs)

        self.parts = nnx.Dict({view: make(view) for view in cfg.parts})
        self.backbone = Backbone(cfg.backbone, rngs=rngs)

    @property
    def layout(self) -> Layout:
        return self.cfg.layout

    def part(self, lane: Lane | str) -> Any:
        """The part that serves a lane."""
        return self.parts[self.layout[lane].view if isinstance(lane, str) else lane.view]

    def inputs(self, batch: Batch, key: jax.Array | None = None) -> dict[str, Inputs]:
        """What the backbone reads of each lane; without a key, all of it as context."""
        found = {}
        for i, (name, content) in enumerate(sorted(batch.lanes.items())):
            own = None if key is None else jax.random.fold_in(key, i)
            found[name] = self.part(name).inputs(self.layout[name], content, own)
        return found

    def run(
        self,
        batch: Batch,
        inputs: Mapping[str, Inputs],
        *,
        cache: Cache | None = None,
        return_keys: bool = False,
    ) -> tuple[dict[str, jax.Array], dict[str, Tokens], dict[str, jax.Array], Any]:
        """Hidden states `[B n D]` by lane; and by stream the tokens, their flow times `[B T]` and,
        if asked for, the keys."""
        x, tokens, time = {}, {}, {}
        for stream in self.layout.streams:
            names = [x.name for x in self.layout.of_stream(stream) if x.name in batch.lanes]
            parts = [(inputs[n].x, batch.lanes[n].tokens, inputs[n].time) for n in names]
            if parts:
                join = lambda *arrays: jnp.concatenate(arrays, axis=1)
                x[stream], tokens[stream], time[stream] = jax.tree.map(join, *parts)
                x[stream] = constrain(x[stream], "batch", "length", None)
        options: dict[str, Any] = {"remat": self.cfg.remat, "return_keys": return_keys}
        found = self.backbone(x, tokens, time=time, cache=cache, **options)
        return self._by_lane(found.hidden, batch), tokens, time, found.keys

    def _by_lane(self, hidden: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """The inverse of the joining to streams."""
        out = {}
        for stream, h in hidden.items():
            at = 0
            for lane in self.layout.of_stream(stream):
                if lane.name in batch.lanes:
                    n = batch.lanes[lane.name].tokens.clock.shape[1]
                    out[lane.name] = h[:, at : at + n]
                    at += n
        return out

    def losses(self, batch: Batch, key: jax.Array) -> Sums:
        """Sums and counts of every part, as `<view>/<term>`."""
        inputs = self.inputs(batch, key)
        hidden, *_ = self.run(batch, inputs)
        total: dict[str, Any] = {}
        for name, h in hidden.items():
            lane, part = self.layout[name], self.part(name)
            terms = part.losses(lane, h, batch.lanes[name], inputs[name].goal)
            total = add(total, {f"{lane.view}/{term}": pair for term, pair in terms.items()})
        return total

    # Generation.

    def read(self, batch: Batch, room: Mapping[str, int]) -> Cache:
        """The keys of a context, with `room[stream]` free slots behind them."""
        _, tokens, time, keys = self.run(batch, self.inputs(batch), return_keys=True)
        rows = next(iter(tokens.values())).clock.shape[0]
        read = {s: t.clock.shape[1] for s, t in tokens.items()}
        slots = {s: read.get(s, 0) + room.get(s, 0) for s in {**read, **room}}
        cache = Cache.empty(self.cfg.backbone, rows, slots, jnp.dtype(self.cfg.dtype))
        return cache.append(keys, tokens, 0, time)

    def room(self, block: Batch) -> dict[str, int]:
        """The slots of each stream that a block takes."""
        lanes = [self.layout[name] for name in block.lanes]
        sizes = {lane.stream: 0 for lane in lanes}
        for lane in lanes:
            sizes[lane.stream] += block.lanes[lane.name].tokens.clock.shape[1]
        return sizes

    def free(self, cache: Cache, block: Batch) -> dict[str, int]:
        """The slots at the end of a cache where the lanes of a block begin, for which `read` was
        given its `room`."""
        slots, at = {}, {s: cache.spans[s].start.shape[1] - n for s, n in self.room(block).items()}
        for name, content in block.lanes.items():
            stream = self.layout[name].stream
            slots[name] = at[stream]
            at[stream] += content.tokens.clock.shape[1]
        return slots

    def step(
        self, cache: Cache, block: Batch, given: Mapping[str, Inputs], slot: Any = None
    ) -> tuple[dict[str, jax.Array], Cache]:
        """Hidden states by lane of a block of tokens after a cached context. Lanes are embedded as
        context but for those that are `given`. With a `slot` of their streams, they are appended to
        the cache there."""
        rest = Batch({name: x for name, x in block.lanes.items() if name not in given})
        inputs = {**self.inputs(rest), **given}
        appends = slot is not None
        hidden, tokens, time, keys = self.run(block, inputs, cache=cache, return_keys=appends)
        return hidden, cache.append(keys, tokens, slot, time) if appends else cache

    def score(self, batch: Batch) -> jax.Array:
        """Log-probability `[B]` of the targets of each row, in nats, all of it read as context."""
        hidden, *_ = self.run(batch, self.inputs(batch))
        scores = [self.part(n).score(h, batch.lanes[n]) for n, h in hidden.items()]
        return sum([score for score in scores if score is not None], jnp.float32(0))

    def flops(self, batch: Batch) -> float | None:
        """Operations of a step on host arrays: forward, and twice that backward.

        Padding and hidden keys count nothing, nor do what is computed again for lack of memory,
        norms, softmax and what is frozen for good. None where they depend on flow times (`active`),
        drawn later.
        """
        if self.cfg.backbone.active is not None:
            return None
        join = lambda *parts: np.concatenate(parts, axis=1)
        streams = {}
        for stream in self.layout.streams:
            lanes = [batch.lanes[lane.name].tokens for lane in self.layout.of_stream(stream)]
            streams[stream] = jax.tree.map(join, *lanes)
        own = sum(self.part(name).flops(content) for name, content in batch.lanes.items())
        return 3.0 * (forward_flops(self.backbone, streams) + own)
