"""Reading step by step with a cache gives what reading at once gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.backbone import Cache

pytestmark = pytest.mark.usefixtures("keep_compiled")

# Text, a picture with its marks, then text; the second row is shorter and filled up.
ROWS = [
    [[("text", "uuu"), ("clean", "uggu"), ("text", "uuuu")]],
    [[("text", "uu"), ("pad", "u"), ("clean", "uggu"), ("text", "uuu"), ("pad", "u")]],
]
STEPS = [
    {"und": (0, 3)},
    {"und": (3, 5), "gen": (0, 2)},
    *({"und": (i, i + 1)} for i in range(5, 9)),
]
PLANS = {
    "mixture of transformers": {},
    "time windows": {"active": [(0.0, 0.5), (0.5, 1.0)]},
    "Y": {"shared": [[0, 1]]},
    "H": {"joint": [[1, 2]]},
}
LONG_TO_COMPILE = [pytest.param(plan, marks=pytest.mark.slow) for plan in ("Y", "H")]


def part(tree, lo, hi):
    return jax.tree.map(lambda a: a[:, lo:hi], tree)


@jax.jit
def keys_of(model, x, tokens):
    return model(x, tokens, return_keys=True).keys


@pytest.mark.parametrize("plan", [*PLANS][:2] + LONG_TO_COMPILE)
def test_cached_is_uncached(plan, backbone, embeddings, rows, run):
    tokens, kinds = rows(ROWS)
    model = backbone(**PLANS[plan])
    x = embeddings(model, tokens)
    time = {"gen": jnp.array([[0.3, 0.3], [0.8, -1.0]])}
    want = run(model, x, tokens, time=time)

    @jax.jit
    def read(model, x, tokens, time, cache, at):
        found = model(x, tokens, time=time, cache=cache, return_keys=True)
        return found.hidden, cache.append(found.keys, tokens, at, time)

    cache = Cache.empty(model.cfg, 2, {"und": 10, "gen": 3})
    for step in STEPS:
        cut = lambda tree, step=step: {s: part(tree[s], *step[s]) for s in step if s in tree}
        at = {s: lo for s, (lo, _) in step.items()}
        hidden, cache = read(model, cut(x), cut(tokens), cut(time), cache, at)
        for s, (lo, hi) in step.items():
            for row in (0, 1):
                real = [kind != "pad" for _, _, kind in kinds[s][row][lo:hi]]
                got, wanted = np.asarray(hidden[s][row]), np.asarray(want[s][row, lo:hi])
                np.testing.assert_allclose(got[real], wanted[real], atol=2e-5, err_msg=f"{step}")


def test_one_offset_serves_all_streams_and_other_slots_stay(backbone, embeddings, rows):
    tokens, _ = rows([[[("clean", "uug")]]])
    model = backbone()
    keys = keys_of(model, embeddings(model, tokens), tokens)
    cache = Cache.empty(model.cfg, 1, {"und": 5, "gen": 5}).append(keys, tokens, 2)
    for s, n in (("und", 2), ("gen", 1)):
        k, v = cache.keys[0][s]
        np.testing.assert_array_equal(k[:, :, 2 : 2 + n], keys[0][s][0])
        np.testing.assert_array_equal(v[:, :, 2 : 2 + n], keys[0][s][1])
        assert not k[:, :, :2].any() and not k[:, :, 2 + n :].any()
        np.testing.assert_array_equal(cache.spans[s].stop[0], [0, 0, *[3] * n, *[0] * (3 - n)])


def test_a_full_cache_is_an_error(backbone, embeddings, rows):
    tokens, _ = rows([[[("text", "uuu")]]])
    model = backbone()
    keys = keys_of(model, embeddings(model, tokens), tokens)
    with pytest.raises(ValueError, match="'und': 3 tokens at 2 exceed 4 slots"):
        Cache.empty(model.cfg, 1, {"und": 4}).append(keys, tokens, 2)


def test_hidden_keys_of_the_cache_are_as_if_absent(backbone, embeddings, rows, run):
    """A cache full of keys whose intervals end before the query changes nothing."""
    tokens, _ = rows([[[("text", "uuu")]]])
    model = backbone()
    x = embeddings(model, tokens)
    keys = keys_of(model, x, tokens)
    cache = Cache.empty(model.cfg, 1, {"und": 3}).append(keys, tokens, 0)
    later = dataclasses.replace(
        tokens["und"], **{f: getattr(tokens["und"], f) + 3 for f in ("clock", "start", "stop")}
    )
    got = run(model, x, {"und": later}, cache=cache)["und"]
    np.testing.assert_allclose(got, run(model, x, tokens)["und"], atol=1e-6)
