"""The program: killed, interrupted and resumed runs are one run; it stops for what it should."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import train
from tests import xla
from unified.interop import model as models
from unified.interop import release
from unified.tokenizers.text import TextTokenizer
from unified.training import stop
from unified.training.metrics import read
from unified.training.progress import Display
from unified.training.stop import Stop

ROOT = Path(__file__).parents[2]
# Checkpoints fall between log lines, so what a log line has gathered must survive as well.
RUN = ("--config", "tests/training/toy_config.py", "--config.total_steps=18",
       "--config.checkpoint.every=4", "--config.log_every=3", "--config.checkpoint.best=",
       "--config.validation.every=0")  # fmt: skip

TOY = ("loss", "text", "size", "text/first", "grad_norm", "learning_rate")


@pytest.fixture
def start():
    """`start(workdir, *args, devices=, **env)`: the program as a process, ended with the test."""
    started = []

    def begin(workdir: Path, *args: str, devices: int = 1, **env: str) -> subprocess.Popen:
        kept = xla.KEPT if devices == 1 else {}
        process = subprocess.Popen(
            [sys.executable, "train.py", *RUN, "--workdir", str(workdir), *args],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": xla.line(devices), **kept, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 400
    while not any(line["step"] >= step for line in read(workdir / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def losses(workdir: Path, names: Sequence[str] = TOY) -> dict[int, list[float]]:
    """What every log line says of the training, by step; each step once."""
    lines = read(workdir / "metrics.jsonl")
    found = {line["step"]: [line[name] for name in names] for line in lines}
    assert len(found) == len(lines)
    return found


def run(workdir: Path, *args: str) -> int:
    return train.main([*RUN, "--workdir", str(workdir), *args])


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_losses(start, tmp_path):
    whole, broken = start(tmp_path / "whole"), tmp_path / "broken"
    slow = "--config.data.delay=0.15"

    process = start(broken, slow)
    wait_for_step(process, broken, 9)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    shutil.copytree(broken, tmp_path / "moved")

    process = start(broken, slow)
    wait_for_step(process, broken, 12)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert "goes on after step" in output
    assert "SIGTERM: saved" in output

    assert "goes on after step" in finish(start(broken))
    finish(whole)
    want = losses(tmp_path / "whole")
    assert list(want) == [3, 6, 9, 12, 15, 18]
    assert losses(broken) == want

    assert run(tmp_path / "moved") == 0  # in this process, on eight devices
    moved = losses(tmp_path / "moved")
    np.testing.assert_allclose(list(moved.values()), list(want.values()), rtol=1e-4)


def test_a_run_that_breaks_off_resumes_with_the_same_losses(tmp_path, monkeypatch):
    """In this process; the slow tests kill one."""
    whole, broken, advance = tmp_path / "whole", tmp_path / "broken", Display.advance

    def until(self, step, fed):
        if step == 11:
            raise KeyboardInterrupt
        advance(self, step, fed)

    with monkeypatch.context() as patched:
        patched.setattr(Display, "advance", until)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
    assert sorted(os.listdir(broken / "checkpoints")) == ["4", "8"]
    assert run(broken) == run(whole) == 0
    assert list(losses(broken)) == [3, 6, 9, 12, 15, 18]
    assert losses(broken) == losses(whole)


@pytest.mark.slow
def test_a_killed_run_of_the_default_recipe_resumes_to_the_bit(start, tmp_path):
    """Muon, averages, and rows that hold examples back: all of it is in the checkpoint."""
    small = ("--config", "tests/recipes/small_config.py", "--config.log_every=1")
    slow, broken = "--config.data.train.emoji.delay=0.05", tmp_path / "broken"
    finish(start(tmp_path / "whole", *small))
    process = start(broken, *small, slow)
    while not (broken / "checkpoints" / "4").exists():  # it is renamed when it is complete
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert "goes on after step" in finish(start(broken, *small))
    names = ("loss", "text/nll", "vae/flow", "grad_norm", "learning_rate", "input/fill")
    want = losses(tmp_path / "whole", names)
    assert list(want) == list(range(1, 19))
    assert losses(broken, names) == want


def test_a_loss_that_is_not_finite_stops_with_its_step_and_the_last_good_checkpoint(
    tmp_path, capsys
):
    assert run(tmp_path, "--config.data.poison=6", "--config.log_every=1") == 1
    said = capsys.readouterr().out
    assert "step 6: grad_norm, loss" in said
    assert f"the last good checkpoint: {tmp_path / 'checkpoints' / '4'}" in said
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["4"]
    assert max(losses(tmp_path)) == 5


def test_too_many_bad_records_stop_the_run_in_two_lines(tmp_path, capfd):
    assert run(tmp_path, "--config.data.bad=6") == 1
    said = capfd.readouterr()
    assert said.out.splitlines()[-2:] == [
        "4 bad records, and max_bad_records is 3; the last is a.jsonl:7. Nothing saved; the last "
        f"good checkpoint: {tmp_path / 'checkpoints' / '4'}",
        "mend the records or raise config.data.max_bad_records; the same command goes on there",
    ]
    assert not said.err
    assert run(tmp_path) == 0
    assert "goes on after step 4" in capfd.readouterr().out


def test_a_run_that_goes_on_has_what_is_left_of_its_minutes(tmp_path, capsys, monkeypatch):
    clock = iter(range(0, 100000, 2))  # of seconds: the time passes with every look at it
    monkeypatch.setattr(stop, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    limited = ("--config.max_minutes=2", "--config.total_steps=1000", "--config.log_every=1")
    monkeypatch.setattr(Stop, "signalled", lambda self, step: "SIGTERM" if step == 5 else None)
    assert run(tmp_path, *limited) == 0
    assert "goes on" in capsys.readouterr().out
    assert max(losses(tmp_path)) == 5
    assert run(tmp_path, *limited) == 0
    ended = max(losses(tmp_path))
    assert "come to an end by step" in capsys.readouterr().out
    assert 5 < ended <= 2 * 60 / 2
    assert run(tmp_path, *limited) == 0
    assert "max_minutes=2 are over: raise it to train on" in capsys.readouterr().out
    assert max(losses(tmp_path)) == ended


def test_a_run_with_a_time_limit_ends_by_itself_and_its_release_loads(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    limited = ("--config.total_steps=100000", "--config.max_minutes=0.01")
    validated = ("--config.validation.every=2", "--config.checkpoint.every=100000")
    mine = shutil.copy("unified/tokenizers/emoji_bpe.json", tmp_path / "mine.json")
    own = ("--config.data.delay=0.1", f"--config.tokenizer={mine}")
    assert run(first, *limited, *validated, *own) == 0
    said = capsys.readouterr().out
    assert "validation/loss" in said
    assert "head_norm" in said
    lines = [line for line in read(first / "metrics.jsonl") if "validation/loss" in line]
    last = {name: value for name, value in lines[-1].items() if name.startswith("validation/")}
    assert last["validation/loss"] == pytest.approx(
        (last["validation/loss/easy"] + last["validation/loss/hard"]) / 2
    )
    result = json.loads((first / "evaluation/result.json").read_text())
    assert last.items() <= result.items()  # not measured once more

    Path(mine).unlink()
    params, config = models.read(first / "release", trust=True)
    assert config["total_steps"] == 100000
    for folder in (first, first / "release"):  # each has all that it needs
        assert TextTokenizer(models.read(folder, trust=True)[1]["tokenizer"]).vocab_size == 1024
    release.save(first / "release-layers", params["layers"], config)
    load = f"--config.load={{'layers': '{first / 'release-layers'}'}}"
    still = ("--config.total_steps=1", "--config.freeze=layers", "--config.ema.decay=0.0")
    assert run(second, load, *still) == 0
    got, _ = release.load(second / "release")
    np.testing.assert_array_equal(got["layers"]["up"], params["layers"]["up"])
    assert not np.array_equal(got["head"], params["head"])


def test_the_learning_rate_falls_before_the_time_is_over(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Stop, "has_passed", lambda self, share, step: share < 1 and step >= 8)
    limited = ("--config.max_minutes=5", "--config.optimizer.schedule=wsd", "--config.log_every=1")
    assert run(tmp_path, *limited) == 0
    assert "max_minutes=5: the run and its learning rate come to an end by step 10" in (
        capsys.readouterr().out
    )
    rates = {line["step"]: line["learning_rate"] for line in read(tmp_path / "metrics.jsonl")}
    assert list(rates) == list(range(1, 11))
    late = [rates[step] for step in (1, 8, 9, 10)]
    np.testing.assert_allclose(late, [1e-2, 1e-2, 1e-2, 5e-3], rtol=1e-5)
    assert run(tmp_path, *limited) == 0  # there is nothing more to do
    assert max(losses(tmp_path)) == 10


BEST = ("--config.validation.every=4", "--config.checkpoint.best=validation/loss/esy")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config=configs/nope.py"], "configs/nope.py: no such Python file"),
        (["--config.optimizer.learning_rat=1"], "did you mean 'learning_rate'"),
        (["--config.benchmark=nope"], "config.benchmark: there is only 'toy'"),
        (["--config.data.bad=1"], "4 bad records, and max_bad_records is 3"),
        (["--config.seed=-1"], "seed=-1 must be from 0 to"),
        (["--config.recipe=no_such_recipe"], "No module named 'no_such_recipe'"),
        (["--config.mesh.fsdp=3"], "does not fit 8 devices"),
        (["--config.batch_size=6"], "= 6 rows do not divide"),
        (["--config.freeze=lyers"], "freeze: 'lyers' matches no parameter"),
        (["--config.load={'lyers': 'x'}"], "no parameters at 'lyers': did you mean 'layers'"),
        (["--config.load={'layers': 'x'}"], "'x' is not a released model"),
        (["--config.loss_weights={'txt': 1.0}"], "['txt'] not among the losses"),
        (BEST, "'validation/loss/esy'; did you mean 'validation/loss/easy'"),
    ],
    ids=lambda value: value[-1].removeprefix("--config") if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_a_line_and_nothing_is_written(args, message, tmp_path, capfd):
    assert run(tmp_path / "run", *args) == 2
    said = capfd.readouterr()
    assert said.err.startswith("train.py: error: ") and message in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_a_config_that_asks_for_another_state_is_told_in_a_line(tmp_path, capfd):
    assert run(tmp_path, "--config.total_steps=1") == 0
    for override, told in {
        "model.width=8": "params/embedding is (16, 16) there and (16, 8) here; it was trained with "
        "model.width=16, not 8: set it back, or take another --workdir",
        "optimizer.name=sgd": "trained with optimizer.name=adamw, not sgd: ",
        "ema.decay=0": "trained with ema.decay=0.9, not 0.0: ",
    }.items():
        capfd.readouterr()
        assert run(tmp_path, "--config.total_steps=1", f"--config.{override}") == 2
        [*warnings, said] = capfd.readouterr().err.splitlines()
        assert said.startswith(f"train.py: error: {tmp_path / 'checkpoints' / '1'} does not fit: ")
        assert told in said
        assert not warnings
    harmless = ("--config.total_steps=2", "--config.log_every=1", "--config.mesh.tensor=2")
    assert run(tmp_path, *harmless, "--config.data.delay=0.001") == 0
    assert "goes on after step 1" in capfd.readouterr().out


@pytest.mark.slow
def test_two_processes_train_as_one(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = lambda index: {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }
    two, short = tmp_path / "two", "--config.total_steps=6"
    processes = [start(two, short, "--distributed", **env(index)) for index in (0, 1)]
    first, second = (finish(process) for process in processes)
    assert "devices  2 x cpu" in first
    assert "step" not in second
    assert run(tmp_path / "one", short) == 0
    want = losses(tmp_path / "one")
    np.testing.assert_allclose(list(losses(two).values()), list(want.values()), rtol=1e-4)
    assert (two / "release" / "config.json").exists()


def test_a_model_that_no_memory_holds_is_told_before_anything_is_written(tmp_path, capsys):
    assert run(tmp_path / "run", "--config.model.width=10000000000") == 2
    assert re.search(
        "take [0-9,]+ bytes, and this machine has [0-9,]+: ch", capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
