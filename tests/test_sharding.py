"""Logical names lay arrays out over the mesh; mistakes in names and sizes are errors."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from unified import sharding

SIZES = {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("names", "shape", "want"),
    [
        (("batch", "length", "embed"), (8, 3, 4), P(("data", "fsdp"), None, None)),
        (
            ("batch", "length", "heads", "head_dim"),
            (8, 3, 2, 4),
            P(("data", "fsdp"), None, "tensor", None),
        ),
        (("layers", "embed", "mlp"), (3, 4, 8), P(None, "fsdp", "tensor")),
        (("vocab", "embed"), (6, 4), P("tensor", "fsdp")),
        (("embed",), (3,), P(None)),
        ((None, "embed"), (7, 4), P(None, "fsdp")),
    ],
)
def test_names_choose_mesh_axes_each_once(names, shape, want):
    assert sharding.partition(names, shape, SIZES) == want


def test_tensor_axis_that_does_not_divide_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"mesh\.tensor=2 does not divide heads=3"):
        sharding.partition(("heads",), (3,), SIZES)


def test_constrain_is_the_identity_without_a_mesh_and_lays_out_with_one():
    x = jnp.ones((8, 3, 4))
    assert sharding.constrain(x, "batch", "length", None) is x
    with jax.set_mesh(sharding.make_mesh({"fsdp": 4, "tensor": 2})):
        y = jax.jit(lambda x: sharding.constrain(2 * x, "batch", "length", "mlp"))(x)
    assert y.sharding.spec == P("fsdp", None, "tensor")
    assert y.addressable_shards[0].data.shape == (2, 3, 2)


def test_unknown_axis_name_fails_with_and_without_a_mesh():
    with pytest.raises(KeyError, match="lenght"):
        sharding.constrain(jnp.ones((8, 3)), "batch", "lenght")
    with pytest.raises(ValueError, match="1 axis names"):
        sharding.constrain(jnp.ones((8, 3)), "batch")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"fdsp": 8}, "unknown mesh axis 'fdsp'; did you mean 'fsdp'"),
        ({"fsdp": 3}, "does not fit 8 devices"),
        ({"data": -1, "fsdp": -1}, "at most one is -1"),
        ({"tensor": 3, "data": -1}, "does not fit 8 devices"),
    ],
)
def test_impossible_mesh_says_what_to_change(shape, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(shape)


def test_rest_of_the_devices_goes_to_the_axis_that_asks_for_it():
    mesh = sharding.make_mesh({"data": 2, "fsdp": -1})
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    assert sharding.num_row_shards(mesh) == 8


class Model(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs, axes=("layers", "embed", "mlp")):
        self.up = nnx.Param(jnp.ones((3, 4, 8)), axes=axes)
        self.plain = nnx.Param(jnp.ones(4))


def test_parameters_lie_as_their_axes_say_and_plain_ones_everywhere():
    mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
    model = nnx.eval_shape(lambda: Model(rngs=nnx.Rngs(0)))
    found = sharding.param_shardings(model, mesh)
    assert found["up"].spec == P(None, "fsdp", "tensor")
    assert found["plain"].is_fully_replicated
    axes = sharding.axes(model)
    assert axes["up"].names == ("layers", "embed", "mlp")
    assert (axes["up"].own, axes["plain"].own) == ((1, 2), (0,))


def test_misspelt_parameter_axis_names_the_parameter():
    with pytest.raises(KeyError) as error:
        sharding.param_shardings(
            Model(rngs=nnx.Rngs(0), axes=("layers", "embde", "mlp")),
            sharding.make_mesh({"data": 8}),
        )
    assert "in parameter up" in error.value.__notes__[0]
