"""One run, one folder: who is alive keeps it, who was killed does not."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from unified.training import lock
from unified.training.lock import NAME, Lock

HOLD = """
import sys, time
from pathlib import Path
from unified.training.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_is_alive_keeps_its_folder_even_when_it_stands_still(holder, tmp_path):
    for number in (signal.SIGSTOP, signal.SIGCONT):
        holder.send_signal(number)
        with pytest.raises(ValueError, match=f"a run is alive in .*: process {holder.pid} on"):
            Lock(tmp_path).__enter__()


def test_a_run_that_was_killed_is_followed_with_a_line(holder, tmp_path):
    holder.kill()
    holder.wait()
    with Lock(tmp_path) as held:
        assert held.taken_over.startswith(
            f"takes over from a run that was killed: process {holder.pid}"
        )
        said = json.loads((tmp_path / NAME).read_text())
        assert said["process"] == os.getpid() and said["host"] == socket.gethostname()
    assert not (tmp_path / NAME).exists()
    with Lock(tmp_path) as held:
        assert held.taken_over == ""


def test_a_run_on_another_machine_is_watched_for_a_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "process": 7, "started": "?"}))
    with Lock(tmp_path) as held:
        assert "process 7 on elsewhere" in held.taken_over
    (tmp_path / NAME).write_text(json.dumps({"host": "elsewhere", "process": 7, "started": "?"}))
    seen = iter(range(100))
    monkeypatch.setattr(lock, "_touched", lambda path: next(seen))  # it is written all the time
    with pytest.raises(ValueError, match=r"a run is alive in .*: process 7 on elsewhere"):
        Lock(tmp_path).__enter__()


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00\xff"])
def test_a_lock_that_says_nothing_is_taken(text, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    (tmp_path / NAME).write_text(text)
    with Lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()


def test_a_folder_made_in_vain_goes_again(tmp_path):
    with Lock(tmp_path / "a/b"):
        assert (tmp_path / "a/b" / NAME).exists()
    assert not (tmp_path / "a").exists()


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match=r"--workdir .*run cannot be written"):
        Lock(tmp_path / "run").__enter__()
