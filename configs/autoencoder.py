"""The autoencoder of the default model: pictures of 64x64 to latents of 16x16x8."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "unified.recipes.autoencoder"
    config.seed = 0
    config.mesh = {"data": 1, "fsdp": -1, "tensor": 1}

    config.model = {
        "encoder_widths": (8, 32, 48),
        "decoder_widths": (16, 32, 64),
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "latent_channels": 8,
        "num_groups": 4,
        "scale": 1.0,
        "shift": 0.0,
    }

    source = "unified.worlds.emoji.tasks:EmojiSource"
    pictures = {"format": source, "tasks": {"generate": 1.0}}
    config.data = {
        "side": 64,  # pixels
        "train": {"emoji": {**pictures, "split": "train", "icons": 0.5}},
        "validation": {"emoji": {**pictures, "split": "validation", "icons": 0.5}},
        "evaluation": {
            "scenes": {**pictures, "split": "heldout"},
            "icons": {**pictures, "split": "concepts"},
        },
        "examples": 128,  # of each, to evaluate
        "threads": 1,
        "workers": 0,
        "prefetch": 2,
        "max_bad_records": 100,
    }

    config.batch_size = 8
    config.total_steps = 5000
    config.loss_weights = {"l1": 0.5, "mse": 4.0, "edges": 0.25, "kl": 4e-3}
    config.optimizer = {
        "name": "muon",
        "learning_rate": 4e-3,
        "schedule": "wsd",
        "warmup_steps": 50,
    }
    config.ema = {"decay": 0.998, "warmup": True}
    config.checkpoint = {"every": 250, "keep": 2}
    config.validation = {"every": 250, "batches": 4}
    config.log_every = 25
    return config
