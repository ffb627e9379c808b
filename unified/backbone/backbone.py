"""Streams through the layers of a plan: embeddings in, hidden states out.

Streams are separate arrays that meet only as keys and values; no token is multiplied by weights
of another stream, and no array of all streams' activations is ever cut up (the partitioner would
replicate it).

`B` batch, `T` tokens of a stream, `D` width of a stream, `L` layers of a run, `K` key heads, `H`
head dim.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from unified.backbone.cache import Cache, Span, is_active
from unified.backbone.config import SHARED, BackboneConfig, Run
from unified.nn.attention import Keys, Mask, attend, join
from unified.nn.block import Block
from unified.nn.norm import RMSNorm
from unified.nn.position import Rope, rope
from unified.nn.stack import scan, stack
from unified.sequence import Tokens, struct
from unified.sharding import constrain

Streams = Mapping[str, Float[Array, "B _T _D"]]  # lengths and widths are their own
Masks = Mapping[str, list[Mask]]  # of the queries of a stream: one for each group of keys


@struct
class Found:
    """What a pass over streams found, as far as it was asked for: `hidden` states `[B T D]`, the
    `keys` of each run after qk-norm and RoPE, and the hidden states after some `layers`, by the
    number of the layer."""

    hidden: Mapping[str, Any]
    keys: tuple[Mapping[str, Any], ...] | None
    layers: Mapping[int, Mapping[str, Any]]


class Backbone(nnx.Module):
    """Decoder blocks over streams. Parameters: `runs/<i>/<stream or "shared">/...` with a leading
    axis of the run's layers, and `final_norm/<stream or "shared">/scale`."""

    def __init__(self, cfg: BackboneConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.runs = nnx.Dict({str(i): self._make(run, rngs) for i, run in enumerate(cfg.runs)})
        self.final_norm = nnx.Dict(
            {
                name: RMSNorm(cfg.streams[stream].embed_dim, cfg.norm_eps, rngs=rngs)
                for name, stream in cfg.weights(cfg.runs[-1].shared).items()
            }
        )

    def _make(self, run: Run, rngs: nnx.Rngs) -> nnx.Dict:
        def make(stream: str) -> Block:
            block = self.cfg.block(stream)
            return stack(lambda r: Block(block, rngs=r), run.hi - run.lo, "layers", rngs=rngs)

        return nnx.Dict({name: make(s) for name, s in self.cfg.weights(run.shared).items()})

    def __call__(
        self,
        x: Streams,
        tokens: Mapping[str, Tokens],
        *,
        time: Mapping[str, Float[Array, "B T"]] | None = None,
        cache: Cache | None = None,
        remat: str = "nothing_saveable",
        return_keys: bool = False,
        return_layers: Sequence[int] = (),
        unroll: int | bool = 1,
    ) -> Found:
        """Hidden states of the streams in `x`, and what else is to be returned.

        `x` may hold some of the streams only. `time` is the flow time of each token, negative
        where it carries none; it matters only if the plan has `active`. Tokens see the keys of
        `cache` besides their own. `remat` names a policy of `jax.checkpoint_policies`; `unroll` is
        that of `jax.lax.scan`. `return_layers` are numbers of layers, the first is 0; all of their
        runs are kept until the end.

        Raises ValueError if a stream or a layer is unknown, or tokens do not fit their embeddings.
        """
        self._check(x, tokens, return_layers)
        call = _Call.of(self.cfg, x, tokens, time or {}, cache)
        masks = {joint: call.masks(joint) for joint in {run.joint for run in self.cfg.runs}}
        x, keys = dict(x), []
        after: dict[int, Streams] = {}
        for i, run in enumerate(self.cfg.runs):
            blocks = {name: self.runs[str(i)][name] for name in call.weights(run)}
            layers = (blocks, cache.keys[i] if cache else {}, self._windows(run))
            asked = [n for n in return_layers if run.lo <= n < run.hi]
            returned = (return_keys, bool(asked))
            layer = functools.partial(call.layer, run, masks[run.joint], returned)
            x, (new, every) = scan(layer, x, layers, remat=remat, unroll=unroll)
            keys.append(new)
            after |= {n: {s: h[n - run.lo] for s, h in every.items()} for n in asked}
        shared = self.cfg.runs[-1].shared
        hidden = {s: self.final_norm[SHARED if shared else s](x_s) for s, x_s in x.items()}
        return Found(hidden, tuple(keys) if return_keys else None, after)

    def _windows(self, run: Run) -> Float[Array, "L 2"] | None:
        """Flow times of each layer of a run, or None if there is no such plan."""
        if self.cfg.active is None:
            return None
        always = (-jnp.inf, jnp.inf)
        return jnp.array([w or always for w in self.cfg.active[run.lo : run.hi]], jnp.float32)

    def _check(
        self, x: Streams, tokens: Mapping[str, Tokens], return_layers: Sequence[int]
    ) -> None:
        num, axes = self.cfg.num_layers, len(self.cfg.rope_sections)
        if unknown := [n for n in return_layers if not 0 <= n < num]:
            raise ValueError(f"return_layers: {unknown} are not among the layers 0 to {num - 1}")
        for s, x_s in x.items():
            if s not in self.cfg.streams:
                raise ValueError(f"unknown stream {s!r}; the backbone has {[*self.cfg.streams]}")
            if s not in tokens or tokens[s].clock.shape != x_s.shape[:2]:
                got = tokens[s].clock.shape if s in tokens else "none"
                raise ValueError(f"stream {s!r}: embeddings {x_s.shape}, but tokens {got}")
            if x_s.shape[2] != self.cfg.streams[s].embed_dim:
                width = self.cfg.streams[s].embed_dim
                raise ValueError(f"stream {s!r}: width {x_s.shape[2]}, but embed_dim is {width}")
            if (found := tokens[s].position.shape[2:]) not in ((), (axes,)):
                raise ValueError(
                    f"stream {s!r}: positions have {found[0]} axes, rope_sections has {axes}"
                )


@dataclasses.dataclass(frozen=True)
class _Call:
    """What all layers share in one call, per stream."""

    rope: Mapping[str, Rope]
    clock: Mapping[str, Any]
    new: Mapping[str, Span]  # of the tokens in `x`
    past: Mapping[str, Span]  # of the cached ones
    order: tuple[str, ...]  # all streams

    @classmethod
    def of(cls, cfg: BackboneConfig, x, tokens, time, cache) -> "_Call":
        axes = cfg.rope_axes
        return cls(
            rope={s: rope(tokens[s].position, cfg.head_dim, cfg.rope_theta, axes) for s in x},
            clock={s: tokens[s].clock for s in x},
            new={s: Span.of(tokens[s], time.get(s)) for s in x},
            past=cache.spans if cache else {},
            order=tuple(cfg.streams),
        )

    def weights(self, run: Run) -> tuple[str, ...]:
        return (SHARED,) if run.shared else tuple(self.clock)

    def masks(self, joint: bool, window: Float[Array, "2"] | None = None) -> Masks:
        """Who sees whom in a layer, in the groups of `_keys`."""

        def of(streams: Sequence[str]) -> list[Any]:
            spans = [self.past[s].within(window) for s in streams if s in self.past]
            fresh = [self.new[s].within(window) for s in streams if s in self.new]
            return [*spans, jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *fresh)]

        spans = {s: of(self.order if joint else (s,)) for s in self.clock}
        return {s: [Mask.of(self.clock[s], *span) for span in spans[s]] for s in spans}

    def layer(self, run: Run, masks: Masks, returned: tuple[bool, bool], x, layer):
        """One layer over all streams: project, join the keys, attend, update. `returned`: whether
        its keys are, and its hidden states."""
        blocks, past, window = layer
        if window is not None:  # each layer hides the keys of tokens that do not run it
            masks = self.masks(run.joint, window)
        block = {s: blocks[SHARED if run.shared else s] for s in x}
        x = {s: constrain(x_s, "batch", "length", None) for s, x_s in x.items()}
        on = {s: None if window is None else is_active(self.new[s].time, window) for s in x}
        q, new = {}, {}
        for s, x_s in x.items():
            project = functools.partial(block[s].project, x_s, self.rope[s])
            q[s], *new[s] = _where(on[s], project)
        keys = (
            dict.fromkeys(x, self._keys(self.order, new, past))
            if run.joint
            else {s: self._keys((s,), new, past) for s in x}
        )

        def update(s: str) -> Float[Array, "B T D"]:
            return block[s].update(x[s], attend(q[s], keys[s], masks[s]))

        y = {s: _where(on[s], functools.partial(update, s), x[s]) for s in x}
        keys_too, hidden_too = returned
        kept = {s: tuple(kv) for s, kv in new.items()} if keys_too else None
        return y, (kept, y if hidden_too else None)

    def _keys(self, streams: Sequence[str], new, past) -> list[Keys]:
        """The keys that these streams offer: one group per cached stream, one of new tokens."""
        cached = [Keys(*past[s]) for s in streams if s in past]
        return [*cached, join([Keys(*new[s]) for s in streams if s in new])]


def _where(on: Bool[Array, "B T"] | None, fn: Callable[[], Any], otherwise: Any = None) -> Any:
    """`fn()` for the tokens that are `on` (None: all), `otherwise` (None: zeros) for the rest.

    Nothing is computed where no token is: a denoising step runs the layers of its own time alone.
    """
    if on is None:
        return fn()
    if otherwise is None:
        otherwise = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn))

    def some() -> Any:
        mask = lambda y, x: jnp.where(on.reshape(on.shape + (1,) * (y.ndim - 2)), y, x)
        return jax.tree.map(mask, fn(), otherwise)

    return jax.lax.cond(on.any(), some, lambda: otherwise)
