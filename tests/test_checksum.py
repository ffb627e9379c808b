"""A checksum is that of the numbers, wherever they lie; no change of a bit leaves it as it was."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unified import sharding
from unified.checksum import CHUNK, checksums, damaged, several

DTYPES = ("float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "uint16", "int32", "bool")


def some(dtype: str, shape: tuple[int, ...] = (4, 6)) -> np.ndarray:
    numbers = np.random.default_rng(0).normal(size=shape) * 50
    return (numbers > 0) if dtype == "bool" else numbers.astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_host_and_device_agree(dtype):
    array = some(dtype)
    [said] = checksums({"w": array}).values()
    assert said.startswith(f"{dtype}[4,6]:")
    assert checksums({"w": jnp.asarray(array)}) == {"w": said}


def test_numbers_of_64_bits_agree_too():
    for dtype in ("float64", "int64", "uint64"):
        array = some(dtype)
        with jax.enable_x64(True):
            assert checksums({"w": jnp.asarray(array)}) == checksums({"w": array})


def test_any_mesh_gives_the_same():
    array = some("float32", (8, 12))
    want = checksums({"w": array})
    mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2}, jax.devices())
    for spec in (P(), P("fsdp"), P(None, "tensor"), P("tensor", "fsdp")):
        assert checksums({"w": jax.device_put(array, NamedSharding(mesh, spec))}) == want


@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_every_single_bit_counts(dtype):
    array = some(dtype, (3, 2))
    want, size = checksums({"w": array}), array.nbytes
    for bit in range(8 * size):
        raw = bytearray(array.tobytes())
        raw[bit // 8] ^= 1 << bit % 8
        other = np.frombuffer(raw, array.dtype).reshape(array.shape)
        assert damaged({"w": other}, want) == ["w"]


def test_places_types_shapes_and_names_count():
    array = some("float32")
    want = checksums({"w": array})
    same_bits = array.view(np.int32)
    for other in (array[::-1], array.T, array.reshape(6, 4), same_bits, array[:3]):
        assert damaged({"w": other}, want) == ["w"]
    assert damaged({"v": array}, want) == ["v", "w"]


def test_arrays_longer_than_a_chunk_scalars_and_keys():
    tree = {"long": some("bfloat16", (CHUNK + 5,)), "one": np.float32(3), "none": np.zeros((0, 2))}
    placed = {name: jnp.asarray(x, x.dtype) for name, x in tree.items() if name != "none"}
    assert checksums(placed).items() <= checksums(tree).items()
    keys = {"a": jax.random.key(1)}
    assert not damaged(keys, checksums({"a": jax.random.key(1)}))
    assert damaged(keys, checksums({"a": jax.random.key(2)})) == ["a"]
    assert ml_dtypes.bfloat16 == tree["long"].dtype


def test_a_few_of_many_names_are_said():
    assert several(["a", "b"]) == "a, b"
    assert several([*"abcde"]) == "a, b, c and 2 more"
