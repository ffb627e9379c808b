import numpy as np
import pytest

from unified.evaluation.reconstruction import psnr, ssim


def noise(seed, shape=(2, 16, 20, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_a_known_error():
    picture = np.full((1, 8, 8, 3), 100, np.uint8)
    np.testing.assert_allclose(psnr(picture, picture + np.uint8(10)), 10 * np.log10(255**2 / 100))
    half = picture.copy()
    half[:, :4] += 10  # half of the pixels: half of the error, 3.01 dB more
    np.testing.assert_allclose(psnr(picture, half), 10 * np.log10(255**2 / 50))
    assert np.isinf(psnr(picture, picture)).all()


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    np.testing.assert_allclose([psnr(black, white), psnr(white, black)], 0, atol=1e-12)


def test_ssim_follows_its_definition():
    """Against the formula written window by window."""
    x, y = noise(0), (noise(0) // 2 + noise(1) // 4).astype(np.uint8)
    offset = np.arange(11) - 5
    w = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    a, b = (0.299 * p[..., 0] + 0.587 * p[..., 1] + 0.114 * p[..., 2] for p in (x, y))
    values = []
    for i in range(16 - 10):
        for j in range(20 - 10):
            p, q = a[:, i : i + 11, j : j + 11], b[:, i : i + 11, j : j + 11]
            mp, mq = (w * p).sum((1, 2)), (w * q).sum((1, 2))
            dp, dq = p - mp[:, None, None], q - mq[:, None, None]
            cov, vp, vq = ((w * d).sum((1, 2)) for d in (dp * dq, dp * dp, dq * dq))
            c1, c2 = 6.5025, 58.5225
            top = (2 * mp * mq + c1) * (2 * cov + c2)
            values.append(top / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    np.testing.assert_allclose(ssim(x, y), np.mean(values, axis=0), rtol=1e-9)


def test_ssim_is_one_for_equal_and_near_zero_for_unrelated_pictures():
    x, y = noise(0, (2, 32, 32, 3)), noise(1, (2, 32, 32, 3))
    np.testing.assert_allclose(ssim(x, x), 1)
    assert (np.abs(ssim(x, y)) < 0.1).all()


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_wrong_arrays_are_refused(measure):
    with pytest.raises(ValueError, match="uint8"):
        measure(noise(0) / 255, noise(1) / 255)
    with pytest.raises(ValueError, match="differ in shape"):
        measure(noise(0), noise(1)[:1])
    with pytest.raises(ValueError, match="at least 11"):
        ssim(noise(0, (1, 8, 8, 3)), noise(1, (1, 8, 8, 3)))
