"""The run behind the checkpoint that ships: `emoji.py`, longer."""

from configs import emoji


def get_config():
    config = emoji.get_config()
    config.total_steps = 4000
    config.checkpoint.every = 250
    config.validation.every = 500
    config.ema.decay = 0.999
    return config
