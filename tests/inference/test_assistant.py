"""What a model is asked, whole: training and generation agree, and a row is as if alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unified import sharding
from unified.config import tokenizer
from unified.inference import Assistant, Drawing, engine
from unified.inference.context import pack, picture_after
from unified.inference.request import read_seeds, trained_tasks
from unified.interop.release import flatten
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.processes.autoregressive import GREEDY
from unified.programmes.best_of import candidate_seed
from unified.recipes import packed
from unified.sequence import Example, Segment

pytestmark = pytest.mark.usefixtures("keep_compiled")

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(3)]
QUESTIONS = ["how many?", "what colour is the apple that is left of the dog?", "is it"]
NOTHING_NOISED = np.zeros((1, 3, 1, 1), np.float32)  # times of the pictures
EDIT = [Segment(PICTURES[0], use="edit"), Segment("make the apple green")]


@functools.partial(jax.jit, static_argnums=0)
def train_pass(graph, params, batch, latents, times):
    model = nnx.merge(graph, params)
    part = model.parts["vae"]
    mixed = jnp.where(times > 0, latents, part.encode(batch.lanes["vae"].pixels))
    given = {"vae": part.noised(model.layout["vae"], mixed, times[..., 0, 0])}
    return model.run(batch, {**model.inputs(batch), **given})[0]


def as_in_training(assistant, segments, latents=0.0, times=NOTHING_NOISED, encode=None):
    """Hidden states of the only row of a training batch, by lane."""
    layout = assistant.layout
    spans = expand(Example(tuple(segments)), layout, encode or assistant.tokenizer.encode)
    batch = assemble([[spans]], layout)
    latents = np.broadcast_to(np.float32(latents), (1, 3, 4, 4))  # 2 x 2 tokens a picture
    return train_pass(assistant.graph, assistant.params, batch, latents, times), batch


@functools.partial(jax.jit, static_argnums=0)
def logits_of(graph, params, hidden):
    return nnx.merge(graph, params).parts["text"].logits(hidden)


@pytest.mark.slow
def test_a_drawn_picture_has_the_velocity_of_training(assistant):
    """The cached context gives what one pass over the packed example gives."""
    time = 0.7
    noisy = RNG.normal(size=(1, 4, 4)).astype("f4")  # 2 x 2 latent tokens
    latents = np.zeros((1, 3, 4, 4), "f4")
    latents[:, 1] = noisy  # the lane holds the clean context first
    times = np.array([0, time, 0], "f4")[None, :, None, None]
    target = Segment(np.zeros((16, 16, 3), np.uint8), role="target")
    hidden, _ = as_in_training(assistant, [*EDIT, target], latents, times)

    contexts = pack([EDIT], assistant.layout, assistant.tokenizer.encode, then="picture")
    block = picture_after(contexts, assistant.layout["vae"], assistant.layout)

    @jax.jit
    def velocities(params, hidden):
        model = nnx.merge(assistant.graph, params)
        part, cache = model.parts["vae"], model.read(contexts.batch, {})
        given = {"vae": part.noised(model.layout["vae"], noisy[:, None], jnp.full((1, 1), time))}
        got = model.step(cache, block, given)[0]["vae"]
        return part.velocity(got, 1)[:, 0], part.velocity(hidden, 3)[:, 1]

    got, want = velocities(assistant.params, hidden["vae"])
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_a_greedy_answer_is_the_likeliest_in_training(assistant):
    question = [Segment(PICTURES[0]), Segment(QUESTIONS[1])]
    encode, lane = assistant.tokenizer.encode, assistant.layout["text"]
    contexts = pack([question], assistant.layout, encode, then="text")
    how = {"lane": lane, "max_tokens": 6, "sampling": GREEDY}
    [ids], [n] = engine.write(assistant.graph, assistant.params, contexts, np.zeros(1, int), **how)
    ids = ids[:n].tolist()
    said = lambda text: ids if text == "said" else encode(text)  # as text may become other ids
    answer = Segment("said", role="target")
    hidden, batch = as_in_training(assistant, [*question, answer], encode=said)
    lane = batch.lanes["text"]
    predicted = hidden["text"][0, lane.loss_index[0]]
    logits = logits_of(assistant.graph, assistant.params, predicted)
    np.testing.assert_array_equal(np.argmax(logits, -1)[: len(ids)], ids)


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "top_k": 50, "top_p": 0.9}])
def test_an_answer_of_a_batch_is_as_if_alone(assistant, options):
    pairs = list(zip(PICTURES, QUESTIONS, strict=True))
    options = {"max_tokens": 6, **options}
    together = assistant.answer(pairs, seeds=5, **options)
    alone = [assistant.answer([pair], seeds=5 + i, **options)[0] for i, pair in enumerate(pairs)]
    assert together == alone
    assert len(set(together)) == 3


@pytest.mark.slow
def test_a_picture_of_a_batch_is_as_if_alone(assistant):
    """Though one request has no picture, and one nothing at all."""
    requests, seeds = [[Segment("two red apples")], EDIT, []], [3, 4, 5]
    *together, other = assistant.draw([*requests, [Segment("a dog")]], seeds=[*seeds, 3])
    for request, seed, got in zip(requests, seeds, together, strict=True):
        [alone] = assistant.draw([request], seeds=seed)
        assert got.shape == (16, 16, 3)
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - alone).max() <= 1
    assert np.abs(together[0].astype(int) - other).max() > 1  # the prompt matters


@pytest.mark.slow
def test_edit_and_generate_are_requests_to_draw(assistant):
    [edited] = assistant.edit(PICTURES[:1], ["make the apple green"], seeds=4)
    np.testing.assert_array_equal(edited, assistant.draw([EDIT], seeds=4)[0])
    [drawn] = assistant.generate(["two red apples"], seeds=3)
    np.testing.assert_array_equal(drawn, assistant.draw([[Segment("two red apples")]], seeds=3)[0])


def test_a_score_is_the_log_probability_of_the_text_to_be_said(assistant):
    """As training has it, and though others are in the batch."""
    said = [[Segment(p), Segment(q), Segment("two", role="target")]
            for p, q in zip(PICTURES, QUESTIONS, strict=True)]  # fmt: skip
    scores = assistant.score(said)
    assert scores[0] == pytest.approx(assistant.score(said[:1])[0], rel=1e-5)
    hidden, batch = as_in_training(assistant, said[0])
    lane = batch.lanes["text"]
    predicted = hidden["text"][0, lane.loss_index[0]]
    logits = logits_of(assistant.graph, assistant.params, predicted)
    chosen = jax.nn.log_softmax(logits)[np.arange(len(logits)), lane.loss_target[0]]
    assert scores[0] == pytest.approx(float((chosen * lane.loss_weight[0]).sum()), rel=1e-5)
    assert assistant.score([said[0][:2]]) == [0.0]  # nothing is to be said


def test_the_candidate_is_kept_that_reads_most_like_its_prompt(assistant):
    prompts, question = ["two red apples", "a dog"], "describe the picture"
    kept = assistant.generate(prompts, seeds=[3, 4], candidates=2, read_back={"generate": question})
    seeds = [candidate_seed(seed, k) for seed in (3, 4) for k in range(2)]
    assert seeds[::2] == [3, 4] and len(set(seeds)) == 4
    many = [prompt for prompt in prompts for _ in range(2)]
    tries = assistant.generate(many, seeds=seeds)
    said = [Segment(prompt, role="target") for prompt in many]
    read = [[Segment(x), Segment(question), y] for x, y in zip(tries, said, strict=True)]
    best = np.reshape(assistant.score(read), (2, 2)).argmax(1)
    for i, picture in enumerate(kept):
        np.testing.assert_array_equal(picture, tries[2 * i + best[i]])
    elsewhere = {"candidates": 2, "read_back": {"layout": question}}  # not of this task
    for one, same in zip(assistant.generate(many, seeds=seeds, **elsewhere), tries, strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_request_without_text_has_one_candidate(assistant, monkeypatch):
    drawn = []

    def draw(graph, params, contexts, block, seeds, plan, guidance, **_):
        drawn.append(seeds.tolist())
        return np.zeros((len(seeds), 16, 16, 3), np.uint8)

    monkeypatch.setattr(engine, "draw", draw)
    monkeypatch.setattr(engine, "score", lambda program, params, batch: np.arange(4.0))
    how = {"candidates": 3, "read_back": {"": "what is it?"}}
    assistant.draw([[], [Segment("a dog")]], seeds=[3, 4], **how)
    assert drawn == [[3, 4, candidate_seed(4, 1), candidate_seed(4, 2)]]
    assistant.draw([[]], seeds=3, **how)
    assert drawn[1:] == [[3]]


@pytest.mark.parametrize(
    ("part", "ask", "told"),
    [
        ("backbone", lambda a: a.generate(["a dog"]), "latents are not finite"),
        ("backbone", lambda a: a.edit(PICTURES[:1], ["remove it"]), "latents are not finite"),
        ("parts/vae/autoencoder/decoder", lambda a: a.generate(["a dog"]), "pixels are not finite"),
        (
            "parts/vae/autoencoder/decoder",
            lambda a: a.reconstruct(PICTURES[:1]),
            "pixels are not finite",
        ),
        ("parts/text/head", lambda a: a.answer([(PICTURES[0], "what?")]), "logits are not finite"),
        (
            "parts/vit/encoder",
            lambda a: a.answer([(PICTURES[0], "what?")]),
            "logits are not finite",
        ),
        (
            "parts/text/head",
            lambda a: a.score([[Segment("a", role="target")]]),
            "probabilities are not f",
        ),
    ],
)
def test_what_is_not_finite_is_said(part, ask, told, assistant, monkeypatch):
    flat = flatten(assistant.params)
    assert any(name.startswith(part) for name in flat)
    broken = {n: jnp.full_like(x, jnp.inf) if n.startswith(part) else x for n, x in flat.items()}
    monkeypatch.setattr(assistant, "params", jax.tree.unflatten(
        jax.tree.structure(assistant.params), list(broken.values())
    ))  # fmt: skip
    with pytest.raises(FloatingPointError, match=told):
        ask(assistant)


@pytest.mark.slow
def test_numbers_of_64_bits_change_nothing(assistant):
    """`JAX_ENABLE_X64`, which other code of the same program may need."""
    ask = lambda: (
        assistant.answer([(PICTURES[0], "how many?")], max_tokens=6),
        assistant.generate(["a dog"], seeds=3),
    )
    said, [drawn] = ask()
    with jax.enable_x64(True):
        again, [other] = ask()
    assert again == said
    assert np.abs(drawn.astype(int) - other).max() <= 1


def test_more_requests_than_rows_come_in_order(assistant):
    assistant.max_rows, rows = 2, assistant.max_rows
    pairs = list(zip(PICTURES, QUESTIONS, strict=True))
    in_parts = assistant.answer(pairs, max_tokens=6)
    assistant.max_rows = rows
    assert in_parts == assistant.answer(pairs, max_tokens=6)


def test_reconstruction_is_of_the_lane_and_of_each_picture_alone(assistant):
    wide = np.repeat(PICTURES[1], 2, axis=1)
    got = assistant.reconstruct([PICTURES[0], wide])
    [alone] = assistant.reconstruct([PICTURES[0]])
    assert [x.shape for x in got] == [(16, 16, 3)] * 2
    assert np.abs(got[0].astype(int) - alone).max() <= 1
    assert np.abs(got[0].astype(int) - got[1]).max() > 1


EMPTY = np.zeros((0, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda a: a.generate("ab"), "give a list of prompts, not one alone"),
        (lambda a: a.generate([3]), "a text with words, not 3"),
        (lambda a: a.generate(["  "]), "a text with words, not '  '"),
        (lambda a: a.generate(["a dog"], task="foo"), "task='foo': the model was trained on capt"),
        (lambda a: a.answer((PICTURES[0], "how many?")), r"list of \(picture, question\) pairs"),
        (lambda a: a.answer([PICTURES[0]]), "pairs, or of lists of segments, not of ndarray"),
        (lambda a: a.answer([(EMPTY, "how many?")]), "a picture of 0 x 16 pixels shows nothing"),
        (lambda a: a.answer([[Segment(EMPTY)]]), "a picture of 0 x 16 pixels shows nothing"),
        (lambda a: a.answer([(None, "how many?")]), "a picture is a file, .* not None"),
        (lambda a: a.edit(PICTURES[0], ["remove it"]), "give a list of pictures, not one alone"),
        (lambda a: a.edit(PICTURES[:2], ["x"]), "2 pictures and 1 instructions: give one for"),
        (lambda a: a.reconstruct("a.png"), "give a list of pictures, not one alone"),
        (lambda a: a.write(EDIT), "a request is a list of segments, not Segment"),
    ],
)
def test_a_call_that_was_misread_is_told_what_to_give(ask, told, assistant):
    with pytest.raises(ValueError, match=told):
        ask(assistant)


def test_tasks_are_known_where_all_data_of_the_training_names_them():
    named = {"a": {"tasks": {"caption": 1.0, "vqa": 2.0}}, "b": {"task": "chat"}}
    train = lambda sources: trained_tasks({"data": {"train": sources}})
    assert train(named) == {"caption", "vqa", "chat"}
    assert train({**named, "c": {"format": "jsonl"}}) == trained_tasks({}) == set()


def test_impossible_requests_are_refused(assistant):
    with pytest.raises(ValueError, match="2 seeds for 1 requests"):
        assistant.generate(["a dog"], seeds=[1, 2])
    for seeds in (-1, 2**31, [2**63]):
        with pytest.raises(ValueError, match="must be from 0 to 2147483647"):
            assistant.generate(["a dog"], seeds=seeds)
    for seeds in (3, np.int64(3), [3, 4], np.arange(3, 5)):
        np.testing.assert_array_equal(read_seeds(seeds, 2), [3, 4])
    with pytest.raises(ValueError, match="no lane for use 'hear'"):
        assistant.draw([[Segment(PICTURES[0], use="hear")]])
    with pytest.raises(ValueError, match="candidates=0 must be at least 1"):
        assistant.generate(["a dog"], candidates=0)
    with pytest.raises(ValueError, match="interval"):
        Drawing(interval=(0.9, 0.1))
    with pytest.raises(ValueError, match="max_tokens=4097 must be at least 1 and at most 4096"):
        assistant.answer([(PICTURES[0], "what?")], max_tokens=4097)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 10**30),
        ("candidates", 10**9),
        ("shift", 1e-30),
        ("text_scale", 1e39),
        ("image_scale", float("nan")),
    ],
)
def test_numbers_of_drawing_that_no_picture_comes_of_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* must be"):
        Drawing(**{name: value})


def test_a_chat_answers_in_its_own_turn(config):
    """The marks that open it are read, but for the last, which the first id follows."""
    chat = {
        **dict.fromkeys(("begin_text", "end_text"), ""),
        "begin_context": "<|im_start|>user ",
        "begin_target": "<|im_start|>bot ",
        **dict.fromkeys(("end_context", "end_target"), "<|im_end|>"),
        "learnt": ("end_target",),
    }
    model = nnx.eval_shape(lambda: packed.build({**config, "template": chat}, rngs=nnx.Rngs(0)))
    encode = tokenizer(config).encode
    layout, marks = model.layout, tokenizer(config)
    contexts = pack([[Segment("how many?")]], layout, encode, then="text")
    opened = [*marks.encode_marks("<|im_end|><|im_start|>bot ")]
    read = [*marks.encode_marks("<|im_start|>user "), *encode("how many?"), *opened[:-1]]
    text = contexts.batch.lanes["text"]
    np.testing.assert_array_equal(text.ids[0, : len(read)], read)
    assert (contexts.clock.tolist(), contexts.last.tolist()) == ([len(read)], [opened[-1]])
    spans = expand(Example((Segment("how many?"), Segment("two", "target"))), layout, encode)
    answer = spans.lanes["text"]
    assert answer.loss_target[0] == encode("two")[0]
    assert answer.tokens.clock[answer.loss_index[0]] == contexts.clock[0]


@pytest.mark.slow
def test_a_mesh_shares_the_work_and_changes_nothing(assistant):
    """Rows over two devices, heads and widths over two, weights over two."""
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    model = nnx.merge(assistant.graph, assistant.params)
    shared = Assistant(model, assistant.config, mesh=mesh)
    sizes = {x.sharding.num_devices for x in jax.tree.leaves(shared.params)}
    cut = [x for x in jax.tree.leaves(shared.params) if not x.sharding.is_fully_replicated]
    assert sizes == {8} and len(cut) > 20
    requests = [(picture, question) for picture, question in zip(PICTURES, QUESTIONS, strict=True)]
    said = lambda model: model.answer(requests, max_tokens=8)
    assert said(shared) == said(assistant)
    drawn = [model.generate(QUESTIONS[:2], seeds=3) for model in (shared, assistant)]
    assert np.abs(np.subtract(*drawn, dtype=np.int32)).max() <= 1
