"""Layers by flow time, scans, remat, sharding, and the errors of a call."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unified import sharding
from unified.backbone import BackboneConfig


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.fixture
def case(backbone, embeddings, packed):
    tokens, _ = packed
    model = backbone(active=[(0.0, 0.5), (0.5, 1.0)])
    return model, embeddings(model, tokens), tokens


def test_a_token_runs_only_the_layers_of_its_flow_time(case, backbone, run):
    """All latents at t = 0.3: the second layer neither changes them nor shows their keys."""
    model, x, tokens = case
    time = {"gen": jnp.full(tokens["gen"].clock.shape, 0.3)}
    got = run(model, x, tokens, time=time)

    tree = params(model)
    tree["runs"] = jax.tree.map(lambda a: a[:1], tree["runs"])
    first = run(nnx.merge(nnx.graphdef(backbone(num_layers=1)), tree), x, tokens)
    np.testing.assert_allclose(got["gen"], first["gen"], atol=1e-5)
    assert float(jnp.abs(got["und"] - first["und"]).max()) > 0.01


def test_keys_of_a_token_are_invisible_in_layers_it_does_not_run(case):
    model, x, tokens = case

    def und(x, t):
        time = {"gen": jnp.full(tokens["gen"].clock.shape, t)}
        return jnp.sum(model(x, tokens, time=time).hidden["und"] ** 3)

    gradient = jax.jit(jax.grad(und))
    seen = lambda t: float(jnp.abs(gradient(x, t)["gen"]).max())
    assert seen(0.3) > 1e-3 and seen(0.8) > 1e-3
    assert seen(0.0) == 0  # in no window: (0, 0.5] and (0.5, 1]


def test_weights_of_a_layer_that_no_token_runs_are_not_even_touched(case, run):
    """They may be NaN: a product with them that is thrown away would still spoil the gradient."""
    model, x, tokens = case
    tree = params(model)
    gen = tree["runs"]["0"]["gen"]
    tree["runs"]["0"]["gen"] = jax.tree.map(lambda a: a.at[1].set(jnp.nan), gen)
    spoilt = nnx.merge(nnx.graphdef(model), tree)
    time = {"gen": jnp.full(tokens["gen"].clock.shape, 0.3)}
    got, want = (run(m, x, tokens, time=time) for m in (spoilt, model))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    loss = lambda x: sum(jnp.sum(h**2) for h in spoilt(x, tokens, time=time).hidden.values())
    assert all(bool(jnp.isfinite(g).all()) for g in jax.jit(jax.grad(loss))(x).values())


def test_tokens_without_a_time_run_every_layer(case, backbone, run):
    model, x, tokens = case
    always = nnx.merge(nnx.graphdef(backbone()), params(model))
    want = run(always, x, tokens)
    untimed = {"gen": jnp.full(tokens["gen"].clock.shape, -1.0)}
    for time in (None, untimed):
        got = run(model, x, tokens, time=time)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)


UNEQUAL = pytest.param({"shared": [[0, 1]], "joint": [[1, 3]]}, marks=pytest.mark.slow)


@pytest.mark.parametrize("plan", [{}, UNEQUAL], ids=str)
def test_a_scan_is_the_layers_one_by_one(plan, backbone, embeddings, packed, run):
    tokens, _ = packed
    model = backbone(num_layers=3, **plan)
    x = embeddings(model, tokens)
    unrolled = jax.jit(lambda m, x: m(x, tokens, unroll=True).hidden)(model, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    jax.tree.map(close, run(model, x, tokens), unrolled)


@pytest.mark.slow
def test_gradients_do_not_depend_on_what_is_kept_or_computed_again(backbone, embeddings, packed):
    tokens, _ = packed
    model = backbone()
    x = embeddings(model, tokens)

    def gradient(remat):
        loss = lambda m: sum(jnp.sum(h**3) for h in m(x, tokens, remat=remat).hidden.values())
        return jax.jit(jax.value_and_grad(loss))(model)

    want = gradient("nothing_saveable")
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)
    jax.tree.map(close, gradient("everything_saveable"), want)
    jax.tree.map(close, gradient("dots_saveable"), want)


def test_some_streams_may_be_absent(case, run):
    model, x, tokens = case
    hidden = run(model, {"und": x["und"]}, tokens)
    assert [*hidden] == ["und"] and hidden["und"].shape == x["und"].shape


def test_activations_follow_the_dtype_of_the_input(case):
    model, x, tokens = case
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), x)
    found = jax.eval_shape(lambda x: model(x, tokens, return_keys=True), half)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"bfloat16"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params(model))} == {"float32"}


def test_calls_that_do_not_fit_say_why(case):
    model, x, tokens = case
    with pytest.raises(
        ValueError, match=r"unknown stream 'audio'; the backbone has \['und', 'gen'"
    ):
        model({"audio": x["und"]}, tokens)
    with pytest.raises(ValueError, match="stream 'und': width 15, but embed_dim is 16"):
        model({"und": x["und"][..., 1:]}, tokens)
    with pytest.raises(ValueError, match=r"stream 'gen': embeddings .* but tokens none"):
        model({"gen": x["gen"]}, {"und": tokens["und"]})
    with pytest.raises(ValueError, match="unknown remat policy 'some'; choose one of"):
        model(x, tokens, remat="some")


@pytest.fixture(scope="module")
def sharded(backbone, embeddings, rows):
    """A step's gradient on a mesh of 8, compiled, with its arguments and the model."""
    rows_of = [[[("text", "u" * 24), ("noised", "u" + "g" * 14 + "u")]]] * 8
    tokens, _ = rows(rows_of)
    model = backbone(num_heads=4, num_kv_heads=2)
    x = embeddings(model, tokens)

    def loss(model, x):
        return sum(jnp.mean(h**2) for h in model(x, tokens).hidden.values())

    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    graph, _ = nnx.split(model)
    step = jax.jit(jax.value_and_grad(lambda p, x: loss(nnx.merge(graph, p), x)))
    placed = (
        jax.device_put(params(model), sharding.param_shardings(model, mesh)),
        jax.device_put(x, NamedSharding(mesh, P(("data", "fsdp")))),
    )
    with jax.set_mesh(mesh):
        compiled = step.lower(*placed).compile()
    return step, compiled, (params(model), x), placed


