"""Packing: nothing lost, budgets kept, the oldest first."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lanes.test_document import WIDE, encode, layout
from unified.data.packing import Packer
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.sequence import Example, Segment

segments = st.one_of(
    st.builds(Segment, st.text("abc", max_size=6), st.sampled_from(["context", "target"])),
    st.builds(Segment, st.just(WIDE), st.just("context"), st.sampled_from(["see", "edit"])),
    st.builds(Segment, st.just(WIDE), st.just("target")),
)
examples = st.lists(st.lists(segments, min_size=1, max_size=3), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(examples, st.integers(1, 8))
def test_every_example_is_packed_once_and_no_budget_is_exceeded(examples, lookahead):
    packs = layout(text=40, losses=24, vit=12, vae=3)
    spans = [
        expand(Example(tuple(s), origin=str(i)), packs, encode) for i, s in enumerate(examples)
    ]
    packer, rows, waiting = Packer(packs), [], list(enumerate(spans))
    while waiting or packer.held:
        while waiting and len(packer.held) < lookahead:
            packer.add(*waiting.pop(0))
        oldest = packer.held[0][1]
        rows.append(packer.pack())
        assert any(span is oldest for span in rows[-1])
    packed = [span.origin for row in rows for span in row]
    assert sorted(packed) == sorted(span.origin for span in spans)
    for row in rows:
        assert (sum(span.cost for span in row) <= list(packs.budgets().values())).all()
    batch = assemble(rows, packs)
    for b, row in enumerate(rows):
        clocks = np.concatenate([lane.tokens.clock[b] for lane in batch.lanes.values()])
        stops = np.concatenate([lane.tokens.stop[b] for lane in batch.lanes.values()])
        length = sum(span.length for span in row)
        np.testing.assert_array_equal(np.sort(clocks[stops > 0]), np.arange(length))
        assert (clocks[stops == 0] == packs.slots).all()
