"""The block plan against the dense mask: exact kinds, whole lists, honest counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention.bench.workload import causal, intervals, packing
from pallas_kernels.interval_attention.plan import RUNS, make_plan
from pallas_kernels.interval_attention.visits import (
    FIRST,
    FULL,
    LAST,
    MAX_BLOCKS,
    MINOR,
    PARTIAL,
    Visits,
    major,
    minor,
)

ROWS = ("mixed_16k", "text_to_image_16k", "text_heavy_16k", "mixed_32k")


def dense(clock, start, stop, block_q, block_k):
    """Which blocks have a visible pair, and which have nothing else: `[n m]`, pair by pair."""
    active, full = [], []
    for i in range(0, len(clock), block_q):
        q = clock[i : i + block_q, None]
        see = (start <= q) & (q < stop)
        see = np.pad(see, ((0, 0), (0, -len(start) % block_k)))
        see = see.reshape(len(q), -1, block_k)
        active.append(see.any((0, 2)))
        full.append(see.all((0, 2)))
    return np.array(active), np.array(full)


def unpack(visits: Visits, row: int, n: int, m: int):
    """Partial and full blocks `[n m]` of a list, having checked its order, flags and offsets."""
    begin = np.asarray(visits.begin[row])
    words = np.asarray(visits.words[row])
    assert not np.any(words[begin[-1] :] & (FIRST | LAST | PARTIAL | FULL))
    words = words[: begin[-1]]
    assert np.all(np.diff(words >> 4) > 0)
    np.testing.assert_array_equal(major(words), np.repeat(np.arange(n), np.diff(begin)))
    np.testing.assert_array_equal(np.flatnonzero(words & FIRST), begin[:-1])
    np.testing.assert_array_equal(np.flatnonzero(words & LAST), begin[1:] - 1)
    kinds = np.zeros((2, n, m), bool)
    for kind, flag, counts in zip(kinds, (PARTIAL, FULL), visits[2:4], strict=True):
        there = words[(words & flag) != 0]
        kind[major(there), minor(there)] = True
        np.testing.assert_array_equal(kind.sum(1), counts[row])
    visited = kinds.any(0).sum(1)
    np.testing.assert_array_equal(visited[visits.order[row]], np.sort(visited)[::-1])
    idle = words[(words & (PARTIAL | FULL)) == 0]
    np.testing.assert_array_equal(major(idle), np.flatnonzero(~kinds.any((0, 2))))
    return kinds


def check(vectors, block_q, block_k, block_columns=None):
    """The plan's lists hold exactly the blocks of the dense mask."""
    sizes = {"block_q": block_q, "block_k": block_k, "block_columns": block_columns}
    plan = make_plan(*vectors, **sizes)
    for row, (clock, start, stop) in enumerate(zip(*map(np.asarray, vectors), strict=True)):
        active, full = dense(clock, start, stop, block_q, block_k)
        n, m = active.shape
        np.testing.assert_array_equal(unpack(plan.rows, row, n, m), [active & ~full, full])
        active, full = dense(clock, start, stop, block_q, block_columns or block_k)
        m = active.shape[1]
        np.testing.assert_array_equal(unpack(plan.columns, row, m, n), [(active & ~full).T, full.T])
    return plan


@pytest.mark.parametrize("two_streams", [False, True], ids=["row order", "two streams"])
@pytest.mark.parametrize("name", ROWS)
def test_every_visit_of_the_packings_is_needed(name, two_streams):
    vectors = packing(name, two_streams=two_streams)
    plan = check(vectors, 512, 512)
    visited, full, partial, least = (int(x[0]) for x in plan.stats)
    assert visited == least == full + partial and bool(plan.fits)


def captions_of_pictures(text: int, picture: int, pairs: int, documents: int):
    """Two streams, of which a block holds many short stretches."""
    document = [(text, "causal"), (picture, "noise")] * pairs
    return intervals([document] * documents, 16384, two_streams=True)


