"""What a training step must compute, for the utilisation of the hardware (MFU)."""

import jax
import numpy as np

from unified.backbone.flops import forward_flops
from unified.lanes import PatchTokens, PictureTokens, TextTokens
from unified.nn.flops import attention, count, per_token
from unified.recipes.ar_flow.model import ARFlow
from unified.sequence import Batch


def flops(model: ARFlow, batch: Batch) -> float | None:
    """Floating-point operations of a step on host arrays: forward, and twice that backward.

    Logits count where there is a text loss and velocities where there is a noised picture; padding
    and hidden keys count nothing, nor do what is computed again for lack of memory, norms, softmax
    and the frozen autoencoder. None where they depend on flow times (`active`), drawn later.
    """
    if model.cfg.backbone.active is not None:
        return None
    join = lambda *parts: np.concatenate(parts, axis=1)
    streams = {}
    for stream in model.cfg.layout.streams:
        lanes = [batch.lanes[lane.name].tokens for lane in model.cfg.layout.of_stream(stream)]
        streams[stream] = jax.tree.map(join, *lanes)
    own = sum(lane_flops(model, lane) for lane in batch.lanes.values())
    return 3.0 * (forward_flops(model.backbone, streams) + own)


def lane_flops(model: ARFlow, lane: TextTokens | PatchTokens | PictureTokens) -> int:
    """Of one forward pass outside the backbone: from content to embeddings, and the heads."""
    tokens = count(lane.tokens)
    if isinstance(lane, TextTokens):
        return int((lane.loss_weight > 0).sum()) * per_token(model.language)
    if isinstance(lane, PatchTokens):
        vision = model.cfg.vision
        assert vision is not None
        weights = per_token(model.vision) + per_token(model.connector)
        seen = int((lane.last - lane.first).sum())  # a patch sees those of its picture
        heads = (vision.num_layers, vision.attention.num_heads, vision.attention.head_dim)
        return tokens * weights + attention(*heads, seen)
    noised = int((lane.target & lane.valid).sum()) * (tokens // max(int(lane.valid.sum()), 1))
    times = int(lane.valid.sum()) * per_token(model.timestep)
    return tokens * 2 * model.latent_in.size + noised * per_token(model.flow) + times
