"""What the continuous integration makes, with Pythons and a `make` that only say what was asked."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci/run"
PYTHON = """#!/bin/sh
case "$*" in
  *exit*) ;; # it works
  *executable*) echo "$0" ;;
  *) echo 3.{minor} ;;
esac
"""


def made(tmp_path, minors):
    """What is made where Pythons of these minor versions are found, in bash 3.2."""
    programs = {f"python3.{minor}": PYTHON.format(minor=minor) for minor in minors}
    programs["make"] = '#!/bin/sh\necho "made $1 ${2##*/} $3"\n'
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "old").write_text("enable -n mapfile readarray\n")  # which it lacks
    for name in ("dirname", "seq"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    env = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path), "BASH_ENV": str(tmp_path / "old")}
    run = subprocess.run(["/bin/bash", SCRIPT], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [line[5:] for line in run.stdout.splitlines() if line.startswith("made")]


def test_all_is_tested_under_the_oldest_python_and_what_is_cheap_under_the_newest(tmp_path):
    under = lambda minor: f"python3.{minor} VENV=.venv-ci-3.{minor}"
    everything = [f"{target} {under(11)}" for target in ("lint", "test-all", "parity")]
    assert made(tmp_path, [11, 12, 29]) == [*everything, f"test {under(29)}"]


def test_a_python_alone_tests_all_once(tmp_path):
    assert [line.split()[0] for line in made(tmp_path, [11])] == ["lint", "test-all", "parity"]
