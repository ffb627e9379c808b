"""Picture files without what their pixels do not need: profiles, texts, previews, further frames.

A decoder reads all of a file before it gives a pixel, and refuses good pixels for metadata that is
large or damaged, or takes seconds for a chain of ten thousand empty frames. `pixels_only` keeps the
parts that make up the first picture, and the orientation. What is not understood stays as it is:
the decoder says what is wrong with it.
"""

import re
import struct
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # the order of bytes
JP2, J2K = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
EXIF = b"Exif\0\0"
MARKER = re.compile(rb"\xff[^\0\x01\xd0-\xd7\xff]")  # that is no part of compressed pixels
FILLING = re.compile(rb"\xff++")
RUNS = re.compile(rb"BM.{12}[^\x0c].{15}[\1\2]", re.DOTALL)  # a BMP in run lengths
MAX_SCANS = 100  # of a JPEG, each of which visits every pixel; encoders write about ten
MAX_CHUNKS = 2**16  # of any format; the pixels of a PNG take one for each 8 KiB or more
MAX_TEXT = 2**22  # bytes of what is read one by one: a PPM in letters, a BMP in run lengths
MAX_HEADER = 2**16  # bytes of a PPM, with its comments
HEADER = re.compile(rb"P\w+\s(?:(?:\s|#[^\r\n]*[\r\n])*+[^\s#]++\s){2}")
THIRD = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*+[^\s#]++\s")
MAX_VALUES = 2**18  # of a TIFF tag: strips of the picture in four planes, colours
PIXEL_TAGS = {
    *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320),
    *(322, 323, 324, 325, 332, 338, 339, 347, *range(512, 522), *range(529, 533), 50674),
}
ORIENTATION = 274


def pixels_only(data: bytes) -> bytes:
    """Raises ValueError for a file that is made to take long: a reader visits each chunk, block,
    segment, box and tag in Python, whatever it holds."""
    if data.startswith(PNG):
        return PNG + b"".join(_png(data))
    if data.startswith(JPEG):
        return b"\xff\xd8" + b"".join(_jpeg(data))
    if data[:3] == b"GIF":
        return b"".join(_gif(data))
    if data.startswith((JP2, J2K)):
        _check_jpeg_2000(data)
    if len(data) > MAX_TEXT and RUNS.match(data):
        raise ValueError("a BMP in run lengths, of megabytes: save it as a PNG")
    if re.match(rb"P[0-6fy]", data):
        _check_ppm(data)
    if data[:4] in TIFF:
        try:
            return _tiff(data, TIFF[data[:4]], wide=b"+" in data[:4])
        except struct.error:
            return data
    return data


def _counter() -> Iterator[None]:
    """Raises ValueError when it is asked too often."""
    for _ in range(MAX_CHUNKS):
        yield
    raise ValueError(f"more than {MAX_CHUNKS} chunks")


def _png(data: bytes) -> Iterator[bytes]:
    """Chunks that a decoder must know (in capitals), transparency and, where small, EXIF."""
    at, count = len(PNG), _counter()
    while at + 8 <= len(data):
        next(count)
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if not kind.isalpha() or end > len(data):
            yield data[at:]
            return
        if not kind[0] & 0x20 or kind == b"tRNS" or (kind == b"eXIf" and size < 2**16):
            yield data[at:end]
        at = end


def _jpeg(data: bytes) -> Iterator[bytes]:
    """Segments up to the pixels without those of applications, but for JFIF, EXIF and Adobe."""
    at, count = _filled(data, 2), _counter()
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        next(count)
        kind, size = struct.unpack_from(">xBH", data, at)
        if 0xD0 <= kind <= 0xD9 or kind == 0x01:  # a mark without size
            size = 0
        kept = not (0xE0 <= kind <= 0xEF or kind == 0xFE) or kind in (0xE0, 0xEE)
        if kept or (kind == 0xE1 and data.startswith(EXIF, at + 4)):
            yield data[at : at + 2 + size]
        at = _filled(data, at + 2 + size)
    _check_scans(data, at)
    yield data[at:]


