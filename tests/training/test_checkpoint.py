"""Checkpoints are whole or absent, hold everything, and fit another number of devices."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from unified import sharding
from unified.training.checkpoint import Checkpoints, Unsaved
from unified.training.misfit import Misfit
from unified.training.step import TrainState


def state(step: int, devices: int = 1) -> TrainState:
    mesh = sharding.make_mesh({"fsdp": -1}, jax.devices()[:devices])
    rows, whole = NamedSharding(mesh, P("fsdp")), sharding.replicated(mesh)
    weights = jax.device_put(jnp.arange(8.0) + step, rows)
    params = {"layers": {0: weights}, "frozen": jax.device_put(jnp.ones(2), whole)}
    trained = {"layers": {0: weights}, "frozen": None}
    key = jax.device_put(jax.random.key(step), whole)
    count = jax.device_put(jnp.array(step), whole)
    return TrainState(count, count, params, (trained,), trained, key)


def abstract(like: TrainState) -> TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)


def assert_same(got: TrainState, want: TrainState) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    data = lambda s: dataclasses.replace(s, key=jax.random.key_data(s.key))
    jax.tree.map(np.testing.assert_array_equal, data(got), data(want))


def test_everything_comes_back_on_one_device_and_on_eight(tmp_path, caplog):
    host = {"inputs": {"rows": [[3, 1], [2]]}, "window": {"loss": (1.25, 4.0)}}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(abstract(state(0))) is None
        checkpoints.save(7, state(7, devices=4), host, {})
    with Checkpoints(tmp_path) as checkpoints:
        for devices in (1, 8):
            found = checkpoints.restore(abstract(state(0, devices)))
            assert found.step == 7
            assert found.host == json.loads(json.dumps(host))
            assert_same(found.state, state(7))
            assert len(found.state.params["layers"][0].sharding.device_set) == devices
    assert not [r for r in caplog.records if "could not be restored" in r.getMessage()]


def test_what_the_run_changes_after_a_save_is_not_in_it(tmp_path):
    """Orbax writes in the background, while the next steps add to the window."""
    host = {"inputs": [0], "window": {"loss": (1.0, 1.0)}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), host, {})
        host["window"]["loss"] = (2.0, 2.0)
        host["inputs"].append(1)
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(abstract(state(0)))
    assert found.host == {"inputs": [0], "window": {"loss": [1.0, 1.0]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"layers": {0: jnp.ones(4)}}}, r"params/layers/0 is \(8,\) there and \(4,\) h"),
        ({"params": {"head": jnp.ones(2)}}, r"params/head is absent there and \(2,\) here"),
        ({"ema": None}, r"7 does not fit: ema/layers/0 is \(8,\) there and absent here"),
    ],
)
def test_a_checkpoint_of_another_state_is_not_restored(change, message, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), {}, {})
        checkpoints.wait()
        with pytest.raises(Misfit, match=message):
            checkpoints.restore(abstract(dataclasses.replace(state(0), **change)))


def test_the_newest_and_the_best_are_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: None, 4: 2.0, 5: 4.0}
    with Checkpoints(tmp_path, keep=2, best="validation/loss") as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(step, state(step), {}, {"validation/loss": loss} if loss else {})
            checkpoints.wait()
        assert checkpoints.steps == [2, 4, 5]
        assert checkpoints.newest.endswith("/5")
        with pytest.raises(ValueError, match="did you mean 'validation/los'"):
            checkpoints.save(6, state(6), {}, {"validation/los": 1.0})


@pytest.mark.parametrize("part", ["state/d", "host"])
def test_a_damaged_checkpoint_is_named_with_the_older_one(part, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # set back after the test
    with Checkpoints(tmp_path) as checkpoints:
        for step in (5, 7):
            checkpoints.save(step, state(step), {}, {})
    files = [file for file in (tmp_path / "7" / part).iterdir() if file.stat().st_size]
    for file in files:
        os.truncate(file, file.stat().st_size // 2)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            ValueError, match=r"/7 cannot be read .* delete it to go on from 5"
        ) as e:
            checkpoints.restore(abstract(state(0)))
        assert len(str(e.value)) < 400
        shutil.rmtree(tmp_path / "7")
    with Checkpoints(tmp_path) as checkpoints:
        assert_same(checkpoints.restore(abstract(state(0))).state, state(5))


@pytest.mark.parametrize("part", ["ema", "params", "step", "host"])
def test_what_is_not_as_it_was_saved_is_told_by_name(part, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), {"inputs": [1]}, {})
    metadata = tmp_path / "7/host/metadata"
    saved = json.loads(metadata.read_text())
    names = {
        "ema": "ema/layers/0",
        "params": "params/frozen",
        "step": "step",
        "host": "host/metadata",
    }
    if part == "host":
        saved["inputs"] = [2]
    else:
        saved["checksums"][names[part]] += "0"
    metadata.write_text(json.dumps(saved))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=f"not as they were saved: {names[part]}"):
            checkpoints.restore(abstract(state(0)))
        assert checkpoints.restore(abstract(state(0)), verify=False).step == 7


@pytest.mark.parametrize("host", ["[]", "null", '"x"', "3", "{"])
def test_metadata_that_are_no_fields_are_a_line(host, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), {}, {})
    (tmp_path / "7/host/metadata").write_text(host)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=r"/7 cannot be read .* delete it to begin anew"),
    ):
        checkpoints.restore(abstract(state(0)))


def test_a_checkpoint_that_was_renamed_is_told(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, state(7), {}, {})
    (tmp_path / "7").rename(tmp_path / "50")
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(
            ValueError, match=r"/50 cannot be read \(it holds step 7: has it been renamed"
        ),
    ):
        checkpoints.restore(abstract(state(0)))


def test_torn_twins_of_a_step_are_both_set_aside(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5), {}, {})
    for _ in range(3):
        (tmp_path / "8/state").mkdir(parents=True)
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.steps == [5]
    assert {p.name for p in tmp_path.iterdir()} == {"5", "8.torn", "8.torn1", "8.torn2"}


def test_a_failed_save_is_a_line_and_the_second_in_a_row_the_end(tmp_path, monkeypatch):
    told, good = [], ocp.CheckpointManager.save

    def save(manager, step, **kwargs):
        if step in (2, 4, 5):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return good(manager, step, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save)
    with Checkpoints(tmp_path, tell=told.append) as checkpoints:
        for step in (1, 2, 3, 4):  # a good one between, so that it goes on
            checkpoints.save(step, state(step), {}, {})
        with pytest.raises(Unsaved, match=r"step 5 .*No space left.* last good checkpoint: .*/3$"):
            checkpoints.save(5, state(5), {}, {})
        assert checkpoints.steps == [1, 3]
    assert [line[:25] for line in told] == [f"step {step} could not be saved" for step in (2, 4)]
    assert all("The run goes on until the next save fails too" in line for line in told)


def test_a_folder_that_is_gone_is_a_failed_save(tmp_path):
    told: list[str] = []
    with Checkpoints(tmp_path / "run/checkpoints", tell=told.append) as checkpoints:
        checkpoints.save(1, state(1), {}, {})
        assert not checkpoints.wait()
    assert len(told) == 1 and "last good checkpoint: none" in told[0]


def test_a_half_written_checkpoint_is_never_chosen(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5), {}, {})
    tmp = tmp_path / "9.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "5", tmp)
    (tmp / "_CHECKPOINT_METADATA").unlink()
    torn = shutil.copytree(tmp_path / "5", tmp_path / "8")  # a copy cut short, under a final name
    for mark in ("_CHECKPOINT_METADATA", "commit_success.txt"):
        (torn / mark).unlink(missing_ok=True)
    shutil.rmtree(torn / "host")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 5
        found = checkpoints.restore(abstract(state(0)))
        assert found.step == 5
        assert_same(found.state, state(5))


def test_the_siblings_of_a_write_that_failed_are_not_told_once_more(tmp_path, caplog):
    """Of many arrays that do not fit on a disk one error is raised, and told."""
    with Checkpoints(tmp_path):
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task>")
        logging.getLogger("asyncio").error("something else")
    assert caplog.messages == ["something else"]
