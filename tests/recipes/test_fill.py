"""Budgets of a row suit the mixture: the configs of the emoji data leave few slots empty."""

from pathlib import Path

import numpy as np
import pytest

from unified.data.emoji import tasks
from unified.recipes import ar_flow
from unified.training import config as configs

FILES = sorted((Path(__file__).parents[2] / "configs").glob("emoji*.py"))


@pytest.fixture(autouse=True)
def blank(monkeypatch):
    """Scenes are not rendered: a row takes a picture by its size."""
    picture = np.zeros((64, 64, 3), np.uint8)
    monkeypatch.setattr(tasks, "render", lambda scene: picture)


LEAST = {"emoji_long": 0.90}  # slots of text for six questions, which most pictures are not asked


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hardly_a_slot_stays_empty_and_no_example_is_too_long(file):
    alone = ["--config.batch_size=2", "--config.data.workers=0"]
    pipeline = ar_flow.inputs(configs.load(str(file), alone), "train")
    for _ in range(40):  # past the start, when there is most to choose from
        next(pipeline)
    pipeline.metrics()
    for _ in range(60):
        next(pipeline)
    metrics = pipeline.metrics()
    pipeline.close()
    assert metrics["fill"] > LEAST.get(file.stem, 0.95)
    assert metrics["bad_records"] == 0
