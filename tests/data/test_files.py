"""Which files are found, which are named, and what is read of them."""

import logging
import os

import pytest

from unified.data.files import find_files, read_file


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_endings_in_capitals_count_and_what_cannot_be_read_is_named(tmp_path, caplog):
    put(tmp_path, "a.jsonl", "B.JSONL", "c.ndjson", "deep/d.Jsonl-00000-of-00002")
    put(tmp_path, "e.jsonl.gz", "f.JSONL.ZST", "g.jsonl-00000-of-00001.gz", "a.png", "a.jsonl.bak")
    (tmp_path / "h.jsonl").symlink_to("nowhere")
    os.mkfifo(tmp_path / "i.jsonl")
    with caplog.at_level(logging.WARNING):
        found = find_files(tmp_path, [".jsonl", ".ndjson"])
    names = [str(file.relative_to(tmp_path)) for file in found]
    assert names == ["B.JSONL", "a.jsonl", "c.ndjson", "deep/d.Jsonl-00000-of-00002"]
    (said,) = caplog.messages
    assert said.startswith("5 files are not read: ")
    for name in ("e.jsonl.gz", "f.JSONL.ZST", "g.jsonl-00000-of-00001.gz"):
        assert f"{name}: compressed, so without random access: uncompress it" in said
    for name in ("h.jsonl", "i.jsonl"):
        assert f"{name}: no regular file, or a link to none" in said


@pytest.mark.parametrize(
    ("suffix", "names"),
    [
        (".jsonl", ["b.json", "b.jl", "b.jsonl.1", "b.jsonl.part", "b.jsonl.txt", "metadata.csv"]),
        (".parquet", ["b.pq", "b.PARQ", "b.arrow", "b.parquet_old"]),
        (".tar", ["b.wds", "b.tar-000", "b.tar.lz", "b.tar.part"]),
    ],
)
def test_files_that_look_like_data_beside_data_are_named(tmp_path, caplog, suffix, names):
    rest = [f"a{suffix}.bak", f"a{suffix}~", f"a{suffix}.crc", f".a{suffix}.1", "b.png", "b.txt"]
    put(tmp_path, f"a{suffix}", *rest)
    with caplog.at_level(logging.WARNING):
        assert [file.name for file in find_files(tmp_path, [suffix])] == [f"a{suffix}"]
        assert not caplog.messages
        put(tmp_path, *names)
        assert [file.name for file in find_files(tmp_path, [suffix])] == [f"a{suffix}"]
        find_files(tmp_path / f"a{suffix}", [suffix])  # which was named itself
    (said,) = caplog.messages
    assert said.startswith(f"{len(names)} files are not read: ")
    assert sum(name in said for name in names) == min(5, len(names))


@pytest.mark.parametrize("name", ["a.tgz", "a.TAR.GZ", "a.tbz2", "a.tar.zst"])
def test_a_folder_of_packed_files_alone_says_so(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(FileNotFoundError, match=f"no .tar files at .*{name}: compressed, so"):
        find_files(tmp_path, [".tar"], (".tgz", ".tbz2"))


def test_a_folder_without_such_files_says_what_there_is(tmp_path):
    put(tmp_path, "a.csv", "b.json", "c.json")
    with pytest.raises(FileNotFoundError, match=r"no .jsonl files at .*, but \*.csv; \*.json"):
        find_files(tmp_path, [".jsonl"])


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    put(tmp_path, "a.jsonl", "closed/b.jsonl")
    scan = os.scandir

    def closed(path):
        if "closed" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="closed"):
        find_files(tmp_path, [".jsonl"])


def test_links_to_folders_are_followed_and_circles_are_not(tmp_path):
    put(tmp_path, "data/a.jsonl", "other/b.jsonl")
    (tmp_path / "data/more").symlink_to(tmp_path / "other")
    (tmp_path / "data/again").symlink_to(tmp_path / "data")
    names = [file.name for file in find_files(tmp_path / "data", [".jsonl"])]
    assert names == ["a.jsonl", "b.jsonl"]


def test_only_regular_files_of_a_size_are_read(tmp_path):
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "a.png", 1) == b"x"
    with pytest.raises(ValueError, match=r"a.png: 1 bytes are more than 0"):
        read_file(tmp_path / "a.png", 0)
    for special in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="is no regular file, but a pipe, device or"):
            read_file(special, 99)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_file(tmp_path, 99)


@pytest.mark.parametrize("url", ["https://x.org/1.png", "HTTP:/x.org/1.png", "s3://b/1.png"])
def test_what_is_on_the_network_is_not_fetched(url):
    with pytest.raises(ValueError, match="is a URL: pictures are not fetched; load it to a file"):
        read_file(url, 99)
