"""Tiny packed rows and backbones. A row is written as its documents; a document as its spans; a
span as a kind and one letter a token, the stream: `("noised", "uggu")` is a picture in `gen` whose
two marks are in `und`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.backbone import Backbone, BackboneConfig
from unified.sequence import Tokens

STREAMS = {"u": "und", "g": "gen"}
WIDTHS = {"embed_dim": 16, "mlp_dim": 24}


def make_rows(rows):
    """`Tokens` per stream and, for tests to judge by, (document, span, kind) of each token."""
    streams = {letter for row in rows for doc in row for _, s in doc for letter in s}
    tokens, kinds = {}, {}
    per_row = [[*_row(row)] for row in rows]
    for letter in sorted(streams):
        picked = [[t for t in row if t[0] == letter] for row in per_row]
        arrays = np.array([[t[1] for t in row] for row in picked], np.int32)
        tokens[STREAMS[letter]] = Tokens(*np.moveaxis(arrays, -1, 0))
        kinds[STREAMS[letter]] = [[t[2] for t in row] for row in picked]
    return tokens, kinds


def _row(row):
    clock, size = 0, sum(len(letters) for doc in row for _, letters in doc)
    for d, doc in enumerate(row):
        end = clock + sum(len(letters) for _, letters in doc)
        for i, (kind, letters) in enumerate(doc):
            begin, stop = clock, clock + len(letters)
            for letter in letters:
                start = {"text": clock, "pad": 0}.get(kind, begin)
                until = {"noised": stop, "pad": 0}.get(kind, end)
                query = size if kind == "pad" else clock
                yield letter, (query, start, until, clock), (d, i, kind)
                clock += 1


def make_backbone(**changes):
    cfg = {
        "streams": {"und": WIDTHS, "gen": WIDTHS},
        "num_layers": 2,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 8,
        "qk_norm": True,
        "qkv_bias": True,
        "rope_theta": 100.0,
    }
    return build(BackboneConfig(**(cfg | changes)))


@functools.cache
def build(cfg):
    """Its weights are drawn on the host: initialisers would be compiled anew for every plan."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Backbone(cfg, rngs=nnx.Rngs(0))), nnx.Param)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        mean = 1.0 if path[-1] == jax.tree_util.DictKey("scale") else 0.0
        return jnp.asarray(rng.normal(mean, 0.2, leaf.shape), leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(shapes)))


def make_embeddings(backbone, tokens, seed=1):
    rng = np.random.default_rng(seed)
    shape = lambda s: (*tokens[s].clock.shape, backbone.cfg.streams[s].embed_dim)
    return {s: jnp.asarray(rng.normal(size=shape(s)), jnp.float32) for s in tokens}


ROWS = [
    [
        [("text", "uu"), ("noised", "uggu"), ("clean", "uggu"), ("text", "uu")],
        [("clean", "uuu"), ("text", "u")],
        [("pad", "u")],
    ],
    [
        [("text", "uuuu")],
        [("text", "u"), ("noised", "uggu"), ("noised", "uggu"), ("text", "u")],
        [("pad", "uuu")],
    ],
]


@pytest.fixture(scope="session")
def rows():
    """`make(rows) -> tokens, kinds`."""
    return make_rows


@pytest.fixture(scope="session")
def backbone():
    """`make(**config changes) -> Backbone`."""
    return make_backbone


@pytest.fixture(scope="session")
def embeddings():
    """`make(backbone, tokens) -> x`."""
    return make_embeddings


@pytest.fixture(scope="session")
def packed():
    """Two packed rows: tokens and kinds."""
    return make_rows(ROWS)


@pytest.fixture(scope="session")
def run():
    """`run(backbone, x, tokens, time=, cache=) -> hidden`, compiled once for equal plans."""
    return jax.jit(lambda b, x, tokens, **kw: b(x, tokens, **kw).hidden)
