"""`emoji.py`, larger and longer: the run behind the checkpoint that ships (`docs/LOG.md`).

Seven minutes on one H100 whose input 15 other cores make; `--config.data.workers=4` suits fewer.
"""

from configs import emoji


def get_config():
    config = emoji.get_config()
    config.compute_dtype = "bfloat16"
    config.batch_size = 112
    config.total_steps = 9052
    config.max_minutes = 0.0
    config.optimizer.update({"learning_rate": 3e-3, "warmup_steps": 200})
    config.ema.decay = 0.999
    config.checkpoint.update({"every": 2000, "keep": 2})
    config.validation.update({"every": 0})

    config.layout.lanes.text.update({"budget": 104, "losses": 72})
    width = {"embed_dim": 256, "mlp_dim": 768}
    config.model.backbone.update(
        {
            "streams": {"und": width, "gen": width},
            "num_layers": 8,
            "num_heads": 6,
            "num_kv_heads": 2,
            "head_dim": 64,
        }
    )
    config.model.vision.update({"embed_dim": 192, "mlp_dim": 512, "num_layers": 4})

    config.drawing.update({"shift": 1.0, "text_scale": 2.0, "candidates": 8})

    config.data.workers = 15
    config.data.threads = 1
    config.data.lookahead = 32
    config.data.train.emoji.questions = 6
    config.data.train.emoji.tasks.update({"caption": 1.5, "vqa": 4.5, "edit": 4.5, "generate": 5.5})
    return config
