"""The forms in which people's records come, what is told of them, and where paths may lead."""

import base64
import io
import json
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.test_sources import png, says, turns, write_jsonl
from unified.data import source_parquet
from unified.data.picture import Pictures
from unified.data.record import parse_json
from unified.data.sources import BadRecord, open_source

PNG = png(7)
TEXT = base64.b64encode(PNG).decode()
LONG = base64.b64encode(png(7, (60, 50))).decode()


def parquet(folder, *rows):
    fields = dict.fromkeys(name for row in rows for name in row)
    table = {name: [row.get(name) for row in rows] for name in fields}
    pq.write_table(pa.table(table), folder / "a.parquet")
    return open_source({"format": "parquet", "path": str(folder)})


def test_metadata_of_hugging_face_give_pictures_and_captions(tmp_path, caplog):
    (tmp_path / "1.png").write_bytes(png(1))
    with caplog.at_level(logging.WARNING):
        source = write_jsonl(
            tmp_path,
            {"file_name": "1.png", "text": "one"},
            {"file_name": "1.png", "caption": "two", "text": "unread"},
            {"file_name": "1.png", "conversations": turns("<image> what?", "one")},
            {"file_name": "1.png"},
            {"file_name": "1.png", "captions": ["three"], "caption": "and four"},
        )
    assert [says(source[i]) for i in range(2)] == [["one", ">1"], ["two", ">1"]]
    assert says(source[2]) == ["1", "what?", ">one"]
    assert "the record has no 'caption'" in source[3].reason
    assert says(source[4]) == ["three", ">1"]
    assert caplog.messages == [f"{tmp_path}/train.jsonl: fields that are not read: caption, text"]
    table = parquet(tmp_path, {"file_name": "1.png", "text": "one"})
    assert says(table[0]) == ["one", ">1"]


def test_fields_that_nobody_reads_are_named_at_the_start(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        write_jsonl(tmp_path, {"text": "a", "caption": "b"}, {"text": "a", "id": 1, "url": None})
        spec = {"format": "jsonl", "path": str(tmp_path)}
        open_source(spec, quiet=True)
        parquet(tmp_path, {"text": "a", "wdith": 3})
    assert caplog.messages == [
        f"{tmp_path}/train.jsonl: fields that are not read: caption, id",
        f"{tmp_path}/a.parquet: fields that are not read: wdith",
    ]


def test_a_field_that_nobody_reads_is_named_once_by_the_first_record_that_has_it(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        good = [{"text": "a", "id": 1}] * 9
        source = write_jsonl(tmp_path, *good, *[{"imgae": "1.png", "text": "b", "id": 2}] * 40)
        assert caplog.messages == [f"{tmp_path}/train.jsonl: fields that are not read: id"]
        caplog.clear()
        with ThreadPoolExecutor(8) as threads:
            examples = list(threads.map(source.__getitem__, range(9, 49)))
        assert says(examples[0]) == [">b"]
        assert caplog.messages[0].endswith(": fields that are not read: imgae")
        assert len(caplog.messages) == 1
        again = pickle.loads(pickle.dumps(source))
        assert says(again[9]) == [">b"] and len(caplog.messages) == 1
        quiet = open_source({"format": "jsonl", "path": str(tmp_path)}, quiet=True)
        assert says(quiet[9]) == [">b"] and len(caplog.messages) == 1


def test_names_that_differ_from_record_to_record_are_not_all_told(tmp_path, caplog):
    source = write_jsonl(tmp_path, *({"text": "a", f"n{i}": 1} for i in range(200)))
    with caplog.at_level(logging.WARNING):
        assert all(says(source[i]) == [">a"] for i in range(200))
    assert 10 < len(caplog.messages) < 60


@pytest.mark.parametrize(
    ("null", "field"),
    [
        ({"image": None}, "image"),
        ({"image": {"bytes": None, "path": None}}, "image"),
        ({"file_name": None}, "file_name"),
        ({"image_list": None}, "image_list"),
    ],
)
def test_a_picture_that_is_null_is_told_once_where_the_record_is_text_alone(
    tmp_path, caplog, null, field
):
    (tmp_path / "1.png").write_bytes(png(1))
    with caplog.at_level(logging.WARNING):
        source = write_jsonl(
            tmp_path,
            {**null, "image": "1.png", "caption": "seen"},
            {**null, "text": "alone"},
            {**null, "conversations": turns("why?", "so")},
        )
        assert [says(x) for x in source] == [["seen", ">1"], [">alone"], ["why?", ">so"]]
    assert caplog.messages == [
        f"{tmp_path}/train.jsonl:2: {field} is null, so it is text alone, as may be others"
    ]


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f" DATA:image/png;BASE64,{TEXT}",
        "\r\n".join(LONG[i : i + 76] for i in range(0, len(LONG), 76)),
        LONG.replace("+", "-").replace("/", "_"),
        TEXT.rstrip("="),
        f" {TEXT}\n",
    ],
    ids=["plain", "URI", "URI in capitals", "lines", "urlsafe", "no padding", "spaces"],
)
def test_base64_of_every_kind_is_read(text):
    assert Pictures()(text, None)[0, 0].tolist() == [7, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat.png", "a picture that is a string is base64, not 'cat.png'"),
        ("cat.png", r"a path is that of a field `file_name`, as with columns=\{'file_name': ...\}"),
        ("https://x.org/1.png", "is a URL: pictures are not fetched; give the bytes"),
        (" HTTPS://x.org/1.png", "is a URL: pictures are not fetched; give the bytes"),
        ("data:image/svg+xml,<svg/>", "a data: URI of a picture is of base64"),
        ("", "not a picture of a known format"),
    ],
)
def test_a_string_that_is_no_base64_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Pictures()(text, None)


