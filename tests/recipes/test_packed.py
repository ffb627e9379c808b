"""The family of autoregressive text and flow pictures: losses, and what their gradients reach."""

import dataclasses
import math
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.recipes.small import VARIANTS, small
from unified import sharding
from unified.config import drawing, tokenizer
from unified.data.sources import open_split
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.recipes import packed
from unified.sequence import Batch, Example, Segment
from unified.training import config as configs
from unified.training.override import override
from unified.training.setup import prepare
from unified.training.validation import Validation

pytestmark = pytest.mark.usefixtures("keep_compiled")


@pytest.fixture(scope="module")
def batches():
    found = {}
    for variant in ("mot", "dense", "y"):
        inputs = packed.inputs(small(variant), "train")
        found[variant] = next(inputs)
        inputs.close()
    return found | {"h": found["mot"]}


def split(config):
    """The structure of a model, and weights for it of which none is zero."""
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(model, nnx.Param)
    rng = np.random.default_rng(0)
    draw = lambda x: rng.normal(0, 0.2, x.shape).astype(x.dtype)
    return graph, jax.tree.map(draw, nnx.to_pure_dict(shapes))


LONG_TO_COMPILE = [pytest.param(name, marks=pytest.mark.slow) for name in ("y", "h")]


@pytest.mark.parametrize("variant", ["mot", "dense", *LONG_TO_COMPILE])
def test_counts_are_those_of_the_loss(variant, batches):
    batch = batches[variant]
    graph, params = split(small(variant))
    model = nnx.merge(graph, params)
    losses = jax.jit(lambda p: packed.loss(nnx.merge(graph, p), batch, jax.random.key(0)))(params)
    for name, count in packed.counts(model, batch).items():
        assert count > 0
        assert losses[name][1] == count
    by_time = [value for name, value in losses.items() if name.startswith("vae/flow/t")]
    np.testing.assert_allclose(np.sum(by_time, 0), losses["vae/flow"], rtol=1e-5)


@pytest.mark.parametrize("task", ["generate", "edit"])
def test_held_out_pictures_have_a_loss_in_every_bucket_of_time(task):
    """Of times as drawn in training, 1.4% are in the first: nothing of four pictures."""
    config = small(num_layers=1)
    inputs = packed.inputs(config, "validation", task)
    batches = [next(inputs) for _ in range(3)]
    inputs.close()
    graph, params = split(config)
    loss = jax.jit(lambda p, b: packed.loss(nnx.merge(graph, p), b, jax.random.key(0)))
    counts: dict = {}
    for batch in batches:
        lane = batch.lanes["vae"]
        assert (lane.times > 0).tolist() == (lane.target & lane.valid).tolist()
        for name, (_, count) in loss(params, batch).items():
            counts[name] = counts.get(name, 0) + int(count)
    by_time = [count for name, count in counts.items() if name.startswith("vae/flow/t")]
    assert len(by_time) == 4 and min(by_time) > 0 and sum(by_time) == counts["vae/flow"]


@pytest.mark.slow
def test_a_trained_model_has_the_validation_losses_that_training_reports():
    """For any seed: the table of a run and that of its weights tell the same."""
    config = configs.complete(small(num_layers=1))
    config.seed = 5
    config.validation.update({"tasks": ("vqa", "layout"), "batches": 2, "every": 1})
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    with jax.set_mesh(mesh):
        setup = prepare(config, packed, mesh)
        draw = lambda task: packed.inputs(config, "validation", task)
        validate = Validation(setup, draw, seed=config.seed, **config.validation)
        graph, params = split(config)
        reported = validate(params)
        found = packed.recipe.validation_losses(nnx.merge(graph, jax.device_put(params)), config)
    assert found.keys() == reported.keys() and "validation/loss/layout" in found
    for name, value in found.items():
        assert value == pytest.approx(reported[name], rel=1e-5), name


def test_a_dense_model_reads_and_draws_latents_with_one_set_of_weights(batches):
    """Transfusion: no vision encoder; pictures of questions are latents without noise."""
    config = small("dense")
    _, params = split(config)
    assert params["parts"].keys() == {"text", "vae"}
    assert [*params["backbone"]["runs"]["0"]] == ["shared"]
    pictures = batches["dense"].lanes["vae"]
    assert (pictures.valid & ~pictures.target).any()