def _filled(data: bytes, at: int) -> int:
    """Where a mark begins, of any number of bytes 0xFF the last."""
    run = FILLING.match(data, at)
    return run.end() - 1 if run else at


def _check_scans(data: bytes, at: int) -> None:
    """Counts the scans from the first one to the end of the picture: what follows is not read."""
    scans, count = 0, _counter()
    while (mark := MARKER.search(data, at)) and mark[0] != b"\xff\xd9":
        next(count)
        scans += mark[0] == b"\xff\xda"
        if scans > MAX_SCANS:
            raise ValueError(f"more than {MAX_SCANS} scans")
        at = mark.end() + int.from_bytes(data[mark.end() : mark.end() + 2])


def _gif(data: bytes) -> Iterator[bytes]:
    """All but the blocks before the first picture that say nothing of its pixels."""
    at, count = 13, _counter()
    if data[10:11] > b"\x7f":
        at += 6 << (data[10] & 7)  # colours
    yield data[:at]
    while at + 2 <= len(data) and data[at : at + 1] not in (b",", b";"):
        next(count)
        begin, kind = at, data[at : at + 2]
        if kind[:1] == b"!":
            at += 2
            while at < len(data) and data[at]:
                next(count)
                at += 1 + data[at]
            if kind == b"!\xf9":
                yield data[begin : at + 1]
        at += 1
    yield data[at:]


def _check_jpeg_2000(data: bytes) -> None:
    """Counts the boxes, those of the header among them, and the segments before the pixels."""
    at, kind, count = 0, b"", _counter()
    while data.startswith(JP2) and kind != b"jp2c" and at + 16 <= len(data):
        next(count)
        size, kind, long = struct.unpack_from(">I4sQ", data, at)
        head = 16 if size == 1 else 8
        size = long if size == 1 else size or len(data)
        at += head if kind in (b"jp2c", b"jp2h", b"res ") or size < head else size
    at += 2
    while at + 4 <= len(data) and data[at + 1] not in (0x64, 0x90, 0xD9):  # a comment, pixels, end
        next(count)
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def _check_ppm(data: bytes) -> None:
    """A header is read byte by byte, and so are pixels that are written as text."""
    if data[1] in b"123" and len(data) > MAX_TEXT:
        raise ValueError("a PPM whose pixels are written as text, in megabytes: save it as a PNG")
    head = HEADER.match(data, 0, MAX_HEADER)
    if not head or not (data[1] in b"14" or THIRD.match(data, head.end(), MAX_HEADER)):
        raise ValueError(f"a PPM without a header of at most {MAX_HEADER} bytes")


def _tiff(data: bytes, order: str, wide: bool) -> bytes:
    """The first directory with the tags that pixels need, and no next one."""
    first, count, entry = ("8xQ", "Q", "HHQ8s") if wide else ("4xI", "H", "HHI4s")
    (at,) = struct.unpack_from(order + first, data)
    (num,) = struct.unpack_from(order + count, data, at)
    start, size = at + struct.calcsize(order + count), struct.calcsize(order + entry)
    if num > MAX_CHUNKS:
        raise ValueError(f"{num} TIFF tags")
    kept = {}
    for i in range(num):
        tag, _, values, _ = struct.unpack_from(order + entry, data, start + i * size)
        if tag in PIXEL_TAGS and (tag != ORIENTATION or values == 1):
            if values > MAX_VALUES:
                raise ValueError(f"{values} values of TIFF tag {tag}")
            kept[tag] = data[start + i * size : start + (i + 1) * size]
    directory = struct.pack(order + count, len(kept)) + b"".join(kept.values())
    directory += bytes(struct.calcsize(first[-1]))  # there is no next one
    return data[:at] + directory + data[at + len(directory) :]
