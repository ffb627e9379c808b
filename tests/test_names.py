"""A config may name code: any in a program of the user's, this package's in a folder of weights."""

import ast
import json
from pathlib import Path

import pytest

import eval as evaluation
import unified
from tests.interop import damage
from unified import cli, names
from unified.data.sources import FORMATS
from unified.interop import model as models
from unified.interop import release

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return damage.make(tmp_path_factory.mktemp("names") / "sound")


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module in the current folder; the file that it leaves where it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "payload.py").write_text(
        "open('ran', 'w').close()\ndef build(): pass\nrun = build\n"
    )
    return tmp_path / "ran"


def changed(sound, folder, where, value):
    """A copy of a release whose config says something else at a place, `a.b.c`."""
    damage.copied(sound, folder)
    config = json.loads((folder / "config.json").read_text())
    *parents, last = where.split(".")
    node = config
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


FOREIGN = [
    ("recipe", "payload"),
    ("recipe", "unified.interop.release"),
    ("recipe", "unified.evaluation.page"),  # it has a function `build`
    ("recipe", "unified.recipes.packed.config"),  # it has none
    ("recipe", "unified.recipesque"),
    ("recipe", ".payload"),
    ("benchmark.module", "payload"),
    ("benchmark.module", "unified.worlds.emoji.judge"),
    ("data.train.emoji.format", "os:system"),
    ("data.train.emoji.format", "payload:build"),
    ("data.train.emoji.format", "unified.data.sources:np"),
    ("data.train.emoji.format", "unified.data.sources:Path"),
    ("data.train.emoji.format", "unified.data.sources:open_source"),
    ("data.train.emoji.format", "unified.data.sources:BadRecord"),
    ("data.train.emoji.format", "unified.interop.release:os"),
    ("data.train.emoji.format", "unified.training.checkpoint:Checkpoints"),
    ("data.train.emoji.format", "tfds"),  # its files name code
    ("data.train.emoji.format", "unified.data.source_tfds:TfdsSource"),
    ("benchmark.sources.mine.format", "os:system"),
    ("anything.that.comes.0.later.format", "os:system"),
]


@pytest.mark.parametrize(("where", "value"), FOREIGN)
def test_weights_that_name_other_code_are_refused_and_it_is_not_run(
    where, value, sound, payload, tmp_path, capsys
):
    folder = changed(sound, tmp_path / "other", where, value)
    with pytest.raises(ValueError) as caught:
        unified.load(folder)
    said = str(caught.value)
    assert f"config.{where}={value!r}" in said and "\n" not in said
    assert "unified.load(path, trust=True)" in said and "--trust" in said
    assert evaluation.main(["--checkpoint", str(folder)]) == 2
    assert cli.main(["generate", "x", "--checkpoint", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert not payload.exists()


@pytest.mark.parametrize(
    ("where", "value"),
    [("data.train.emoji.format", "payload"), ("layout.lanes.text.kind", "payload")],
)
def test_a_name_without_a_place_is_never_imported(where, value, sound, payload, tmp_path, capsys):
    folder = changed(sound, tmp_path / "other", where, value)
    arguments = ["--checkpoint", str(folder), "--config.drawing.renorm=channel"]
    assert evaluation.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not payload.exists()


def test_weights_that_name_others_elsewhere_are_refused(sound, tmp_path):
    folder = changed(sound, tmp_path / "other", "load", {"": "gs://bucket/weights"})
    with pytest.raises(ValueError, match=r"config.load.='gs://bucket/w.*' is elsewhere.*--tr"):
        unified.load(folder)


def test_trust_allows_any_code(sound, payload, tmp_path, capsys):
    folder = changed(sound, tmp_path / "other", "recipe", "payload")
    with pytest.raises(TypeError, match="build"):  # so it is imported and called
        unified.load(folder, trust=True)
    assert payload.exists()
    assert evaluation.main(["--checkpoint", str(folder), "--trust"]) == 2
    assert "TypeError" in capsys.readouterr().err
    with pytest.raises(TypeError, match="build"):
        cli.main(["generate", "x", "--checkpoint", str(folder), "--trust"])


def test_what_this_package_has_may_be_named():
    sources = [path for name, path in FORMATS.items() if name not in names.IMPORTING]
    assert all(names.is_ours("format", name) for name in sources)
    for shipped in ("emoji", "autoencoder"):
        names.check(release.load_config(release.resolve(f"unified/checkpoints/{shipped}")), shipped)


def test_names_are_imported_in_one_place():
    files = [*(ROOT / "unified").rglob("*.py"), ROOT / "train.py", ROOT / "eval.py"]
    calls = ("import_module", "__import__", "exec", "eval", "find_loader", "run_path", "run_module")
    found = {
        file.relative_to(ROOT).as_posix()
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) in calls
    }
    assert found == {"unified/names.py"}


@pytest.mark.parametrize(
    "name", ["/etc/hosts", "../tokenizer.json", "a/../../x", "~/x", "gs://a/b", "", "none.json"]
)
def test_weights_may_name_a_tokenizer_beside_them_alone(name, sound, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    folder = changed(sound, tmp_path / "other", "tokenizer", name)
    (folder / "tokenizer.json").rename(folder / "bpe.json")
    with pytest.raises(ValueError, match=r"is no file beside the weights or in this package"):
        models.read(folder)
    assert models.read(folder, trust=True)[1]["tokenizer"] == name
    changed(folder, tmp_path / "sound", "tokenizer", "bpe.json")
    assert models.read(tmp_path / "sound")[1]["tokenizer"] == str(tmp_path / "sound" / "bpe.json")
