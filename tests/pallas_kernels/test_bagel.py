"""BAGEL's attention masks, bit for bit, from three integer vectors.

Its packer describes a row by the lengths of its samples, the lengths of their splits and the mode
of each split: `causal` (text), `full` (pictures that are read) or `noise` (pictures being drawn).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.pallas_kernels.implementations import every_implementation, visible

pytestmark = pytest.mark.usefixtures("keep_compiled")

HERE = Path(__file__).parent
CASES = json.loads((HERE / "bagel_masks.json").read_text())
CASES.pop("source")
CASES["train"]["mask"] = json.loads((HERE.parent / "lanes/bagel_packing.json").read_text())["mask"]


def golden_mask(case):
    length = sum(case["sample_lens"])
    return np.array([[bit == "1" for bit in f"{int(row, 16):0{length}b}"] for row in case["mask"]])


def intervals(case):
    """clock, start and stop `[T]` by the table in docs/kernels.md."""
    ends = np.cumsum(case["sample_lens"])
    start, stop, clock = [], [], 0
    for n, mode in zip(case["split_lens"], case["attn_modes"], strict=True):
        own = range(clock, clock + n)
        start += own if mode == "causal" else [clock] * n
        end_of_sample = ends[np.searchsorted(ends, clock, side="right")]
        stop += [clock + n if mode == "noise" else end_of_sample] * n
        clock += n
    return np.array([np.arange(clock), start, stop], np.int32)


def rule(clock, start, stop):
    return (start <= clock[:, None]) & (clock[:, None] < stop)


@pytest.mark.parametrize("name", CASES)
def test_intervals_give_the_mask(name):
    np.testing.assert_array_equal(rule(*intervals(CASES[name])), golden_mask(CASES[name]))


@every_implementation
def test_attention_applies_the_mask_in_reading_order_and_stream_after_stream(implementation):
    case = CASES["train"]
    clock, start, stop = intervals(case)
    is_text = np.repeat(np.array(case["attn_modes"]) == "causal", case["split_lens"])
    reading, streams = np.arange(len(clock)), np.argsort(~is_text, kind="stable")
    batch = (np.stack([x[reading], x[streams]]) for x in (clock, start, stop))
    got = visible(implementation, *batch)
    mask = golden_mask(case)
    np.testing.assert_array_equal(got[0], mask)
    np.testing.assert_array_equal(got[1], mask[np.ix_(streams, streams)])
