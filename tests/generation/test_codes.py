import jax
import jax.numpy as jnp
import numpy as np

from unified.generation.codes import generate_codes
from unified.generation.guidance import Guidance
from unified.processes.autoregressive import GREEDY, Sampling

RNG = np.random.default_rng(0)
LOGITS = jnp.array(RNG.normal(size=(2, 5, 8)), jnp.float32)  # [contexts place K]


def draw(seeds, contexts=1, sampling=GREEDY, **scales):
    """Codes of a model that knows its context and the place, and remembers what it was told."""

    def step(heard, before, place):
        rows = len(before) // contexts
        logits = jnp.repeat(LOGITS[:contexts, place], rows, axis=0)
        return logits, heard.at[:, place].set(before)

    heard = jnp.zeros((contexts * len(seeds), 5), jnp.int32)
    how = {"places": 5, "sampling": sampling, "guidance": Guidance.of(scales)}
    return generate_codes(step, heard, jnp.array(seeds), **how)


def test_the_likeliest_codes_are_drawn_at_temperature_0():
    codes, scores = draw([0, 1])
    np.testing.assert_array_equal(codes, np.tile(LOGITS[0].argmax(-1), (2, 1)))
    np.testing.assert_allclose(scores[0], jax.nn.log_softmax(LOGITS[0]).max(-1), rtol=1e-6)


def test_guidance_pushes_log_probabilities_away_from_those_without():
    codes, scores = draw([0, 1], contexts=2, text=3.0)
    given, without = jax.nn.log_softmax(LOGITS)
    want = (without + 3 * (given - without)).argmax(-1)
    np.testing.assert_array_equal(codes, np.tile(want, (2, 1)))
    assert (want != given.argmax(-1)).any()
    np.testing.assert_allclose(scores[0], np.take_along_axis(given, want[:, None], 1)[:, 0])


def test_guidance_draws_nothing_that_is_unlikely_without_it():
    """A code that is even less likely without the text is not what the text asks for."""
    logits = jnp.array([[4.0, 3.9, -9.0], [4.0, 2.0, -30.0]])
    step = lambda state, before, place: (logits, state)
    how = {"places": 1, "guidance": Guidance.of({"text": 3.0})}
    for top_p, want in ((1.0, 2), (0.99, 1)):
        greedy = Sampling(top_p=top_p)
        codes, _ = generate_codes(step, None, jnp.array([0]), sampling=greedy, **how)
        assert codes.tolist() == [[want]]


def test_a_sample_depends_on_its_own_seed_alone():
    one = Sampling(temperature=1.0)
    several, _ = draw([3, 4, 5], sampling=one)
    alone, _ = draw([4], sampling=one)
    np.testing.assert_array_equal(several[1], alone[0])
    assert (several[0] != several[1]).any()
