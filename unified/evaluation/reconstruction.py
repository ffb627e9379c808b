"""How near pictures are to their originals. `N` pictures, `H W` pixels, uint8.

Both measures are of one picture; a table states their mean over pictures.
"""

import numpy as np

Array = np.ndarray

PEAK = 255.0
WINDOW = 11  # pixels a side, and the deviation of its Gaussian weights
DEVIATION = 1.5
LUMA = (0.299, 0.587, 0.114)


def psnr(pictures: Array, others: Array) -> Array:
    """Peak signal-to-noise ratio in dB, `[N H W 3]` twice -> `[N]`; infinite where equal.

    10 log10(255^2 / e), e the mean squared error over the pixels and channels of a picture.
    """
    _check(pictures, others)
    error = np.square(pictures.astype(np.float64) - others).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / error)


def ssim(pictures: Array, others: Array) -> Array:
    """Structural similarity, `[N H W 3]` twice -> `[N]`, at most 1.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity" (2004): on the luminance (Rec. 601), a Gaussian window of 11x11 with deviation 1.5,
    K1 = 0.01, K2 = 0.03, mean over the windows that lie inside the picture. Raises ValueError for
    a picture smaller than the window.
    """
    _check(pictures, others)
    if min(pictures.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW} pixels, not {pictures.shape}")
    x, y = (p.astype(np.float64) @ np.array(LUMA) for p in (pictures, others))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(axis=(1, 2))


def _blur(x: Array) -> Array:
    """Gaussian means of the windows inside `[N H W]`."""
    offset = np.arange(WINDOW) - WINDOW // 2
    weight = np.exp(-(offset**2) / (2 * DEVIATION**2))
    weight /= weight.sum()
    for axis in (1, 2):
        x = np.lib.stride_tricks.sliding_window_view(x, WINDOW, axis) @ weight
    return x


def _check(pictures: Array, others: Array) -> None:
    for p in (pictures, others):
        if p.dtype != np.uint8 or p.ndim != 4:
            raise ValueError(f"pictures are uint8 [N H W 3], not {p.dtype} {p.shape}")
    if pictures.shape != others.shape:
        raise ValueError(f"pictures {pictures.shape} and {others.shape} differ in shape")
