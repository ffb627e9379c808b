"""A recipe small enough to compile in a second: next-token prediction with one scanned MLP stack.

Not every row has the same number of tokens, so that normalising over a window matters.
"""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unified.data.rows import BadRecordsError
from unified.sharding import constrain

VOCAB, LENGTH = 16, 8


class Layer(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        normal = jax.nn.initializers.normal(0.1)
        self.scale = nnx.Param(jnp.ones((2, width)), axes=("layers", "embed"))
        self.up = nnx.Param(normal(rngs.params(), (2, width, 32)), axes=("layers", "embed", "mlp"))
        self.down = nnx.Param(
            normal(rngs.params(), (2, 32, width)), axes=("layers", "mlp", "embed")
        )


class Toy(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        normal = jax.nn.initializers.normal(0.1)
        self.embedding = nnx.Param(normal(rngs.params(), (VOCAB, width)), axes=("vocab", "embed"))
        self.layers = Layer(width, rngs=rngs)
        self.head = nnx.Param(normal(rngs.params(), (width, VOCAB)), axes=("embed", "vocab"))

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = constrain(self.embedding[ids], "batch", "length", None)

        def layer(x, weights):
            scale, up, down = weights
            h = constrain(jax.nn.silu((x * scale) @ up), "batch", "length", "mlp")
            return x + h @ down, None

        layers = self.layers
        x, _ = jax.lax.scan(layer, x, (layers.scale[...], layers.up[...], layers.down[...]))
        return x @ self.head


def build(config, *, rngs: nnx.Rngs) -> Toy:
    return Toy(config["model"]["width"], rngs=rngs)


def loss(model: Toy, batch, key: jax.Array):
    logits = model(batch["ids"][:, :-1])
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["ids"][:, 1:, None], -1)[..., 0]
    weight = batch["weight"]
    text = (-(log_p * weight).sum(), weight.sum())
    size = (jnp.square(logits) * weight[..., None]).sum(), weight.sum() * VOCAB
    first = (-(log_p * weight)[:, 0].sum(), weight[:, 0].sum())
    return {"text": text, "size": size, "text/first": first}


def counts(model, batch):
    return {"text": batch["weight"].sum(), "size": batch["weight"].sum() * VOCAB}


class Inputs:
    """Random walks over the vocabulary; the batch of an index is always the same.

    `poison` is the batch that holds a NaN, `bad` the first one that cannot be made for bad records,
    `delay` the seconds that one takes.
    """

    def __init__(self, size: int, seed: int, rows=None, poison: int = 0, bad: int = 0, delay=0.0):
        self.index, self._size, self._seed = 0, size, seed
        self._rows = range(size) if rows is None else rows
        self._poison, self._bad, self._delay = poison, bad, delay

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(self._delay)
        rng = np.random.default_rng((self._seed, self.index))
        self.index += 1
        if self._bad and self.index >= self._bad:
            raise BadRecordsError("4 bad records, and max_bad_records is 3; the last is a.jsonl:7")
        steps = rng.integers(0, 3, (self._size, LENGTH + 1))
        lengths = rng.integers(1, LENGTH + 1, (self._size, 1))
        weight = (np.arange(LENGTH) < lengths).astype(np.float32)
        if self.index == self._poison:
            weight[:] = np.nan
        ids = np.cumsum(steps, 1, dtype=np.int32) % VOCAB
        return {"ids": ids[self._rows], "weight": weight[self._rows]}

    def get_state(self):
        return {"index": self.index}

    def set_state(self, state):
        self.index = state["index"]

    def merge_states(self, states):
        return states[0]

    def metrics(self):
        return {"drawn": self.index}


def inputs(config, split: str, task: str | None = None, *, rows=None) -> Inputs:
    seeds = {("train", None): 0, ("validation", "easy"): 1, ("validation", "hard"): 2}
    trouble = dict(config["data"]) if split == "train" else {}
    return Inputs(config["batch_size"], seeds[split, task], rows, **trouble)


def check(config) -> None:
    if config.get("benchmark", "toy") != "toy":
        raise ValueError("config.benchmark: there is only 'toy'")


def evaluate(model: Toy, config, folder: Path, losses=None) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"head_norm": float(jnp.linalg.norm(model.head)), **(losses or {})}
    (folder / "result.json").write_text(json.dumps(metrics))
    return metrics
