"""Pictures that people bring: of every form by a rule, of attackers none for long."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from tests.lanes.test_pixels import chunk, png, saved
from unified.data import decode as module
from unified.data.decode import FORMATS, decode, to_rgb
from unified.lanes import pixels

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
PNG, JPEG = (saved(COLOURS, format) for format in ("png", "jpeg"))
AFTER_HEADER = 8 + 25  # of a PNG


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_the_list_is_read(format):
    if format not in module._formats():
        pytest.skip("this Pillow does not read it")
    assert decode(saved(COLOURS, format)).shape == (6, 8, 3)


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "TGA"])
def test_no_other_format_is_opened_whatever_pillow_knows(format, monkeypatch):
    """PostScript starts Ghostscript; an ICO holds a picture of another size than it says."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match=r"not a picture of a known format.*PNG, JPEG"):
        decode(saved(np.zeros((16, 16, 3), np.uint8), format))


BOMB = zlib.compress(bytes(3_000_000))
CHUNKS = {
    "large profile": chunk(b"iCCP", b"a\0\0" + BOMB),
    "large text": chunk(b"zTXt", b"a\0\0" + BOMB),
    "damaged text": chunk(b"iTXt", b"a\0\1"),
    "damaged profile": chunk(b"iCCP", b"a"),
    "damaged EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "wrong check": chunk(b"tEXt", b"a\0b")[:-1] + b"?",
    "damaged animation": chunk(b"acTL", b"1"),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_metadata_of_a_png_never_decide_over_its_pixels(kind):
    file = PNG[:AFTER_HEADER] + CHUNKS[kind] + PNG[AFTER_HEADER:]
    np.testing.assert_array_equal(decode(file), COLOURS)


@pytest.mark.parametrize("mark", [0xE1, 0xE2, 0xED, 0xFE])
@pytest.mark.parametrize(
    "body",
    [
        b"Exif\0\0garbage",
        b"ICC_PROFILE\0\5\1x",
        b"MPF\0II*\0\x08\0\0\0",
        b"Photoshop 3.0\x008BIM",
        b"",
    ],
    ids=["EXIF", "profile", "frames", "photoshop", "empty"],
)
def test_metadata_of_a_jpeg_never_decide_over_its_pixels(mark, body):
    segment = bytes([0xFF, mark]) + struct.pack(">H", len(body) + 2) + body
    np.testing.assert_array_equal(decode(JPEG[:2] + segment + JPEG[2:]), decode(JPEG))


def tiff(*extra, width=8, height=8, next_one=0, tail=b""):
    """An uncompressed grey TIFF of zeros, with more tags (number, type, count, value)."""
    size = width * height
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1)}
    tags |= {262: (3, 1, 1), 273: (4, 1, 0), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, size)}
    tags |= {number: rest for number, *rest in extra}
    pixels = 8 + 2 + 12 * len(tags) + 4
    tags[273] = (4, 1, pixels)
    entries = b"".join(struct.pack("<HHII", number, *tags[number]) for number in sorted(tags))
    directory = (
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", next_one and pixels + size)
    )
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(size) + tail


def test_of_a_tiff_the_first_picture_is_read_and_no_chain_is_followed():
    frames = 200_000  # empty ones, each naming the next: seconds for who counts them
    first = len(tiff())
    chain = b"".join(struct.pack("<HI", 0, first + 6 * (i + 1)) for i in range(frames))
    begin = time.perf_counter()
    assert decode(tiff(next_one=1, tail=chain)).shape == (8, 8, 3)
    assert time.perf_counter() - begin < 1


def test_metadata_of_a_tiff_never_decide_over_its_pixels():
    beyond = [(34675, 7, 2**31, 100), (34665, 4, 1, 99_999_999), (700, 1, 2**30, 8)]
    assert decode(tiff(*beyond)).shape == (8, 8, 3)
    assert decode(tiff((274, 2, 9, 6), width=8, height=4)).shape == (4, 8, 3)
    assert decode(tiff((274, 3, 1, 6), width=8, height=4)).shape == (8, 4, 3)  # turned upright


