"""`emoji.py`, longer: what the run behind the checkpoint that ships ended with (`docs/LOG.md`)."""

from configs import emoji


def get_config():
    config = emoji.get_config()
    config.total_steps = 13000
    config.max_minutes = 0.0
    config.compute_dtype = "bfloat16"  # 1.5x on CPUs with AVX-512 BF16, from jax 0.12 on
    config.checkpoint.update({"every": 500, "keep": 3})
    config.validation.every = 1000
    config.ema.decay = 0.999
    config.optimizer.warmup_steps = 100
    return config
