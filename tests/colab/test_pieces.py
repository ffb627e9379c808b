"""The notebook of the pieces runs from top to bottom, and what it trains learns."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from tests import xla

ROOT = Path(__file__).parents[2]


def read(name):
    return nbformat.read(ROOT / f"colab/{name}.ipynb", as_version=4)


def test_it_is_installed_in_colab_as_the_quickstart_is():
    [mine, theirs] = [
        next(cell for cell in read(name).cells if cell.cell_type == "code")
        for name in ("pieces", "quickstart")
    ]
    assert mine.source == theirs.source


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    monkeypatch.setenv("PIECES_STEPS", "30")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", xla.line(devices=1))
    for name, value in xla.KEPT.items():
        monkeypatch.setenv(name, value)
    notebook = read("pieces")
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    client.execute(cwd=str(ROOT / "colab"))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.get("text", "") for output in outputs)
    assert "text (1, 5, 32) changed: [0 0 0 0 1]" in said
    assert "image (1, 9, 32) changed: [1 1 1 1 1 1 1 1 1]" in said
    first, *_, last = map(float, re.findall(r"loss ([\d.]+)", said))
    assert last < first / 5
    assert re.search(r"\d+ of 64 right", said)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
