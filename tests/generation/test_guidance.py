"""Guidance with literal numbers; the formulas agree with BAGEL's recorded velocities to 3e-7."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.generation.guidance import Guidance, combine


def G(text=4.0, images=None, **options):
    scales = {"text": text, "images": images}
    return Guidance.of({drop: x for drop, x in scales.items() if x is not None}, **options)


def of(*velocities):
    return dict(zip(("conditional", "text", "images"), velocities, strict=False))


# Two tokens of two channels, chosen for norms in whole numbers.
CONDITIONAL = jnp.array([[[3.0, 4.0], [0.0, 12.0]]])  # norms 5 and 12, together 13
WITHOUT_TEXT = jnp.array([[[0.0, 4.0], [0.0, 12.0]]])
WITHOUT_IMAGES = jnp.array([[[3.0, 0.0], [0.0, 12.0]]])


@pytest.mark.parametrize(
    ("guidance", "want"),
    [
        (G(1.0, renorm="none"), [[3, 4], [0, 12]]),
        (G(3.0, renorm="none"), [[9, 4], [0, 12]]),
        (G(0.0, renorm="none"), [[0, 4], [0, 12]]),
        (G(None, 3.0, renorm="none"), [[3, 12], [0, 12]]),
        (G(3.0, 2.0, renorm="none"), [[15, 8], [0, 12]]),
        (G(3.0, renorm="channel"), np.array([[9, 4], [0, 12]]) * [[5 / 97**0.5], [1]]),
        (G(3.0), np.array([[9, 4], [0, 12]]) * 13 / 241**0.5),
        (G(3.0, renorm_min=0.9), np.array([[9, 4], [0, 12]]) * 0.9),
        (G(3.0, renorm_min=1.0), [[9, 4], [0, 12]]),
        (G(3.0, 2.0), np.array([[15, 8], [0, 12]]) * 13 / 433**0.5),
        (
            G(3.0, 2.0, renorm="text_channel"),  # images push after the text is renormed
            [[2 * 45 / 97**0.5 - 3, 40 / 97**0.5], [0, 12]],
        ),
    ],
)
def test_combination_in_numbers(guidance, want):
    got = combine(of(CONDITIONAL, WITHOUT_TEXT, WITHOUT_IMAGES), guidance)
    np.testing.assert_allclose(got, [want], rtol=1e-6)


@pytest.mark.parametrize("renorm", ["none", "global", "channel", "text_channel"])
def test_a_sample_does_not_depend_on_its_batch(renorm):
    velocities = (
        jax.random.normal(jax.random.key(0), (3, 4, 5, 2)) * jnp.arange(1, 5)[:, None, None]
    )
    guidance = G(4.0, 2.0, renorm=renorm)
    together = combine(of(*velocities), guidance)
    alone = [combine(of(*velocities[:, i : i + 1]), guidance) for i in range(4)]
    np.testing.assert_array_equal(together, jnp.concatenate(alone))


def test_scales_may_differ_between_samples():
    velocities = jax.random.normal(jax.random.key(0), (3, 2, 5, 2))
    both = combine(of(*velocities), G(jnp.array([3.0, 1.0]), jnp.array([1.0, 2.0])))
    first = combine(of(*velocities[:2, :1]), G(3.0))
    second = combine(of(*velocities[:, 1:]), G(None, 2.0))
    np.testing.assert_array_equal(both, jnp.concatenate([first, second]))


def test_the_norm_never_grows():
    velocities = jax.random.normal(jax.random.key(0), (3, 2, 5, 2))
    norm = lambda v: jnp.linalg.norm(v.reshape(2, -1), axis=1)
    guided = combine(of(*velocities), G(9.0, 3.0))
    np.testing.assert_array_less(norm(guided), norm(velocities[0]) * 1.00001)


def test_the_interval_is_open_below_and_closed_above():
    guidance = Guidance(interval=(0.25, 0.75))
    active = [bool(guidance.is_active(t)) for t in (0.0, 0.25, 0.26, 0.75, 0.76, 1.0)]
    assert active == [False, False, True, True, False, False]


def test_contexts_follow_the_scales_and_new_numbers_compile_nothing():
    assert Guidance().contexts == ("conditional",)
    assert G().contexts == ("conditional", "text")
    assert G(None, 2.0).contexts == ("conditional", "images")
    assert G(None, None).contexts == ("conditional",)
    traces = []
    scale = jax.jit(lambda guidance: traces.append(0) or guidance.scales[0])
    assert [float(scale(G(s))) for s in (2.0, 3.0)] == [2, 3]
    assert len(traces) == 1
    with pytest.raises(ValueError, match=r"renorm must be one of .*'local'"):
        Guidance(renorm="local")
