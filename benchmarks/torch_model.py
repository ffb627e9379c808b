"""The default model in plain eager PyTorch, to be measured against; it shares no code with ours.

Modules and weights have the names of ours, so that `weights` copies them by rule. Two streams of
Qwen3 blocks whose queries and keys meet in one call of scaled dot product attention with a boolean
mask, a SigLIP-style encoder, and the heads; the autoencoder is left out.

`B` rows, `T` tokens, `S` keys, `D` width.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RENAMED = {"kernel": "weight", "scale": "weight"}  # our names -> those of torch


PARTS = {  # of our model -> what `Model` calls them
    ("text", "head"): "language",
    ("vit", "encoder"): "vision",
    ("vae", "head"): "flow",
}


def weights(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Our parameters, or gradients, as a state dict of `Model`."""
    out: dict[str, torch.Tensor] = {}
    for name, value in tree.items():
        path = (*prefix, str(name))
        if isinstance(value, Mapping):
            out |= weights(value, path)
            continue
        stacked = "blocks" in path or "runs" in path
        layers = enumerate(value) if stacked else [(None, value)]
        for layer, leaf in layers:
            leaf = torch.from_numpy(np.array(leaf, np.float32))
            if path[-1] == "kernel":
                from_heads = path[-2] == "out"
                leaf = (leaf.flatten(0, -2) if from_heads else leaf.flatten(1)).T
            elif path[-1] == "bias":
                leaf = leaf.flatten()
            out[_name(path, layer)] = leaf.contiguous()
    return out


def _name(path: tuple[str, ...], layer: int | None) -> str:
    if path[0] == "parts":
        path = (PARTS.get(path[1:3], path[2]), *path[3:])
    *parts, last = path
    if "runs" in parts:  # backbone/runs/0/und/... -> backbone.streams.und.<layer>....
        at = parts.index("runs")
        parts[at : at + 3] = ["streams", parts[at + 2], str(layer)]
    elif "blocks" in parts:
        parts.insert(parts.index("blocks") + 1, str(layer))
    return ".".join([*parts, RENAMED.get(last, last)])


class Tokens(NamedTuple):
    """Clocks and intervals as in `unified.sequence`, int64 `[B T]`."""

    clock: torch.Tensor
    start: torch.Tensor
    stop: torch.Tensor
    position: torch.Tensor


def visible(queries: Tokens, keys: Tokens) -> torch.Tensor:
    """The mask `[B 1 T S]`. A padding query, whose output is not used, sees everything."""
    clock = queries.clock[:, :, None]
    mask = (keys.start[:, None] <= clock) & (clock < keys.stop[:, None])
    return (mask | ~mask.any(-1, keepdim=True))[:, None]


def sincos(angle: torch.Tensor) -> torch.Tensor:
    return torch.cat([angle.sin(), angle.cos()], -1)


def sincos_2d(grid: torch.Tensor, dim: int, theta: float) -> torch.Tensor:
    frequency = theta ** (-torch.arange(dim // 4) / (dim // 4))
    row, column = grid[..., :1] * frequency, grid[..., 1:] * frequency
    return torch.cat([sincos(column), sincos(row)], -1)


def rope(position: torch.Tensor, head_dim: int, theta: float):
    frequency = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angle = (position[:, None, :, None] * frequency).repeat(1, 1, 1, 2)
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, kv_heads: int, head_dim: int, *, qwen: bool):
        super().__init__()
        self.heads, self.kv_heads, bias = heads, kv_heads, not qwen
        self.query = nn.Linear(dim, heads * head_dim, bias)
        self.key = nn.Linear(dim, kv_heads * head_dim, bias)
        self.value = nn.Linear(dim, kv_heads * head_dim, bias)
        self.out = nn.Linear(heads * head_dim, dim, bias)
        self.query_norm = nn.RMSNorm(head_dim, 1e-6) if qwen else nn.Identity()
        self.key_norm = nn.RMSNorm(head_dim, 1e-6) if qwen else nn.Identity()

    def project(self, x: torch.Tensor):
        """Queries `[B N T H]`, keys and values `[B K T H]`."""
        cut = lambda y, heads: y.unflatten(-1, (heads, -1)).transpose(1, 2)
        q, k = cut(self.query(x), self.heads), cut(self.key(x), self.kv_heads)
        return self.query_norm(q), self.key_norm(k), cut(self.value(x), self.kv_heads)


def attend(q, k, v, mask) -> torch.Tensor:
    out = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2).flatten(2)


class GatedMLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.gate = nn.Linear(dim, hidden, False)
        self.up = nn.Linear(dim, hidden, False)
        self.down = nn.Linear(hidden, dim, False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, out)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Qwen3 (`qwen`) or SigLIP."""

    def __init__(self, dim: int, hidden: int, *heads: int, qwen: bool):
        super().__init__()
        norm = nn.RMSNorm if qwen else nn.LayerNorm
        self.attention_norm, self.mlp_norm = norm(dim, 1e-6), norm(dim, 1e-6)
        self.attention = Attention(dim, *heads, qwen=qwen)
        self.mlp = GatedMLP(dim, hidden) if qwen else MLP(dim, hidden, dim)

    def project(self, x):
        return self.attention.project(self.attention_norm(x))

    def update(self, x, attended):
        x = x + self.attention.out(attended)
        return x + self.mlp(self.mlp_norm(x))


class Backbone(nn.Module):
    """`cache` holds a layer's keys and values `[B K S H]` in place; new ones go in from `at`."""

    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        heads = (cfg["num_heads"], cfg["num_kv_heads"], cfg["head_dim"])
        make = lambda s: Block(s["embed_dim"], s["mlp_dim"], *heads, qwen=True)
        self.streams = nn.ModuleDict(
            {
                name: nn.ModuleList(make(s) for _ in range(cfg["num_layers"]))
                for name, s in cfg["streams"].items()
            }
        )
        self.final_norm = nn.ModuleDict(
            {name: nn.RMSNorm(s["embed_dim"], 1e-6) for name, s in cfg["streams"].items()}
        )
        self.num_layers, self.head_dim = cfg["num_layers"], cfg["head_dim"]
        self.theta = cfg["rope_theta"]

    def forward(self, x: dict, position: torch.Tensor, mask, cache=None, at: int = 0):
        sizes = [y.shape[1] for y in x.values()]
        turn = rope(position, self.head_dim, self.theta)
        for i in range(self.num_layers):
            blocks = {name: self.streams[name][i] for name in x}
            parts = zip(*(blocks[name].project(y) for name, y in x.items()), strict=True)
            q, k, v = (torch.cat(part, 2) if len(part) > 1 else part[0] for part in parts)
            q, k = rotate(q, *turn), rotate(k, *turn)
            if cache is not None:
                k, v = (_put(old, new, at) for old, new in zip(cache[i], (k, v), strict=True))
            attended = attend(q, k, v, mask).split(sizes, 1)
            x = {
                name: blocks[name].update(y, a)
                for (name, y), a in zip(x.items(), attended, strict=True)
            }
        return {name: self.final_norm[name](y) for name, y in x.items()}

    def empty_cache(self, rows: int, slots: int, heads: int):
        shape = (rows, heads, slots, self.head_dim)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self.num_layers)]


def _put(old: torch.Tensor, new: torch.Tensor, at: int) -> torch.Tensor:
    end = at + new.shape[2]
    old[:, :, at:end] = new
    return old[:, :, :end]


class Vision(nn.Module):
    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        D, N = cfg["embed_dim"], cfg["num_heads"]
        self.side = cfg["side"]
        self.patch_embedding = nn.Linear(cfg["patch"] ** 2 * 3, D)
        self.position = nn.Parameter(torch.empty(self.side**2, D))
        make = lambda: Block(D, cfg["mlp_dim"], N, N, D // N, qwen=False)
        self.blocks = nn.ModuleList(make() for _ in range(cfg["num_layers"]))
        self.post_norm = nn.LayerNorm(D, 1e-6)

    def forward(self, patches, grid, first, last):
        x = self.patch_embedding(patches / 127.5 - 1)
        x = x + self.position[grid[..., 0] * self.side + grid[..., 1]]
        slots = torch.arange(x.shape[1]).expand(x.shape[:2])
        mask = visible(Tokens(slots, first, last, slots), Tokens(slots, first, last, slots))
        for block in self.blocks:
            x = block.update(x, attend(*block.project(x), mask))
        return self.post_norm(x)


class Connector(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, theta: float):
        super().__init__()
        self.mlp = MLP(in_dim, out_dim, out_dim)
        self.theta = theta

    def forward(self, features, grid):
        y = self.mlp(features)
        return y + sincos_2d(grid, y.shape[-1], self.theta)


class Timestep(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(256, dim), nn.Linear(dim, dim)

    def forward(self, time):
        angle = time[..., None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        return self.fc2(F.silu(self.fc1(torch.cat([angle.cos(), angle.sin()], -1))))


class Flow(nn.Module):
    def __init__(self, dim: int, latent_dim: int):
        super().__init__()
        self.out = nn.Linear(dim, latent_dim)


class Model(nn.Module):
    """The parts; `benchmarks/torch_programs.py` says what is done with them."""

    def __init__(self, cfg: Mapping[str, Any], latent_dim: int):
        super().__init__()
        D = cfg["backbone"]["streams"]["und"]["embed_dim"]
        D_latent = cfg["backbone"]["streams"]["gen"]["embed_dim"]
        text, vit, vae = (cfg["parts"][view] for view in ("text", "vit", "vae"))
        self.embedding = nn.Parameter(torch.empty(text["vocab_size"], D))
        self.vision = Vision(cfg["vision"])
        self.theta = vae["position_theta"]
        self.connector = Connector(cfg["vision"]["embed_dim"], D, vit["position_theta"])
        self.latent_in = nn.Parameter(torch.empty(latent_dim, D_latent))
        self.timestep = Timestep(D_latent)
        self.backbone = Backbone(cfg["backbone"])
        self.language = nn.Linear(D, text["vocab_size"], False)
        self.flow = Flow(D_latent, latent_dim)

    def embed_latents(self, latents, time, side: int):
        """Latent tokens `[B N T P]` of square pictures at flow times `[B N]`."""
        cells = torch.arange(side)
        place = torch.stack(torch.meshgrid(cells, cells, indexing="ij"), -1).flatten(0, 1)
        x = latents @ self.latent_in
        x = x + sincos_2d(place, x.shape[-1], self.theta) + self.timestep(time)[:, :, None]
        return x.flatten(1, 2)
