"""The pure training step: state and batch in, state and metrics out.

A batch has a leading axis of micro-batches `[A R ...]` (`A` = 1 without accumulation). Losses are
(sum, count) pairs; the objective of a step is `sum_i weight_i * sum_i / count_i`, with the counts
taken over all micro-batches and devices, so it does not depend on how rows are cut or spread.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from unified.sequence import Array, struct
from unified.training.optimizer import Optimizer
from unified.training.tree import Tree, combine, select

Pair = tuple[jax.Array, jax.Array]  # float32 scalars: sum, count
Losses = Mapping[str, Pair]
ROLLOUT = 2**31  # its key is that of the step, folded with more than a micro-batch's number


@struct
class TrainState:
    """Everything a checkpoint holds, as plain arrays in plain nested dicts. `end` is the step that
    the learning rate ends with: that of the config, unless the time is up before."""

    step: Array
    end: Array
    params: Tree
    opt_state: optax.OptState  # of the trained parameters
    ema: Tree  # average of the trained parameters, or None
    key: Array


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is optimised, and never changes during a run. `rollout`: what the model makes of a batch
    of prompts, without gradients, before the loss of that (reinforcement learning)."""

    model: nnx.GraphDef
    loss: Callable[[nnx.Module, Any, jax.Array], Losses]
    counts: Callable[[Any], Mapping[str, jax.Array]]
    weights: Mapping[str, float]
    trained: Tree  # True at the parameters that are trained
    ema_decay: float = 0.0
    ema_warmup: bool = True
    rollout: Callable[[nnx.Module, Any, jax.Array], Any] | None = None


def init_state(
    objective: Objective, params: Tree, optimizer: Optimizer, key: jax.Array
) -> TrainState:
    trained = select(params, objective.trained)
    ema = jax.tree.map(jnp.copy, trained) if objective.ema_decay else None
    opt_state = jax.tree.map(_in_32_bits, optimizer.transform.init(trained))
    first, last = jnp.zeros((), jnp.int32), jnp.asarray(optimizer.end, jnp.int32)
    return TrainState(first, last, params, opt_state, ema, key)


def _in_32_bits(array: jax.Array) -> jax.Array:
    """Whatever JAX's flag for numbers of 64 bits says: a checkpoint fits with it and without."""
    short = {"float64": jnp.float32, "int64": jnp.int32}
    return array.astype(short.get(str(array.dtype), array.dtype))


def make_train_step(objective: Objective, optimizer: Optimizer):
    """`train_step(state, batch) -> (state, metrics)`; every metric is a (sum, count) pair."""

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, Losses]:
        key = jax.random.fold_in(state.key, state.step)
        batch = _roll_out(objective, state.params, batch, jax.random.fold_in(key, ROLLOUT))
        trained, frozen = select(state.params, objective.trained), state.params
        totals = _totals(objective, batch)

        def gradients(micro: Any, key: jax.Array) -> tuple[Tree, Losses]:
            def weighted(trained: Tree) -> tuple[jax.Array, Losses]:
                model = nnx.merge(objective.model, combine(trained, frozen))
                losses = objective.loss(model, micro, key)
                return weigh(losses, objective.weights, totals), losses

            return jax.grad(weighted, has_aux=True)(trained)

        grads, losses = _sum_over_micro_batches(gradients, batch, key)
        updates, opt_state = optimizer.until(state.end).update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        metrics = {
            **losses,
            "loss": _once(weigh(losses, objective.weights, totals)),
            "grad_norm": _once(optax.tree.norm(grads)),
            "learning_rate": _once(optimizer.schedule(state.step, state.end)),
        }
        as_before = lambda new, old: jax.tree.map(lambda x, y: x.astype(y.dtype), new, old)
        new = TrainState(
            step=state.step + 1,
            end=state.end,
            params=combine(trained, frozen),
            opt_state=as_before(opt_state, state.opt_state),
            ema=as_before(_average(objective, state.ema, trained, state.step), state.ema),
            key=state.key,
        )
        return new, metrics

    return train_step


def make_eval_step(objective: Objective):
    """`eval_step(params, batch, key) -> losses`, summed over the micro-batches."""

    def eval_step(params: Tree, batch: Any, key: jax.Array) -> Losses:
        losses = lambda micro, key: objective.loss(nnx.merge(objective.model, params), micro, key)
        return _sum_over_micro_batches(losses, batch, key)

    return eval_step


def weigh(losses: Losses, weights: Mapping[str, float], totals: Mapping[str, Any]) -> Any:
    """`sum_i weight_i * sum_i / total_i`; a loss without a token (total 0) adds nothing."""
    if missing := sorted(weights.keys() - (losses.keys() & totals.keys())):
        raise ValueError(f"loss_weights: {missing} not among the losses {sorted(losses)}")
    mean = lambda total, count: total / jnp.where(count > 0, count, 1)
    return sum(weights[name] * mean(losses[name][0], totals[name]) for name in weights)


def averaged(state: TrainState) -> Tree:
    """The parameters to evaluate and release: the moving average where there is one."""
    return state.params if state.ema is None else combine(state.ema, state.params)


def _roll_out(objective: Objective, params: Tree, batch: Any, key: jax.Array) -> Any:
    """The batch that is learnt from, one micro-batch after another."""
    if objective.rollout is None:
        return batch
    keys = jax.random.split(key, jax.tree.leaves(batch)[0].shape[0])
    roll = lambda args: objective.rollout(nnx.merge(objective.model, params), *args)
    return jax.lax.stop_gradient(jax.lax.map(roll, (batch, keys)))


def _totals(objective: Objective, batch: Any) -> Mapping[str, jax.Array]:
    counts = jax.vmap(objective.counts)(batch)
    return {name: counts[name].sum() for name in objective.weights if name in counts}


def _sum_over_micro_batches(fn: Callable[[Any, jax.Array], Tree], batch: Any, key: jax.Array):
    """`fn(micro-batch, key)` summed over the leading axis, one micro-batch in memory at a time."""
    num = jax.tree.leaves(batch)[0].shape[0]
    first = jax.tree.map(lambda x: x[0], batch)
    if num == 1:
        return fn(first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fn, first, key))

    def add(total: Tree, xs: tuple[Any, jax.Array]) -> tuple[Tree, None]:
        micro, index = xs
        return jax.tree.map(jnp.add, total, fn(micro, jax.random.fold_in(key, index))), None

    return jax.lax.scan(add, zeros, (batch, jnp.arange(num)))[0]


def _average(objective: Objective, ema: Tree, trained: Tree, step: jax.Array) -> Tree:
    if ema is None:
        return None
    warm = (1 + step) / (10 + step) if objective.ema_warmup else 1.0
    decay = jnp.minimum(objective.ema_decay, warm)
    return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema, trained)


def _once(value: jax.Array) -> Pair:
    return jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32)
