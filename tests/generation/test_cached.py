"""Generation with a real backbone: cached as uncached, and every row as if it were alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified.backbone import Backbone, BackboneConfig, Cache
from unified.generation.guidance import Guidance
from unified.generation.picture import draw_noise, generate_picture
from unified.generation.text import OPEN, generate_text
from unified.processes import rectified_flow
from unified.processes.autoregressive import GREEDY, Sampling
from unified.sequence import Tokens

pytestmark = pytest.mark.usefixtures("keep_compiled")

V, D, BEGIN, MARKS, END = 13, 16, 0, (1, 2), 5
SLOTS, STEPS = 7, 10  # of the context; of decoded text
CONTEXTS = ([3, 4, 6, 7, 8, 9, 3], [10], [11, 12, 4, 4])  # three lengths
LENGTHS = np.array([len(context) for context in CONTEXTS])
SEEDS = np.array([7, 8, 9])


@pytest.fixture(scope="module")
def model():
    """Graph of a small backbone, and random parameters with an embedding and a head."""
    width = {"embed_dim": D, "mlp_dim": 24}
    cfg = BackboneConfig(
        {"und": width, "gen": width}, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
        qk_norm=True, rope_theta=100.0,
    )  # fmt: skip
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Backbone(cfg, rngs=nnx.Rngs(0))))
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype("f4"), shapes)
    embedding, head = draw.normal(size=(2, V, D)).astype("f4")
    return graph, {"backbone": params, "embedding": embedding, "head": head.T}


def pack(contexts, slots):
    return np.array([[*context, *[0] * (slots - len(context))] for context in contexts])


def causal(lengths, slots):
    """Tokens [B slots] of texts that are filled up with empty intervals."""
    place = jnp.broadcast_to(jnp.arange(slots), (len(lengths), slots))
    held = place < lengths[:, None]
    return Tokens(place, jnp.where(held, place, 0), jnp.where(held, OPEN, 0), place)


def prefill(backbone, params, ids, lengths, room):
    x, tokens = {"und": params["embedding"][ids]}, {"und": causal(lengths, SLOTS)}
    keys = backbone(x, tokens, return_keys=True).keys
    return Cache.empty(backbone.cfg, len(ids), {"und": SLOTS + room}).append(keys, tokens, 0)


@functools.partial(jax.jit, static_argnums=(0, 5))
def write(graph, params, ids, lengths, seeds, sampling):
    backbone = nnx.merge(graph, params["backbone"])

    def step(cache, ids, tokens, slot):
        x, tokens = {"und": params["embedding"][ids]}, {"und": tokens}
        found = backbone(x, tokens, cache=cache, return_keys=True)
        logits = found.hidden["und"][:, 0] @ params["head"]
        return logits, cache.append(found.keys, tokens, slot)

    return generate_text(
        step, prefill(backbone, params, ids, lengths, STEPS), jnp.full_like(lengths, BEGIN),
        clock=lengths, position=lengths, slot=SLOTS, keys=jax.vmap(jax.random.key)(seeds),
        max_tokens=STEPS, stop_ids=(END,), sampling=sampling, pad_id=BEGIN,
    )  # fmt: skip


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(2.0, top_k=9, top_p=0.95)])
def test_text_of_a_row_is_as_if_alone(model, sampling):
    request = (pack(CONTEXTS, SLOTS), LENGTHS, SEEDS)
    together = write(*model, *request, sampling)
    alone = [write(*model, *(a[i : i + 1] for a in request), sampling) for i in range(3)]
    jax.tree.map(
        lambda t, *a: np.testing.assert_array_equal(t, np.concatenate(a)), together, *alone
    )
    assert len(np.unique(together[0], axis=0)) == 3  # the contexts matter


def test_greedy_text_is_the_likeliest_without_a_cache(model):
    texts, lengths = write(*model, pack(CONTEXTS, SLOTS), LENGTHS, SEEDS, GREEDY)
    texts = [text[:n].tolist() for text, n in zip(texts, lengths, strict=True)]
    whole = [[*context, BEGIN, *text] for context, text in zip(CONTEXTS, texts, strict=True)]
    ids = pack(whole, slots := SLOTS + 1 + STEPS)

    @jax.jit
    def likeliest(params):
        tokens = causal(np.array([len(row) for row in whole]), slots)
        backbone = nnx.merge(model[0], params["backbone"])
        hidden = backbone({"und": params["embedding"][ids]}, {"und": tokens}).hidden
        return jnp.argmax(hidden["und"] @ params["head"], axis=-1)

    for row, context, text in zip(likeliest(model[1]), CONTEXTS, texts, strict=True):
        want = text if len(text) == STEPS else [*text, END]
        np.testing.assert_array_equal(row[len(context) :][: len(want)], want)


def block(lengths, n):
    """Tokens of a noised picture after contexts: its marks and its n latents share an interval."""
    clocks = lengths[:, None] + jnp.arange(n + 2)
    start, stop = (jnp.broadcast_to(c, clocks.shape) for c in (clocks[:, :1], clocks[:, -1:] + 1))
    position = jnp.broadcast_to(lengths[:, None], clocks.shape)
    tokens = Tokens(clocks, start, stop, position)
    marks, latents = jnp.array([0, n + 1]), jnp.arange(1, n + 1)
    return {"und": jax.tree.map(lambda a: a[:, marks], tokens),
            "gen": jax.tree.map(lambda a: a[:, latents], tokens)}  # fmt: skip


def embed(params, x, t):
    marks = jnp.broadcast_to(params["embedding"][jnp.array(MARKS)], (len(x), 2, D))
    return {"und": marks, "gen": x + jnp.sin(t * jnp.arange(D))}


@functools.partial(jax.jit, static_argnums=0)
def draw(graph, params, ids, lengths, seeds, guidance):
    """Pictures of 4 latents of width D; the dropped contexts are empty, and the first id alone."""
    backbone = nnx.merge(graph, params["backbone"])
    held = {"text": jnp.zeros_like(lengths), "images": jnp.ones_like(lengths)}
    lengths = jnp.concatenate([held.get(name, lengths) for name in guidance.contexts])
    rows = jnp.concatenate([ids] * len(guidance.contexts))
    cache, tokens = prefill(backbone, params, rows, lengths, 0), block(lengths, 4)

    def velocity(x, t):
        head = jax.tree.map(lambda a: a[: len(x)], tokens)
        return backbone(embed(params, x, t), head, cache=cache.first(len(x))).hidden["gen"]

    times = rectified_flow.schedule(5, 2.0)
    return generate_picture(velocity, draw_noise(seeds, (4, D)), times, guidance)


@pytest.mark.slow
def test_a_picture_of_a_batch_is_as_if_alone(model):
    request = (pack(CONTEXTS, SLOTS), LENGTHS, SEEDS)
    guidance = Guidance.of({"text": 3.0, "images": 1.5}, interval=(0.3, 1.0), renorm="global")
    together = draw(*model, *request, guidance)
    alone = [draw(*model, *(a[i : i + 1] for a in request), guidance) for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
    same_noise = draw(*model, *request[:2], SEEDS * 0, guidance)
    assert np.abs(same_noise[0] - same_noise[1]).max() > 0.1  # the contexts matter


def test_a_picture_is_the_same_without_a_cache(model):
    ids = pack(CONTEXTS, SLOTS)
    graph, params = model

    @jax.jit
    def whole(params):
        backbone = nnx.merge(graph, params["backbone"])
        join = lambda *arrays: jnp.concatenate(arrays, axis=1)
        picture = block(LENGTHS, 4)
        tokens = {**picture, "und": jax.tree.map(join, causal(LENGTHS, SLOTS), picture["und"])}

        def velocity(x, t):
            x = embed(params, x, t)
            x["und"] = join(params["embedding"][ids], x["und"])
            return backbone(x, tokens).hidden["gen"]

        return generate_picture(
            velocity, draw_noise(SEEDS, (4, D)), rectified_flow.schedule(5, 2.0)
        )

    got = draw(graph, params, ids, LENGTHS, SEEDS, Guidance())
    np.testing.assert_allclose(got, whole(params), atol=1e-4)
