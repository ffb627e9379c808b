"""Runs whose files are damaged: each goes on, or says in a line what is wrong with it."""

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

import train

pytestmark = pytest.mark.slow  # a run to damage takes ten seconds

TOY = "tests/training/toy_config.py"
PATIENCE = 60  # seconds, of a machine with much else to do
STEP = "checkpoints/6"
FILES = (
    "config.json",
    "metrics.jsonl",
    f"{STEP}/host/metadata",
    f"{STEP}/state",
    STEP,
    "checkpoints",
)
TEXTS = ("", "{}", "[]", "null", '"text"', "7", "{", "\x00\xff\x1b[31m", '{"step": "x"}\n', "[/b]")
PLACED = {
    "folder": os.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: os.symlink("/dev/zero", path),
    "nothing": lambda path: None,
}


def start(folder):
    return train.main(["--config", TOY, "--workdir", str(folder), "--config.total_steps=6"])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "run"
    assert start(folder) == 0
    return folder


def write(path: Path, what: str) -> None:
    """Puts a text, or what `PLACED` says, where a file or folder of a run is."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    place = PLACED.get(what, lambda path: Path(path).write_text(what, "utf-8"))
    place(path)


@pytest.mark.parametrize("name", FILES)
def test_a_run_with_a_damaged_file_goes_on_or_says_why(name, sound, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(train, "train", lambda run, start: (start.state, "TEST", {}))
    threads = set(threading.enumerate())
    for number, what in enumerate([*TEXTS, *PLACED]):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        with contextlib.suppress(FileNotFoundError):
            write(folder / name, what)
        capfd.readouterr()
        began = time.monotonic()
        status, said = start(folder), capfd.readouterr().err
        assert status in (0, 2), (what, said)
        lines = [line for line in said.splitlines() if "error" in line]
        assert len(lines) == (status == 2), (what, said)
        assert "Traceback" not in said and all(map(str.isprintable, lines)), (what, said)
        assert time.monotonic() - began < PATIENCE, what
    left = {t.name for t in threading.enumerate() if t not in threads}
    assert not [name for name in left if name.startswith(("examples", "feed", "lock"))], left
