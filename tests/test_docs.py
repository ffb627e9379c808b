"""The code of `docs/library.md` does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import xla

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/library.md").read_text()
BLOCKS = re.findall(r"## ([^\n]*)|```python ?(\S*)\n(.*?)```", PAGE, re.S)


def pieces():
    """Title, code and modules beside it."""
    title, files = "", {}
    for heading, file, code in BLOCKS:
        if heading:
            title, files = heading, {}
        elif file:
            files[file] = code
        else:
            yield pytest.param(code, dict(files), id=title)


@pytest.mark.parametrize(("code", "files"), [*pieces()])
def test_a_piece_prints_what_its_comments_say(code, files, tmp_path, monkeypatch):
    for name, content in {**files, "piece.py": code}.items():
        (tmp_path / name).write_text(content)
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla.line(1)}
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "piece.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    wanted = [line.split("  # ")[1] for line in code.splitlines() if line.startswith("print(")]
    assert wanted and done.stdout.splitlines() == wanted