def test_nulls_within_a_struct_are_not_there(tmp_path):
    (tmp_path / "7.png").write_bytes(PNG)
    source = parquet(
        tmp_path,
        {"image": {"bytes": None, "path": "7.png"}, "caption": "by path"},
        {"image": {"bytes": PNG, "path": "none.png"}, "caption": "by bytes"},
        {"image": {"bytes": None, "path": None}, "conversations": turns("why?", "so")},
        {"image": {"bytes": PNG, "path": None}, "captions": ["no path", None]},
        {"image": {"bytes": None, "path": "none.png"}, "caption": "lost"},
    )
    want = [["by path", ">7"], ["by bytes", ">7"], ["why?", ">so"], ["no path", ">7"]]
    assert [says(source[i]) for i in range(4)] == want
    assert "none.png" in source[4].reason and "No such file" in source[4].reason
    with pytest.raises(ValueError, match=r"has no 'bytes' and no 'path', only \['url'\]"):
        Pictures()({"url": "x"}, None)
    for empty in (b"", ""):
        assert Pictures()({"bytes": empty, "path": "7.png"}, tmp_path)[0, 0].tolist() == [7, 0, 0]
    for nothing in ({"bytes": None, "path": None}, {"bytes": b""}, {"path": None}):
        with pytest.raises(
            ValueError, match="a picture whose 'bytes' and 'path' are null or empty"
        ):
            Pictures()(nothing, tmp_path)
    assert Pictures()({"bytes": np.zeros((2, 2), np.uint8)}, None).shape == (2, 2, 3)
    nulls = [{"bytes": None, "path": None}, {"bytes": PNG, "path": None}]
    bad = parquet(tmp_path, {"image_list": nulls, "instruction_list": ["a"]})[0]
    assert bad.reason.endswith("a picture whose 'bytes' and 'path' are null or empty")


