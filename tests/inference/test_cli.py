"""The command `unified`, in process and as a user's shell starts it."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unified import cli
from unified.generation.drawing import Drawing
from unified.inference import Assistant
from unified.interop.release import load_config, resolve, save

pytestmark = pytest.mark.usefixtures("keep_compiled")

AUTOENCODER = "unified/checkpoints/autoencoder"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in.png"
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(path)
    return str(path)


def test_generate_and_edit_write_pictures_and_answer_prints(release, picture, tmp_path, capsys):
    at = ["--checkpoint", str(release)]
    outputs = [tmp_path / name for name in ("a.png", "b.png", "c.jpg")]
    for seed, out in enumerate(outputs[:2]):
        assert cli.main(["generate", "a dog", *at, "--seed", str(seed), "-o", str(out)]) == 0
    guidance = ["--text-scale=2", "--interval", "0.2", "0.9", "--renorm=global", "--renorm-min=1"]
    assert cli.main(["edit", picture, "remove it", *at, *guidance, "-o", str(outputs[2])]) == 0
    for out in outputs:
        with Image.open(out) as image:
            assert image.size == (16, 16)
    assert outputs[0].read_bytes() != outputs[1].read_bytes()

    capsys.readouterr()
    question = ["answer", picture, "how many?", *at, "--max-tokens", "6"]
    assert cli.main(question) == 0
    said = capsys.readouterr().out.strip()
    assert cli.main([*question, "--stop", "no such text", "--stop", said[1]]) == 0
    assert capsys.readouterr().out.strip() == said.partition(said[1])[0]


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["edit", "none.png", "x"], "no picture at none.png"),
        (["generate", "x", "-o", "out.xyz"], "needs the ending of a picture file"),
        (["generate", "x", "-o", "no/such/out.png"], "no folder no/such"),
        (["generate", "x", "--checkpoint", "none"], "'none' is not a released model"),
        (["generate", "x", "-o", "out.psd"], "of a picture file that can be written"),
        (["generate", "x", "-o", "out.pdf"], "of a picture file that can be written"),
        (["generate", "x", "--checkpoint", "other"], "names no recipe"),
        (["generate", "x", "--checkpoint", AUTOENCODER], "a tokenizer of pictures neither"),
        (
            ["generate", "x", "--checkpoint", "RELEASE", "--steps", "1"],
            "steps=1 must be at least 2",
        ),
        (["generate", "x", "--checkpoint", "RELEASE", "--shift", "nan"], "shift=nan must be a pos"),
        (["generate", "x", "--checkpoint", "RELEASE", "--text-scale", "nan"], "text_scale=nan mus"),
        (
            ["edit", "GOOD", "x", "--checkpoint", "RELEASE", "--image-scale=-inf"],
            "image_scale=-inf",
        ),
        (
            ["generate", "x", "--checkpoint", "RELEASE", "--seed", f"{2**63}"],
            "seed=9223372036854775",
        ),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--seed=-1"], "seed=-1 must be from 0 to 2"),
        (["answer", "BAD", "--checkpoint", "RELEASE"], "not a readable picture: not a picture"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--max-tokens", "0"], "at least 1"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--temperature", "nan"], "temperature=nan"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--temperature", "inf"], "temperature=inf"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--stop", ""], "stop='' is at the start"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--top-k=-1"], "top_k=-1 must be"),
        (["answer", "GOOD", "--checkpoint", "RELEASE", "--top-p", "nan"], "top_p=nan must be"),
    ],
)
def test_mistakes_are_told_in_a_line(
    args, complaint, release, picture, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_text("not a picture")
    save(tmp_path / "other", {}, {"model_type": "of someone else"})
    known = {"RELEASE": str(release), "BAD": "bad.png", "GOOD": picture}
    assert cli.main([known.get(arg, arg) for arg in args]) == 1
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_help_shows_the_defaults(monkeypatch, tmp_path):
    text = lambda command: " ".join(command_help(command).split())
    written = inspect.signature(Assistant.write).parameters
    for name, (_, meaning, default) in cli.WRITING.items():
        assert default == written[name].default
        assert f"{meaning} (default: {'none' if default == () else default})" in text("answer")
    own = Drawing()
    assert {name: default for name, (*_, default) in cli.DRAWING.items()} == {
        name: getattr(own, name) for name in cli.DRAWING
    }
    shipped = load_config(resolve("unified/checkpoints/emoji"))["drawing"]
    assert f"slower and finer (default: {shipped['steps']})" in text("edit")
    assert "at which guidance acts; 1 is noise, 0 the picture (default: 0.0 1.0)" in text("edit")
    assert "file to write, over one that is there (default: edited.png)" in text("edit")
    assert "the same result, up to the rounding of the machine" in text("generate")
    monkeypatch.setattr(cli, "SHIPPED", tmp_path / "none.json")
    assert f"slower and finer (default: {own.steps})" in text("edit")


def command_help(command: str) -> str:
    [commands] = [a for a in cli.parser()._actions if a.dest == "command"]
    assert isinstance(commands.choices, dict)
    return commands.choices[command].format_help()


def test_help_and_import_load_no_jax():
    code = "import sys, unified.cli as c; c.parser().format_help(); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    done = subprocess.run(
        [sys.executable, "-m", "unified.cli", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("generate", "answer", "edit", "examples:"):
        assert word in done.stdout