@pytest.mark.parametrize("pairs", [1, 200], ids=["documents", "one document"])
def test_short_stretches_in_two_streams_cost_no_block_too_many(pairs):
    stats = make_plan(
        *captions_of_pictures(9, 64, pairs, 200 // pairs), block_q=512, block_k=512
    ).stats
    assert int(stats.visited[0]) == int(stats.least[0])


def test_counts_of_the_published_row():
    plan = make_plan(*packing("mixed_16k"), block_q=512, block_k=512)
    assert [int(x[0]) for x in plan.stats] == [215, 96, 119, 215]


def test_causal_attention_visits_the_triangle():
    stats = check(causal(1024), 128, 128).stats
    assert [int(x[0]) for x in stats] == [36, 28, 8, 36]


def test_rectangular_blocks_and_ragged_tails():
    clock, start, stop = intervals([[(70, "causal"), (90, "noise")], [(40, "full")]], 230)
    check((clock[:, :171], start, stop), 64, 48)
    check((clock[:, :171], start, stop), 64, 16, block_columns=48)
    check((clock[:, :1], start[:, :3], stop[:, :3]), 64, 48)


def test_a_padded_last_block_of_queries_is_full_and_of_keys_is_not():
    clock, start, stop = (jnp.full((1, 10), x, jnp.int32) for x in (3, 0, 9))
    plan = make_plan(clock, start, stop, block_q=4, block_k=4)
    np.testing.assert_array_equal(plan.rows.full, [[2, 2, 2]])
    np.testing.assert_array_equal(plan.rows.partial, [[1, 1, 1]])


def test_queries_that_see_nothing_cost_one_idle_visit():
    clock, start, stop = (jnp.full((1, 8), x, jnp.int32) for x in (9, 0, 9))
    plan = check((clock, start, stop), 4, 4)
    assert [int(x[0]) for x in plan.stats] == [0, 0, 0, 0]
    np.testing.assert_array_equal(plan.rows.begin, [[0, 1, 2]])


def test_random_intervals_lose_no_block_and_claim_no_full_one():
    rng = np.random.default_rng(0)
    make = functools.partial(make_plan, block_q=8, block_k=16)
    for _ in range(8):
        clock = rng.integers(0, 200, 64).astype(np.int32)  # more runs than are told apart
        start = rng.integers(0, 200, 96).astype(np.int32)
        stop = start + rng.integers(-3, 60, 96).astype(np.int32)
        plan = make(clock[None], start[None], stop[None])
        active, full = dense(clock, start, stop, 8, 16)
        np.testing.assert_array_equal(unpack(plan.rows, 0, 8, 6), [active & ~full, full])
        assert int(plan.stats.visited[0]) == int(plan.stats.least[0]) == active.sum()


def test_more_runs_than_are_told_apart_stay_safe():
    clock = np.arange(4 * RUNS, dtype=np.int32)[None] * 4  # every clock is a run
    start = np.arange(1, 16 * RUNS, 4, dtype=np.int32)[None]  # keys between the clocks
    start[:, -1] -= 1  # but for the last one
    plan = make_plan(clock, start, start + 1, block_q=2 * RUNS, block_k=RUNS)
    active, _ = dense(clock[0], start[0], start[0] + 1, 2 * RUNS, RUNS)
    visited = np.zeros_like(active)
    words = plan.rows.words[0, : plan.rows.begin[0, -1]]
    words = words[(words & (PARTIAL | FULL)) != 0]
    visited[major(words), minor(words)] = True
    assert active.sum() == plan.stats.least[0] == 1 and np.all(visited >= active)


def test_too_little_capacity_is_noticed_in_either_list():
    vectors = [np.repeat(x, 2, 0) for x in causal(64)]
    vectors[1][1] = 64  # the second row of the batch sees nothing
    make = functools.partial(make_plan, *vectors, block_q=16, block_k=8)
    assert make().is_complete and bool(make().fits)
    assert not make(capacity=20).is_complete and bool(make(capacity=20).fits)
    assert not bool(make(capacity=19).fits)
    np.testing.assert_array_equal(make(capacity=19).rows.words, make().rows.words[:, :19])
    np.testing.assert_array_equal(make(capacity=19).stats.visited, [20, 0])


def test_spans_are_rows_of_a_plan_for_their_keys():
    clock, start, stop = packing("mixed_16k")
    make = functools.partial(make_plan, block_q=512, block_k=512)
    plan = make(clock, start, stop, span=12)
    assert make(clock, start, stop, span=32).spans == ()
    assert [blocks for blocks, _ in plan.stretches(12)] == [*map(range, (0, 12, 24), (12, 24, 32))]
    for i, (blocks, visits) in enumerate(plan.stretches(12)):
        keys = slice(512 * blocks.start, 512 * blocks.stop)
        rows = make(clock, start[:, keys], stop[:, keys]).rows
        np.testing.assert_array_equal(visits.words, rows.words + (12 * i << MINOR))
        jax.tree.map(np.testing.assert_array_equal, visits[1:], rows[1:])


def test_stretches_of_a_span_idle_at_its_other_blocks():
    plan = make_plan(*packing("mixed_16k"), block_q=512, block_k=512, span=12)
    blocks, visits = [*plan.stretches(8)][1]
    assert blocks == range(8, 12)
    ours, whole = visits.words[0], plan.spans[0].words[0]
    inside = (minor(whole) >= 8) & (minor(whole) < 12)
    np.testing.assert_array_equal(ours[inside], whole[inside])
    assert not np.any(ours[~inside] & (PARTIAL | FULL)) and bool(inside.any())
    np.testing.assert_array_equal(minor(ours)[~inside], 8)
    for part in (major, lambda words: words & (FIRST | LAST)):
        np.testing.assert_array_equal(part(ours), part(whole))


def test_too_many_blocks_are_refused():
    clock = np.zeros((1, MAX_BLOCKS), np.int32)
    with pytest.raises(ValueError, match="8192 x 1 blocks, but an axis has at most 8191"):
        make_plan(clock, clock, clock, block_q=1, block_k=MAX_BLOCKS)


@pytest.mark.parametrize("size", ["block_q", "block_k", "capacity", "span"])
def test_sizes_below_one_are_named(size):
    mask = causal(300)
    with pytest.raises(ValueError, match=f"{{'{size}': 0}}: sizes of a plan are at least 1"):
        make_plan(*mask, **{"block_q": 128, "block_k": 128, size: 0})


def test_shapes_that_do_not_agree_are_named():
    clock, start, stop = causal(300)
    sizes = {"block_q": 128, "block_k": 128}
    wrong = r"must be \[B T\], start \(1, 300\) and stop \(1, {}\) \[B S\]"
    with pytest.raises(ValueError, match=wrong.format(128)):
        make_plan(clock, start, stop[:, :128], **sizes)
    for other in (clock[0], clock[:, :0], np.repeat(clock, 2, 0)):
        with pytest.raises(ValueError, match=wrong.format(300)):
            make_plan(other, start, stop, **sizes)
    with pytest.raises(ValueError, match="block_columns=192 is not a multiple of block_k=128"):
        make_plan(clock, start, stop, **sizes, block_columns=192)


def test_is_the_same_under_vmap_scan_and_shard_map():
    rows = [intervals([[(n, "causal"), (40 - n, "full")], [(9, "noise")]], 64) for n in range(1, 9)]
    vectors = [jnp.asarray(np.concatenate(x)) for x in zip(*rows, strict=True)]
    make = functools.partial(make_plan, block_q=16, block_k=16)
    want = make(*vectors)

    def same(got):
        jax.tree.map(np.testing.assert_array_equal, got, want)

    one = lambda *vectors: jax.tree.map(lambda x: x[0], make(*(x[None] for x in vectors)))
    same(jax.jit(jax.vmap(one))(*vectors))
    same(jax.lax.scan(lambda _, x: (None, one(*x)), None, tuple(vectors))[1])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    same(jax.jit(jax.shard_map(make, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(*vectors))


def test_two_streams_hold_the_tokens_of_the_row():
    row, streams = (packing("mixed_32k", two_streams=x) for x in (False, True))
    order = np.argsort(streams[0][0], kind="stable")
    for ours, theirs in zip(streams, row, strict=True):
        np.testing.assert_array_equal(ours[0][order], theirs[0])


def test_intervals_of_a_small_row():
    documents = [[(1, "causal"), (2, "noise"), (2, "full")], [(1, "causal")]]
    clock, start, stop = intervals(documents, 8)
    np.testing.assert_array_equal(clock, [[0, 1, 2, 3, 4, 5, 8, 8]])
    np.testing.assert_array_equal(start, [[0, 1, 1, 3, 3, 5, 0, 0]])
    np.testing.assert_array_equal(stop, [[5, 3, 3, 5, 5, 6, 0, 0]])
    clock, _, _ = intervals(documents, 8, two_streams=True)
    np.testing.assert_array_equal(clock, [[0, 5, 8, 8, 1, 2, 3, 4]])
