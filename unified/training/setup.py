"""From a config and a recipe to compiled functions: state born sharded, steps jitted once."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from unified import sharding
from unified.training.optimizer import Optimizer, make_optimizer
from unified.training.step import Objective, TrainState, init_state, make_eval_step, make_train_step
from unified.training.tree import Tree, combine, match, select
from unified.training.utilization import ideal_seconds


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run needs of its model: shapes, placement and compiled functions."""

    objective: Objective
    abstract: TrainState  # shapes, types and shardings of the state
    init: Callable[[int, Tree], TrainState]  # (seed, loaded parameters or None) -> state
    train_step: Callable[..., tuple[TrainState, Any]]  # (state, batch); donates the state
    eval_step: Callable[[Tree, Any, jax.Array], Any]
    rows: Sequence[int]  # of the global batch, those that this process makes
    place: Callable[[Any], Any]  # those rows as host arrays -> device batch [A R ...]
    ideal: Callable[[Any], float] | None  # and -> seconds at the peak of the devices, if known

    def ending(self, state: TrainState, end: int) -> TrainState:
        """The state whose learning rate ends with another step."""
        return dataclasses.replace(
            state, end=jax.device_put(np.int32(end), self.abstract.end.sharding)
        )

    def trace(self, batch: Any) -> list[str]:
        """Names of the losses. Raises ValueError for what only they can tell of the config."""
        jax.eval_shape(self.train_step, self.abstract, batch)
        key = jax.eval_shape(jax.random.key, 0)
        return list(jax.eval_shape(self.eval_step, self.abstract.params, batch, key))

    @property
    def num_params(self) -> tuple[int, int]:
        """Trained and frozen."""
        count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        trained = count(select(self.abstract.params, self.objective.trained))
        return trained, count(self.abstract.params) - trained


def prepare(config: Mapping[str, Any], recipe: ModuleType, mesh: Mesh) -> Setup:
    """Builds the model abstractly: no memory is used until `init`. Use under `jax.set_mesh(mesh)`.

    Raises ValueError for a batch that the mesh does not divide, and for a pattern without a match.
    """
    cut = (config["batch_size"], config["accumulation"])
    check_rows(mesh, *cut)
    model = nnx.eval_shape(lambda: recipe.build(config, rngs=nnx.Rngs(0)))
    objective = make_objective(config, recipe, model)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    trained, axes = (select(tree, objective.trained) for tree in (params, sharding.axes(model)))
    optimizer = make_optimizer(config["optimizer"], trained, axes, config["total_steps"])

    def init(seed: jax.Array, loaded: Tree) -> TrainState:
        build, train = jax.random.split(jax.random.key(seed))
        model = recipe.build(config, rngs=nnx.Rngs(build))
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        return init_state(
            objective, combine(loaded, params) if loaded else params, optimizer, train
        )

    shapes = jax.eval_shape(init, 0, None)
    places = state_shardings(
        shapes, sharding.param_shardings(model, mesh), objective, optimizer, mesh
    )
    placed = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    step, whole = make_train_step(objective, optimizer), sharding.replicated(mesh)
    return Setup(
        objective=objective,
        abstract=jax.tree.map(placed, shapes, places),
        init=jax.jit(init, out_shardings=places),
        train_step=jax.jit(step, donate_argnums=0, out_shardings=(places, whole)),
        eval_step=jax.jit(make_eval_step(objective), out_shardings=whole),
        rows=local_rows(mesh, *cut),
        place=lambda batch: place(batch, mesh, *cut),
        ideal=ideal_seconds(recipe, model, mesh.devices.flat),
    )


def make_objective(config: Mapping[str, Any], recipe: ModuleType, model: nnx.Module) -> Objective:
    """What `config` asks of a recipe's model (abstract is enough)."""
    graphdef, variables = nnx.split(model, nnx.Param)
    frozen = match(nnx.to_pure_dict(variables), config["freeze"], field="freeze")
    return Objective(
        model=graphdef,
        loss=recipe.loss,
        counts=functools.partial(recipe.counts, model),
        weights=dict(config["loss_weights"]),
        trained=jax.tree.map(lambda hit: not hit, frozen),
        ema_decay=config["ema"]["decay"],
        ema_warmup=config["ema"]["warmup"],
        rollout=getattr(recipe, "rollout", None),
    )


def state_shardings(
    shapes: TrainState, params: Tree, objective: Objective, optimizer: Optimizer, mesh: Mesh
) -> TrainState:
    """Averages and moments lie as their parameter does; what is no copy of one is replicated."""
    whole = sharding.replicated(mesh)
    trained = select(params, objective.trained)

    masked = lambda leaf: isinstance(leaf, optax.MaskedNode)  # where a part treats others (Muon)

    def like(leaf: Any, param: Any, place: NamedSharding) -> NamedSharding | optax.MaskedNode:
        if masked(leaf):
            return leaf
        return place if leaf.shape == param.shape else whole

    moments = optax.tree.map_params(
        optimizer.transform,
        like,
        shapes.opt_state,
        select(shapes.params, objective.trained),
        trained,
        transform_non_params=lambda _: whole,
        is_leaf=masked,
    )
    ema = None if shapes.ema is None else trained
    return TrainState(whole, whole, params, moments, ema, whole)


def check_rows(mesh: Mesh, batch_size: int, accumulation: int) -> None:
    rows, ways = batch_size // accumulation, sharding.num_row_shards(mesh)
    if rows % ways:
        raise ValueError(
            f"batch_size / accumulation = {rows} rows do not divide over the {ways} devices of "
            "mesh axes data and fsdp: change one of them"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of a device batch [A R ...]: rows over the mesh, micro-batches one after another."""
    return NamedSharding(mesh, P(None, *sharding.row_sharding(mesh).spec))


def local_rows(mesh: Mesh, batch_size: int, accumulation: int) -> list[int]:
    """The rows of the global batch that lie on devices of this process."""
    rows = np.arange(batch_size).reshape(accumulation, -1)
    parts = batch_sharding(mesh).addressable_devices_indices_map(rows.shape).values()
    columns = sorted({column for part in parts for column in rows[part][0]})
    return rows[:, columns].ravel().tolist()


def place(batch: Any, mesh: Mesh, batch_size: int, accumulation: int) -> Any:
    """Host arrays of `local_rows` -> device arrays [A R ...], rows over the mesh."""
    spec, rows = batch_sharding(mesh), batch_size // accumulation

    def put(x: Any) -> jax.Array:
        x = x.reshape(accumulation, len(x) // accumulation, *x.shape[1:])
        return jax.make_array_from_process_local_data(spec, x, (accumulation, rows, *x.shape[2:]))

    return jax.tree.map(put, batch)
