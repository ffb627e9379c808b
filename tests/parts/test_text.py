import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unified.lanes import TextLane, TextTokens
from unified.parts.part import Place
from unified.parts.text import TextConfig, TextPart
from unified.sequence import Tokens

LANE = TextLane("text", "und", "text", budget=6, losses=3)
IDS = np.array([[1, 4, 2, 7, 3, 0]], np.int32)
CONTENT = TextTokens(
    Tokens.causal(6), IDS, np.array([[0, 1, 2]]), np.array([[4, 2, 7]]), np.array([[1.0, 1, 0]])
)


def part(tied):
    return TextPart(TextConfig(8, tied=tied), Place((LANE,), 5), rngs=nnx.Rngs(0))


def test_a_tied_head_is_an_untied_one_whose_kernel_is_the_table():
    tied, untied = part(True), part(False)
    assert tied.head.kernel is None
    untied.embedding.set_value(tied.embedding[...])
    untied.head.kernel.set_value(tied.embedding[...].T)
    hidden = jax.random.normal(jax.random.key(1), (1, 6, 5))
    one, other = (p.losses(LANE, hidden, CONTENT, None)["nll"] for p in (tied, untied))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(tied.score(hidden, CONTENT), -one[0], rtol=1e-6)


def test_the_table_of_a_tied_head_learns_from_what_is_read_and_what_is_said():
    """Its gradient is the sum of those of an embedding and of a kernel."""
    tied, untied = part(True), part(False)
    untied.embedding.set_value(tied.embedding[...])
    untied.head.kernel.set_value(tied.embedding[...].T)

    def gradient(model):
        graph, params = nnx.split(model, nnx.Param)

        def loss(params):
            model = nnx.merge(graph, params)
            x = model.inputs(LANE, CONTENT).x
            return model.losses(LANE, jnp.tanh(x), CONTENT, None)["nll"][0]

        return nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))

    one, other = gradient(tied), gradient(untied)
    both = other["embedding"] + other["head"]["kernel"].T
    np.testing.assert_allclose(one["embedding"], both, atol=1e-6)
    assert other["embedding"].any() and other["head"]["kernel"].any()
