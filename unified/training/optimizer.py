"""Any Optax optimizer by name, with schedule, clipping, decay mask and multipliers by path."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from unified.sharding import Axes
from unified.training.nearest import nearest
from unified.training.tree import Tree, match, path_name

FALL = 0.2  # share of the steps, the last ones, in which `wsd` falls

Schedule = Callable[[Any, Any], jax.Array]  # (step, the one to end with) -> learning rate


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """`until(end)` is the gradient transformation whose learning rate, `schedule(step, end)`, ends
    with a step, which may be traced; `end` is that of the config.
    """

    until: Callable[[Any], optax.GradientTransformationExtraArgs]
    schedule: Schedule
    end: int

    @property
    def transform(self) -> optax.GradientTransformationExtraArgs:
        return self.until(self.end)


def constructor(name: str) -> Callable[..., optax.GradientTransformation]:
    """`optax.<name>` or `optax.contrib.<name>`. Raises ValueError with the nearest name."""
    for module in (optax, optax.contrib):
        found: Any = getattr(module, name, None)
        if _is_optimizer(name, found):
            return found
    known = [n for m in (optax.contrib, optax) for n in dir(m) if _is_optimizer(n, getattr(m, n))]
    raise ValueError(f"optimizer.name: Optax has no {name!r}; {nearest(name, known)}")


def _is_optimizer(name: str, found: Any) -> bool:
    """Whether this needs a learning rate and nothing else, and is no part of an optimizer."""
    if not inspect.isfunction(found) or name.startswith(("_", "scale_by_")):
        return False
    parameters = inspect.signature(found).parameters
    needed = {
        p.name for p in parameters.values() if p.default is p.empty and p.kind < p.VAR_KEYWORD
    }
    return "learning_rate" in parameters and needed <= {"learning_rate"}


def options(name: str) -> dict[str, Any]:
    """The plain options of an Optax optimizer and their defaults: its fields in a config.

    Muon's updates are as large as AdamW's by default (`consistent_rms` 0.2, Liu et al., arXiv
    2502.16982), so that a learning rate serves both.
    """
    parameters = inspect.signature(constructor(name)).parameters.values()
    plain = lambda value: value is None or isinstance(value, bool | int | float | str)
    skip = ("learning_rate", "mask", "weight_decay_mask", "muon_weight_dimension_numbers")
    found = {p.name: p.default for p in parameters if plain(p.default) and p.name not in skip}
    return found | {"consistent_rms": 0.2} if "consistent_rms" in found else found


def make_schedule(name: str, peak: float, warmup_steps: int, final_fraction: float) -> Schedule:
    """Linear warm-up to `peak`, then `constant`, or down to `final_fraction * peak` at the end:
    `cosine`, `linear`, or `wsd` (stable, then linear over the last fifth).
    """
    shapes = {  # share of the steps after warm-up -> share of the fall
        "constant": jnp.zeros_like,
        "cosine": lambda share: (1 - jnp.cos(jnp.pi * share)) / 2,
        "linear": lambda share: share,
        "wsd": lambda share: jnp.maximum(share - (1 - FALL), 0) / FALL,
    }
    if name not in shapes:
        raise ValueError(f"optimizer.schedule: no {name!r}; {nearest(name, shapes)}")

    def schedule(step: Any, end: Any) -> jax.Array:
        share = (step - warmup_steps) / jnp.maximum(end - warmup_steps, 1)
        fallen = (1 - final_fraction) * shapes[name](jnp.clip(share, 0.0, 1.0))
        warm = (step + 1) / (warmup_steps + 1)
        return peak * jnp.where(step < warmup_steps, warm, 1 - fallen)

    return schedule


def make_optimizer(
    config: Mapping[str, Any], params: Tree, axes: Tree, total_steps: int
) -> Optimizer:
    """The optimizer that `config` (as completed by `config.complete`) describes.

    `params` are the trained parameters (abstract is enough), `axes` the names of their axes: those
    with fewer than two apart from stacking (norm scales, biases) are not decayed.
    """
    config = dict(config)
    name, peak, clip = (config.pop(key) for key in ("name", "learning_rate", "clip_norm"))
    warmup_steps, final_fraction = config.pop("warmup_steps"), config.pop("final_fraction")
    if warmup_steps >= total_steps:
        raise ValueError(f"optimizer.warmup_steps={warmup_steps} leaves nothing of {total_steps=}")
    schedule = make_schedule(config.pop("schedule"), peak, warmup_steps, final_fraction)
    spared = match(params, config.pop("no_decay"), field="optimizer.no_decay")
    multipliers = config.pop("multipliers")
    make = constructor(name)
    for key in ("mask", "weight_decay_mask"):
        if key in inspect.signature(make).parameters:
            decayed = lambda axes, spare: len(axes.own) > 1 and not spare
            config[key] = jax.tree.map(decayed, axes, spared)
    if "muon_weight_dimension_numbers" in inspect.signature(make).parameters:
        config["muon_weight_dimension_numbers"] = matrices(axes)
    before = [optax.clip_by_global_norm(clip)] if clip else []
    after = [scale_by_path(params, multipliers)] if multipliers else []

    def until(end: Any) -> optax.GradientTransformationExtraArgs:
        optimizer = make(learning_rate=lambda step: schedule(step, end), **config)
        return optax.with_extra_args_support(optax.chain(*before, optimizer, *after))

    try:
        until(total_steps)
    except (AttributeError, TypeError, ValueError) as error:  # of an option
        raise ValueError(f"optimizer.{name}: {error}") from error
    return Optimizer(until, schedule, total_steps)


def matrices(axes: Tree) -> Callable[[Tree], Tree]:
    """`matrix` of every parameter; by path, since Optax also asks it of trees without leaves."""
    names = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(axes)}
    of = lambda path, _: matrix(names[path_name(path)])
    return lambda params: jax.tree_util.tree_map_with_path(of, params)


def matrix(axes: Axes) -> MuonDimensionNumbers | None:
    """The two sides of a parameter that Muon orthogonalises as a matrix.

    None for vectors, and for tables over a vocabulary, which Adam trains better. Layers are one
    matrix each. Projections to heads `[embed, heads, head_dim]` have `embed` alone on the side of
    the input, all others (from heads, convolutions) the last axis alone on that of the output.
    """
    own = axes.own
    if len(own) < 2 or "vocab" in axes.names:
        return None
    inputs = 1 if axes.names[own[0]] == "embed" else len(own) - 1
    return MuonDimensionNumbers(own[:inputs], own[inputs:])


def scale_by_path(params: Tree, multipliers: Any) -> optax.GradientTransformation:
    """Scales updates, and so the learning rate, by the first pattern that a path matches."""
    factors = jax.tree.map(lambda _: 1.0, params)
    for pattern, factor in reversed(tuple(multipliers)):
        found = match(params, (pattern,), field="optimizer.multipliers")
        factors = jax.tree.map(lambda hit, old, new=factor: new if hit else old, found, factors)
    scale = lambda updates, params=None: jax.tree.map(jnp.multiply, updates, factors)
    return optax.stateless(scale)
