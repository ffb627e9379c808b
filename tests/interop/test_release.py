"""A released model comes back as it was saved, and what does not fit is named."""

import json
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from unified.interop import release


@pytest.fixture
def params():
    return {
        "embed": {"table": jnp.arange(6.0).reshape(2, 3) / 7},
        "runs": {0: {"gate": jnp.ones((2, 1, 3))}, 1: {"gate": jnp.zeros((1, 1, 3)).mT}},
        "steps": jnp.asarray(3, jnp.int32),
    }


def test_a_release_loads_as_it_was_saved(params, tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    config = ml_collections.ConfigDict({"model": {"widths": (1, 2)}, "name": "tiny"})
    release.save(tmp_path / "out", params, config, files=[tokenizer])

    loaded, loaded_config = release.load(tmp_path / "out")
    assert loaded_config == {"model": {"widths": (1, 2)}, "name": "tiny"}
    assert (tmp_path / "out/tokenizer.json").read_text() == "{}"
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded))
    assert loaded["runs"].keys() == {"0", "1"}
    merged = release.merge(params, loaded)
    jax.tree.map(np.testing.assert_array_equal, merged, params)  # same structure, int keys too
    assert merged["steps"].dtype == np.int32


def test_bfloat16_storage_halves_the_weights_and_merge_restores_the_dtype(params, tmp_path):
    release.save(tmp_path, params, {}, storage="bfloat16")
    loaded, _ = release.load(tmp_path)
    assert loaded["embed"]["table"].dtype == jnp.bfloat16
    assert loaded["steps"].dtype == np.int32

    merged = release.merge(jax.eval_shape(lambda: params), loaded)
    assert merged["embed"]["table"].dtype == np.float32
    np.testing.assert_allclose(merged["embed"]["table"], params["embed"]["table"], rtol=2**-8)


def test_a_flipped_bit_is_told_by_name_unless_nobody_asks(params, tmp_path):
    release.save(tmp_path, params, {})
    weights = tmp_path / release.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[content.index(np.float32(5 / 7).tobytes())] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged: not as they were saved: embed/table$"):
        release.load(tmp_path)
    release.load(tmp_path, verify=False)
    (tmp_path / release.CHECKSUMS).unlink()  # as of a release that never had any
    release.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{]", '{"steps": 3}', "null"])
def test_checksums_that_are_none_are_told(text, params, tmp_path):
    release.save(tmp_path, params, {})
    (tmp_path / release.CHECKSUMS).write_text(text)
    with pytest.raises(ValueError, match=r"is damaged: (checksums.json holds no|not as they were)"):
        release.load(tmp_path)


def test_the_releases_that_ship_have_checksums():
    for name in ("emoji", "autoencoder"):
        assert (release.resolve(f"unified/checkpoints/{name}") / release.CHECKSUMS).exists()


def test_merge_names_the_parameters_that_do_not_fit_in_one_line(params):
    loaded = {"embed": {"table": np.zeros((2, 4))}, "runs": params["runs"], "extra": np.zeros(1)}
    with pytest.raises(ValueError) as caught:
        release.merge(params, loaded, "some/folder")
    assert str(caught.value) == (
        "the parameters of 'some/folder' do not fit the model: missing: steps (); unexpected: "
        "extra (1,); misshaped: embed/table is (2, 4), the model needs (2, 3)"
    )
    with pytest.raises(ValueError, match=r"missing: runs/1/gate \(1, 3, 1\); and 1 more$"):
        release.merge(params, {})


@pytest.mark.parametrize("kind", [np.int32, np.bool_, np.uint8])
def test_whole_numbers_and_booleans_are_no_floats(kind, params):
    loaded = {**params, "embed": {"table": np.zeros((2, 3), kind)}}
    with pytest.raises(ValueError, match=r"mistyped: embed/table is .*, the model needs float32"):
        release.merge(params, loaded)


@pytest.mark.parametrize(
    ("value", "dtype"), [("nan", np.float32), ("-inf", jnp.bfloat16), (1e39, np.float64)]
)
def test_numbers_that_are_not_finite_are_refused_by_name(value, dtype, params):
    table = np.zeros((2, 3), dtype)
    table[1, 2] = float(value)
    with pytest.raises(ValueError, match=r"hold numbers that are not finite: embed/table$"):
        release.merge(params, {**params, "embed": {"table": table}})


def test_missing_and_damaged_files_are_named(params, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*no such folder"):
        release.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(FileNotFoundError, match=r"it has no model\.safetensors"):
        release.load(tmp_path)
    release.save(tmp_path, params, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match="damaged"):
        release.load(tmp_path)


@pytest.mark.parametrize("text", ['{"model": ', "[]", ""])
def test_a_damaged_config_is_named(text, params, tmp_path):
    release.save(tmp_path, params, {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is damaged .*: copy it again"):
        release.load(tmp_path)


def test_a_config_of_any_size_is_not_read(params, tmp_path):
    release.save(tmp_path, params, {})
    os.truncate(tmp_path / "config.json", 2**40)  # of nothing: it takes no place
    with pytest.raises(ValueError, match=r"config\.json is damaged \(it is larger than"):
        release.load_config(tmp_path)


def test_a_package_path_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert release.resolve("unified/interop/release.py").read_text().startswith('"""A released')
    (tmp_path / "unified").mkdir()
    assert release.resolve("unified") == release.epath.Path("unified")  # an existing path wins


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_checksums_that_are_no_file_are_damage(make, tmp_path):
    release.save(tmp_path, {"a": np.ones(2, np.float32)}, {})
    (tmp_path / release.CHECKSUMS).unlink()
    make(tmp_path / release.CHECKSUMS)
    with pytest.raises(ValueError, match=r"is damaged: .*checksums\.json is not a file"):
        release.load(tmp_path)


def test_a_file_of_weights_is_not_read_unless_its_size_is_as_it_says(tmp_path):
    release.save(tmp_path, {"a": np.ones(2, np.float32)}, {})
    weights = tmp_path / release.WEIGHTS
    said = weights.stat().st_size
    os.truncate(weights, 2**40)  # of nothing more: it takes no place
    with pytest.raises(ValueError, match=f"has {2**40} bytes, its header says {said}$"):
        release.load(tmp_path)
    weights.write_bytes(b"")
    os.truncate(weights, 2**40)
    with pytest.raises(ValueError, match=r"the header of model\.safetensors cannot be read"):
        release.load(tmp_path)
    release.save(tmp_path, {"a": np.ones(2, np.float32)}, {})
    os.truncate(tmp_path / release.CHECKSUMS, 2**40)
    with pytest.raises(ValueError, match=r"holds no checksums: it is larger than"):
        release.load(tmp_path)


def test_a_long_name_is_shortened(params, tmp_path):
    release.save(tmp_path, {"x" * 5000: np.ones(2, np.float32)}, {"y" * 5000 + ".z": 1})
    with pytest.raises(ValueError, match="is damaged") as caught:
        release.load(tmp_path)
    assert len(str(caught.value)) < 1500
    release.save(tmp_path, {"x" * 5000: np.ones(2, np.float32)}, {})
    with pytest.raises(ValueError, match="do not fit") as caught:
        release.merge(params, release.load(tmp_path)[0])
    assert len(str(caught.value)) < 1000
