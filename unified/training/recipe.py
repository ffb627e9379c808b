"""What a run takes from its recipe, beside the losses."""

from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from unified.interop import model as models
from unified.training import processes
from unified.training.setup import Setup

NEEDED = ("build", "inputs", "loss", "counts", "evaluate")


def recipe_of(config: ConfigDict) -> ModuleType:
    """The recipe, which finds nothing wrong with the config. Raises ValueError."""
    recipe = models.recipe_of(config)
    if missing := [name for name in NEEDED if not hasattr(recipe, name)]:
        raise ValueError(f"config.recipe={config.recipe!r} is no recipe: it has no {missing[0]}()")
    if hasattr(recipe, "check"):
        recipe.check(config)
    return recipe


def draw_from(
    recipe: ModuleType, config: ConfigDict, setup: Setup, split: str, task: str | None = None
) -> Any:
    """The input of a split; with several processes, this one's rows of it."""
    rows = {"rows": setup.rows} if processes.are_several() else {}
    return recipe.inputs(config, split, task, **rows)