def test_a_tile_or_strips_out_of_proportion_are_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels in tiles of 60000 x 60000: more than"):
        decode(tiff((322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 64)))
    with pytest.raises(ValueError, match="16777216 values of TIFF tag 279"):
        decode(tiff((279, 4, 2**24, 8)))


def test_a_jpeg_of_a_thousand_scans_is_refused():
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "jpeg", progressive=True)
    data = file.getvalue()
    assert decode(data).shape == (6, 8, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match="more than 100 scans"):
        decode(data[:-2] + 1000 * last + data[-2:])
    film = 1000 * b"\xff\xda"  # what some cameras append
    np.testing.assert_array_equal(decode(data + film), decode(data))


def test_pixels_are_counted_before_one_is_decoded():
    data = png(9000, 9000, chunk(b"IDAT", zlib.compress(bytes(9_000_000))))
    tracemalloc.start()
    message = r"9000 x 9000 pixels: more than max_pixels=64000000; make it smaller, or raise"
    with pytest.raises(ValueError, match=message):
        decode(data)
    with pytest.raises(ValueError, match="6 x 8 pixels: more than max_pixels=47"):
        decode(PNG, 47)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with pytest.raises(ValueError, match="1 x 65536 pixels: a side has at most 65535"):
        decode(png(65_536, 1, chunk(b"IDAT", b"")))
    assert decode(PNG, 48).shape == (6, 8, 3)
    with pytest.raises(ValueError, match="1049000 bytes: more than max_pixels=1"):
        decode(bytes(1_049_000), 1)


def test_pictures_whose_decoder_is_python_may_have_fewer_pixels():
    plain = b"P3 100 100 255 " + b"1 2 3 " * 10_000
    assert decode(plain, 16 * 10_000).shape == (100, 100, 3)
    with pytest.raises(ValueError, match="more than max_pixels=9999"):
        decode(plain, 16 * 9_999 + 15)


def test_a_large_picture_is_converted_in_parts_as_a_small_one(monkeypatch):
    clear = np.dstack([COLOURS, COLOURS[..., 0]])
    want = to_rgb(clear)
    monkeypatch.setattr(pixels, "BAND", 16)
    np.testing.assert_array_equal(to_rgb(clear), want)
    monkeypatch.setattr(module, "LARGE", 10)
    np.testing.assert_array_equal(decode(saved(clear)), want)
    assert not module._large.locked()


def test_every_error_of_a_decoder_is_one_kind_and_says_which(monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ValueError, match=r"^MemoryError: "):
        decode(PNG)


# Grey of many bits, and arrays.


def grey(values, bits=16):
    """A TIFF of 16 bits, or one that says 12 where 16 are stored."""
    image = Image.fromarray(np.array([values], np.uint16))
    file = io.BytesIO()
    image.save(file, "tiff")
    return file.getvalue()


def test_16_bits_are_scaled_by_their_range_and_white_is_white():
    assert decode(grey([0, 256, 65535]))[0, :, 0].tolist() == [0, 1, 255]
    inverted = bytearray(grey([0, 256, 65535]))
    at = inverted.index(struct.pack("<HHI", 262, 3, 1)) + 8
    inverted[at] = 0  # white is zero
    assert decode(bytes(inverted))[0, :, 0].tolist() == [255, 254, 0]


def test_12_bits_are_scaled_by_their_range():
    packed = bytes([0xFF, 0x0F, 0x80])  # 4095 and 128 of 12 bits each, the high ones first
    data = bytearray(tiff((258, 3, 1, 12), (279, 4, 1, 3), width=2, height=1))
    data[-2:] = packed
    assert decode(bytes(data))[0, 0].tolist() == [255, 255, 255]


def test_what_does_not_say_what_is_white_is_refused():
    for values, kind in ((np.int32, "32-bit numbers"), (np.float32, "floats")):
        with pytest.raises(ValueError, match=f"of {kind} does not say what is white"):
            decode(saved(np.full((2, 2), 200, values), "tiff"))


