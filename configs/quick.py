"""The default run: a small network that learns a small world in three minutes of two slow cores.

Single things in their colour, on pictures of 32 pixels a side: it draws them, says what they are
and of which colour, and paints them anew. The whole world is that of `configs/emoji.py`, from
which all else is taken.
"""

from configs import emoji

WORLD = {
    "side": 32,  # pixels
    "most": 1,  # things in a picture
    "nouns": (
        *("apple", "bell", "bus", "butterfly", "cactus", "car", "cat", "crown"),
        *("dog", "heart", "house", "mushroom", "rocket", "star", "teapot", "tree"),
    ),
    "styles": ("flat",),
    "backgrounds": ("white",),
    "questions": ("what", "colour"),
    "edits": ("recolour",),
}
TASKS = {"generate": 5.0, "vqa": 2.5, "edit": 2.5}


def get_config():
    config = emoji.get_config()
    source = {
        "format": "unified.worlds.emoji.tasks:EmojiSource",
        "world": WORLD,
        "icons": 0.0,
        "questions": 2,  # about a picture, at most
    }
    config.data.train = {"emoji": {**source, "split": "train", "tasks": TASKS}}
    config.data.validation = {
        task: {**source, "split": "validation", "tasks": {task: 1.0}} for task in TASKS
    }
    config.data.dropout.image = 0.0  # edits are drawn without guidance by the picture
    config.data.lookahead = 16

    lanes = config.layout.lanes
    lanes.text.update({"budget": 48, "losses": 16})
    lanes.vit.update({"budget": 32, "min_side": 32, "max_side": 32})
    lanes.vae.update({"count": 4, "height": 32, "width": 32})
    width = {"embed_dim": 128, "mlp_dim": 256}
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 32}
    config.model.backbone.update({"streams": {"und": width, "gen": width}, "num_layers": 4} | heads)
    vision = {"embed_dim": 64, "mlp_dim": 128, "num_layers": 2, "num_heads": 2, "side": 4}
    config.model.vision.update(vision)

    config.batch_size = 8
    config.total_steps = 1000
    config.max_minutes = 3.0
    config.optimizer.warmup_steps = 30
    config.checkpoint.every = 500
    config.validation.update({"every": 500, "tasks": tuple(TASKS)})
    config.drawing.update(
        {"steps": 12, "text_scale": 2.0, "image_scale": 1.0, "candidates": 1, "read_back": {}}
    )
    with config.ignore_type():
        config.benchmark = {
            "module": "unified.worlds.emoji.benchmark",
            "world": WORLD,
            "tasks": tuple(TASKS),
            "icons": False,
            "examples_per_task": 32,  # one batch of requests, so that each program compiles once
        }
    return config
