"""Layers against their formulas, written out with numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.nn import position
from unified.nn.attention import Keys, Mask, attend, join
from unified.nn.linear import Linear
from unified.nn.mlp import MLP, GatedMLP
from unified.nn.norm import LayerNorm, RMSNorm
from unified.nn.stack import normal, param, scaled, scan, stack


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_rms_norm_divides_by_the_root_mean_square():
    x, norm = draw(2, 3, 8), RMSNorm(8, 1e-3, rngs=nnx.Rngs(0))
    norm.scale.set_value(jnp.arange(8.0))
    want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * np.arange(8)
    np.testing.assert_allclose(norm(x), want, atol=1e-5)


def test_layer_norm_centres_too():
    x, norm = draw(2, 3, 8), LayerNorm(8, 1e-3, rngs=nnx.Rngs(0))
    norm.bias.set_value(jnp.arange(8.0))
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(norm(x), want + np.arange(8), atol=1e-5)


@pytest.mark.parametrize("make", [RMSNorm, LayerNorm])
def test_norms_of_large_bfloat16_numbers_do_not_overflow(make):
    x = jnp.full((1, 256), 3e19, jnp.bfloat16).at[0, 0].set(0)
    y = make(256, 1e-6, rngs=nnx.Rngs(0))(x / 4)
    assert y.dtype == jnp.bfloat16 and bool(jnp.isfinite(y.astype(jnp.float32)).all())


def test_rotation_turns_pairs_half_a_head_apart():
    x = draw(1, 2, 1, 4)
    y = position.rotate(x, position.rope(jnp.array([[0, 5]]), 4, theta=100.0))
    np.testing.assert_allclose(y[0, 0], x[0, 0], atol=1e-6)
    a, b, c, d = x[0, 1, 0]
    one, two = 5.0, 5.0 / 10
    want = [
        a * np.cos(one) - c * np.sin(one),
        b * np.cos(two) - d * np.sin(two),
        c * np.cos(one) + a * np.sin(one),
        d * np.cos(two) + b * np.sin(two),
    ]
    np.testing.assert_allclose(y[0, 1, 0], want, atol=1e-5)


def test_time_features_are_cosines_then_sines_of_the_bare_time():
    got = position.sincos_time(jnp.array([0.25]), 4)
    want = [np.cos(0.25), np.cos(0.0025), np.sin(0.25), np.sin(0.0025)]
    np.testing.assert_allclose(got, [want], atol=1e-6)


def test_grid_features_put_the_column_first_and_sines_before_cosines():
    got = position.sincos_2d(jnp.array([[2, 3]]), 8)
    row, column = np.array([2, 0.02]), np.array([3, 0.03])
    want = np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)])
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    np.testing.assert_array_equal(position.grid(2, 3)[3:], [[1, 0], [1, 1], [1, 2]])
    with pytest.raises(ValueError, match="a width that 4 divides, not 6"):
        position.sincos_2d(jnp.zeros((1, 2), int), 6)


def test_with_a_small_theta_every_feature_tells_places_of_a_small_picture_apart():
    places = position.grid(8, 8)
    spread = lambda **theta: jnp.std(position.sincos_2d(places, 192, **theta), 0)
    assert spread(theta=16.0).min() > 0.02
    assert jnp.mean(spread() < 0.02) > 0.5


def test_mlps_are_their_formulas():
    x, sigmoid = draw(1, 2, 4), lambda x: 1 / (1 + np.exp(-x))
    gated = GatedMLP(4, 6, rngs=nnx.Rngs(0))
    g, u, d = (np.asarray(m.kernel[...]) for m in (gated.gate, gated.up, gated.down))
    np.testing.assert_allclose(gated(x), (x @ g * sigmoid(x @ g) * (x @ u)) @ d, atol=1e-5)
    plain = MLP(4, 6, out_dim=5, rngs=nnx.Rngs(0))
    plain.fc1.bias.set_value(jnp.arange(6.0))
    h = x @ np.asarray(plain.fc1.kernel[...]) + np.arange(6)
    h = h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))) / 2
    np.testing.assert_allclose(plain(x), h @ np.asarray(plain.fc2.kernel[...]), atol=1e-5)


def test_attention_over_groups_is_attention_over_all_keys():
    q, clock = draw(1, 5, 4, 8), jnp.array([[0, 1, 2, 3, 90]])
    start, stop = jnp.array([[0, 1, 0, 2, 3, 0]]), jnp.array([[4, 2, 4, 4, 4, 0]])
    parts = [slice(0, 2), slice(2, 5), slice(5, 6)]
    groups = [Keys(draw(1, n, 2, 8, seed=n), draw(1, n, 2, 8, seed=-n % 99)) for n in (2, 3, 1)]
    masks = [Mask.of(clock, start[:, part], stop[:, part]) for part in parts]
    want = attend(q, [join(groups)], [Mask.of(clock, start, stop)])
    np.testing.assert_allclose(attend(q, groups, masks), want, atol=1e-6)
    assert not want[0, 4].any()


def test_parameters_know_their_axes_and_stacks_add_one():
    layers = stack(lambda r: Linear(4, 6, ("embed", "mlp"), rngs=r), 3, "layers", rngs=nnx.Rngs(0))
    assert layers.kernel.shape == (3, 4, 6)
    assert layers.kernel.axes == ("layers", "embed", "mlp")
    assert layers.bias.axes == ("layers", "mlp")
    assert len({float(layers.kernel[i, 0, 0]) for i in range(3)}) == 3  # drawn independently
    with pytest.raises(AssertionError):
        param(normal(1.0), nnx.Rngs(0), (2, 3), ("embed",))


def test_a_scan_applies_the_layers_in_order():
    layers = stack(lambda r: Linear(4, 4, (None, None), rngs=r), 3, "layers", rngs=nnx.Rngs(0))
    x = draw(2, 4)
    y, seen = scan(lambda x, layer: (layer(x), x.sum()), x, layers)
    want = x
    for kernel in np.asarray(layers.kernel[...]):
        want = want @ kernel
    np.testing.assert_allclose(y, want, atol=1e-5)
    assert seen.shape == (3,)


def test_initial_weights_keep_the_size_of_their_input():
    kernel = scaled(400)(jax.random.key(0), (400, 300))
    assert float(kernel.std()) == pytest.approx(0.05, rel=0.01) and kernel.dtype == jnp.float32