@pytest.mark.slow
def test_each_loss_reaches_its_own_parts(batches):
    """Text and flow both train the joint backbone; neither trains the head of the other."""
    graph, params = split(small())

    @jax.jit
    @jax.grad
    def gradient(params, weights):
        losses = packed.loss(nnx.merge(graph, params), batches["mot"], jax.random.key(0))
        return sum(weight * losses[name][0] for name, weight in weights.items())

    def reached(name):
        grads = gradient(params, {"text/nll": 0.0, "vae/flow": 0.0, name: 1.0})
        norm = lambda tree: float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))
        parts = {f"{v}/{n}": t for v, part in grads["parts"].items() for n, t in part.items()}
        parts["backbone"] = grads["backbone"]
        return {name for name, tree in parts.items() if norm(tree) > 0}

    timed = {"vae/latent_in", "vae/timestep"}
    common = {"text/embedding", "vit/encoder", "vit/connector", "backbone"}
    assert reached("vae/flow") == common | timed | {"vae/head"}
    # Pictures to draw are hidden from text, and examples that read a picture have no latents.
    assert reached("text/nll") == common | {"text/head"}


def test_loss_is_the_same_whatever_lies_in_padding(batches):
    graph, params = split(small())
    batch = batches["mot"]
    text = batch.lanes["text"]
    padding = text.tokens.stop == 0
    assert padding.any()
    other = dataclasses.replace(text, ids=np.where(padding, 7, text.ids))
    changed = dataclasses.replace(batch, lanes={**batch.lanes, "text": other})
    loss = jax.jit(lambda p, b: packed.loss(nnx.merge(graph, p), b, jax.random.key(0)))
    for name, (value, _) in loss(params, batch).items():
        np.testing.assert_allclose(value, loss(params, changed)[name][0], rtol=1e-6)


def follow(tokens, read):
    """Tokens as they are after what was read."""
    clocks = {name: getattr(tokens, name) + read.length for name in ("clock", "start", "stop")}
    return dataclasses.replace(tokens, **clocks, position=tokens.position + read.position)


