"""What a config may say of training: the range of every number, and fields that must agree."""

import math

from ml_collections import ConfigDict

INF = math.inf
LAST_SEED = 2**31 - 1  # JAX numbers have 32 bits

RANGES = {  # first and last value; neither infinite nor "not a number"
    "batch_size": (1, INF),
    "total_steps": (1, INF),
    "accumulation": (1, INF),
    "log_every": (1, INF),
    "seed": (0, LAST_SEED),
    "max_minutes": (0, INF),
    "optimizer.learning_rate": (0, INF),
    "optimizer.warmup_steps": (0, INF),
    "optimizer.final_fraction": (0, 1),
    "optimizer.clip_norm": (0, INF),
    "optimizer.weight_decay": (0, INF),
    "optimizer.eps": (0, INF),
    "checkpoint.every": (1, INF),
    "checkpoint.keep": (1, INF),
    "validation.every": (0, INF),
}
SHARES = ("ema.decay", "optimizer.b1", "optimizer.b2")  # at least 0, less than 1


def check(config: ConfigDict) -> ConfigDict:
    """Returns `config`. Raises ValueError where a number is out of its range, or fields
    contradict each other, saying what to change."""
    check_ranges(config)
    if config.batch_size % config.accumulation:
        raise ValueError(
            f"accumulation={config.accumulation} must divide batch_size={config.batch_size}"
        )
    if not config.loss_weights:
        raise ValueError("loss_weights is empty: name at least one loss of the recipe")
    if config.validation.every and config.validation.batches < 1:
        raise ValueError("validation.batches must be at least 1; set validation.every=0 for none")
    if config.checkpoint.best and not config.validation.every:
        raise ValueError("checkpoint.best needs validation: set validation.every")
    if config.checkpoint.best and config.checkpoint.every % config.validation.every:
        raise ValueError(
            f"checkpoint.best compares checkpoints by validation: checkpoint.every="
            f"{config.checkpoint.every} must be a multiple of {config.validation.every}"
        )
    return config


def check_ranges(config: ConfigDict) -> None:
    """Raises ValueError, naming the field. Those that the config has not are left out."""
    weights = config.get("loss_weights", {})
    fields = RANGES | {f"loss_weights.{name}": (-INF, INF) for name in weights}
    for field, (first, last) in fields.items():
        if (value := _number(config, field)) is None:
            continue
        if not first <= value <= last or not math.isfinite(value):
            raise ValueError(f"{field}={value} must be {_span(first, last)}")
    for field in SHARES:
        value = _number(config, field)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{field}={value} must be in [0, 1)")


def _number(config: ConfigDict, field: str) -> float | None:
    """The value at a path. Raises ValueError if it is neither a number nor None."""
    parent, _, name = field.rpartition(".")
    fields = config.get(parent, {}) if parent else config
    if not hasattr(fields, "get"):
        raise ValueError(f"{parent}={fields!r} must be fields by name")
    value = fields.get(name)
    if value is not None and not isinstance(value, int | float):
        raise ValueError(f"{field}={value!r} must be a number")
    return value


def _span(first: float, last: float) -> str:
    if first == -INF:
        return "a finite number"
    return f"at least {first}" if last == INF else f"from {first} to {last}"
