"""The step: the same on every mesh and for every cut of the batch; what is frozen stays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from tests.training import toy_recipe
from tests.training.toy_config import get_config
from unified import sharding
from unified.sharding import Axes
from unified.training.config import complete
from unified.training.optimizer import make_optimizer, make_schedule
from unified.training.setup import prepare
from unified.training.step import ROLLOUT, averaged


def steps(n: int, *, devices: int = 1, **fields):
    """The setup, the states before and after each of `n` steps, and their losses.

    Fields of the config are named as on the command line, with `__` for a dot.
    """
    config = complete(get_config())
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
    setup = prepare(config, toy_recipe, mesh)
    return setup, *go(setup, config, n)


def go(setup, config, n: int):
    with jax.set_mesh(setup.abstract.step.sharding.mesh):
        state = setup.init(0, None)
        states, losses = [jax.device_get(state)], []
        for _, batch in zip(range(n), toy_recipe.inputs(config, "train"), strict=False):
            state, metrics = setup.train_step(state, setup.place(batch))
            states.append(jax.device_get(state))
            losses.append(float(metrics["loss"][0]))
    return states, losses


@pytest.fixture(scope="module")
def single():
    return steps(3)


def assert_close(got, want, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), got, want)


@pytest.mark.parametrize(
    "mesh",
    [{"fsdp": -1}, {"data": 2, "fsdp": 2, "tensor": 2}],
    ids=["fsdp", "data+fsdp+tensor"],
)
def test_sharded_steps_equal_those_of_one_device(single, mesh):
    _, want, want_losses = single
    fields = {f"mesh__{axis}": size for axis, size in mesh.items()}
    _, got, losses = steps(3, devices=8, **fields)
    np.testing.assert_allclose(losses, want_losses, rtol=1e-6)
    assert_close(got[-1].params, want[-1].params)
    assert_close(got[-1].ema, want[-1].ema)


def test_parameters_averages_and_moments_are_born_sharded_alike():
    config = complete(get_config())
    mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
    state = prepare(config, toy_recipe, mesh).init(0, None)
    for tree in (state.params, state.ema, state.opt_state[1][0].mu):
        up = tree["layers"]["up"]
        assert up.sharding.spec == P(None, "fsdp", "tensor")
        assert up.addressable_shards[0].data.shape == (2, 4, 16)


def test_accumulation_normalises_over_the_whole_window(single):
    """Rows differ in length, so a mean of the means of micro-batches would be another number."""
    _, want, want_losses = single
    _, got, losses = steps(3, accumulation=4)
    np.testing.assert_allclose(losses, want_losses, rtol=1e-6)
    assert_close(got[-1].params, want[-1].params)


def test_frozen_parameters_hold_no_moments_and_do_not_move():
    setup, (start, end), _ = steps(1, freeze=("embedding", "layers/(up|down)"))
    for get in (lambda tree: tree["embedding"], lambda tree: tree["layers"]["up"]):
        np.testing.assert_array_equal(get(end.params), get(start.params))
        assert get(end.ema) is None
        assert get(end.opt_state[1][0].mu) is None
    assert not np.array_equal(end.params["head"], start.params["head"])
    assert setup.num_params == (16 * 16 + 2 * 16, 2 * 2 * 16 * 32 + 16 * 16)


def test_no_gradient_is_computed_for_frozen_parameters():
    """The backward matmuls of frozen weights are absent from the program."""
    dots = []
    for freeze in ((), ("layers", "embedding")):
        setup, _, _ = steps(0, freeze=freeze)
        batch = setup.place(next(toy_recipe.Inputs(8, 0)))
        dots.append(str(jax.make_jaxpr(setup.train_step)(setup.abstract, batch)).count("dot_gen"))
    assert dots[1] <= dots[0] - 4  # two weights of a layer, each once for itself, once for x


def test_average_follows_the_trained_parameters(single):
    _, (_, one, two, _), _ = single
    decay = 2 / 11  # warm-up: (1 + step) / (10 + step) at step 1
    want = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, one.ema, two.params)
    assert_close(two.ema, want, atol=1e-7)
    assert_close(averaged(two), two.ema, atol=0)
    plain = steps(0, ema__decay=0.0)[1][0]
    assert plain.ema is None
    assert averaged(plain) is plain.params


def test_loss_falls_and_repeats(single):
    setup, _, losses = single
    assert losses[2] < losses[0]
    assert go(setup, complete(get_config()), 3)[1] == losses


def optimizer(params, axes=None, **fields):
    """The transformation of an optimizer config, without schedule and clipping."""
    config = get_config()
    plain = {"name": "adamw", "learning_rate": 0.1, "schedule": "constant", "clip_norm": 0.0}
    config.optimizer = {**plain, **fields}
    axes = {key: Axes(names) for key, names in axes.items()} if axes else None
    axes = axes or jax.tree.map(lambda x: Axes((None,) * x.ndim), params)
    return make_optimizer(complete(config).optimizer, params, axes, total_steps=10).transform


def test_weight_decay_spares_norm_scales_stacked_or_not_and_named_patterns():
    params = {
        "up": jnp.ones((2, 3)),
        "scale": jnp.ones(3),
        "stacked": jnp.ones((2, 3)),
        "table": jnp.ones((2, 2)),
    }
    axes = {
        "up": ("embed", "mlp"),
        "scale": ("embed",),
        "stacked": ("layers", "embed"),
        "table": ("vocab", "embed"),
    }
    decay = optimizer(params, axes, learning_rate=0.5, weight_decay=0.1, no_decay=("^tab",))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = decay.update(zero, decay.init(params), params)
    assert_close(updates, {**zero, "up": jnp.full((2, 3), -0.05)}, atol=1e-7)


def test_multipliers_scale_the_learning_rate_of_the_first_pattern_that_matches():
    params = {"a": {"x": jnp.ones(3), "y": jnp.ones(3)}, "b": jnp.ones(3)}
    factors = (("a/x", 0.5), ("^a", 0.0))
    sgd = optimizer(params, name="sgd", learning_rate=1.0, multipliers=factors)
    updates, _ = sgd.update(params, sgd.init(params), params)
    want = {"a": {"x": jnp.full(3, -0.5), "y": jnp.zeros(3)}, "b": jnp.full(3, -1.0)}
    assert_close(updates, want, atol=0)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("constant", [2, 4, 6, 6, 6, 6]),
        ("linear", [2, 4, 6, 4.5, 3, 3]),
        ("cosine", [2, 4, 6, 4.5, 3, 3]),
        ("wsd", [2, 4, 6, 6, 3, 3]),
    ],
)
def test_schedules_by_name(name, want):
    schedule = make_schedule(name, 6.0, warmup_steps=2, final_fraction=0.5)
    got = [float(schedule(step, 12)) for step in (0, 1, 2, 7, 12, 20)]
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_the_schedule_ends_with_the_step_that_it_is_told():
    config = complete(get_config())
    config.optimizer.schedule = "linear"
    setup = prepare(config, toy_recipe, sharding.make_mesh({}, jax.devices()[:1]))
    batch = setup.place(next(toy_recipe.inputs(config, "train")))
    rates, heads = [], []
    for end in (2, 20):
        state = setup.ending(setup.init(0, None), end)
        for _ in range(3):
            heads.append(np.array(state.params["head"]))
            state, metrics = setup.train_step(state, batch)
        rates.append(float(metrics["learning_rate"][0]))
    np.testing.assert_allclose(rates, [0, 9e-3], atol=1e-9)
    assert not np.allclose(heads[2], heads[5], atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze": ("embeding",)}, "freeze: 'embeding' matches no parameter"),
        ({"optimizer__multipliers": (("hat", 0.1),)}, "multipliers: 'hat' matches no parameter"),
        ({"optimizer__schedule": "cosin"}, "did you mean 'cosine'"),
        ({"optimizer__warmup_steps": 20}, "warmup_steps=20 leaves nothing"),
        ({"accumulation": 8, "devices": 8}, "= 1 rows do not divide over the 8 devices"),
    ],
)
def test_mistakes_are_errors_that_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        steps(0, **fields)


def test_loss_that_the_recipe_lacks_is_an_error():
    config = complete(get_config())
    config.loss_weights = {"txt": 1.0}
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    setup = prepare(config, toy_recipe, mesh)
    batch = setup.place(next(toy_recipe.inputs(config, "train")))
    with pytest.raises(ValueError, match=r"'txt'.* not among the losses"):
        jax.eval_shape(setup.train_step, setup.abstract, batch)


@pytest.mark.parametrize("name", ["sgd", "lion", "adafactor", "muon"])
def test_optimizers_go_by_their_optax_name(name):
    params = {"w": jnp.ones((4, 4))}
    transform = optimizer(params, name=name)
    updates, _ = transform.update(params, transform.init(params), params)
    assert float(updates["w"].max()) < 0


def orthonormal(x, sides):
    """Whether all singular values of the matrix `x` are alike, with `sides` axes of input."""
    values = np.linalg.svd(x.reshape(math.prod(x.shape[:sides]), -1), compute_uv=False)
    return values.min() > 0.5 * values.max()


def test_muon_sees_a_matrix_in_every_layer_and_leaves_vectors_and_vocabularies_to_adam():
    axes = {
        "up": ("layers", "embed", "mlp"),
        "query": ("layers", "embed", "heads", "head_dim"),
        "out": ("heads", "head_dim", "embed"),
        "scale": ("layers", "embed"),
        "table": ("vocab", "embed"),
    }
    sizes = {"layers": 2, "embed": 4, "mlp": 6, "heads": 2, "head_dim": 3, "vocab": 5}
    shapes = {key: [sizes[name] for name in names] for key, names in axes.items()}
    keys = dict(zip(axes, jax.random.split(jax.random.key(0), len(axes)), strict=True))
    params = {key: jax.random.normal(keys[key], shape) for key, shape in shapes.items()}
    muon = optimizer(params, axes, name="muon", weight_decay=0.0)
    updates, _ = muon.update(params, muon.init(params), params)
    assert all(orthonormal(layer, sides=1) for layer in (*updates["up"], *updates["query"]))
    assert orthonormal(updates["out"], sides=2)
    for key in ("scale", "table"):  # the first step of Adam is a multiple of the gradient's sign
        assert float(jnp.abs(updates[key]).std()) < 1e-5


def test_a_rollout_is_learnt_from_and_follows_the_weights(monkeypatch):
    """A step from prompts is the step from what the model of that step makes of them."""

    def rollout(model, batch, key):
        likeliest = model(batch["ids"]).argmax(-1)
        drawn = jax.random.bernoulli(key, 0.5, likeliest.shape)
        return {**batch, "ids": jnp.where(drawn, likeliest, batch["ids"])}

    config = complete(get_config())
    config.accumulation = 2
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    plain = prepare(config, toy_recipe, mesh)
    monkeypatch.setattr(toy_recipe, "rollout", rollout, raising=False)
    setup = prepare(config, toy_recipe, mesh)
    prompts = setup.place(next(toy_recipe.inputs(config, "train")))
    state = setup.init(0, None)
    key = jax.random.fold_in(jax.random.fold_in(state.key, 0), ROLLOUT)
    model = nnx.merge(setup.objective.model, state.params)
    made = [
        rollout(model, jax.tree.map(lambda x, i=i: x[i], prompts), key)
        for i, key in enumerate(jax.random.split(key, 2))
    ]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *made)
    assert (batch["ids"] != prompts["ids"]).any()
    want, _ = plain.train_step(plain.init(0, None), batch)
    got, _ = setup.train_step(state, prompts)
    assert_close(got.params, want.params, atol=1e-6)
