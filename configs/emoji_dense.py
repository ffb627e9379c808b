"""`emoji.py` as one dense transformer, as in Transfusion: all tokens share all weights."""

from configs import emoji


def get_config():
    config = emoji.get_config()
    config.model.backbone.shared = "all"
    return config