@pytest.mark.slow
def test_prefill_and_velocity_agree_with_the_training_pass():
    """Velocity of a noised picture given its cached context == in one uncached pass."""
    config = small()
    layout = packed.parse(config).layout
    encode = tokenizer(config).encode
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    context = [Segment(picture, use="edit"), Segment("make the apple green")]
    target = Segment(picture, role="target")
    whole = assemble([[expand(Example((*context, target)), layout, encode)]], layout)

    read = expand(Example(tuple(context)), layout, encode)
    block = expand(Example((target,)), layout, encode)
    after = lambda lane: dataclasses.replace(lane, tokens=follow(lane.tokens, read))
    row = {name: jax.tree.map(lambda a: a[None], after(lane)) for name, lane in block.lanes.items()}

    graph, params = split(config)

    @jax.jit
    def both(params):
        model = nnx.merge(graph, params)
        part, lane = model.parts["vae"], layout["vae"]
        noised = jax.random.normal(jax.random.key(2), (1, 1, 64, part.latent_dim))
        clean = part.encode(whole.lanes["vae"].pixels)
        times = jnp.zeros(clean.shape[:2]).at[:, 1].set(0.7)
        mixed = part.noised(lane, clean.at[:, 1].set(noised[:, 0]), times)
        hidden, *_ = model.run(whole, {**model.inputs(whole), "vae": mixed})
        cache = model.read(assemble([[read]], layout, open_end=True), {})
        given = {"vae": part.noised(lane, noised, jnp.full((1, 1), 0.7))}
        got = model.step(cache, Batch(row), given)[0]["vae"]
        return part.velocity(got, 1)[:, 0], part.velocity(hidden["vae"], clean.shape[1])[:, 1]

    got, want = both(params)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_known_losses_are_reported_and_not_measured_again(monkeypatch, tmp_path):
    """Measuring would need a real model and data; the benchmark says what it was told."""
    benchmark = types.SimpleNamespace(run=lambda model, folder, extra, **options: extra)
    monkeypatch.setitem(sys.modules, "no_benchmark", benchmark)
    monkeypatch.setattr(packed.recipe, "Assistant", lambda *args: None)
    losses = {"validation/loss": 2.0}
    config = {"benchmark": {"module": "no_benchmark"}}
    assert packed.evaluate(None, config, tmp_path, losses) == losses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.model.backbone.update(num_kv_heads=3, num_heads=4), "num_kv_heads"),
        (lambda c: c.layout.lanes.vae.update(stream="images"), "stream 'images'"),
        (lambda c: c.layout.lanes.vae.update(stride=6), "stride 6"),
        (lambda c: c.layout.lanes.vit.update(patch=16), "patches of 16"),
        (lambda c: c.layout.lanes.vit.update(max_side=128), "raise side"),
        (lambda c: c.layout.lanes.__delitem__("vit"), r"uses.see: 'vit' is none of"),
        (lambda c: c.model.parts.__delitem__("vit"), "has view 'vit', but config.model.p"),
        (
            lambda c: c.model.parts.text.update(vocab_size=100),
            "vocab_size=100 is less than the 1024 tokens",
        ),
        (lambda c: c.drawing.update(steps=1), "config.drawing: steps=1 must be at least 2"),
        (lambda c: c.drawing.update(shift=0.0), "config.drawing: shift=0.0 must be a positive"),
        (lambda c: c.drawing.update(text_scale=math.nan), "text_scale=nan must be a finite number"),
        (
            lambda c: c.layout.update(image_position="foo"),
            "image_position='foo' must be one of",
        ),
        (lambda c: c.layout.lanes.vit.update(kind="foo"), "lanes.vit.kind='foo': choose one of"),
        (lambda c: c.layout.lanes.vit.__delitem__("kind"), "lanes.vit.kind=None: choose one of"),
        (lambda c: c.drawing.update(step=9), r"config.drawing: unknown \['step'\]; there are"),
        (lambda c: c.model.backbone.update(layers=1), r"config.model.backbone: unknown \['layers"),
        (lambda c: c.model.parts.text.__delitem__("vocab_size"), r"text lacks \['vocab_size'\]"),
        (lambda c: c.model.parts.vae.update(part="os:system"), "vae.part='os:system' is no part"),
        (lambda c: c.model.parts.vae.__delitem__("part"), "vae.part=None must be package.mod"),
        (lambda c: c.model.backbone.streams.gen.update(embed_dim=18), "embed_dim=18: places in"),
        (lambda c: c.update(remat="none"), "unknown remat policy 'none'; choose one of"),
        (lambda c: c.update(compute_dtype="float99"), "compute_dtype='float99': choose one of"),
        (
            lambda c: c.model.parts.vae.update(timestep_shift=0.0),
            "config.model.parts.vae: timestep_shift=0.0 must be a",
        ),
        (
            lambda c: c.model.parts.vae.update(timestep_shift=-1.0),
            "timestep_shift=-1.0 must be a positive",
        ),
        (
            lambda c: c.model.parts.text.update(logits_chunk=0),
            "model.parts.text: logits_chunk=0 must be at least",
        ),
        (
            lambda c: c.model.parts.vae.update(position_theta=0.0),
            "position_theta=0.0 must be a positive",
        ),
        (lambda c: c.model.backbone.update(rope_theta=-1.0), "backbone: rope_theta=-1.0 must be a"),
        (
            lambda c: c.model.vision.update(num_layers=0),
            "vision: num_layers=0 must be at least 1",
        ),
        (
            lambda c: c.model.vision.update(num_heads=0),
            "vision: num_heads=0 must be at least 1",
        ),
        (
            lambda c: c.model.autoencoder.update(scale=0.0),
            "autoencoder: scale=0.0 must be a number",
        ),
        (
            lambda c: c.model.autoencoder.update(num_groups=0),
            "num_groups=0 must be at least 1",
        ),
        (
            lambda c: c.drawing.update(read_back={"edit": " "}),
            "read_back.edit=' ': write the quest",
        ),
        (lambda c: c.layout.lanes.text.update(losses=0), "text.losses=0 leaves no text to be lear"),
        (lambda c: c.layout.lanes.text.update(losses=-1), "text.losses=-1 must be at least 0"),
        (lambda c: c.layout.lanes.vae.update(stride=0), "lanes.vae.stride=0 must be at least 1"),
        (
            lambda c: c.layout.lanes.vae.update(height=2**40),
            "vae.height=.* must be at most 1048576",
        ),
        (
            lambda c: c.layout.lanes.vae.update(height=2**19),
            "lanes.vae holds .* pixels a row: at m",
        ),
        (
            lambda c: c.layout.lanes.vae.update(height=60),
            "60x64 pixels are not whole tokens of str",
        ),
        (lambda c: setattr(c, "layout", 3), "config.layout=3 must be fields by name"),
        (lambda c: c.model.backbone.update(num_layers=None), "num_layers=None must be a whole num"),
        (
            lambda c: c.layout.lanes.text.update(view="txt"),
            r"lanes.text.view='txt' serves no use: choose of \['text', 'vae'",
        ),
        (
            lambda c: c.layout.lanes.vit.update(view="vitt"),
            r"uses.see: 'vit' is none of \['text', 'vae', 'vitt'\]",
        ),
        (lambda c: c.layout.lanes.vae.update(view="v"), r"uses.edit: 'vae' is none of "),
        (lambda c: c.layout.uses.update(see=("v",)), r"uses.see: 'v' is none of \['text', "),
        (
            lambda c: c.layout.lanes.text.update(tasks=("captoin", "vqa")),
            "no text lane has task 'caption' of config.data.train.emoji among its tasks",
        ),
        (lambda c: c.marks.update(end_text="</s>"), "no token '</s>' for end_text"),
    ],
)
def test_impossible_numbers_are_refused(change, message):
    config = small()
    with config.unlocked(), config.ignore_type():
        change(config)
    with pytest.raises(ValueError, match=message):
        packed.parse(config)


