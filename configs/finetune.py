"""Teaches the model that ships something it does not know: `make finetune`, five minutes.

Two emoji that were kept from its training (`unified/worlds/emoji/holdout.py`), among scenes that it
draws already, so that it forgets less of them. In the end it and what it was before draw the same
prompts with the same seeds. The text stream is frozen: it reads and answers as it did, bit for bit.

`--config configs/finetune.py:path/to/folder` teaches the pictures of your own folder, in the form
that `configs/folder.py` describes, texts too. See `docs/finetune.md`.
"""

from configs import emoji_long

START = "unified/checkpoints/emoji"
TAUGHT = ("bicycle", "tiger")
READS = ("^parts/vit/", "^parts/text/", "/und/")  # all but the drawing


def get_config(path: str = ""):
    config = emoji_long.get_config()
    config.load = {"/": START}
    config.compute_dtype = "float32"
    config.batch_size = 4
    config.total_steps = 150
    config.max_minutes = 2.8
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 5e-4,  # three times this draws four emoji, and half of the scenes wrong
        "schedule": "wsd",
        "warmup_steps": 5,
        "weight_decay": 0.0,
    }
    config.ema.decay = 0.9
    config.checkpoint = {"every": 1000, "keep": 1}
    config.validation = {"every": 0, "batches": 0, "tasks": ()}
    config.layout.lanes.vit.budget = 64  # one picture
    config.drawing.update({"steps": 12, "candidates": 1})
    config.data.update({"workers": 0, "threads": 2, "lookahead": 16})

    emoji = "unified.worlds.emoji"
    scenes = {"format": f"{emoji}.tasks:EmojiSource", "tasks": {"generate": 1.0}, "icons": 0.0}
    known = {**scenes, "split": "validation"}
    if path:
        taught = {"format": "jsonl", "path": path}
        asked = taught
        config.freeze = ("^parts/vae/autoencoder/",)
        config.layout.lanes.text.update({"budget": 128, "losses": 64})
    else:
        taught = {
            "format": f"{emoji}.concept:ConceptSource",
            "names": TAUGHT,
            "styles": ("flat",),
        }
        asked = {**taught, "seed": 1}
        config.freeze = ("^parts/vae/autoencoder/", *READS)
        config.layout.lanes.text.update({"budget": 64, "losses": 0})
        config.loss_weights = {"vae/flow": 1.0}
    config.data.train = {"new": taught, "old": {**scenes, "split": "train"}}
    config.data.validation = {"new": asked, "old": known}
    with config.ignore_type():
        config.benchmark = {
            "module": "unified.evaluation.before_after",
            "sources": {"new": asked, "old": known},
            "examples": 20,
        }
    return config
