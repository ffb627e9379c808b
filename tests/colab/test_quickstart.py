"""The notebook runs from top to bottom, and installs what it needs in Colab."""

import subprocess
import sys
import types
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests import xla

NOTEBOOK = Path(__file__).parents[2] / "colab/quickstart.ipynb"


def test_in_colab_the_first_cell_clones_and_installs(tmp_path, monkeypatch):
    cell = next(c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code")
    ran = []

    def run(command, *, check):
        ran.append([word for word in command if word != sys.executable])
        (tmp_path / "unified").mkdir(exist_ok=True)
        (tmp_path / "unified/train.py").touch()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    exec(cell.source, {})  # elsewhere it does nothing
    assert ran == []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    with pytest.raises(AssertionError, match="where to clone the repository from"):
        exec(cell.source, {})
    for _ in range(2):  # and again nothing
        exec(cell.source.replace('REPOSITORY = ""', 'REPOSITORY = "https://host/it"'), {})
    assert ran[0] == ["git", "clone", "--depth=1", "https://host/it", "unified"]
    assert ran[1][:3] == ["-m", "pip", "install"] and len(ran) == 2
    assert Path.cwd() == tmp_path / "unified"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", xla.line(devices=1))
    for name, value in xla.KEPT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QUICKSTART_STEPS", "2")
    monkeypatch.setenv("QUICKSTART_SAMPLES", "1")
    monkeypatch.setenv("QUICKSTART_WORKDIR", str(tmp_path / "run"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(NOTEBOOK.parent))
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 5
    assert (tmp_path / "run/evaluation/samples.png").exists()