def leaves(fields, path=""):
    for name, value in fields.items():
        deeper = isinstance(value, dict) and value
        yield from leaves(value, f"{path}.{name}") if deeper else [(f"{path}.{name}", value)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_config_leaves_out_can_be_said_and_changes_nothing(variant):
    config, said = small(variant), configs.complete(small(variant))
    spelt = {path for path, _ in leaves(config.to_dict())}
    left_out = {path: x for path, x in leaves(packed.defaults(config)) if path not in spelt}
    assert {".drawing.renorm", ".data.train.emoji.length", ".benchmark.shown"} <= left_out.keys()
    for path, value in left_out.items():
        if value == {}:  # whose names are the user's
            continue
        override(said, f"--config{path}={value!r}")
    packed.check(said)
    assert packed.parse(said) == packed.parse(configs.complete(config))
    assert drawing(said) == drawing(config)
    sources, weights = open_split(said.data, "train")
    assert (len(sources), weights) == (1, [1.0])


def test_lanes_may_be_for_tasks_where_they_cover_those_of_the_sources():
    config = small("y")
    packed.parse(config)
    with config.ignore_type():
        config.data = {"train": {"mine": {"format": "jsonl", "path": "x"}}}
    with pytest.raises(ValueError, match=r"has task '' of config.data.train.mine among its tasks"):
        packed.parse(config)
    config.data.train.mine.task = "vqa"
    packed.parse(config)


def test_turns_of_a_chat_are_said_by_the_config():
    """Marks are text in which the special tokens of the tokenizer may stand."""
    config = small()
    turn = {"begin_context": "<|im_start|>user ", "begin_target": "<|im_start|>bot "}
    with config.unlocked():
        config.template = {
            **turn,
            **dict.fromkeys(("end_context", "end_target"), "<|im_end|>"),
            **dict.fromkeys(("begin_text", "end_text"), ""),
            "learnt": ("end_target",),
        }
    template, marks = packed.parse(config).layout.template, tokenizer(config)
    assert template.begin_text == template.end_text == ()
    assert template.begin_context == (marks.begin_text, *marks.encode("user "))
    assert template.end_target == (marks.end_text,)
    assert template.begin_image == (marks.begin_image,)
    with config.unlocked():
        config.template.learnt = ("the_end",)
    with pytest.raises(ValueError, match=r"config.template: learnt=\['the_end'\]: choose of"):
        packed.parse(config)


def test_texts_need_no_losses_where_only_pictures_are_learnt():
    config = small()
    config.layout.lanes.text.losses = 0
    config.loss_weights = {"vae/flow": 1.0}
    lanes = {lane.name: lane for lane in packed.parse(config).layout.lanes}
    assert lanes["text"].losses == 0


SAMPLES = "unified.evaluation.samples"


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ({"module": "nope"}, "config.benchmark.module='nope' must be a module .* No module named"),
        ({"module": "math"}, "config.benchmark.module='math' must be a module with a function"),
        ({}, "config.benchmark.module=None must be a module"),
        ({"module": SAMPLES}, "config.benchmark: missing a required .*argument: 'sources' of"),
        ({"module": SAMPLES, "sources": {}, "example": 1}, "unexpected keyword argument 'example'"),
        ({"module": SAMPLES, "sources": {}, "examples": 0}, "benchmark.examples=0 must be at lea"),
        (None, "config lacks benchmark"),
    ],
)
def test_a_benchmark_that_could_not_run_is_refused_before_training(benchmark, message):
    config = {} if benchmark is None else {"benchmark": benchmark}
    with pytest.raises(ValueError, match=message):
        packed.check(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_benchmarks_of_the_configs_can_run(variant):
    packed.check(small(variant))
