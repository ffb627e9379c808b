"""Next-id loss in chunks, and sampling row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.processes import autoregressive
from unified.processes.autoregressive import GREEDY, Sampling

M, D, V = 13, 6, 17


@pytest.fixture
def problem():
    keys = jax.random.split(jax.random.key(0), 3)
    head, hidden = (jax.random.normal(k, s) for k, s in zip(keys, [(D, V), (M, D)], strict=False))
    targets = jax.random.randint(keys[2], (M,), 0, V)
    return head, hidden, targets, jnp.arange(M) % 3 / 2


def whole(head, hidden, targets, weights):
    log_prob = jax.nn.log_softmax(hidden @ head)[jnp.arange(M), targets]
    return -jnp.sum(weights * log_prob), weights.sum()


def test_uniform_logits_cost_log_vocab():
    total, count = autoregressive.loss(
        lambda h: jnp.zeros((h.shape[0], 8)), jnp.ones((3, 2)), jnp.arange(3), jnp.ones(3), chunk=3
    )
    np.testing.assert_allclose((total, count), (3 * np.log(8), 3), rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_chunks_change_neither_loss_nor_gradient(problem, chunk):
    head, hidden, targets, weights = problem
    chunked = lambda head, hidden: autoregressive.loss(
        lambda h: h @ head, hidden, targets, weights, chunk=chunk
    )
    want = whole(head, hidden, targets, weights)
    np.testing.assert_allclose(chunked(head, hidden), want, rtol=1e-5)
    got = jax.grad(lambda *args: chunked(*args)[0], (0, 1))(head, hidden)
    want = jax.grad(lambda *args: whole(*args, targets, weights)[0], (0, 1))(head, hidden)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


def test_logits_of_all_tokens_never_exist_at_once(problem):
    head, hidden, targets, weights = problem
    step = jax.grad(
        lambda head: autoregressive.loss(lambda h: h @ head, hidden, targets, weights, chunk=4)[0]
    )
    shapes = str(jax.make_jaxpr(step)(head))
    assert f"f32[4,{V}]" in shapes
    assert f"f32[{M},{V}]" not in shapes
    assert f"f32[4,4,{V}]" not in shapes  # nor stacked as residuals of the scan


def test_unweighted_rows_get_no_gradient(problem):
    head, hidden, targets, weights = problem
    gradient = jax.grad(
        lambda hidden: autoregressive.loss(lambda h: h @ head, hidden, targets, weights, chunk=5)[0]
    )(hidden)
    np.testing.assert_array_equal(np.any(gradient != 0, axis=1), weights > 0)


LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0), [1, 1, 1, 1]),
        (Sampling(1.0, top_k=3), [1, 1, 1, 0]),
        (Sampling(1.0, top_p=0.78), [1, 1, 0, 0]),
        (Sampling(1.0, top_p=0.81), [1, 1, 1, 0]),
        (Sampling(1.0, top_p=0.01), [1, 0, 0, 0]),
        (Sampling(1.0, top_k=2, top_p=0.6), [1, 0, 0, 0]),  # of the two, 5/8 is enough
        (Sampling(9.0, top_p=0.78), [1, 1, 1, 0]),  # flatter: 0.28 0.26 0.24 0.22
    ],
)
def test_top_k_and_top_p_keep_the_likeliest(sampling, kept):
    got = jnp.isfinite(autoregressive.restrict(LOGITS, sampling)).astype(int)
    np.testing.assert_array_equal(got, [kept, kept[::-1]])


def test_greedy_takes_the_largest_and_draws_follow_the_probabilities():
    keys = jax.random.split(jax.random.key(1), 4000)
    many = jnp.repeat(LOGITS[:1], 4000, axis=0)
    np.testing.assert_array_equal(autoregressive.sample(LOGITS, keys[:2], GREEDY), [0, 3])
    ids = autoregressive.sample(many, keys, Sampling(1.0))
    np.testing.assert_allclose(np.bincount(ids) / 4000, jnp.exp(LOGITS[0]), atol=0.03)
    ids = autoregressive.sample(many, keys, Sampling(1.0, top_k=2))
    np.testing.assert_allclose(np.bincount(ids) / 4000, [0.625, 0.375], atol=0.03)


def test_a_row_is_drawn_as_if_alone():
    logits = jax.random.normal(jax.random.key(2), (5, 11))
    keys = jax.vmap(jax.random.key)(jnp.arange(5))
    sampling = Sampling(0.7, top_k=6, top_p=0.9)
    together = autoregressive.sample(logits, keys, sampling)
    alone = [autoregressive.sample(logits[i : i + 1], keys[i : i + 1], sampling) for i in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}])
def test_impossible_sampling_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
