"""Signs, schedules and time direction of rectified flow, against the numbers of BAGEL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.processes import rectified_flow


def test_schedule_is_bagels():
    np.testing.assert_allclose(
        rectified_flow.schedule(10, 3.0),
        [1, 0.96, 0.9130435, 0.8571429, 0.7894737, 0.7058824, 0.6, 0.4615385, 0.2727273, 0],
        atol=1e-6,
    )
    np.testing.assert_allclose(rectified_flow.schedule(5), [1, 0.75, 0.5, 0.25, 0])
    with pytest.raises(ValueError, match="at least 2 points"):
        rectified_flow.schedule(1)


def test_shifted_sigmoid_times_are_bagels():
    logits = jnp.array([0.12794872, -jnp.inf, -1.5284735, -0.594468, 0.06633037])
    time = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(
        rectified_flow.shift_time(time, 1.0),
        [0.5319436, 0, 0.17821714, 0.35561037, 0.5165765],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        rectified_flow.shift_time(time, 4.0),
        [0.81968915, 0, 0.46451497, 0.68822336, 0.81040204],
        atol=1e-6,
    )


def test_training_times_are_logit_normal():
    time = rectified_flow.times(jax.random.key(0), (20_000,), 3.0)
    logits = jnp.log(time / (1 - time)) - jnp.log(3.0)  # the shift adds log(s) to the logit
    np.testing.assert_allclose((logits.mean(), logits.std()), (0, 1), atol=0.03)


@pytest.mark.parametrize("first", [0, 1, 7, 100])
def test_a_few_spread_times_in_a_row_reach_every_quarter(first):
    few = rectified_flow.spread(first, 5)
    assert set(np.floor(4 * few)) == {0, 1, 2, 3}
    gaps = np.diff(np.sort(rectified_flow.spread(first, 100)))
    assert gaps.min() > 0 and gaps.max() < 0.019
    np.testing.assert_array_equal(
        rectified_flow.spread(first, 9)[2:5], rectified_flow.spread(first + 2, 3)
    )


def test_corrupt_goes_from_data_to_noise():
    key, clean = jax.random.key(0), jax.random.normal(jax.random.key(1), (2, 3, 4, 5))
    time = jnp.array([[0.0, 1.0, 0.25], [0.5, 0.0, 1.0]])
    x, velocity = rectified_flow.corrupt(key, clean, time)
    noise = velocity + clean
    np.testing.assert_array_equal(x[time == 0], clean[time == 0])
    np.testing.assert_allclose(x[time == 1], noise[time == 1], atol=1e-6)
    np.testing.assert_allclose(x[0, 2], 0.75 * clean[0, 2] + 0.25 * noise[0, 2], atol=1e-6)
    np.testing.assert_allclose((noise.mean(), noise.std()), (0, 1), atol=0.2)


def test_loss_is_a_sum_over_tokens_of_a_mean_over_channels():
    target = jnp.zeros((1, 3, 4, 5))  # three pictures of four tokens
    prediction = target.at[0, 0].set(2.0).at[0, 1, 0, :].set(3.0).at[0, 2].set(100.0)
    total, count = rectified_flow.loss(prediction, target, jnp.array([[1, 1, 0]]))
    assert (float(total), float(count)) == (4 * 4.0 + 9.0, 8.0)


def test_buckets_split_the_loss_by_time():
    keys = jax.random.split(jax.random.key(0), 3)
    prediction, target = (jax.random.normal(k, (2, 5, 4, 3)) for k in keys[:2])
    weight = jnp.ones((2, 5)).at[1, 4].set(0)
    time = jnp.array([[0.0, 0.1, 0.25, 0.26, 0.5], [0.51, 0.75, 0.76, 1.0, 1.0]])
    buckets = rectified_flow.loss_by_time(prediction, target, weight, time)
    assert {name: int(count) for name, (_, count) in buckets.items()} == {
        "t0.00-0.25": 12,
        "t0.25-0.50": 8,
        "t0.50-0.75": 8,
        "t0.75-1.00": 8,
    }
    total, _ = rectified_flow.loss(prediction, target, weight)
    np.testing.assert_allclose(sum(s for s, _ in buckets.values()), total, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_point_is_reached_exactly_in_one_step_or_many(shift):
    point, noise = jnp.array([[2.0, -1.0]]), jax.random.normal(jax.random.key(0), (3, 2))
    velocity = lambda x, t: (x - point) / t  # of the straight paths that end in one point
    for steps in (2, 7):
        got = rectified_flow.sample(velocity, noise, rectified_flow.schedule(steps, shift))
        np.testing.assert_allclose(got, jnp.broadcast_to(point, (3, 2)), atol=1e-5)


def test_a_gaussian_is_transported_to_itself_scaled():
    """Data N(m, s^2): the exact flow map is x_0 = m + s x_1, the limit of many steps."""
    mean, deviation = 3.0, 0.5

    def velocity(x, t):  # E[noise - x_0 | x_t = x]
        variance = (1 - t) ** 2 * deviation**2 + t**2
        return (t - (1 - t) * deviation**2) / variance * (x - (1 - t) * mean) - mean

    noise = jnp.linspace(-2, 2, 5)
    got = rectified_flow.sample(velocity, noise, rectified_flow.schedule(1000))
    np.testing.assert_allclose(got, mean + deviation * noise, atol=5e-3)


def test_the_last_time_is_not_evaluated():
    times = rectified_flow.schedule(4, 2.0)
    got = rectified_flow.sample(lambda x, t: 1 / t, jnp.zeros(1), times)
    want = -jnp.sum((times[:-1] - times[1:]) / times[:-1])  # infinite if t = 0 were used
    np.testing.assert_allclose(got[0], want, rtol=1e-6)
