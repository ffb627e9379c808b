"""`emoji.py` as a Y, as in UniFork: shared shallow layers, then a branch for each kind of task.

Examples that end in text go to the stream `und`, those that end in a picture to `gen`.
"""

from configs import emoji

READING = ("caption", "vqa", "text")
DRAWING = ("generate", "edit", "layout")


def get_config():
    config = emoji.get_config()
    with config.ignore_type():
        config.model.backbone.shared = ((0, 3),)  # [first, last) layers
    lanes = config.layout.lanes
    lanes.text_gen = {**lanes.text.to_dict(), "stream": "gen", "tasks": DRAWING, "losses": 0}
    lanes.vit_gen = {**lanes.vit.to_dict(), "stream": "gen", "tasks": DRAWING, "budget": 64}
    lanes.text.tasks = READING
    lanes.vit.tasks = READING
    lanes.vit.budget = 128
    return config
