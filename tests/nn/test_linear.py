"""Products with weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.nn.linear import contract

SHAPES = {
    "vector": ((3,), (3, 4), 1),
    "to heads": ((2, 5, 3), (3, 4, 6), 1),
    "from heads": ((2, 5, 4, 6), (4, 6, 3), 2),
}


@pytest.mark.parametrize("shapes", SHAPES)
def test_contract_is_tensordot_with_its_gradients(shapes):
    x_shape, w_shape, num = SHAPES[shapes]
    x, w = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate((x_shape, w_shape)))
    value, pull = jax.vjp(lambda x, w: contract(x, w, num), x, w)
    wanted, wanted_pull = jax.vjp(lambda x, w: jnp.tensordot(x, w, num), x, w)
    g = jnp.cos(wanted)
    np.testing.assert_array_equal(value, wanted)
    for got, want in zip(pull(g), wanted_pull(g), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
