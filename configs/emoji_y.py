"""`emoji.py` as a Y, as in UniFork: shared shallow layers, then a branch for each kind of task.

Examples that end in text go to the stream `und`, those that end in a picture to `gen`. So that
all lanes fill up together, rows are twice as long as those of `emoji.py`, and half as many.
"""

from configs import emoji

READING = ("caption", "vqa", "locate", "text")
DRAWING = ("generate", "edit", "layout")


def get_config():
    config = emoji.get_config()
    with config.ignore_type():
        config.model.backbone.shared = ((0, 3),)  # [first, last) layers
    lanes = config.layout.lanes
    text, vit = lanes.text.to_dict(), lanes.vit.to_dict()
    lanes.text_gen = {**text, "stream": "gen", "tasks": DRAWING, "budget": 84, "losses": 0}
    lanes.vit_gen = {**vit, "stream": "gen", "tasks": DRAWING, "budget": 64}
    lanes.text.update({"tasks": READING, "budget": 92})
    lanes.vit.update({"tasks": READING, "budget": 192})
    lanes.vae.count = 6
    config.batch_size = 7
    config.data.train.emoji.tasks.edit = 2.75
    return config
