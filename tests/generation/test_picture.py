"""Sampling pictures under guidance, with velocities that are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.generation.drawing import Drawing
from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.processes import rectified_flow
from unified.sequence import Segment

pytestmark = pytest.mark.usefixtures("keep_compiled")

TARGETS = jnp.array([2.0, -1.0, 0.5])  # of the conditional row and the two dropped ones


def towards(targets):
    """Rows in order of contexts, each pulled straight to its own point."""

    def velocity(x, t):
        own = jnp.repeat(targets, 2)[: x.shape[0]]  # two samples
        return (x - own[:, None, None]) / t

    return velocity


@pytest.fixture
def noise():
    return draw_noise(jnp.array([7, 8]), (3, 4))


def test_noise_depends_on_the_seed_alone(noise):
    np.testing.assert_array_equal(noise[1:], draw_noise(jnp.array([8]), (3, 4)))
    assert not np.any(noise[0] == noise[1])


@pytest.mark.parametrize(
    ("guidance", "want"),
    [
        (None, 2.0),
        (Guidance(), 2.0),
        (Guidance.of({"text": 1.0}, renorm="none"), 2.0),
        (Guidance.of({"text": 3.0}, interval=(0.0, 1.0), renorm="none"), 8.0),  # -1 + 3 (2 + 1)
        (
            Guidance.of({"text": 3.0, "images": 2.0}, interval=(0.0, 1.0), renorm="none"),
            15.5,
        ),  # 0.5 + 2 (8 - 0.5)
        (Guidance.of({"text": 3.0, "images": 2.0}, interval=None, renorm="none"), 15.5),
    ],
)
def test_guidance_moves_the_point_that_is_reached(noise, guidance, want):
    times = rectified_flow.schedule(5, 3.0)
    got = jax.jit(generate_picture, static_argnums=0)(towards(TARGETS), noise, times, guidance)
    np.testing.assert_allclose(got, jnp.full((2, 3, 4), want), rtol=1e-5)


def test_dropped_contexts_are_evaluated_only_inside_the_interval(noise):
    rows = []

    def velocity(x, t):
        jax.debug.callback(lambda t: rows.append((round(float(t), 2), x.shape[0])), t)
        return jnp.zeros_like(x)

    guidance = Guidance.of({"text": 2.0, "images": 2.0}, interval=(0.25, 0.75))
    jax.block_until_ready(generate_picture(velocity, noise, rectified_flow.schedule(5), guidance))
    jax.effects_barrier()
    assert sorted(rows, reverse=True) == [(1.0, 2), (0.75, 6), (0.5, 6), (0.25, 2)]


def test_guidance_at_all_times_compiles_no_step_without_it(noise):
    """Which halves what a CPU compiles, and the default of a model draws so."""
    times = rectified_flow.schedule(3)
    text = lambda interval: str(
        jax.make_jaxpr(lambda n: generate_picture(towards(TARGETS), n, times, interval))(noise)
    )
    assert "cond[" in text(Guidance.of({"text": 2.0}, interval=(0.0, 0.9)))
    assert "cond[" not in text(Guidance.of({"text": 2.0}, interval=None))
    assert Drawing().guidance([[Segment("a dog")]]).interval is None
    assert Drawing(interval=(0.0, 0.9)).guidance([[Segment("a dog")]]).interval == (0.0, 0.9)
