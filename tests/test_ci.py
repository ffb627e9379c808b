"""The continuous integration script, with a `make` that only says what it was asked."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci/run"


def test_the_ci_lints_tests_under_each_python_and_ends_with_parity_in_any_bash(tmp_path):
    (tmp_path / "make").write_text('#!/bin/sh\necho "made $1"\n')
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "old").write_text("enable -n mapfile readarray\n")  # bash 3.2 has neither
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (tmp_path / python).symlink_to(Path(sys.executable).resolve())
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "PYENV_ROOT": str(tmp_path),
        "BASH_ENV": str(tmp_path / "old"),
    }
    run = subprocess.run(["bash", SCRIPT], env=env, capture_output=True, text=True)
    made = [line for line in run.stdout.splitlines() if line.startswith("made")]
    assert run.returncode == 0, run.stderr
    assert made == ["made lint", *["made test"] * (len(made) - 2), "made parity"]
    assert len(made) > 2
