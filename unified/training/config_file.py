"""A config file is a program: what it returns, or the line at which it goes wrong."""

import contextlib
import importlib.util
import inspect
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from unified.training.check import brief


def read(path: str) -> ConfigDict:
    """What `get_config` of a file returns, given what follows a colon. Raises ValueError."""
    file, _, argument = path.partition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise ValueError(f"--config {file}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    with _running(file):
        spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ValueError(f"--config {file}: it has no get_config()")
    arguments = [argument] if argument else []
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        raise ValueError(
            f"--config {path}: {error} of get_config, which takes what follows a colon"
        ) from None
    with _running(file):
        config = get_config(*arguments)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"--config {file}: get_config() returned {brief(config)}; it must return a ConfigDict"
        )
    return ConfigDict(config)  # that can be changed, whatever it was


@contextlib.contextmanager
def _running(file: str) -> Iterator[None]:
    """Raises ValueError with the line of the file at which what runs in here went wrong."""
    try:
        yield
    except (Exception, SystemExit) as error:  # the file is a program
        place, said = os.path.abspath(file), str(error)
        own = [
            at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == place
        ]
        if isinstance(error, SyntaxError) and error.filename == place:
            own, said = [error.lineno], error.msg
        where = f"{file}:{own[-1]}" if own else file
        raise ValueError(f"--config {where}: {type(error).__name__}: {said}") from error
