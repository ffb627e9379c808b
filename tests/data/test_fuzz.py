"""Damaged files of every format: a good example or a bad record with a reason of one line, soon.

`UNIFIED_FUZZ=5000` tries so many of each format (docs/LOG.md has what came of it).
"""

import io
import json
import os
import resource
import tarfile
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_sources import add
from unified.data.decode import FORMATS, _formats, decode
from unified.data.record import FIELDS, to_example
from unified.data.sources import BadRecord, open_source
from unified.sequence import Example

TRIES = int(os.environ.get("UNIFIED_FUZZ", "25"))
MAX_PIXELS = 4_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)


def picture(format):
    file = io.BytesIO()
    mode = "RGBA" if format in ("PNG", "WEBP", "TIFF", "QOI", "JPEG2000") else "RGB"
    Image.fromarray(PIXELS).convert(mode).save(file, format)
    return file.getvalue()


PNG = picture("PNG")
RECORDS = [
    {"image": PNG, "caption": "a tile"},
    {"image": PNG, "conversations": [{"from": "human", "value": "<image> what?"}]},
    {"text": "alone"},
]


def write_jsonl(path):
    (path.parent / "1.png").write_bytes(PNG)
    records = [record | ({"image": "1.png"} if "image" in record else {}) for record in RECORDS]
    path.write_text("\n".join(map(json.dumps, records)))


def write_parquet(path):
    fields = ("image", "caption", "conversations", "text")
    table = {field: [record.get(field) for record in RECORDS] for field in fields}
    pq.write_table(pa.table(table), path)


def write_tar(path):
    with tarfile.open(path, "w") as tar:
        for i in range(3):
            add(tar, f"{i}.png", PNG)
            add(tar, f"{i}.json", json.dumps({"caption": f"tile {i}"}).encode())


def write_array_record(path):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for _ in range(3):
        writer.write(json.dumps({"text": "alone"}).encode())
    writer.close()


WRITERS = {
    "jsonl": (write_jsonl, "a.jsonl"),
    "parquet": (write_parquet, "a.parquet"),
    "webdataset": (write_tar, "a.tar"),
    "array_record": (write_array_record, "a.array_record"),
}


def damaged(data: bytes, seed: int) -> bytes:
    """One to four bytes, or stretches of bytes, changed, doubled, left out or cut off."""
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 5)):
        front = rng.random() < 0.5  # where headers are
        at = int(rng.integers(0, max(1, min(len(data), 200) if front else len(data))))
        size = int(rng.choice([1, 2, 4, 8, 64, 1024]))
        new = {
            0: rng.bytes(size),
            1: bytes(size),
            2: b"\xff" * size,
            3: data[at : at + size] * 2,
            4: b"",
        }[int(rng.integers(0, 5))]
        data = data[:at] if rng.random() < 0.1 else data[:at] + new + data[at + size :]
    return data


@pytest.fixture
def bounded():
    """A check that what was tried since has left no thread, and took neither long nor much."""
    memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10  # MiB
    threads, before, slowest = threading.active_count(), memory(), [0.0]

    def timed(call, *args):
        begin = time.perf_counter()
        try:
            return call(*args)
        finally:
            slowest[0] = max(slowest[0], time.perf_counter() - begin)

    yield timed
    assert threading.active_count() == threads
    assert slowest[0] < 10, f"{slowest[0]:.1f} s"
    assert memory() - before < 700, f"{memory() - before} MiB"


def check(found):
    assert isinstance(found, (Example, BadRecord))
    if isinstance(found, BadRecord):
        assert found.reason.isprintable() and 0 < len(found.reason) <= 500
        assert found.origin.isprintable()


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_pictures(format, bounded):
    if format not in _formats():
        pytest.skip("this Pillow does not read it")
    whole = picture(format)

    @settings(max_examples=TRIES, deadline=None, database=None)
    @given(seed=st.integers(0, 2**32))
    def attempt(seed):
        try:
            pixels = bounded(decode, damaged(whole, seed), MAX_PIXELS)
        except ValueError as error:
            assert str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3

    attempt()


@pytest.mark.parametrize("format", WRITERS)
def test_damaged_files_of_records(format, bounded, tmp_path_factory):
    write, name = WRITERS[format]
    path = tmp_path_factory.mktemp("fuzz") / name
    write(path)
    whole = path.read_bytes()

    def read(data):
        path.write_bytes(data)
        try:
            source = open_source({"format": format, "path": str(path), "max_pixels": MAX_PIXELS})
        except ValueError as error:
            assert name in str(error) or "no records" in str(error)
            return []
        return [source[i] for i in range(min(len(source), 20))]

    @settings(max_examples=TRIES, deadline=None, database=None)
    @given(seed=st.integers(0, 2**32))
    def attempt(seed):
        for found in bounded(read, damaged(whole, seed)):
            check(found)

    attempt()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bytes", "path", "from", "value"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=4 * TRIES, deadline=None, database=None)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4))
def test_records_of_anything(fields):
    """Past the border only these: the one error of each is told with its type and record."""
    try:
        example = to_example(fields, origin="a:1", picture=lambda value: PIXELS[..., :3])
    except (TypeError, ValueError, OSError) as error:
        assert str(error)
    else:
        assert any(segment.role == "target" for segment in example.segments)
