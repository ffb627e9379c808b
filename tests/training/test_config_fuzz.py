"""Any field of a config may say anything: a run begins, or ends with one line and exit status 2."""

import os
import threading
import time

import hypothesis
import hypothesis.strategies as st
import pytest

import train
from unified.training import config as configs

TOY = "tests/training/toy_config.py"
SETTINGS = hypothesis.settings(
    max_examples=int(os.environ.get("UNIFIED_FUZZ", 60)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def fields(node, path=()):
    """The paths of all fields, groups of fields too."""
    for name, value in node.items():
        yield (*path, name)
        if hasattr(value, "items"):
            yield from fields(value, (*path, name))


WAITING = ("delay",)  # of the toy data, in seconds
FIELDS = sorted(f for f in fields(configs.load(TOY)) if f[-1] not in WAITING)
NUMBERS = [-1, 0, 1, 2, 7, 2**31, 2**63, 10**30, -0.5, 0.5, 1e39, 1e400, float("nan")]
NAMES = [
    "",
    " ",
    "none",
    "None",
    "true",
    "all",
    "(",
    "[",
    "*",
    "a.b",
    "/",
    "..",
    "\0",
    "é",
    "\n",
    "[/b]",
]
PLAIN = st.sampled_from([None, True, False, *NUMBERS, *NAMES])
KEYS = st.sampled_from(["name", "format", "kind", "x", "", "learning_rate"])
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


PATIENCE = 60  # seconds, of a machine with much else to do


def running():
    """Threads of any kind."""
    return {thread for thread in threading.enumerate() if thread.is_alive()}


def begins(overrides, folder, capfd):
    """Whether a run with these overrides begins; it ends there. Checks how it is refused."""
    before, began = running(), time.monotonic()
    capfd.readouterr()
    status = train.main(["--config", TOY, "--workdir", str(folder), *overrides])
    said = capfd.readouterr().err
    assert status in (0, 2), said
    if status == 2:
        assert said.startswith("train.py: error: ") and said.count("\n") == 1, said
        assert len(said) < 1000
    assert time.monotonic() - began < PATIENCE
    while (left := running() - before) and time.monotonic() - began < PATIENCE:
        time.sleep(0.01)  # one that is about to end
    assert not left
    return status == 0


@pytest.fixture
def only_begin(monkeypatch):
    monkeypatch.setattr(train, "train", lambda run, start: (start.state, "TEST", {}))


@hypothesis.given(st.sampled_from(FIELDS), VALUES)
@SETTINGS
def test_a_field_that_says_anything_is_taken_or_told(
    only_begin, capfd, tmp_path_factory, field, value
):
    override = f"--config.{'.'.join(field)}={value if isinstance(value, str) else repr(value)}"
    begins([override], tmp_path_factory.mktemp("run") / "run", capfd)


@hypothesis.given(st.text(max_size=30))
@SETTINGS
def test_an_argument_that_is_anything_is_told(only_begin, capfd, tmp_path_factory, text):
    assert not begins([f"--config.{text}"], tmp_path_factory.mktemp("run") / "run", capfd)


def test_the_config_as_it_is_begins(only_begin, capfd, tmp_path):
    assert begins([], tmp_path / "run", capfd)