def test_jsonl_takes_data_uris_and_structs_beside_paths(tmp_path):
    (tmp_path / "7.png").write_bytes(PNG)
    uri = f"data:image/png;base64,{TEXT}"
    pictures = [
        "7.png",
        uri,
        f" {uri.replace('data', 'DATA')}",
        {"bytes": TEXT},
        {"path": "7.png", "bytes": None},
    ]
    source = write_jsonl(tmp_path, *({"image": x, "caption": "c"} for x in pictures))
    assert [says(source[i]) for i in range(5)] == [["c", ">7"]] * 5


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_base64_in_place_of_a_path_says_what_to_give_and_not_all_of_itself(tmp_path, kind):
    file = io.BytesIO()
    Image.new("RGB", (60, 50)).save(file, kind)
    text = base64.b64encode(file.getvalue()).decode()
    source = write_jsonl(tmp_path, {"image": text, "caption": "c"})
    assert source[0].reason == (
        f"ValueError: no file '{text[:40]}'...; if it is base64, give a data: URI or "
        "{'bytes': ...}"
    )


def test_a_column_of_paths_is_read_as_file_names(tmp_path):
    (tmp_path / "7.png").write_bytes(PNG)
    table = parquet(tmp_path, {"image": "7.png", "caption": "c"})
    assert "a path is that of a field `file_name`" in table[0].reason
    spec = {"format": "parquet", "path": str(tmp_path), "columns": {"file_name": "image"}}
    assert says(open_source(spec)[0]) == ["c", ">7"]


def test_a_table_of_which_nothing_is_read_says_what_it_has(tmp_path):
    bad = parquet(tmp_path, {"picture": 1, "words": "a"})[0]
    assert bad.reason.endswith("image_list, image or text among ['picture', 'words']")


def test_a_row_group_that_unpacks_to_far_more_than_its_file_is_refused(tmp_path, monkeypatch):
    rows = [{"text": "x" * 100}] * 5000  # a few bytes of the file
    assert says(parquet(tmp_path, *rows)[4999]) == [">" + "x" * 100]
    monkeypatch.setattr(source_parquet, "FREE", 200_000)
    bad = parquet(tmp_path, *rows)[0]
    assert "ValueError: row group 0: ValueError: it unpacks to more than 2" in bad.reason


# Where paths may lead.