def colours_of_16_bits(*pixels):
    """A PNG."""
    raw = b"".join(b"\0" + np.array(row, ">u2").tobytes() for row in [pixels])
    kind = {3: 2, 4: 6}[len(pixels[0])]
    header = struct.pack(">IIBBBBB", len(pixels), 1, 16, kind, 0, 0, 0)
    return (
        PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("largest", "bits"), [(200, 8), (1023, 10), (4095, 12), (16383, 14)])
def test_fewer_bits_in_16_are_refused_since_they_would_be_nearly_black(largest, bits):
    said = f"no number is above {largest} looks like one of {bits} bits .* multiply it up to 65535"
    with pytest.raises(ValueError, match=said):
        decode(grey([0, largest]))
    for opaque in ([], [65535]):  # of which Pillow leaves the high byte
        with pytest.raises(
            ValueError, match=f"above {largest | 255} looks like one of {bits} bits"
        ):
            decode(colours_of_16_bits([0, 7, largest, *opaque], [0, 0, 0, *opaque]))


def test_dark_pictures_that_use_their_range_are_read():
    assert not decode(grey([0, 0])).any()  # which is black
    assert decode(grey([0, 16384]))[0, :, 0].tolist() == [0, 64]
    assert decode(colours_of_16_bits([0, 0, 16384]))[0, 0].tolist() == [0, 0, 64]
    drawn = decode(colours_of_16_bits([0, 0, 0, 65535], [0, 0, 0, 0]))  # on nothing
    assert drawn[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"not uint8 \[3, 8, 9\]; give array.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 5), np.uint8), r"not uint8 \[4, 4, 5\]$"),  # channels first, or five
        (np.zeros((8, 9), bool), r"not bool \[8, 9\]; give array \* np.uint8\(255\)"),
        (np.zeros((8, 9, 3)), r"not float64 \[8, 9, 3\]: scale its white to 255"),
        (np.zeros((1, 8, 9, 3), np.uint8), r"not uint8 \[1, 8, 9, 3\]"),
        (np.zeros((8, 9, 5), np.uint8), r"not uint8 \[8, 9, 5\]"),
        (np.zeros((0, 9, 3), np.uint8), "a picture of 0 x 9 pixels shows nothing"),
        (np.zeros(9, np.uint8), r"not uint8 \[9\]"),
    ],
    ids=[
        "channels first",
        "unclear",
        "bool",
        "floats",
        "batch",
        "five channels",
        "nothing",
        "flat",
    ],
)
def test_an_array_of_another_form_is_refused_with_what_to_do(array, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(array)


def test_an_array_of_grey_and_alpha_is_read():
    array = np.array([[[100, 255], [100, 0]]], np.uint8)
    assert to_rgb(array)[0, :, 0].tolist() == [100, 255]


def test_transparency_of_every_kind_becomes_white():
    def stored(mode, **options):
        file = io.BytesIO()
        image = Image.fromarray(np.array([[0, 90]], np.uint8)).convert(mode)
        image.save(file, "png", **options)
        return decode(file.getvalue())[0, :, 0].tolist()

    assert stored("L", transparency=90) == [0, 255]
    assert stored("RGB", transparency=(90, 90, 90)) == [0, 255]
    assert stored("P", transparency=90) == [0, 255]
    assert stored("1", transparency=1)[0] == 0


def test_a_png_of_very_many_chunks_is_refused():
    """Each takes a decoder its time, whatever it holds."""
    good = saved(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="more than 65536 chunks"):
        decode(good[:33] + chunk(b"IDAT", b"") * 100_000 + good[33:])


def test_a_large_ppm_in_letters_is_refused():
    with pytest.raises(ValueError, match="written as text, in megabytes"):
        decode(b"P3 1000 1000 255 " + b"1 2 3 " * 1_000_000)


def flooded(kind):
    """A picture and, where its reader walks them one by one, a million things that say nothing."""
    picture = saved(COLOURS, kind)
    before = {"gif": picture.find(b",\0\0\0\0"), "jpeg": 2, "JPEG2000": 12, "ppm": 3}[kind]
    flood = {"gif": b"!\xfe\1a\0", "jpeg": b"\xff\xe0\0\2", "JPEG2000": b"\0\0\0\x08free"}
    return picture[:before] + flood.get(kind, b"#\n") * 10**6 + picture[before:]


@pytest.mark.parametrize("kind", ["gif", "jpeg", "JPEG2000", "ppm"])
def test_what_a_reader_would_walk_for_seconds_is_refused_at_once(kind):
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"more than 65536 chunks|a header of at most 65536"):
        decode(flooded(kind))
    assert time.process_time() - begin < 1


