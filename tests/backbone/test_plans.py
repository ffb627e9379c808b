"""The corner identities: architectures are points of one space, and meet where they must."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pallas_kernels.interval_attention import interval_attention
from unified.nn import attention

pytestmark = pytest.mark.usefixtures("keep_compiled")


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def with_params(model, tree):
    return nnx.merge(nnx.graphdef(model), tree) if tree else model


def layers(tree, lo, hi):
    return jax.tree.map(lambda a: a[lo:hi], tree)


def split(dense, *ranges):
    """Parameters of a dense model as runs: (lo, hi, names of the weights)."""
    stack, norm = dense["runs"]["0"]["shared"], dense["final_norm"]["shared"]
    runs = {
        str(i): {name: layers(stack, lo, hi) for name in names}
        for i, (lo, hi, names) in enumerate(ranges)
    }
    return {"runs": runs, "final_norm": {name: norm for name in ranges[-1][2]}}


def assert_same(got, want, **kw):
    kw = {"atol": 1e-5, "rtol": 1e-5} | kw
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **kw), dict(got), dict(want))


BOTH = ("und", "gen")


def test_mixture_of_transformers_with_equal_weights_is_dense(backbone, embeddings, packed, run):
    tokens, _ = packed
    dense = backbone(shared="all")
    x = embeddings(dense, tokens)
    mixture = with_params(backbone(), split(params(dense), (0, 2, BOTH)))
    assert_same(run(mixture, x, tokens), run(dense, x, tokens))

    loss = lambda m: sum(jnp.sum(h**2) for h in m(x, tokens).hidden.values())
    of_dense, of_mixture = (params(jax.jit(jax.grad(loss))(m)) for m in (dense, mixture))
    both = jax.tree.map(jnp.add, *(of_mixture["runs"]["0"][s] for s in BOTH))
    assert_same(both, of_dense["runs"]["0"]["shared"], atol=1e-3, rtol=1e-4)


def test_y_whose_branches_are_the_upper_trunk_is_dense(backbone, embeddings, packed, run):
    tokens, _ = packed
    dense = backbone(num_layers=3, shared="all")
    x = embeddings(dense, tokens)
    y = backbone(num_layers=3, shared=[[0, 2]])
    y = with_params(y, split(params(dense), (0, 2, ("shared",)), (2, 3, BOTH)))
    assert_same(run(y, x, tokens), run(dense, x, tokens))


def test_y_with_zero_branches_is_its_dense_trunk(backbone, embeddings, packed, run):
    """A branch whose output projections are zero adds nothing to the residual stream."""
    tokens, _ = packed
    dense = backbone(num_layers=2, shared="all")
    x = embeddings(dense, tokens)
    y = backbone(num_layers=3, shared=[[0, 2]])
    tree = params(y)
    trunk = params(dense)
    tree["runs"]["0"]["shared"] = trunk["runs"]["0"]["shared"]
    tree["final_norm"] = dict.fromkeys(BOTH, trunk["final_norm"]["shared"])
    for branch in tree["runs"]["1"].values():
        for name, projection in (("attention", "out"), ("mlp", "down")):
            branch[name][projection]["kernel"] *= 0
    assert_same(run(with_params(y, tree), x, tokens), run(dense, x, tokens))


@pytest.mark.parametrize("joint", [[[0, 3]], [[0, 1], [1, 3]]])
def test_h_with_all_layers_joint_is_a_mixture_of_transformers(
    joint, backbone, embeddings, packed, run
):
    tokens, _ = packed
    mixture, h = backbone(num_layers=3), backbone(num_layers=3, joint=joint)
    assert h.cfg.runs == mixture.cfg.runs
    x = embeddings(h, tokens)
    assert_same(run(h, x, tokens), run(mixture, x, tokens), atol=0)


def test_h_is_a_mixture_of_transformers_where_streams_never_meet(backbone, embeddings, rows, run):
    """Documents of one stream each: it cannot matter which layers are joint."""
    tokens, _ = rows([[[("text", "uuu")], [("clean", "gggg")], [("text", "uu")]]])
    mixture, h = backbone(), backbone(joint=[[1, 2]])
    tree = params(mixture)
    run_of = lambda i: {s: layers(tree["runs"]["0"][s], i, i + 1) for s in BOTH}
    tree["runs"] = {str(i): run_of(i) for i in range(2)}
    x = embeddings(h, tokens)
    assert_same(run(with_params(h, tree), x, tokens), run(mixture, x, tokens))


def test_h_differs_from_a_mixture_of_transformers_where_streams_meet(
    backbone, embeddings, packed, run
):
    tokens, _ = packed
    mixture, alone = backbone(), backbone(joint="none")
    x = embeddings(mixture, tokens)
    got, want = (run(m, x, tokens)["gen"] for m in (alone, mixture))
    assert float(jnp.abs(got - want).max()) > 0.1


def matmul_flops(jaxpr):
    """Multiply-adds of all matrix products, those of a scan as often as it runs."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shared = [eqn.invars[0].aval.shape[axis] for axis in contracted]
            total += math.prod(shared) * eqn.outvars[0].aval.size
        inner = jax.tree.leaves(eqn.params, is_leaf=lambda value: hasattr(value, "eqns"))
        bodies = [getattr(value, "jaxpr", value) for value in inner]
        bodies = [body for body in bodies if hasattr(body, "eqns")]
        total += eqn.params.get("length", 1) * sum(map(matmul_flops, bodies))
    return total


def test_a_mixture_spends_the_flops_of_a_dense_model_on_the_same_tokens(
    backbone, embeddings, rows, monkeypatch
):
    plain = functools.partial(interval_attention, implementation="reference")
    monkeypatch.setattr(attention, "interval_attention", plain)  # not the products of every kernel
    mixture, dense = backbone(), backbone(streams={"und": {"embed_dim": 16, "mlp_dim": 24}})

    def flops(model, letters):
        tokens, _ = rows([[[("clean", letters)]]])
        step = jax.grad(lambda m, x: sum(h.sum() for h in m(x, tokens).hidden.values()))
        return matmul_flops(jax.make_jaxpr(step)(model, embeddings(model, tokens)).jaxpr)

    B_T, projections = 16, 2 * 16 * (16 + 8) + 3 * 16 * 24  # q and out, k and v; the MLP
    scores = 2 * B_T * B_T * 16
    forward = 2 * (B_T * projections + scores)  # layers
    assert flops(dense, "u" * B_T) == flops(mixture, "u" * 6 + "g" * 10)
    assert 3 * forward < flops(dense, "u" * B_T) <= 4 * forward  # with one recomputation
