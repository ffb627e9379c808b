"""The notebook runs from top to bottom, and installs what it needs in Colab."""

import json
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import matplotlib
import nbclient
import nbformat
import numpy as np
import pytest

import train
import unified
from tests import xla
from unified.inference import Assistant
from unified.recipes import packed
from unified.training import config as configs

NOTEBOOK = Path(__file__).parents[2] / "colab/quickstart.ipynb"


def code():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_in_colab_the_first_cell_clones_and_installs(tmp_path, monkeypatch):
    cell, ran = code()[0], []

    def run(command, *, check):
        ran.append([word for word in command if word != sys.executable])
        (tmp_path / "unified").mkdir(exist_ok=True)
        (tmp_path / "unified/train.py").touch()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    exec(cell, {})  # elsewhere it does nothing
    assert ran == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    with pytest.raises(AssertionError, match="where to clone the repository from"):
        exec(cell, {})
    for _ in range(2):  # and again nothing
        exec(cell.replace('REPOSITORY = ""', 'REPOSITORY = "https://host/it"'), {})
    assert ran[0] == ["git", "clone", "--depth=1", "https://host/it", "unified"]
    assert ran[1][:3] == ["-m", "pip", "install"] and len(ran) == 2
    assert Path.cwd() == tmp_path / "unified"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The least of everything."""
    monkeypatch.setenv("QUICKSTART_STEPS", "2")
    monkeypatch.setenv("QUICKSTART_SAMPLES", "1")
    monkeypatch.setenv("QUICKSTART_WORKDIR", str(tmp_path / "run"))


def test_every_cell_asks_what_can_be_asked(settings, tmp_path, monkeypatch):
    """A model that checks its arguments and knows nothing; a training that checks its config."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    picture, titles = np.zeros((64, 64, 3), np.uint8), []
    assistant = mock.create_autospec(Assistant, instance=True)
    assistant.generate.side_effect = lambda prompts, **_: [picture] * len(prompts)
    assistant.edit.side_effect = lambda pictures, instructions, **_: pictures
    assistant.write.side_effect = lambda requests, **_: ["a dog"] * len(requests)
    monkeypatch.setattr(unified, "load", lambda: assistant)

    def run(command, *, cwd, capture_output, text):
        assert command[:2] == [sys.executable, "train.py"] and (cwd / command[1]).exists()
        args, overrides = train.parse(command[2:])
        config = configs.load(str(cwd / args.config), overrides)
        packed.check(config)
        workdir = Path(args.workdir)
        (workdir / "evaluation").mkdir(parents=True)
        plt.imsave(workdir / "evaluation/samples.png", picture)
        lines = [
            {"step": step, "text/nll": 2.0, "vae/flow": 1.0} for step in range(config.total_steps)
        ]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return types.SimpleNamespace(returncode=0, stdout="trained", stderr="")

    def show():
        titles.append([axis.get_title() for axis in plt.gcf().axes])
        plt.close("all")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(plt, "show", show)
    monkeypatch.chdir(NOTEBOOK.parent)
    names: dict = {}
    for cell in code():
        exec(cell, names)
    assert titles[0] == ["seed 0"]
    assert [len(drawn) for drawn in titles] == [1, 4, 2, 1, 1, 1]
    assert all("model: a dog" in title for title in titles[1])


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", xla.line(devices=1))
    for name, value in xla.KEPT.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(NOTEBOOK.parent))
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 6
    assert (tmp_path / "run/evaluation/samples.png").exists()
