"""`emoji.py` as an H, as in HBridge: the streams attend to one another in middle layers only."""

from configs import emoji


def get_config():
    config = emoji.get_config()
    with config.ignore_type():
        config.model.backbone.joint = ((1, 5),)  # [first, last) layers
    return config
