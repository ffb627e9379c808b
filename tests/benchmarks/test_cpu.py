"""The benchmark compares what it measures: both sides give the same losses, texts and pictures."""

import re

import numpy as np
import pytest


@pytest.fixture
def cpu():
    pytest.importorskip("torch")
    from benchmarks import cpu

    return cpu


@pytest.mark.parity
def test_both_sides_agree_and_every_case_is_measured(cpu):
    results = list(cpu.run(quick=True, pairs=2, seconds=0.0))
    assert [r.case.name.split(",")[0] for r in results] == [
        "train step",
        "decode",
        "decode",
        "draw 4 pictures",
    ]
    assert all(r.race.ratio > 0 and r.case.tokens > 0 for r in results)
    assert re.fullmatch(
        r"train step: ours [\d.]+ ms, torch [\d.]+ ms, torch / ours [\d.]+", cpu.line(results[0])
    )


@pytest.mark.parity
def test_a_difference_stops_the_benchmark_with_its_name(cpu):
    cpu.check("same", np.ones(3), np.ones(3))
    with pytest.raises(AssertionError, match="gradient of x"):
        cpu.check("gradient of x", np.array([1.0, 2.0]), np.array([1.0, 2.001]))
