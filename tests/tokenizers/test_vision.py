"""The vision encoder sees each picture whole, and nothing of its neighbours."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.lanes import PatchTokens
from unified.nn.position import grid
from unified.tokenizers.pixels import to_float
from unified.tokenizers.vision import Connector, VisionConfig, VisionEncoder

CFG = VisionConfig(embed_dim=16, mlp_dim=24, num_layers=2, num_heads=2, patch=2, side=4)


def patches(sizes, slots, seed=0):
    """One row of pictures of `sizes` (rows, columns) in patches, and padding."""
    n = [rows * columns for rows, columns in sizes]
    ends = np.cumsum(n)
    fill = lambda x: np.pad(x, [(0, slots - ends[-1])] + [(0, 0)] * (x.ndim - 1))[None]
    rng = np.random.default_rng(seed)
    return PatchTokens(
        tokens=None,
        patches=fill(rng.integers(0, 256, (ends[-1], CFG.patch**2 * 3), np.uint8)),
        grid=fill(np.concatenate([grid(*size) for size in sizes])),
        first=fill(np.repeat(ends - n, n)),
        last=fill(np.repeat(ends, n)),
    )


def make(cfg=CFG):
    return jax.jit(lambda: VisionEncoder(cfg, rngs=nnx.Rngs(0)))()


encode = jax.jit(lambda encoder, patches: encoder(patches))


def test_features_of_a_picture_are_those_it_has_alone():
    encoder, both = make(), patches([(2, 3), (4, 2)], 16)
    cut = lambda lo, hi: jax.tree.map(lambda a: a[:, lo:hi], both)
    alone = dataclasses.replace(cut(6, 14), first=np.zeros((1, 8), int), last=np.full((1, 8), 8))
    together = encode(encoder, both)
    np.testing.assert_allclose(together[:, 6:14], encode(encoder, alone), atol=1e-5)
    np.testing.assert_allclose(together[:, :6], encode(encoder, cut(0, 6)), atol=1e-5)


def test_every_patch_sees_its_whole_picture_only():
    encoder, both = make(), patches([(2, 2), (1, 3)], 8)

    def features(pixels):
        return encoder(dataclasses.replace(both, patches=pixels))[0] @ jnp.arange(
            16.0
        )  # norms fix the sum

    jacobian = jax.jit(jax.jacrev(features))(both.patches.astype(np.float32))
    seen = np.abs(jacobian[:, 0]).max(-1) > 0
    want = np.zeros((8, 8), bool)
    want[:4, :4] = want[4:7, 4:7] = want[7, 7] = True
    np.testing.assert_array_equal(seen, want)


def test_positions_are_rows_of_the_table_or_sinusoids():
    encoder = make()
    places = jnp.array([[[0, 0], [2, 3], [3, 0]]])
    np.testing.assert_array_equal(
        encoder.positions(places)[0], encoder.position[np.array([0, 11, 12])]
    )
    free = make(dataclasses.replace(CFG, position="sincos"))
    assert free.position is None and free.positions(places).shape == (1, 3, 16)
    assert CFG.fits(8, 8) and not CFG.fits(2, 10)
    assert free.cfg.fits(2, 10)


def test_bytes_become_numbers_from_minus_one_to_one():
    np.testing.assert_allclose(
        to_float(jnp.array([0, 51, 255], jnp.uint8)), [-1, -0.6, 1], atol=1e-6
    )


def test_the_connector_adds_the_place_after_its_mlp():
    connector = Connector(16, 8, rngs=nnx.Rngs(0))
    x, places = jnp.ones((1, 2, 16)), jnp.array([[[0, 0], [0, 1]]])
    y = connector(x, places)
    np.testing.assert_allclose(
        y[0, 0] - connector.mlp(x)[0, 0], [0, 0, 1, 1, 0, 0, 1, 1], atol=1e-5
    )
    assert float(jnp.abs(y[0, 1] - y[0, 0]).max()) > 0.5


def test_impossible_geometry_says_why():
    with pytest.raises(ValueError, match="num_heads=3 must divide embed_dim=16"):
        VisionConfig(embed_dim=16, mlp_dim=24, num_layers=2, num_heads=3)
    with pytest.raises(ValueError, match="position='rope': choose"):
        VisionConfig(embed_dim=16, mlp_dim=24, num_layers=2, num_heads=2, position="rope")
    with pytest.raises(ValueError, match="4 to divide embed_dim=6"):
        VisionConfig(embed_dim=6, mlp_dim=24, num_layers=2, num_heads=2, position="sincos")
