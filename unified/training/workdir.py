"""The folder of a run: its name, what it keeps of the config, and what to do with it in the end."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from unified.evaluation import report
from unified.interop import model as models
from unified.interop import release
from unified.interop.run import CHECKPOINTS
from unified.message import is_unicode
from unified.training import processes
from unified.training.config import keep as keep_config


def folder_of(argument: str) -> Path:
    """What `--workdir` names. Raises ValueError for what is no name of a folder."""
    if not argument.strip():
        raise ValueError("--workdir is empty: name a folder, `.` for the current one")
    if not is_unicode(argument):
        raise ValueError(f"--workdir {argument!r} is not valid Unicode: name another folder")
    return Path(argument)


def keep(workdir: Path, config: ConfigDict) -> list[str]:
    """Makes the folder of the run, which can be read from anywhere from now on; says how the config
    differs from the one that was there."""
    if not processes.is_first():
        return []
    try:
        models.keep_tokenizer(workdir, config)
        changed = keep_config(config, workdir / release.CONFIG)
        (workdir / CHECKPOINTS).mkdir(exist_ok=True)
    except OSError as error:
        if error.filename:
            raise
        raise OSError(
            f"--workdir {workdir} cannot be written: {error.strerror or error}"
        ) from error
    return [f"changed  {change}" for change in changed]


def left(workdir: Path, folder: Path, model: Any) -> list[str]:
    """Where the report of an evaluation is, and a command to try a model of parts with."""
    said = []
    if (page := folder / report.PAGE).exists():
        said.append(f"report   {page}")
    if hasattr(model, "layout"):
        out = shlex.join(["--checkpoint", str(workdir), "-o", str(workdir / "cat.png")])
        said.append(f'try      {_draws()} "a purple cat" {out}')
    return said


def _draws() -> str:
    """The command that draws, which is on the path only where the environment is activated."""
    beside = Path(sys.executable).with_name("unified")
    if shutil.which("unified") or not beside.exists():
        return "unified generate"
    return f"{os.path.relpath(beside)} generate"
