"""The emoji configs compute what they did when `golden.json` was written."""

import json

import numpy as np
import pytest

from tests.recipes import golden
from tests.recipes.small import VARIANTS

CLOSE = 1e-5  # of sums and norms: 1e-6 where they were made, XLA adds up otherwise elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_those_of_before(variant):
    want, found = json.loads(golden.FILE.read_text())[variant], golden.measure(variant)
    assert found["losses"].keys() == want["losses"].keys()
    for name, pair in want["losses"].items():
        np.testing.assert_allclose(found["losses"][name], pair, rtol=CLOSE, err_msg=name)
    assert found["gradients"].keys() == want["gradients"].keys()
    rounding = 1e-9 * max(norm for norm, _ in want["gradients"].values())  # where terms cancel
    for name, (norm, product) in want["gradients"].items():
        again, near = found["gradients"][name], CLOSE * norm + rounding
        np.testing.assert_allclose(again, [norm, product], atol=near, rtol=0, err_msg=name)
