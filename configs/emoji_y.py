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
    text, vit = lanes.text.to_dict(), lanes.vit.to_dict()
    lanes.text_gen = {**text, "stream": "gen", "tasks": DRAWING, "budget": 80, "losses": 0}
    lanes.vit_gen = {**vit, "stream": "gen", "tasks": DRAWING, "budget": 64}
    lanes.text.update({"tasks": READING, "budget": 112})
    lanes.vit.update({"tasks": READING, "budget": 192})
    return config
