"""Budgets of a row suit the mixture: the configs of the emoji data leave few slots empty."""

from pathlib import Path

import numpy as np
import pytest

from unified.recipes import packed
from unified.training import config as configs
from unified.worlds.emoji import tasks

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted([*CONFIGS.glob("emoji*.py"), CONFIGS / "quick.py"])


@pytest.fixture(autouse=True)
def blank(monkeypatch):
    """Scenes are not rendered: a row takes a picture by its size."""
    blank = lambda scene: np.zeros((scene.side, scene.side, 3), np.uint8)
    monkeypatch.setattr(tasks, "render", blank)


LEAST = {
    "emoji_long": 0.90,  # slots of text for six questions, which most pictures are not asked
    "quick": 0.90,  # three examples a row, of which any has to fit
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hardly_a_slot_stays_empty_and_no_example_is_too_long(file):
    alone = ["--config.batch_size=2", "--config.data.workers=0"]
    pipeline = packed.inputs(configs.load(str(file), alone), "train")
    for _ in range(40):  # past the start, when there is most to choose from
        next(pipeline)
    pipeline.metrics()
    for _ in range(60):
        next(pipeline)
    metrics = pipeline.metrics()
    pipeline.close()
    assert metrics["fill"] > LEAST.get(file.stem, 0.95)
    assert metrics["bad_records"] == 0
