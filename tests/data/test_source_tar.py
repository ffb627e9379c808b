"""Tar files as people make them: joined, from a Mac, with links, with members of one name."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest

from tests.data.test_sources import add, png, says
from unified.data.sources import BadRecord, open_source


def write(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            add(tar, name, content)
    return path


def opened(path, **options):
    source = open_source({"format": "webdataset", "path": str(path), **options})
    return [source[i] for i in range(len(source))]


def test_tars_that_were_joined_are_read_to_the_end(tmp_path):
    parts = [
        write(tmp_path / f"{i}", ("1.png", png(i)), ("1.txt", b"red")).read_bytes() for i in (3, 4)
    ]
    (tmp_path / "a.tar").write_bytes(parts[0] + parts[1])
    assert [says(example) for example in opened(tmp_path)] == [["red", ">3"], ["red", ">4"]]


@pytest.mark.parametrize("tail", [b"x" * 512, b"x" * 5000, b"\0" * 512 + b"x"])
def test_what_follows_a_tar_and_is_none_is_told(tmp_path, tail):
    path = write(tmp_path / "a.tar", ("1.json", b'{"text": "a"}'))
    path.write_bytes(path.read_bytes() + tail)
    good, bad = opened(tmp_path)
    assert says(good) == [">a"]
    assert bad.origin == f"{path}:end" and "damaged after 1 records: no tar header" in bad.reason


def test_a_damaged_header_in_the_middle_does_not_hide_the_rest_in_silence(tmp_path):
    path = write(tmp_path / "a.tar", *((f"{i}.json", b'{"text": "a"}') for i in range(3)))
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"\xff" * 76  # the second header
    path.write_bytes(data)
    good, bad = opened(tmp_path)
    assert says(good) == [">a"] and "damaged after 1 records" in bad.reason


def test_the_plain_caption_counts_and_the_other_texts_are_named(tmp_path, caplog):
    write(
        tmp_path / "a.tar", ("1.png", png(1)), ("1.txt", b"a tile"), ("1.wd_tags.txt", b"tag"),
        ("1.meta.json", b"{}"), ("1.json", b'{"id": 7}'), ("1.cls", b"3"), ("LICENSE", b"free"),
        ("2.png", png(2)), ("2.wd_tags.txt", b"only"),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        examples = opened(tmp_path)
    assert [says(example) for example in examples] == [["a tile", ">1"], ["only", ">2"]]
    assert "1 members that make no record are not read, as LICENSE" in caplog.messages[0]
    assert caplog.messages[1].endswith("not read: cls, id, meta.json, wd_tags.txt")
    renamed = opened(tmp_path, columns={"caption": "wd_tags.txt"})
    assert says(renamed[0]) == ["tag", ">1"]


def test_a_text_beside_a_caption_in_json_counts_and_the_other_is_named(tmp_path, caplog):
    fields = json.dumps({"caption": "of json"}).encode()
    write(tmp_path / "a.tar", ("1.png", png(1)), ("1.json", fields), ("1.txt", b"of text"))
    with caplog.at_level(logging.WARNING):
        (example,) = opened(tmp_path)
    assert says(example) == ["of text", ">1"]
    assert caplog.messages[0].endswith("fields that are not read: caption of json")


def test_two_texts_of_which_none_is_plain_are_refused(tmp_path):
    write(tmp_path / "a.tar", ("1.png", png(1)), ("1.a.txt", b"a"), ("1.b.txt", b"b"))
    (bad,) = opened(tmp_path)
    assert bad.reason.startswith("ValueError: which one of ['a.txt', 'b.txt']? Call it .txt alone")


def test_hidden_members_are_left_out_as_in_a_folder(tmp_path):
    write(
        tmp_path / "a.tar", ("./set/._1.png", b"mac"), ("./set/1.png", png(1)), ("._1.txt", b"mac"),
        ("./set/1.txt", b"red"), (".DS_Store", b"mac"), ("./.git/2.txt", b"x"),
    )  # fmt: skip
    (example,) = opened(tmp_path)
    assert says(example) == ["red", ">1"] and example.origin == f"{tmp_path}/a.tar:set/1"


def test_what_makes_no_record_is_left_out_and_told_once(tmp_path, caplog):
    write(
        tmp_path / "a.tar", ("Thumbs.db", b"x"), ("x/1.png", png(1)), ("x/1.txt", b"red"),
        ("x/desktop.ini", b"x"), ("README.md", b"x"), ("__MACOSX/x/1.txt", b"x"), ("x/1", b""),
        ("x/2.words", b"alone"),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        (example,) = opened(tmp_path)
        assert says(example) == ["red", ">1"]
        assert len(opened(tmp_path, columns={"text": "words"})) == 2  # a column makes a record
    assert [text.partition(": ")[2] for text in caplog.messages] == [
        "5 members that make no record are not read, as Thumbs.db",
        "4 members that make no record are not read, as Thumbs.db",
    ]


def test_a_name_that_comes_again_begins_another_record(tmp_path):
    write(
        tmp_path / "a.tar", ("1.png", png(1)), ("1.txt", b"a"), ("1.txt", b"b"), ("1.png", png(2))
    )
    assert [says(example) for example in opened(tmp_path)] == [["a", ">1"], ["b", ">2"]]


def test_members_of_a_record_may_lie_apart_and_be_links(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "x/1.png", png(1))
        for name, kind, to in (
            ("x/2.png", tarfile.LNKTYPE, "x/1.png"),
            ("x/3.png", tarfile.SYMTYPE, "1.png"),
            ("x/4.png", tarfile.SYMTYPE, "../../etc/passwd"),
            ("x/5.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, to
            tar.addfile(member)
        for i in range(1, 6):
            add(tar, f"x/{i}.txt", f"{i}".encode())
    found = opened(tmp_path)
    assert [says(x) for x in found[:3]] == [["1", ">1"], ["2", ">1"], ["3", ">1"]]
    assert "x/4.png is a link to ../etc/passwd, which does not come before it" in found[3].reason
    assert "x/5.png is no plain file" in found[4].reason


def test_long_names_and_other_headers_of_pax_are_read(tmp_path):
    name = "folder/" * 30 + "é" * 50
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("folder"))
        add(tar, f"{name}.json", json.dumps({"text": "long"}).encode())
    (example,) = opened(tmp_path)
    assert says(example) == [">long"]


def test_members_that_go_backwards_end_the_tar(tmp_path):
    """A size below zero sent tarfile round in circles (CVE-2025-8194)."""
    member = tarfile.TarInfo("1.json")
    header = bytearray(member.tobuf(format=tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # size -1024, base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) * 3)
    found = opened(tmp_path)
    assert isinstance(found[-1], BadRecord) and "damaged after" in found[-1].reason


def test_a_member_that_is_too_large_is_a_bad_record(tmp_path):
    write(tmp_path / "a.tar", ("1.json", b" " * 1_050_000))
    (bad,) = opened(tmp_path, max_pixels=1)
    assert bad.reason == "ValueError: .json: 1050000 bytes are more than 1048584"


def test_pictures_of_capital_endings_are_read(tmp_path):
    file = io.BytesIO(png(5))
    write(tmp_path / "A.TAR", ("1.PNG", file.getvalue()), ("1.TXT", b"red"))
    (example,) = opened(tmp_path)
    np.testing.assert_array_equal(example.segments[1].content[0, 0], [5, 0, 0])