def test_paths_lead_anywhere_unless_within_is_given(tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for place in (tmp_path / "out.png", data / "deep/in.png"):
        place.write_bytes(PNG)
    (data / "link.png").symlink_to(tmp_path / "out.png")
    (data / "loop").symlink_to(data / "deep")
    inside = ["deep/in.png", "deep/../deep/in.png", "loop/in.png", str(data / "deep/in.png")]
    outside = ["../out.png", "deep/../../out.png", "link.png", str(tmp_path / "out.png")]
    records = [{"image": path, "caption": "x"} for path in inside + outside]
    write_jsonl(data, *records)
    spec = {"format": "jsonl", "path": str(data)}
    anywhere = open_source(spec)
    assert all(says(anywhere[i]) == ["x", ">7"] for i in range(8))
    fenced = open_source(spec | {"within": str(data)})
    assert all(says(fenced[i]) == ["x", ">7"] for i in range(4))
    for i, path in enumerate(outside, start=4):
        assert f"{path} leads out of within='{data}'" in fenced[i].reason
    with pytest.raises(ValueError, match=r"train.jsonl leads out of within="):
        open_source(spec | {"within": str(data / "deep")})
    with pytest.raises(ValueError, match="within='nowhere' is no folder"):
        open_source(spec | {"within": "nowhere"})


def test_a_picture_is_a_regular_file_on_this_machine(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    names = ["pipe.png", "/dev/zero", "https://x.org/1.png", ".", "a\0b"]
    source = write_jsonl(tmp_path, *({"image": name, "caption": "x"} for name in names))
    said = ["no regular file", "no regular file", "not fetched", "Is a directory", "null byte"]
    for i, words in enumerate(said):
        assert words in source[i].reason, source[i]


def test_pixels_are_bounded_by_an_option(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1, (6, 4)))
    write_jsonl(tmp_path, {"image": "1.png", "caption": "x"})
    spec = {"format": "jsonl", "path": str(tmp_path)}
    assert says(open_source(spec | {"max_pixels": 24})[0]) == ["x", ">1"]
    reason = open_source(spec | {"max_pixels": 23})[0].reason
    assert reason.endswith("4 x 6 pixels: more than max_pixels=23; make it smaller, or raise that")
    for wrong in (0, -1, 1.5, True, "many"):
        with pytest.raises(ValueError, match=f"max_pixels={wrong!r} must be"):
            open_source(spec | {"max_pixels": wrong})


# JSON, as it is and as it should not be.

GOOD = {
    "mark of order": b'\xef\xbb\xbf{"text": "a"}',
    "return": b'{"text": "a"}\r\n',
    "escapes": b'{"text": "\\u0061"}',
    "large number": b'{"text": "a", "n": 1e999}',
}
BAD = {
    "not UTF-8": (b'{"text": "\xff"}', "UnicodeDecodeError"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), "UnicodeDecodeError"),
    "half a character": (b'{"text": "a \\ud83d"}', r"not valid Unicode: take out '\ud83d'"),
    "twice": (b'{"text": "a", "text": "b"}', "ValueError: named twice: ['text']"),
    "deep": (b"[" * 100_000, "RecursionError"),
    "digits": (b'{"text": ' + b"9" * 5000 + b"}", "ValueError"),
    "NaN": (b'{"text": NaN}', "text is a string, not float"),
    "zero bytes": (b"\0" * 20, "JSONDecodeError"),
    "two records": (b'{"text": "a"}{"text": "b"}', "Extra data"),
    "null": (b"null", "a record is a map of fields, not NoneType"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_json_of_every_habit_is_read(kind):
    assert parse_json(GOOD[kind])["text"] == "a"


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_record_has_a_reason_of_one_line(tmp_path, kind):
    line, words = BAD[kind]
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + line)
    bad = open_source({"format": "jsonl", "path": str(tmp_path)})[1]
    assert isinstance(bad, BadRecord) and words in bad.reason
    assert "\n" not in bad.reason and len(bad.reason) <= 500


def test_a_file_without_records_and_a_line_without_end(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="has no records"):
        open_source({"format": "jsonl", "path": str(tmp_path)})
    long = json.dumps({"text": "x" * 1_100_000})
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{long}\n{{"text": "b"}}')
    source = open_source({"format": "jsonl", "path": str(tmp_path), "max_pixels": 1})
    assert [says(source[0]), says(source[2])] == [[">a"], [">b"]]
    assert source[1].reason == "ValueError: a line of more than 1048584 bytes"
    assert source[2].origin.endswith("a.jsonl:3")


def test_compressed_content_under_a_plain_name_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\x1f\x8b and so on")
    with pytest.raises(ValueError, match=r"a.jsonl: compressed, so without random access: uncomp"):
        open_source({"format": "jsonl", "path": str(tmp_path)})


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("a\nb"), KeyError("x")])
def test_whatever_a_reader_raises_is_a_bad_record_and_no_interrupt_is(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    source = write_jsonl(tmp_path, {"text": "a"})
    monkeypatch.setattr(type(source), "read", fail)
    bad = source[0]
    assert bad.reason.startswith(f"{type(error).__name__}:") and "\n" not in bad.reason
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        source[0]


def test_columns_may_change_places(tmp_path):
    write_jsonl(tmp_path, {"text": "the caption", "caption": "no"})
    spec = {"format": "jsonl", "path": str(tmp_path)}
    source = open_source(spec | {"columns": {"caption": "text", "text": "caption"}})
    assert says(source[0]) == [">no"]


def test_an_array_of_floats_in_a_record_is_refused():
    with pytest.raises(ValueError, match="not float32"):
        Pictures()(np.zeros((2, 2, 3), np.float32), None)
