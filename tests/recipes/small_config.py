"""The default recipe at a size for tests, as a run: `--config tests/recipes/small_config.py`."""

import time
from typing import Any

from ml_collections import ConfigDict

from tests.recipes.small import small
from unified.worlds.emoji.tasks import EmojiSource

HERE = "tests.recipes.small_config"  # whatever name it is loaded by


class SlowSource(EmojiSource):
    """Takes its time, so that a run can be killed in the middle."""

    def __init__(self, *args: Any, delay: float, **options: Any):
        super().__init__(*args, **options)
        self.delay = delay

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.delay)
        return super().__getitem__(index)


def get_config() -> ConfigDict:
    config = small(num_layers=1)
    config.model.backbone.joint = "all"
    config.load = {}
    config.max_minutes = 0.0
    config.data.train.emoji.update({"format": f"{HERE}:SlowSource", "delay": 0.0})
    config.optimizer.warmup_steps = 2
    config.validation = {"every": 0, "batches": 0, "tasks": ()}
    config.benchmark = {"module": HERE}
    return config


def run(model: Any, folder: Any, *, extra: Any) -> dict[str, float]:
    """The benchmark of a run that is not about what it has learnt."""
    return {"measured": 0.0}
