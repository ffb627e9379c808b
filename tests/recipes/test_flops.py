"""Operations of a step of the family, counted by hand for two small documents."""

import numpy as np
import pytest
from flax import nnx

from tests.recipes.small import small
from unified.lanes.batch import assemble
from unified.lanes.document import expand
from unified.recipes import packed
from unified.sequence import Example, Segment

PICTURE = np.zeros((64, 64, 3), np.uint8)  # 64 patches, 64 latent tokens, and two marks
QUESTION = Example((Segment(PICTURE), Segment("how many?"), Segment("two", "target")), "vqa")
DRAWING = Example((Segment("a cat"), Segment(PICTURE, "target")), "generate")

# Numbers of a layer's kernels: query, key, value, output, and three of the MLP.
LAYER = 16 * 2 * 8 + 2 * 16 * 8 + 2 * 8 * 16 + 3 * 16 * 24
TEXT, ANSWER, PROMPT = (9 + 2) + (3 + 2), 3 + 1, 5 + 2  # tokens, losses, tokens
READ = 66**2 + sum(66 + t for t in range(1, TEXT + 1))  # pairs of the first document
WRITE = PROMPT * (PROMPT + 1) // 2 + 66 * (PROMPT + 66)  # and of the second
ALONE = READ + PROMPT * (PROMPT + 1) // 2 + 2 * (PROMPT + 2) + 64**2  # both, inside streams


def count(config, *examples):
    model = nnx.eval_shape(lambda: packed.build(config, rngs=nnx.Rngs(0)))
    layout = model.cfg.layout
    row = [expand(example, layout, lambda text: range(len(text))) for example in examples]
    return packed.flops(model, assemble([row, []], layout))  # the second row is padding


@pytest.mark.parametrize(
    ("variant", "pairs"),
    [("mot", 6 * (READ + WRITE)), ("h", 4 * (READ + WRITE) + 2 * ALONE)],
)
def test_only_tokens_losses_and_visible_pairs_cost_something(variant, pairs):
    backbone = 2 * 6 * LAYER * (66 + TEXT + PROMPT + 66) + 4 * 2 * 8 * pairs
    language = 2 * ANSWER * 16 * 1024
    encoder = 192 * 8 + 4 * 8 * 8 + 2 * 8 * 16 + (8 * 16 + 16 * 16)  # and its connector
    vision = 2 * 64 * encoder + 4 * 2 * 4 * 64**2
    flow = 2 * (64 * 8 * 16 + 64 * 16 * 8 + (256 * 16 + 16 * 16))  # in, out, one time
    want = 3 * (backbone + language + vision + flow)
    assert count(small(variant), QUESTION, DRAWING) == want


def test_a_model_without_an_encoder_counts_pictures_that_are_read_as_latents():
    tokens = 66 + TEXT
    backbone = 2 * 6 * LAYER * tokens + 4 * 2 * 8 * 6 * READ
    latents = 2 * (64 * 8 * 16 + (256 * 16 + 16 * 16))  # no velocity
    want = 3 * (backbone + 2 * ANSWER * 16 * 1024 + latents)
    assert count(small("dense"), QUESTION) == want


def test_nothing_is_said_of_layers_that_run_at_some_times():
    assert count(small(active=((0, 1),) * 6), QUESTION) is None