def test_sharded_equals_one_device(sharded):
    step, compiled, args, placed = sharded
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    jax.tree.map(close, compiled(*placed), step(*args))


def test_parameters_are_sharded_by_their_axes(sharded):
    weights = sharded[3][0]["runs"]["0"]["gen"]
    assert weights["mlp"]["up"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")
    assert weights["attention"]["query"]["kernel"].sharding.spec == P(None, "fsdp", "tensor", None)


def test_no_collective_moves_the_activations_of_the_whole_batch(sharded):
    """The partitioner gathers weights and reduces gradients; 8 rows never meet on one device."""
    text = sharded[1].as_text()
    collectives = re.findall(r"= (.*?) (?:all-gather|all-reduce|all-to-all|reduce-scatter)\(", text)
    shapes = [s for c in collectives for s in re.findall(r"\[([\d,]*)\]", c)]
    assert shapes and not [s for s in shapes if s.startswith("8,")], shapes


def test_tpus_of_a_mesh_run_the_kernel_with_plans_made_once_for_all_layers(sharded):
    step, _, _, placed = sharded
    with jax.set_mesh(placed[1]["und"].sharding.mesh):
        traced = step.trace(*placed)
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()
    layers = [str(eqn) for eqn in traced.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert "make_plan" in str(traced.jaxpr) and layers
    assert not any("make_plan" in layer for layer in layers)


@pytest.mark.parametrize("plan", [{}, {"shared": [[0, 2]]}], ids=["MoT", "Y"])
def test_hidden_states_of_a_layer_are_those_of_a_backbone_that_ends_there(
    plan, backbone, embeddings, packed
):
    """The last layer's are the hidden states before the last norm."""
    tokens, _ = packed
    model = backbone(num_layers=3, **plan)
    x = embeddings(model, tokens)
    after = jax.jit(lambda m, x: m(x, tokens, return_layers=(2, 0)))(model, x)
    assert [*after.layers] == [0, 2] and after.keys is None
    norm = lambda h, scale: h * scale / jnp.sqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)
    for s, h in after.layers[2].items():
        name = "shared" if "shared" in model.final_norm else s
        scale = jnp.asarray(model.final_norm[name].scale)
        np.testing.assert_allclose(norm(h, scale), after.hidden[s], atol=1e-5)
    first = backbone(num_layers=3, active=[None, (0.8, 1.0), (0.8, 1.0)], **plan)
    first = nnx.merge(nnx.graphdef(first), params(model))
    times = {s: jnp.full(tokens[s].clock.shape, 0.5) for s in x}
    alone = jax.jit(lambda m, x: m(x, tokens, time=times, return_layers=(2,)))(first, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
    jax.tree.map(close, after.layers[0], alone.layers[2])
    with pytest.raises(ValueError, match=r"return_layers: \[3\] are not among the layers 0 to 2"):
        model(x, tokens, return_layers=(0, 3))


def test_positions_of_several_axes(backbone, embeddings, packed, run):
    """Equal on all axes they are as one; an axis turns the pairs of its section alone."""
    tokens, _ = packed
    plain = backbone()
    model = nnx.merge(nnx.graphdef(backbone(rope_sections=(1, 2, 1))), params(plain))
    x = embeddings(plain, tokens)

    def several(tokens, *factors):
        place = np.stack([tokens.position * factor for factor in factors], -1)
        return dataclasses.replace(tokens, position=place)

    same = {s: several(t, 1, 1, 1) for s, t in tokens.items()}
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)
    jax.tree.map(close, run(plain, x, tokens), run(model, x, same))
    jax.tree.map(close, run(plain, x, tokens), run(model, x, tokens))
    other = run(model, x, {s: several(t, 1, 3, 1) for s, t in tokens.items()})
    assert np.abs(other["und"] - run(model, x, same)["und"]).max() > 1e-2
    with pytest.raises(ValueError, match="positions have 3 axes, rope_sections has 0"):
        plain(x, same)


@pytest.mark.parametrize(
    ("interleaved", "want"),
    [(False, (0,) * 4 + (1,) * 3 + (2,) * 3), (True, (0, 1, 2, 0, 1, 2, 0, 1, 2, 0))],
)
def test_pairs_of_a_head_turn_by_the_axis_of_their_section(interleaved, want):
    """In blocks as in Qwen2-VL, or in turns as in Qwen3-VL."""
    widths = {"text": {"embed_dim": 8, "mlp_dim": 8}}
    sizes = {"num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": 20}
    rope = {"rope_sections": (4, 3, 3), "rope_interleaved": interleaved}
    assert BackboneConfig(widths, **sizes, **rope).rope_axes == want


def test_the_kind_of_mlp_is_that_of_the_config(backbone, embeddings, packed):
    """A plain one has biases and two matrices."""
    tokens, _ = packed
    model = backbone(mlp="gelu")
    assert set(params(model)["runs"]["0"]["und"]["mlp"]) == {"fc1", "fc2"}
    hidden = model(embeddings(model, tokens), tokens).hidden
    assert all(np.isfinite(h).all() for h in hidden.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp": "relu"}, r"mlp='relu': choose one of \['gelu', 'swiglu'\]"),
        ({"rope_sections": (1, 1)}, r"rope_sections=\(1, 1\) must share out the 4 pairs"),
        ({"rope_sections": (5, -1)}, r"rope_sections=\(5, -1\) must share out the 4 pairs"),
    ],
)
def test_kinds_that_are_none_are_refused(changes, message, backbone):
    with pytest.raises(ValueError, match=message):
        backbone(**changes)
