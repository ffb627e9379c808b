"""The command `unified` where the shell, the machine or the user stands in its way."""

import io
import logging
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from unified import cli, inference, output
from unified.generation.drawing import Drawing
from unified.status import Status, Warnings

UNIFIED = [sys.executable, "-m", "unified.cli"]


class Stand:
    """In place of a model: keeps what it is asked."""

    drawing = Drawing(candidates=8)

    def __init__(self):
        self.asked = {}

    def generate(self, prompts, **options):
        self.asked = options
        return [np.zeros((16, 16, 3), np.uint8)]

    def answer(self, pairs, **options):
        return ["two 🍎"]


@pytest.fixture
def stand(monkeypatch):
    model = Stand()
    monkeypatch.setattr(inference, "load", lambda *_, **__: model)
    return model


def test_one_candidate_is_drawn_on_a_cpu_unless_more_are_asked_for(stand, tmp_path, monkeypatch):
    to = ["-o", str(tmp_path / "out.png")]
    assert cli.main(["generate", "a dog", *to]) == 0
    assert stand.asked["candidates"] == 1
    assert cli.main(["generate", "a dog", "--candidates", "3", *to]) == 0
    assert stand.asked["candidates"] == 3
    monkeypatch.setattr(cli, "_on_cpu", lambda: False)
    assert cli.main(["generate", "a dog", *to]) == 0
    assert "candidates" not in stand.asked  # as the model has it


