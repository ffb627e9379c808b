"""Imports point one way: each part may import only the parts that its row names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CORE = {"unified.sequence", "unified.sharding", "pallas_kernels"}
MODULES = CORE | {"unified.nn"}
ALLOWED = {
    "pallas_kernels": set(),
    "configs": set(),
    "unified.sequence": set(),
    "unified.sharding": set(),
    "unified.nn": CORE,
    "unified.processes": {"unified.sequence"},
    "unified.tokenizers": MODULES,
    "unified.backbone": MODULES,
    "unified.heads": MODULES,
    "unified.data": {"unified.sequence"},
    "unified.evaluation": {"unified.sequence", "unified.data"},
    "unified.generation": {"unified.sequence", "unified.processes"},
    "unified.interop": {"unified.sequence", "unified.sharding"},
    "unified.training": {"unified.sequence", "unified.sharding", "unified.interop"},
    "unified.recipes": MODULES
    | {
        "unified.backbone",
        "unified.data",
        "unified.evaluation",
        "unified.generation",
        "unified.heads",
        "unified.inference",
        "unified.interop",
        "unified.processes",
        "unified.tokenizers",
    },
}


def imports(file: Path) -> set[str]:
    """Names of the modules of ours that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = ("unified.", "pallas_kernels", "configs", "train", "eval")
    return {name for name in names if name.startswith(ours)}


def part(file: Path) -> str:
    return file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")


@pytest.mark.parametrize("package", ALLOWED)
def test_a_part_imports_only_what_it_may(package):
    within = lambda name, parent: name == parent or name.startswith(parent + ".")
    files = [f for f in ROOT.rglob("*.py") if within(part(f), package)]
    assert files
    for file in files:
        for name in imports(file):
            allowed = any(within(name, other) for other in (package, *ALLOWED[package]))
            assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_a_recipe_imports_no_other_recipe():
    folder = ROOT / "unified/recipes"
    for recipe in (path for path in folder.iterdir() if path.name != "__init__.py"):
        for file in [recipe] if recipe.is_file() else recipe.rglob("*.py"):
            others = [n for n in imports(file) if n.startswith("unified.recipes.")]
            assert all(n.startswith(f"unified.recipes.{recipe.stem}") for n in others), file


def test_importing_the_package_touches_no_device_and_no_heavy_library():
    code = "import sys, unified; print([m for m in ('jax', 'flax', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
