"""The decoding loop, with a model that counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unified.generation.text import NOT_FINITE, OPEN, cut, generate_text
from unified.processes.autoregressive import GREEDY, Sampling

pytestmark = pytest.mark.usefixtures("keep_compiled")

V, END = 12, 9


def count_up(state, ids, tokens, slot):
    """Says the next number, and writes what it was given into the slot."""
    given = jnp.stack([ids, tokens.clock, tokens.start, tokens.stop, tokens.position], -1)
    state = jax.lax.dynamic_update_slice(state, given, (0, slot, 0))
    return jax.nn.one_hot(ids[:, 0] + 1, V) * 8, state


@functools.partial(jax.jit, static_argnames=("step", "max_tokens", "sampling", "pad_id"))
def decode(step, first, max_tokens=6, **options):
    B = len(first)
    options = {
        "clock": jnp.arange(B) * 100,
        "position": jnp.arange(B) * 10,
        "slot": 3,
        "keys": jax.vmap(jax.random.key)(jnp.arange(B)),
        "stop_ids": (END,),
    } | options
    state = jnp.zeros((B, 3 + max_tokens, 5), int)
    return generate_text(step, state, jnp.array(first), max_tokens=max_tokens, **options)


def test_rows_end_at_a_stop_id_or_at_the_limit():
    ids, lengths = decode(count_up, [5, 8, 0], max_tokens=4, pad_id=11)
    np.testing.assert_array_equal(ids, [[6, 7, 8, 11], [11, 11, 11, 11], [1, 2, 3, 4]])
    np.testing.assert_array_equal(lengths, [3, 0, 4])


def test_a_limit_that_is_known_late_needs_no_other_program():
    whole = decode(count_up, [5, 0], max_tokens=6)
    for limit in (2, 6):
        ids, lengths = decode_in_room(count_up, [5, 0], limit)
        np.testing.assert_array_equal(ids[:, :limit], whole[0][:, :limit])
        np.testing.assert_array_equal(lengths, np.minimum(whole[1], limit))
    assert decode_in_room._cache_size() == 1


@functools.partial(jax.jit, static_argnames="step")
def decode_in_room(step, first, limit):
    place = {"clock": jnp.arange(2) * 100, "position": jnp.arange(2) * 10, "slot": 3}
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    state, options = jnp.zeros((2, 9, 5), int), {"stop_ids": (END,), "keys": keys, **place}
    return generate_text(step, state, jnp.array(first), max_tokens=limit, room=6, **options)


def test_a_row_whose_logits_are_not_finite_ends_and_says_so():
    def fail(state, ids, tokens, slot):
        logits, state = count_up(state, ids, tokens, slot)
        return jnp.where((ids == 6) & (jnp.arange(V) == 0), jnp.nan, logits), state

    ids, lengths = decode(fail, [5, 7], max_tokens=4)
    np.testing.assert_array_equal(ids, [[6, NOT_FINITE, 0, 0], [8, 0, 0, 0]])
    np.testing.assert_array_equal(lengths, [1, 1])


def test_a_text_ends_before_the_first_stop_string():
    assert cut("two dogs. a cat!", ("!", ". ", "bird")) == "two dogs"
    assert cut("two dogs", ["dog"]) == "two "
    assert cut("two dogs", ()) == cut("two dogs", ["cat"]) == "two dogs"


def test_tokens_take_consecutive_places_until_the_end_and_then_are_invisible():
    seen = []

    def watch(state, ids, tokens, slot):
        jax.debug.callback(lambda *a: seen.append(a), slot, *jax.tree.leaves((ids, tokens)))
        return count_up(state, ids, tokens, slot)

    decode(watch, [5, 7])
    jax.effects_barrier()
    assert len(seen) == 4  # 5 -> 6 -> 7 -> 8 -> END; then all rows are done
    by_slot = {int(slot): [np.ravel(x).tolist() for x in rest] for slot, *rest in seen}
    assert by_slot[3] == [[5, 7], [0, 100], [0, 100], [OPEN, OPEN], [0, 10]]
    assert by_slot[4] == [[6, 8], [1, 101], [1, 101], [OPEN, OPEN], [1, 11]]
    ids, _, start, stop, _ = by_slot[5]
    assert (ids, start, stop) == ([7, 0], [2, 0], [OPEN, 0])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.5, top_k=9, top_p=0.95)])
def test_a_row_of_a_batch_is_as_if_alone(sampling):
    def babble(state, ids, tokens, slot):
        logits = jax.vmap(lambda i, p: jax.random.normal(jax.random.key(i * 7 + p), (V,)))
        return logits(ids[:, 0], tokens.position[:, 0]), state

    place = {"clock": jnp.array([0, 5, 9]), "position": jnp.array([0, 5, 9]), "sampling": sampling}
    ids, lengths = decode(babble, [1, 1, 1], max_tokens=12, **place)
    assert len(set(lengths.tolist())) > 1
    for i in range(3):
        one = {k: v[i : i + 1] for k, v in place.items() if k != "sampling"}
        key = jax.vmap(jax.random.key)(jnp.array([i]))
        alone = decode(babble, [1], max_tokens=12, keys=key, sampling=sampling, **one)
        np.testing.assert_array_equal(ids[i : i + 1], alone[0])
        np.testing.assert_array_equal(lengths[i : i + 1], alone[1])
