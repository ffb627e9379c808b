"""Pictures as codes: losses, what reaches what, and drawing that agrees with one pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import codes, janus
from unified.config import tokenizer
from unified.generation.guidance import Guidance
from unified.inference import Assistant
from unified.inference.context import pack, picture_after
from unified.interop import release
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.parts.codes import CodesPart
from unified.processes.autoregressive import Sampling
from unified.recipes import packed
from unified.sequence import Example, Segment
from unified.training import config as configs

pytestmark = pytest.mark.usefixtures("keep_compiled")

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (32, 32, 3), np.uint8)


def small(module):
    config = configs.complete(module.get_config())
    config.batch_size = 2
    for widths in config.model.backbone.streams.values():
        widths.update({"embed_dim": 16, "mlp_dim": 24})
    sizes = {"num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    config.model.backbone.update(sizes)
    networks = {"encoder_widths": (4, 4, 4), "decoder_widths": (4, 4, 4), "num_groups": 2}
    config.model.quantizer.update({**networks, "latent_channels": 4, "codebook_size": 12})
    return config


@pytest.fixture(
    scope="module",
    params=["codes", *(pytest.param(name, marks=pytest.mark.slow) for name in ("janus", "grid"))],
)
def made(request):
    """Janus, too, and codes with positions of time, row and column."""
    config = small(janus if request.param == "janus" else codes)
    if request.param == "grid":
        config.layout.image_position = "grid"
        config.model.backbone.rope_sections = (2, 1, 1)
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model, nnx.Param)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype)
    return config, graph, jax.tree.map(draw, nnx.to_pure_dict(shapes))


def test_the_loss_reaches_all_but_the_quantizer_and_counts_what_it_should(made):
    """Texts are read, not predicted, on the way to a picture."""
    config, graph, params = made
    inputs = packed.inputs(config, "train")
    batch = next(inputs)
    inputs.close()

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params):
        losses = packed.loss(nnx.merge(graph, params), batch, jax.random.key(0))
        return losses["codes/nll"][0], losses

    found, losses = gradient(params)
    still = {name for name, x in release.flatten(found).items() if not np.any(x)}
    frozen = {name for name in release.flatten(found) if name.startswith("parts/codes/quantizer/")}
    assert frozen <= still
    assert all(name.startswith("parts/text/head") for name in still - frozen)
    for name, count in packed.counts(nnx.merge(graph, params), batch).items():
        assert count > 0 and losses[name][1] == count


def test_what_is_drawn_has_the_scores_of_one_pass(made, monkeypatch):
    """Code after code with a cache, after a picture and a text, and all at once."""
    config, graph, params = made
    layout, encode = packed.parse(config).layout, tokenizer(config).encode
    lane = layout["codes"]
    request = [Segment(PICTURE, use="edit"), Segment("paint it red")]
    contexts = pack([request], layout, encode, "edit", then="picture")
    block = picture_after(contexts, lane, layout, "edit")
    example = Example((*request, Segment(PICTURE, role="target")), "edit")
    row = assemble([[expand(example, layout, encode)]], layout)

    @jax.jit
    def both(params):
        model = nnx.merge(graph, params)
        part = model.parts["codes"]
        cache = model.read(contexts.batch, model.room(block))
        place = (cache, lane, block, model.free(cache, block))
        drawn, scores = part.predict(model.step, *place, jnp.array([7]), Sampling(1.0), Guidance())
        seen = part.encode(row.lanes["codes"].pixels)
        told = jnp.where(row.lanes["codes"].target[..., None], drawn[:, None], seen)
        monkeypatch.setattr(CodesPart, "encode", lambda part, pixels: told)
        return scores.sum(1), model.score(row)

    drawn, whole = both(params)
    np.testing.assert_allclose(drawn, whole, rtol=1e-4)


def test_a_model_draws_edits_answers_and_reconstructs(made):
    """By the calls of any other model; the seed decides."""
    config, graph, params = made
    assistant = Assistant(nnx.merge(graph, params), config)
    prompts = ["a red apple", "a blue car"]
    first, again, other = (assistant.generate(prompts, seeds=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.shape(first) == (2, 32, 32, 3) and (np.array(first) != other).any()
    [moved, _] = assistant.generate(prompts[::-1], seeds=[2, 1])
    assert np.abs(moved.astype(int) - first[1]).max() <= 1  # its own seed, in another row
    pair = [PICTURE] * 2
    assert assistant.edit(pair, ["paint it red"] * 2)[0].shape == (32, 32, 3)
    assert isinstance(assistant.answer([(PICTURE, "what is it?")], max_tokens=2)[0], str)
    assert assistant.reconstruct(pair)[0].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.layout.lanes.codes.update(sees="block"), "make it 'causal'"),
        (lambda c: c.layout.lanes.codes.update(stride=8), "stride 8 is not that of the quant"),
        (lambda c: c.layout.update(image_position="grid"), "rope_sections of the backbone shares"),
        (lambda c: c.model.parts.codes.update(head_dim=-1), "head_dim=-1 must be 0 or more"),
        (lambda c: c.model.parts.codes.update(logits_chunk=0), "logits_chunk=0 must be at lea"),
        (lambda c: c.drawing.update(top_p=0.0), "config.drawing: top_p=0.0 must be at least"),
    ],
)
def test_mistakes_of_a_config_are_told(change, message):
    config = small(codes)
    change(config)
    with pytest.raises(ValueError, match=message):
        packed.parse(config)
