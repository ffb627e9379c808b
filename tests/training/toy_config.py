"""The smallest run: `--config tests/training/toy_config.py`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "tests.training.toy_recipe"
    config.tokenizer = "unified/tokenizers/emoji_bpe.json"  # of no use to it, but kept beside it
    config.model = {"width": 16}
    config.data = {"poison": 0, "bad": 0, "delay": 0.0}
    config.benchmark = "toy"
    config.loss_weights = {"text": 1.0, "size": 0.01}
    config.optimizer = {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.1, "b2": 0.95}
    config.ema = {"decay": 0.9}
    config.batch_size = 8
    config.total_steps = 20
    config.log_every = 1
    config.checkpoint = {"every": 5, "keep": 2, "best": "validation/loss"}
    config.validation = {"every": 5, "batches": 2, "tasks": ("easy", "hard")}
    return config
