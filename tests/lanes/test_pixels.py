"""Pictures: BAGEL's size rule, decoding of every mode, the order of patches."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from unified.data.decode import decode
from unified.lanes import PatchLane, PictureLane
from unified.lanes.pixels import patch_grid, to_rgb

# (width, height) -> (width, height) by BAGEL's code, long side 980, short side 224, patches of 14
BAGEL_SIZES = {
    (1024, 1024): (980, 980),
    (512, 512): (518, 518),
    (100, 100): (224, 224),
    (2000, 1000): (980, 490),
    (1000, 2000): (490, 980),
    (640, 480): (644, 476),
    (300, 1200): (252, 980),
    (4000, 300): (980, 70),
    (1920, 1080): (980, 546),
    (333, 777): (336, 784),
    (981, 981): (980, 980),
    (5000, 5000): (980, 980),
    (64, 2048): (28, 980),
}


@pytest.mark.parametrize("size", BAGEL_SIZES)
def test_sizes_are_those_of_bagel(size):
    width, height = size
    rows, columns = patch_grid(height, width, patch=14, min_side=224, max_side=980)
    assert (columns * 14, rows * 14) == BAGEL_SIZES[size]


def test_the_long_side_never_exceeds_the_limit_in_whole_patches():
    assert patch_grid(2000, 10, patch=14, min_side=14, max_side=1005) == (71, 1)


def test_patches_are_row_column_channel():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    lane = PatchLane("vit", "und", "vit", patch=2, min_side=2, max_side=6)
    patches, grid = lane.cut(image)
    np.testing.assert_array_equal(grid, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
    first = [0, 1, 2, 3, 4, 5, 18, 19, 20, 21, 22, 23]
    np.testing.assert_array_equal(patches[0], first)
    np.testing.assert_array_equal(patches[5], np.array(first) + 36 + 12)


def test_latent_pictures_are_scaled_to_cover_and_cropped_in_the_centre():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # the square in the middle
    lane = PictureLane("vae", "gen", "vae", count=1, height=16, width=16)
    [fitted] = lane.write(image, target=False)["pixels"]
    assert fitted.shape == (16, 16, 3)
    assert fitted[:, 1:-1].min() == 255


def saved(array, format="png", mode=None):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, format)
    return file.getvalue()


def test_every_mode_becomes_rgb_on_white():
    def stored(array, mode=None, format="png"):
        return decode(saved(array, format, mode))

    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    for file in (stored(clear), stored(clear, format="webp"), to_rgb(clear)):
        np.testing.assert_array_equal(file[1, 1], [255, 255, 255])
    np.testing.assert_array_equal(stored(clear)[0, 0], [10, 20, 30])
    grey = np.full((2, 2), 100, np.uint8)
    np.testing.assert_array_equal(stored(grey), np.full((2, 2, 3), 100))
    np.testing.assert_array_equal(stored(grey, "P"), np.full((2, 2, 3), 100))
    deep = np.full((2, 2), 0x8000, np.uint16)
    np.testing.assert_array_equal(stored(deep), np.full((2, 2, 3), 128))
    np.testing.assert_array_equal(to_rgb(grey), np.full((2, 2, 3), 100))
    with pytest.raises(ValueError, match="uint8"):
        to_rgb(np.zeros((2, 2, 3)))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


def png(width: int, height: int, body: bytes) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


ROWS = zlib.compress(bytes(range(200)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"words", "^not a picture of a known format"),
        (png(8, 8, chunk(b"IDAT", ROWS)[:30]), "truncated"),
        (png(8, 8, chunk(b"IDAT", ROWS[:30]) + b"garbled at will"), "broken PNG file"),
        (saved(np.ones((2, 2), np.float32), "tiff"), "floats does not say what is white"),
        (png(20_000, 20_000, chunk(b"IDAT", b"")), "more than max_pixels=64000000"),
    ],
    ids=["no picture", "cut", "garbled", "floats", "huge"],
)
def test_whatever_is_wrong_with_a_picture_is_one_kind_of_error(data, message):
    with pytest.raises(ValueError, match=message):
        decode(data)


def test_pictures_are_turned_upright():
    image = Image.fromarray(np.zeros((2, 6, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned
    file = io.BytesIO()
    image.save(file, "jpeg", exif=exif)
    assert decode(file.getvalue()).shape == (6, 2, 3)