def test_what_is_not_finite_is_a_line_and_no_file(stand, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise FloatingPointError("the latents are not finite")

    monkeypatch.setattr(stand, "generate", fail)
    assert cli.main(["generate", "a dog", "-o", str(tmp_path / "out.png")]) == 1
    said = capsys.readouterr()
    assert re.fullmatch(
        r"unified generate: loading the model \(\d+\.\d s\): error: the latents are not finite\n",
        said.err,
    )
    assert not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 400 GB")])
def test_too_little_memory_is_a_line(error, stand, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(stand, "generate", fail)
    assert cli.main(["generate", "a dog", "-o", str(tmp_path / "out.png")]) == 1
    assert "error: the memory of this machine is too small" in capsys.readouterr().err


def test_a_fault_of_the_library_is_not_hidden(stand, tmp_path, monkeypatch):
    monkeypatch.setattr(stand, "generate", lambda *_, **__: 1 // [])
    with pytest.raises(TypeError):
        cli.main(["generate", "a dog", "-o", str(tmp_path / "out.png")])


def test_an_output_that_cannot_be_written_is_told_before_anything_is_drawn(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(inference, "load", lambda *_, **__: pytest.fail("a model is loaded"))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "fifo.png")
    for name, told in {
        "folder.png": "is not a file",
        "fifo.png": "is not a file",
        "loop.png": "cannot be written",
        f"{'a' * 300}.png": "too long",
        "no/out.png": "no folder",
        "out": "ending of a picture file",
        "out.png/": "out.png/ names a folder",
        "out.png/.": "out.png/. names a folder",
    }.items():
        assert cli.main(["generate", "a dog", "-o", f"{tmp_path}/{name}"]) == 1
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_is_not_written_whole_is_not_there(tmp_path, monkeypatch):
    """As on a disk that is full."""
    new, old = tmp_path / "new.png", tmp_path / "old.png"
    old.write_bytes(b"before")
    output.check(str(new))
    output.check(str(old))
    assert old.read_bytes() == b"before"
    assert not new.exists()

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "open", Full, raising=False)
    with pytest.raises(OSError, match=r"new.png cannot be written: No space left on device"):
        output.write(np.zeros((4, 4, 3), np.uint8), str(new))
    assert not new.exists()


def test_standard_output_that_takes_nothing_is_told(stand, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "in.png"
    picture.touch()
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["answer", str(picture)]) == 1
    assert "error: the result cannot be printed: No space left" in capsys.readouterr().err


def test_a_terminal_that_cannot_show_a_character_gets_its_number(stand, tmp_path, monkeypatch):
    (tmp_path / "in.png").touch()
    with open(tmp_path / "said", "w", encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        assert cli.main(["answer", str(tmp_path / "in.png")]) == 0
    assert (tmp_path / "said").read_text() == "two \\U0001f34e\n"


@pytest.mark.parametrize("what", ["folder", "fifo", "/dev/zero", "nothing"])
def test_what_is_no_file_is_no_picture(what, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    assert cli.main(["answer", str(tmp_path / what)]) == 1
    assert re.search("no picture at .*nothing|is not a file", capsys.readouterr().err)


@pytest.mark.parametrize("args", [["answer"], ["generate", "x", "--steps", "y"], [], ["draw"]])
def test_arguments_that_are_wrong_are_told_in_a_line(args, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(args)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--help)" in said


def test_ctrl_c_ends_it_at_once_in_a_line(tmp_path):
    command = [*UNIFIED, "generate", "x", "-o", str(tmp_path / "out.png")]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a job has it ignored
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, bufsize=1) as running:
        signal.signal(signal.SIGINT, heard)
        assert running.stderr is not None
        begun = running.stderr.read(len("unified generate: loading"))
        at = time.perf_counter()
        running.send_signal(signal.SIGINT)
        said = begun + running.stderr.read()
        assert running.wait() == 130
        assert time.perf_counter() - at < 5
    assert re.fullmatch(r"unified generate: loading the model( \(.* s\))?: interrupted\n", said)


@pytest.mark.parametrize("platform", ["nonesuch", "rocm"])  # unknown to JAX, and known to it
def test_a_platform_that_is_not_there_is_a_line(platform, tmp_path):
    command = [*UNIFIED, "generate", "x", "-o", str(tmp_path / "out.png")]
    env = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: JAX_PLATFORMS={platform}: " in done.stderr
    assert '".[gpu]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_reads_the_help(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*UNIFIED, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_line_says_what_is_done_and_for_how_long(capsys):
    with Status("unified draw", sys.stderr) as status:
        status.phase("loading")
        inference.engine.log.info("compiling")
        inference.engine.log.warning("a long\nprompt")
        inference.engine.log.info("drawing")
    status.fail("a mistake")
    lines = re.sub(r"\d+\.\d s", "N s", capsys.readouterr().err).splitlines()
    assert lines == [
        "unified draw: loading (N s), compiling (N s)",
        "unified draw: a long\\nprompt",
        "unified draw: drawing (N s): error: a mistake",
    ]


def test_a_warning_of_a_program_is_a_line_like_its_others(capfd):
    log = logging.getLogger("unified.data.pipeline")
    with Warnings():
        log.warning("source folder has changed:\n%s", "more records")
        log.info("nothing")
    assert capfd.readouterr() == ("warning  source folder has changed:\\nmore records\n", "")
    ours = logging.getLogger("unified")
    assert ours.propagate and not ours.handlers


@pytest.mark.parametrize("name", ["out.eps", "out.ps", "OUT.EPS"])
def test_postscript_is_not_written_as_it_would_start_a_program(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "check_call", lambda *_: pytest.fail("it was started"))
    assert cli.main(["generate", "a dog", "-o", str(tmp_path / name)]) == 1
    assert "needs the ending of a picture file" in capsys.readouterr().err


def test_an_address_to_write_to_is_told_that_nothing_is_sent(capsys):
    assert cli.main(["generate", "x", "-o", "s3://bucket/y.png"]) == 1
    assert "s3://bucket/y.png: nothing is sent to the network" in capsys.readouterr().err


def test_an_address_is_told_that_nothing_is_fetched(capsys):
    assert cli.main(["answer", "http://x.org/y.png"]) == 1
    assert "http://x.org/y.png: nothing is fetched from the network" in capsys.readouterr().err