def of_header(picture, more=b""):
    """A JPEG 2000 with more in the box of its header, whose length is written in 64 bits."""
    at = picture.index(b"jp2h") - 4
    end = at + int.from_bytes(picture[at : at + 4])
    header = more + picture[at + 8 : end]
    box = struct.pack(">I4sQ", 1, b"jp2h", 16 + len(header))
    return picture[:at] + box + header + picture[end:]


def test_the_boxes_in_boxes_and_the_segments_of_a_jpeg_2000_are_counted():
    picture = saved(COLOURS, "JPEG2000")
    start = picture.index(b"\xff\x4f\xff\x51")
    np.testing.assert_array_equal(decode(of_header(picture)), decode(picture))
    np.testing.assert_array_equal(decode(picture[start:]), decode(picture))
    flood = b"\xff\x57\0\2" * 10**6
    segments = start + 4 + int.from_bytes(picture[start + 4 : start + 6])  # after that of the size
    flooded = picture[:segments] + flood + picture[segments:]
    for file in (of_header(picture, b"\0\0\0\x08free" * 10**6), flooded, flooded[start:]):
        begin = time.process_time()
        with pytest.raises(ValueError, match="more than 65536 chunks"):
            decode(file)
        assert time.process_time() - begin < 1


def test_the_scans_of_a_jpeg_and_the_tags_of_a_tiff_are_counted():
    with pytest.raises(ValueError, match="more than 65536 chunks"):
        decode(JPEG[:-2] + b"\xff\xe0\0\2" * 10**6 + JPEG[-2:])
    entry = struct.pack("<HHQQ", 256, 4, 1, 8)
    with pytest.raises(ValueError, match="1000000 TIFF tags"):
        decode(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 10**6) + entry * 10**6)


@pytest.mark.parametrize("filling", [1, 10**7])
def test_a_jpeg_is_read_past_any_filling(filling):
    file = JPEG[:2] + b"\xff" * filling + JPEG[2:]
    begin = time.process_time()
    np.testing.assert_array_equal(decode(file), decode(JPEG))
    assert time.process_time() - begin < 1


def test_comments_never_decide_over_pixels():
    picture = saved(COLOURS, "gif")
    at = picture.index(b",\0\0\0\0")
    comments = b"!\xfe\3abc\2de\0" * 9 + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    np.testing.assert_array_equal(decode(picture[:at] + comments + picture[at:]), decode(picture))
    pixels = COLOURS.tobytes()
    for header in (b"P6 8 6 255\n", b"P6\n# made by hand\n8 6\n# white\n\n255 "):
        np.testing.assert_array_equal(decode(header + pixels), COLOURS)
    assert decode(b"P4\n8 6\n" + bytes(6)).shape == decode(b"P1\n8 6\n" + b"10" * 24).shape


def test_a_large_bmp_in_run_lengths_is_refused():
    """A run of nothing takes as long as any."""
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, 0, 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    runs = b"\1\1" * 64
    made = b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + header + palette
    lines = b"".join(runs[i : i + 16] + b"\0\0" for i in range(0, 128, 16)) + b"\0\1"
    assert decode(made + lines).shape == (8, 8, 3)
    with pytest.raises(ValueError, match="in run lengths, of megabytes"):
        decode(made + runs * 40_000)


def test_pixels_of_a_large_bmp_of_os_2_are_taken_for_no_run_lengths():
    """Its header is shorter: pixels stand where others say how they are stored."""
    header = struct.pack("<IHHI", 0, 0, 0, 26) + struct.pack("<IHHHH", 12, 1300, 1300, 1, 24)
    assert (decode(b"BM" + header + b"\1" * 3 * 1300**2) == 1).all()
