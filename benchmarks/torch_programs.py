"""What is measured, on the side of PyTorch: a training step, cached decoding, cached sampling.

`B` rows, `N` pictures of a row, `T` tokens, `P` numbers of a latent token, `S` cached slots.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.torch_model import Model, Tokens, visible


def tensors(tree: Any) -> Any:
    """Arrays of a batch as tensors: integers as int64, bytes as float32."""
    if dataclasses.is_dataclass(tree):
        fields = dataclasses.fields(tree)
        return type(tree)(**{f.name: tensors(getattr(tree, f.name)) for f in fields})
    if isinstance(tree, dict):
        return {key: tensors(value) for key, value in tree.items()}
    if tree is None:
        return None
    x = torch.from_numpy(np.array(tree))
    return x.long() if x.dtype == torch.int32 else x.float() if x.dtype == torch.uint8 else x


def join(*parts: Any) -> Tokens:
    """The tokens of lanes or streams, one after another."""
    names = Tokens._fields
    return Tokens(*(torch.cat([getattr(p, name) for p in parts], 1) for name in names))


@dataclasses.dataclass
class Trainer:
    """Clipping and AdamW, fused; the autoencoder is left out, latents are given."""

    model: Model
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, model: Model, learning_rate: float, b2: float, weight_decay: float) -> "Trainer":
        options = {"betas": (0.9, b2), "weight_decay": weight_decay, "fused": True}
        return cls(model, torch.optim.AdamW(model.parameters(), learning_rate, **options))

    def loss(self, lanes: dict, latents, times, targets, weights: dict[str, float]):
        model, text, vit, vae = self.model, *(lanes[name] for name in ("text", "vit", "vae"))
        patches = model.vision(vit.patches, vit.grid, vit.first, vit.last)
        side = math.isqrt(latents.shape[2])
        x = {
            "und": torch.cat([model.embedding[text.ids], model.connector(patches, vit.grid)], 1),
            "gen": model.embed_latents(latents, times, side),
        }
        tokens = join(text.tokens, vit.tokens, vae.tokens)
        hidden = model.backbone(x, tokens.position, visible(tokens, tokens))
        at = text.loss_index[..., None].expand(-1, -1, hidden["und"].shape[-1])
        logits = model.language(hidden["und"].gather(1, at)).flatten(0, 1)
        per_token = F.cross_entropy(logits, text.loss_target.flatten(), reduction="none")
        weight = text.loss_weight.flatten()
        velocity = model.flow.out(hidden["gen"]).view_as(targets)
        error = (velocity - targets).square().mean(-1)[vae.target & vae.valid]
        return weights["text/nll"] * (per_token * weight).sum() / weight.sum() + (
            weights["vae/flow"] * error.mean()
        )

    def step(self, *data) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(*data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss


@torch.inference_mode()
def read(model: Model, lanes: dict, room: int):
    """The cache of contexts of text and patches, with free slots, and their tokens."""
    parts, x = [lanes["text"]], model.embedding[lanes["text"].ids]
    if "vit" in lanes:
        vit = lanes["vit"]
        patches = model.vision(vit.patches, vit.grid, vit.first, vit.last)
        parts, x = [*parts, vit], torch.cat([x, model.connector(patches, vit.grid)], 1)
    tokens = join(*(part.tokens for part in parts))
    heads = model.backbone.streams["und"][0].attention.kv_heads
    cache = model.backbone.empty_cache(len(x), x.shape[1] + room, heads)
    model.backbone({"und": x}, tokens.position, visible(tokens, tokens), cache)
    return cache, tokens


@torch.inference_mode()
def write(model: Model, cache, tokens: Tokens, first, clock, position, num: int) -> torch.Tensor:
    """Greedy ids `[B num]` after `first` `[B]`, whose place is `clock` and `position` `[B]`."""
    slots = tokens.clock.shape[1]
    query = Tokens(clock[:, None], clock[:, None], clock[:, None], position[:, None])
    mask = torch.cat([visible(query, tokens), torch.ones(len(first), 1, 1, num).bool()], -1)
    ids, out = first, []
    for n in range(num):
        x = {"und": model.embedding[ids][:, None]}
        end = slots + n + 1
        hidden = model.backbone(
            x, position[:, None] + n, mask[..., :end].contiguous(), cache, slots + n
        )
        ids = model.language(hidden["und"][:, 0]).argmax(-1)
        out.append(ids)
    return torch.stack(out, 1)


@torch.inference_mode()
def draw(model: Model, cache, tokens: Tokens, lanes: dict, noise, times, scale: float):
    """Latents `[B T P]` after Euler steps at `times`, guided away from the second half of rows."""
    slots = tokens.clock.shape[1]
    own = join(lanes["text"].tokens, lanes["vae"].tokens)
    mask = visible(own, join(tokens, own))
    marks = model.embedding[lanes["text"].ids]
    x, side = noise, math.isqrt(noise.shape[1])
    norm = lambda v: v.flatten(1).norm(dim=1)[:, None, None]
    for t, t_next in itertools.pairwise(times):
        rows = torch.cat([x, x])[:, None]
        streams = {
            "und": marks,
            "gen": model.embed_latents(rows, t.expand(len(rows), 1), side),
        }
        hidden = model.backbone(streams, own.position, mask, cache, slots)
        conditional, without = model.flow.out(hidden["gen"]).chunk(2)
        guided = without + scale * (conditional - without)
        guided = guided * (norm(conditional) / (norm(guided) + 1e-8)).clamp(max=1)
        x = x - guided * (t - t_next)
    return x
