"""Who can learn from whom: gradients reach exactly the tokens that the document allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("keep_compiled")


def allowed(query, key, clock_q, clock_k):
    """The rule in words, for tokens (document, span, kind) at their clocks."""
    (doc_q, span_q, kind_q), (doc_k, span_k, kind_k) = query, key
    if "pad" in (kind_q, kind_k) or doc_q != doc_k:
        return False
    if span_q == span_k:
        return kind_k != "text" or clock_k <= clock_q
    return span_k < span_q and kind_k != "noised"


def reach(backbone, x, tokens):
    """Whether hidden state q moves with embedding k: matrices `[B q k]` per pair of streams."""
    of_row = lambda x, tokens: backbone(
        jax.tree.map(lambda a: a[None], x), jax.tree.map(lambda a: a[None], tokens)
    )
    hidden = lambda x, tokens: {s: h[0].sum(-1) for s, h in of_row(x, tokens).hidden.items()}
    jacobian = jax.jit(jax.vmap(jax.jacrev(hidden)))(x, tokens)
    return jax.tree.map(lambda j: np.abs(j).max(-1) > 1e-9, jacobian)


PLANS = {
    "dense": {"shared": "all"},
    "mixture of transformers": {},
    "Y": {"shared": [[0, 1]]},
    "unequal widths": {
        "streams": {
            "und": {"embed_dim": 16, "mlp_dim": 24},
            "gen": {"embed_dim": 12, "mlp_dim": 40},
        }
    },
}


@pytest.mark.parametrize("plan", PLANS)
def test_no_token_reaches_another_document_a_later_token_or_a_hidden_span(
    plan, backbone, embeddings, packed
):
    tokens, kinds = packed
    model = backbone(**PLANS[plan])
    x = embeddings(model, tokens)
    for (q, k), got in flat(reach(model, x, tokens)):
        for row in (0, 1):
            clocks_q, clocks_k = tokens[q].position[row], tokens[k].position[row]  # true order
            want = [
                [allowed(a, b, cq, ck) for b, ck in zip(kinds[k][row], clocks_k, strict=True)]
                for a, cq in zip(kinds[q][row], clocks_q, strict=True)
            ]
            want = np.array(want)
            if q == k:  # every token keeps itself, padding too
                want |= np.eye(len(want), dtype=bool)
            np.testing.assert_array_equal(got[row], want, err_msg=f"{q} from {k}, row {row}")


def flat(pairs):
    return [((q, k), value) for q, of_k in pairs.items() for k, value in of_k.items()]


def test_a_stream_without_joint_layers_gets_zero_gradient_from_the_other(
    backbone, embeddings, packed
):
    tokens, _ = packed
    model = backbone(joint="none")
    x = embeddings(model, tokens)

    def loss(model, x):
        return jnp.sum(model(x, tokens).hidden["und"] ** 3)

    of_model, of_x = jax.jit(jax.grad(loss, (0, 1)))(model, x)
    largest = lambda tree: max(float(jnp.abs(g).max()) for g in jax.tree.leaves(tree))
    assert largest(of_model.runs["0"]["gen"]) == largest(of_x["gen"]) == 0
    assert largest(of_model.runs["0"]["und"]) > 0 < largest(of_x["und"])
