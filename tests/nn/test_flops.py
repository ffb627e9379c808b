"""Operations, counted by hand."""

import numpy as np
from flax import nnx

from unified.nn.flops import attention, count, count_pairs, per_token
from unified.nn.linear import Linear
from unified.nn.stack import stack
from unified.sequence import Tokens


def test_a_token_costs_two_operations_a_number_of_every_kernel():
    make = lambda r: Linear(4, 6, ("embed", "mlp"), rngs=r)
    assert per_token(make(nnx.Rngs(0))) == 2 * 4 * 6  # and nothing for the bias
    assert per_token(nnx.eval_shape(lambda: stack(make, 3, "layers", rngs=nnx.Rngs(0)))) == 144


def test_pairs_are_the_ones_of_the_mask():
    """A causal text of three, a picture of two that is hidden afterwards, text again; padding."""
    clock = np.array([[3, 4, 0, 1, 2, 5, 8, 8]])
    start = np.array([[3, 3, 0, 1, 2, 5, 0, 0]])
    stop = np.array([[5, 5, 6, 6, 6, 6, 0, 0]])
    tokens = Tokens(clock, start, stop, clock)
    mask = (start[0] <= clock[0][:, None]) & (clock[0][:, None] < stop[0])
    assert count_pairs(tokens) == mask.sum() == (1 + 2 + 3) + 2 * (3 + 2) + (3 + 1)
    assert count(tokens) == 6
    assert attention(num_layers=2, num_heads=3, head_dim=5, num_pairs=7) == 4 * 2 * 3 * 5 * 7
