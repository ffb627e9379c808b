"""Floating-point operations of a backbone, counted for the tokens that a batch really holds."""

from collections.abc import Mapping

import jax
import numpy as np

from unified.backbone.backbone import Backbone
from unified.backbone.config import SHARED
from unified.nn.flops import attention, count, count_pairs, per_token
from unified.sequence import Tokens


def forward_flops(backbone: Backbone, tokens: Mapping[str, Tokens]) -> int:
    """Of one forward pass over streams of host arrays `[B n]`; the model may be abstract.

    Each token meets the weights of its own stream, each query the keys that it sees: padding and
    hidden keys cost nothing. Raises ValueError for layers that run at some flow times only.
    """
    cfg = backbone.cfg
    if cfg.active is not None:
        raise ValueError("which tokens run a layer of config.active is drawn on the device")
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *tokens.values())
    together, apart = count_pairs(joined), sum(map(count_pairs, tokens.values()))
    total = 0
    for i, run in enumerate(cfg.runs):
        for stream, own in tokens.items():
            weights = backbone.runs[str(i)][SHARED if run.shared else stream]
            total += count(own) * per_token(weights)
        pairs = together if run.joint else apart
        total += attention(run.hi - run.lo, cfg.num_heads, cfg.head_dim, pairs)
    return total
