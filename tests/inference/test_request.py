"""Pictures that users give: files of this machine, of a known format and size."""

import os

import numpy as np
import pytest
from PIL import Image

from unified.inference.request import read_picture


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (6, 4), (7, 0, 0)).save(tmp_path / "1.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    Image.new("RGB", (6, 4)).save(tmp_path / "drawing.eps")
    os.rename(tmp_path / "drawing.eps", tmp_path / "drawing.png")
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path


def test_a_file_a_path_a_picture_and_an_array_are_read(folder):
    file = folder / "1.png"
    array = np.full((4, 6, 3), (7, 0, 0), np.uint8)
    for given in (file, str(file), Image.open(file), array):
        np.testing.assert_array_equal(read_picture(given), array)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.png", r"cut.png' is not a readable picture: "),
        ("drawing.png", "drawing.png' is not a readable picture: not a picture of a known format"),
        ("pipe.png", "pipe.png is no regular file, but a pipe, device or socket"),
    ],
)
def test_what_is_no_picture_is_told_in_a_line(folder, name, message):
    with pytest.raises(ValueError, match=message) as told:
        read_picture(folder / name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://x.org/1.png", "is a URL: pictures are not fetched"),
        (3, "a picture is a file, a Pillow picture or uint8"),
        (np.zeros((3, 8, 9), np.uint8), r"give array.transpose\(1, 2, 0\)"),
    ],
)
def test_what_cannot_be_is_told_with_what_to_give(given, message):
    with pytest.raises(ValueError, match=message):
        read_picture(given)


def test_a_picture_of_too_many_pixels_is_refused_and_the_limit_is_an_argument(folder):
    with pytest.raises(ValueError, match="4 x 6 pixels: more than max_pixels=23"):
        read_picture(folder / "1.png", 23)


def test_a_damaged_picture_that_pillow_opened_is_told_too(folder):
    with Image.open(folder / "cut.png") as image, pytest.raises(ValueError, match="cannot be read"):
        read_picture(image)
