"""Imports point one way: each part may import only the parts that its row names.

Imports inside functions count as well. Recipes are named by configs and found by `importlib`, so
nothing imports one.
"""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEAVES = {
    "unified.terminal",
    "unified.checksum",
    "unified.devices",
    "unified.message",
    "unified.names",
}
CORE = {"unified.sequence", "unified.sharding", "pallas_kernels"}
MODULES = CORE | {"unified.nn"}
ALLOWED = {  # a module is of the first row that it lies in
    "pallas_kernels.interval_attention.bench": {"pallas_kernels"},
    "pallas_kernels": set(),
    "configs": set(),
    "unified.message": set(),
    "unified.interrupt": set(),
    "unified.terminal": set(),
    "unified.output": {"unified.data"},
    "unified.status": {"unified.message"},
    "unified.names": set(),
    "unified.sequence": set(),
    "unified.sharding": set(),
    "unified.lanes": {"unified.sequence"},
    "unified.checksum": set(),
    "unified.devices": set(),
    "unified.nn": CORE,
    "unified.processes": {"unified.sequence"},
    "unified.tokenizers": MODULES | {"unified.lanes"},
    "unified.backbone": MODULES,
    "unified.heads": MODULES,
    "unified.data": {"unified.sequence", "unified.lanes", "unified.message", "unified.names"},
    "unified.evaluation": {"unified.sequence", "unified.data", "unified.message"},
    "unified.parts": MODULES
    | {
        "unified.backbone",
        "unified.generation",
        "unified.heads",
        "unified.lanes",
        "unified.processes",
        "unified.tokenizers",
    },
    "unified.model": MODULES
    | {"unified.backbone", "unified.lanes", "unified.names", "unified.parts"},
    "unified.config": {
        "unified.backbone",
        "unified.data",
        "unified.generation",
        "unified.interop",
        "unified.lanes",
        "unified.model",
        "unified.names",
        "unified.parts",
        "unified.tokenizers",
    },
    "unified.generation": {"unified.sequence", "unified.processes"},
    "unified.programmes": {"unified.sequence"},
    "unified.worlds": {
        "unified.data",
        "unified.evaluation",
        "unified.message",
        "unified.sequence",
    },
    "unified.interop": LEAVES,
    "unified.training": {
        "unified.sequence",
        "unified.sharding",
        "unified.evaluation",
        "unified.interop",
        *LEAVES,
    },
    "unified.inference": {
        "unified.config",
        "unified.devices",
        "unified.model",
        "unified.sequence",
        "unified.sharding",
        "unified.lanes",
        "unified.data",
        "unified.generation",
        "unified.interop",
        "unified.message",
        "unified.processes",
        "unified.programmes",
        "unified.tokenizers",
    },
    "unified.recipes": MODULES
    | {
        "unified.backbone",
        "unified.config",
        "unified.data",
        "unified.lanes",
        "unified.model",
        "unified.parts",
        "unified.evaluation",
        "unified.generation",
        "unified.heads",
        "unified.inference",
        "unified.interop",
        "unified.names",
        "unified.processes",
        "unified.tokenizers",
    },
    "unified": {"unified.inference"},  # the package itself, `unified/__init__.py`
    "unified.cli": {
        "unified",
        "unified.inference",
        "unified.devices",
        "unified.output",
        "unified.status",
    },
}
OURS = ("unified", "pallas_kernels", "configs", "train", "eval", "benchmarks", "scripts", "tests")


def imports(file: Path) -> set[str]:
    """Names of the modules of ours that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if is_module(inner) else node.module)
    return {name for name in names if name.split(".")[0] in OURS}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def name_of(file: Path) -> str:
    path = file.parent if file.name == "__init__.py" else file.with_suffix("")
    return path.relative_to(ROOT).as_posix().replace("/", ".")


def part(name: str) -> str | None:
    """The row that a module belongs to; that of the package `unified` is for itself alone."""
    is_in = lambda row: name == row or (row != "unified" and name.startswith(row + "."))
    return next(filter(is_in, ALLOWED), None)


FILES = [f for top in ("unified", "pallas_kernels", "configs") for f in (ROOT / top).rglob("*.py")]


def test_every_file_belongs_to_a_part_and_no_two_parts_need_each_other():
    assert {part(name_of(file)) for file in FILES} == ALLOWED.keys()
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises CycleError


@pytest.mark.parametrize("row", ALLOWED)
def test_a_part_imports_only_what_it_may(row):
    for file in (file for file in FILES if part(name_of(file)) == row):
        for name in imports(file):
            assert part(name) in {row, *ALLOWED[row]}, f"{file.relative_to(ROOT)} imports {name}"


def test_a_recipe_imports_no_other_recipe():
    """What several share stands beside them, and builds nothing."""
    folder = ROOT / "unified/recipes"
    builds = lambda name: hasattr(importlib.import_module(name), "build")
    for recipe in (path for path in folder.iterdir() if path.name != "__init__.py"):
        for file in [recipe] if recipe.is_file() else recipe.rglob("*.py"):
            recipes = [n for n in imports(file) if n.startswith("unified.recipes.") and builds(n)]
            assert all(n.startswith(f"unified.recipes.{recipe.stem}") for n in recipes), file


def test_importing_the_package_touches_no_device_and_no_heavy_library():
    code = "import sys, unified; print([m for m in ('jax', 'flax', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_what_kind_a_lane_is_of_is_asked_in_lanes_and_parts_alone():
    """Elsewhere code takes any: a new kind of content needs none of it changed."""
    kinds = {"TextLane", "PatchLane", "PictureLane", "TextTokens", "PatchTokens", "PictureTokens"}
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in (ROOT / "unified").rglob("*.py")
        if file.relative_to(ROOT / "unified").parts[0] not in ("lanes", "parts")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        if kinds & {x.id for x in ast.walk(node.args[1]) if isinstance(x, ast.Name)}
    ]
    assert not found
