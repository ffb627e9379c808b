"""The folder of a run: what is said of it in the end."""

import sys
from pathlib import Path

from flax import nnx

from unified.interop import model as models
from unified.training import config as configs
from unified.training import workdir


def test_the_last_lines_name_the_report_and_a_command_that_is_there(tmp_path, monkeypatch):
    evaluated, bare = tmp_path / "evaluation", object()
    assert workdir.left(tmp_path, evaluated, bare) == []
    evaluated.mkdir()
    (evaluated / "report.html").touch()
    assert workdir.left(tmp_path, evaluated, bare) == [f"report   {evaluated}/report.html"]
    bin = tmp_path / ".venv/bin"
    bin.mkdir(parents=True)
    (bin / "unified").touch()
    monkeypatch.setattr(sys, "executable", str(bin / "python"))
    config = configs.load("configs/quick.py", [])
    drawing = nnx.eval_shape(lambda: models.recipe_of(config).build(config, rngs=nnx.Rngs(0)))
    monkeypatch.chdir(tmp_path)
    for path, program in (("/nowhere", ".venv/bin/unified"), (str(bin), "unified")):
        monkeypatch.setenv("PATH", path)
        (bin / "unified").chmod(0o755)
        assert workdir.left(Path("runs/a b"), evaluated, drawing)[1] == (
            f"try      {program} generate \"a purple cat\" --checkpoint 'runs/a b' "
            "-o 'runs/a b/cat.png'"
        )
