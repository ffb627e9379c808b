"""The autoencoder that ships, alone."""

import numpy as np
import pytest

import unified
from unified.evaluation.reconstruction import psnr
from unified.worlds.emoji.tasks import EmojiSource

SHIPPED = "unified/checkpoints/autoencoder"


@pytest.fixture(scope="module")
def autoencoder():
    return unified.load(SHIPPED)


def test_pictures_come_back_from_their_latents(autoencoder):
    source = EmojiSource(split="validation", tasks={"generate": 1.0})
    pictures = [source[i].segments[-1].content for i in range(4)]
    latents = autoencoder.encode(pictures)
    assert latents.shape == (4, 64 // autoencoder.stride, 64 // autoencoder.stride, 8)
    assert abs(latents.std() - 1) < 0.3
    again = autoencoder.decode(latents)
    np.testing.assert_array_equal(again, autoencoder.reconstruct(pictures))
    assert np.mean(psnr(np.stack(pictures), again)) > 24


@pytest.mark.parametrize("sizes", [[(64, 61)], [(64, 64), (32, 32)], []])
def test_pictures_of_other_sizes_are_refused(sizes, autoencoder):
    pictures = [np.zeros((*size, 3), np.uint8) for size in sizes]
    with pytest.raises(ValueError, match="give some of one size, whose sides are multiples of"):
        autoencoder.reconstruct(pictures)
