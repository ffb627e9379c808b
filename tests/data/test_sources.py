"""Every kind of source on files made here, and every kind of bad record with its file and row."""

import base64
import io
import json
import pathlib
import re
import tarfile

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from unified.data.sources import BadRecord, open_source, open_split
from unified.sequence import Example
from unified.training import config as configs


def png(value, size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(file, "png")
    return file.getvalue()


def says(example):
    """Short form of an example: texts and the red of pictures, targets after `>`."""
    assert isinstance(example, Example), example
    show = lambda content: content if isinstance(content, str) else int(content[0, 0, 0])
    return [(">" if s.role == "target" else "") + str(show(s.content)) for s in example.segments]


def uses(example):
    return [s.use for s in example.segments if s.modality == "image"]


def write_jsonl(folder, *lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "train.jsonl").write_text(text + "\n")
    return open_source({"format": "jsonl", "path": str(folder)})


def turns(*values):
    speakers = ("human", "gpt")
    return [{"from": speakers[i % 2], "value": value} for i, value in enumerate(values)]


def test_folder_with_jsonl(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in (1, 2):
        (tmp_path / f"pictures/{i}.png").write_bytes(png(i))
    both = ["pictures/1.png", "pictures/2.png"]
    source = write_jsonl(
        tmp_path,
        {"image": both[0], "conversations": turns("<image>\nwhat is it?", "one", "sure?", "yes")},
        "",
        {"image": both, "conversations": turns("from <image> to <image>, why?", "because")},
        {"image": both[0], "conversations": turns("no mark", "fine")},
        {"image": both, "conversations": turns("redden <image>", "here: <image>")},
        {"conversations": turns("text only", "yes")},
    )
    assert len(source) == 5
    assert says(source[0]) == ["1", "what is it?", ">one", "sure?", ">yes"]
    assert says(source[1]) == ["from", "1", "to", "2", ", why?", ">because"]
    assert says(source[2]) == ["1", "no mark", ">fine"]
    assert says(source[3]) == ["redden", "1", ">here:", ">2"]
    assert says(source[4]) == ["text only", ">yes"]
    assert uses(source[0]) == ["see"]
    assert uses(source[3])[0] == "edit"
    assert [example.task for example in source] == ["vqa", "vqa", "vqa", "edit", "text"]
    assert source[1].origin == f"{tmp_path}/train.jsonl:3"


def test_parquet_text_to_image_and_edits(tmp_path):
    drawn = {
        "jpg": [png(i) for i in range(5)],
        "captions": [json.dumps({"short": f"s{i}", "long": f"l{i}"}) for i in range(5)],
        "unread": [0] * 5,
    }
    pq.write_table(pa.table(drawn), tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(pa.table(drawn), tmp_path / "b.parquet", row_group_size=3)
    spec = {"format": "parquet", "path": str(tmp_path), "columns": {"image": "jpg"}}
    source = open_source(spec | {"variants": 2})
    assert len(source) == 20
    assert says(source[3]) == ["s3", ">3"]
    assert says(source[13]) == ["l3", ">3"]
    assert source[6].origin == f"{tmp_path}/b.parquet:1"
    captions = open_source(spec | {"task": "caption", "rows": [4, 7]})
    assert [says(example) for example in captions] == [["4", ">s4"], ["0", ">s0"], ["1", ">s1"]]
    assert captions.group_sizes == [1, 2]
    for rows in ((0, 0.4), (0.4, None)):
        share = open_source(spec | {"rows": rows})
        assert sum(share.group_sizes) == len(share) and max(share.group_sizes) <= 3

    edits = tmp_path / "edits"
    edits.mkdir()
    table = {
        "image_list": [[png(1), png(2)], [png(3), png(4), png(5)]],
        "instruction_list": [[["up", "raise"]], [["more"], ["again"]]],
    }
    pq.write_table(pa.table(table), edits / "e.parquet")
    source = open_source({"format": "parquet", "path": str(edits), "variants": 2})
    assert says(source[0]) == ["1", "up", ">2"]
    assert says(source[2]) == ["1", "raise", ">2"]
    assert says(source[1]) == ["3", "more", ">4", "again", ">5"]
    assert uses(source[0]) == ["edit"] * 2


def test_a_null_of_a_table_is_a_field_that_is_not_there(tmp_path):
    rows = [
        {"conversations": turns("why?", "because")},
        {"image": png(1), "caption": "drawn"},
        {"image": png(2), "conversations": turns("what?", "two")},
        {"text": "alone"},
    ]
    fields = ("conversations", "text", "image", "caption", "captions", "image_list")
    table = {field: [row.get(field) for row in rows] for field in fields}
    pq.write_table(pa.table(table), tmp_path / "mixed.parquet")
    source = open_source({"format": "parquet", "path": str(tmp_path)})
    examples = [says(example) for example in source]
    assert examples == [["why?", ">because"], ["drawn", ">1"], ["2", "what?", ">two"], [">alone"]]


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_webdataset(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add(tar, "x/1.png", png(1))
        add(tar, "x/1.txt", "first caf\u00e9".encode())
        add(tar, "x/2.a.png", png(2))
        add(tar, "x/2.b.png", png(3))
        add(tar, "x/2.json", json.dumps({"instruction_list": ["redder"]}).encode())
        add(tar, "x/3.jpg", png(4))
        add(tar, "x/3.json", json.dumps({"conversations": turns("<image> red?", "4")}).encode())
    source = open_source({"format": "webdataset", "path": str(tmp_path / "*.tar")})
    examples = [says(example) for example in source]
    assert examples == [["first caf\u00e9", ">1"], ["2", "redder", ">3"], ["4", "red?", ">4"]]
    assert source[1].origin == f"{tmp_path}/0.tar:x/2"


def write_array_record(path, *entries):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for entry in entries:
        writer.write(entry)
    writer.close()
    return open_source({"format": "array_record", "path": str(path.parent)})


def test_array_record_holds_json_or_msgpack(tmp_path):
    write_array_record(tmp_path / "b.array_record-00000-of-00001", msgpack.packb({"text": "last"}))
    as_json = {"image": base64.b64encode(png(2)).decode(), "caption": "two"}
    source = write_array_record(
        tmp_path / "a.array_record",
        msgpack.packb({"image": png(1), "captions": ["one", "uno"]}),
        json.dumps(as_json).encode(),
    )
    assert [says(example) for example in source] == [["one", ">1"], ["two", ">2"], [">last"]]
    assert source[2].origin.endswith("b.array_record-00000-of-00001:0")


def test_tfds_without_tensorflow(tmp_path):
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = pathlib.Path(tmp_path)

        def _info(self):
            label = tfds.features.ClassLabel(names=["cat", "dog"])
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(4):
                yield i, {"image": io.BytesIO(png(i)), "label": i % 2}

    builder = Tiny(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    spec = {"format": "tfds", "path": str(builder.data_path), "prompt": "a {}"}
    source = open_source(spec | {"task": "caption"})
    said = sorted(says(example) for example in source)
    assert said == [["0", ">a cat"], ["1", ">a dog"], ["2", ">a cat"], ["3", ">a dog"]]
    assert source[0].origin == f"{builder.data_path}/train:0"
    [shard] = pathlib.Path(builder.data_path).glob("*array_record*")
    shard.write_bytes(b"cut")
    assert (
        open_source(spec)[0].reason == "RuntimeError: ArrayRecord file should be at least 64KB big"
    )


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}))


def test_a_folder_gives_its_data_and_neither_backups_nor_hidden_files(tmp_path):
    data = ["a.jsonl", "deep/er/b.jsonl", "s.jsonl-00000-of-00002", "s.jsonl-00001-of-00002"]
    rest = [
        "a.jsonl.bak",
        ".a.jsonl.swp",
        "._a.jsonl",
        "a.jsonl~",
        ".part.jsonl.crc",
        ".git/c.jsonl",
    ]
    put(tmp_path, *data, *rest, "folder.jsonl/none.txt")
    source = open_source({"format": "jsonl", "path": str(tmp_path)})
    assert [says(example) for example in source] == [[f">{name}"] for name in data]


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*/x.jsonl", ["1/x.jsonl", "2/x.jsonl"]),
        ("**/x.jsonl", ["1/x.jsonl", "2/3/x.jsonl", "2/x.jsonl"]),
        ("[0-9]/*.jsonl", ["1/x.jsonl", "2/x.jsonl"]),
        ("y[1].jsonl", ["y[1].jsonl"]),
    ],
)
def test_a_glob_may_have_its_marks_anywhere_and_a_file_may_look_like_one(tmp_path, glob, found):
    put(tmp_path, "1/x.jsonl", "2/x.jsonl", "2/3/x.jsonl", "y[1].jsonl", "y1.jsonl")
    source = open_source({"format": "jsonl", "path": str(tmp_path / glob)})
    assert [says(example) for example in source] == [[f">{name}"] for name in found]


@pytest.mark.parametrize(("name", "mode"), [("0.tar.gz", "w:gz"), ("0.tar", "w:xz")])
def test_a_compressed_tar_is_to_be_uncompressed(tmp_path, name, mode):
    with tarfile.open(tmp_path / name, mode) as tar:
        add(tar, "1.json", b'{"text": "a"}')
    with pytest.raises(ValueError, match=f"{name}: compressed, .*: uncompress it"):
        open_source({"format": "webdataset", "path": str(tmp_path)})


@pytest.mark.parametrize("n", [2, 20, 100, 1000])
def test_a_folder_of_any_size_is_parted_into_training_and_validation(tmp_path, n):
    lines = [json.dumps({"text": str(i)}) for i in range(n)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    data = configs.load(f"configs/folder.py:{tmp_path}").data
    [train], [validation] = (open_split(data, split)[0] for split in ("train", "validation"))
    origins = lambda source: [source[i].origin for i in range(len(source))]
    assert len(validation) >= 1 and len(validation) == pytest.approx(n / 20, abs=1)
    assert not set(origins(validation)) & set(origins(train))
    all_of_it = {f"{tmp_path}/a.jsonl:{i + 1}" for i in range(n)}
    assert {*origins(validation), *origins(train)} == all_of_it


def test_a_source_by_import_path_and_refusals(tmp_path):
    emoji = {"format": "unified.worlds.emoji.tasks:EmojiSource", "split": "validation", "length": 3}
    assert len(open_source(emoji)) == 3
    with pytest.raises(ValueError, match="unknown format 'csv': use one of"):
        open_source({"format": "csv"})
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"source 'jsonl': .*'colour'"):
        open_source({"format": "jsonl", "path": str(tmp_path), "colour": 1})
    message = r"no records; of the 1 in the files, rows=\[0, 0.05\] leaves none"
    with pytest.raises(ValueError, match=message):
        open_source({"format": "jsonl", "path": str(tmp_path), "rows": [0, 0.05]})
    with pytest.raises(ValueError, match=r"no \.tar files at .*, but \*\.jsonl"):
        open_source({"format": "webdataset", "path": str(tmp_path)})
    with pytest.raises(ValueError, match="unknown format '': use one of"):
        open_source({"path": str(tmp_path)})
    with pytest.raises(
        ValueError, match=r"source 'no_module:Source': .*: No module named 'no_module'"
    ):
        open_source({"format": "no_module:Source"})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"variants": 0}, "variants=0: an epoch is at least 1 pass over the records"),
        ({"rows": (0, 1.5)}, r"rows=\(0, 1.5\): give \(start, stop\), fractions from 0.0 to 1.0"),
        ({"rows": (0, 9, 2)}, r"rows=\(0, 9, 2\): give \(start, stop\)"),
        ({"columns": {"capton": "text"}}, r"columns of \['capton'\]: the fields are .*'caption'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_what_can(tmp_path, option, message):
    put(tmp_path, "a.jsonl")
    with pytest.raises(ValueError, match=message):
        open_source({"format": "jsonl", "path": str(tmp_path)} | option)


DAMAGED = {"parquet": "cut.parquet", "array_record": "cut.array_record", "tfds": ""}


@pytest.mark.parametrize("format", DAMAGED)
def test_a_file_that_does_not_open_is_named_in_one_kind_of_error(tmp_path, format):
    for name in ("cut.parquet", "cut.array_record", "dataset_info.json"):
        (tmp_path / name).write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=f"source '{format}': {tmp_path / DAMAGED[format]}: .+"):
        open_source({"format": format, "path": str(tmp_path)})


JSONL = {
    "broken JSON": ('{"image": "1.png", ', "JSONDecodeError"),
    "not a map": ("[1, 2]", "TypeError: a record is a map of fields, not list"),
    "missing file": ({"image": "9.png", "caption": "x"}, r"FileNotFoundError: .*9\.png"),
    "truncated picture": ({"image": "cut.png", "caption": "x"}, r"cut\.png: .*truncated"),
    "not a picture": ({"image": "train.jsonl", "caption": "x"}, "not a picture of a known"),
    "wrong type of picture": ({"image": 3, "caption": "x"}, "a picture is a path, not int"),
    "wrong type of text": ({"image": "1.png", "caption": 5}, "text is a string, not int"),
    "wrong type of turns": ({"conversations": 5}, "conversations is a list of turns, not int"),
    "unknown speaker": ({"conversations": [{"from": "me"}]}, "a turn is"),
    "too few pictures": (
        {"image": "1.png", "conversations": turns("<image><image>", "a")},
        "2 <image> marks for 1 pictures",
    ),
    "no caption": ({"image": "1.png"}, "ValueError: the record has no 'caption', only .'image'.$"),
    "two pictures": ({"image": ["1.png", "1.png"], "caption": "x"}, "2 pictures with a caption"),
    "no instructions": ({"image_list": ["1.png"]}, "the record has no 'instruction_list', only"),
    "no value": ({"conversations": [{"from": "gpt"}]}, "a turn has no 'value', only .'from'"),
    "empty text": ({"text": " "}, "the text is empty"),
    "empty caption": ({"image": "1.png", "caption": ""}, "the text is empty"),
    "empty alternative": ({"image": "1.png", "captions": {"short": ""}}, "the text is empty"),
    "empty instruction": (
        {"image_list": ["1.png", "1.png"], "instruction_list": [""]},
        "the text is empty",
    ),
    "empty answer": ({"conversations": turns("why?", "this", "and?", "")}, "an answer of gpt is"),
    "no answer": ({"conversations": turns("why?")}, "no answer of gpt to learn"),
    "no turns": ({"conversations": []}, "no answer of gpt to learn"),
    "no captions": ({"image": "1.png", "captions": []}, "no text among the alternatives"),
    "odd edit": ({"image_list": ["1.png"], "instruction_list": []}, "1 pictures with 0"),
    "nothing known": ({"picture": "1.png"}, "no conversations, image_list, image or text"),
}


@pytest.mark.parametrize("kind", JSONL)
def test_bad_lines_name_file_row_and_reason(tmp_path, kind):
    line, reason = JSONL[kind]
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "cut.png").write_bytes(png(1, (99, 99))[:150])
    source = write_jsonl(tmp_path, {"text": "good"}, line)
    assert says(source[0]) == [">good"]
    bad = source[1]
    assert isinstance(bad, BadRecord)
    assert bad.origin == f"{tmp_path}/train.jsonl:2"
    assert re.search(reason, bad.reason), bad.reason


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    pq.write_table(pa.table({"image": [png(1)], "caption": ["a"]}), tmp_path / "p.parquet")
    spec = {"format": "parquet", "path": str(tmp_path), "columns": {"caption": "text"}}
    assert open_source(spec)[0] == BadRecord(
        f"{tmp_path}/p.parquet:0",
        "ValueError: no column 'text' for 'caption', only ['caption', 'image']",
    )
    pq.write_table(pa.table({"image": ["x.png"], "caption": ["a"]}), tmp_path / "p.parquet")
    bad = open_source({"format": "parquet", "path": str(tmp_path)})[0]
    assert bad.reason.startswith("ValueError: a picture that is a string is base64, not 'x.png'; ")


def test_bad_records_of_the_other_formats(tmp_path):
    table = {"image": [png(1), png(1, (99, 99))[:150], None], "caption": ["a", "b", "c"]}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    source = open_source({"format": "parquet", "path": str(tmp_path)})
    assert says(source[0]) == ["a", ">1"]
    assert source[1].origin == f"{tmp_path}/p.parquet:1" and "truncated" in source[1].reason
    assert source[2].reason.endswith("image_list, image or text among ['caption']")

    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        add(tar, "0.json", b"[1]")
        add(tar, "1.png", png(1))
        add(tar, "1.txt", b"\xff")
        add(tar, "2.png", png(2))
    whole = (tmp_path / "w.tar").read_bytes()
    (tmp_path / "w.tar").write_bytes(whole[:3600])  # ends within the second picture
    source = open_source({"format": "webdataset", "path": str(tmp_path)})
    reasons = [(bad.origin, bad.reason) for bad in source]
    assert reasons[0][1] == "TypeError: a record is a map of fields, not list"
    assert reasons[1][0] == f"{tmp_path}/w.tar:1" and "UnicodeDecodeError" in reasons[1][1]
    assert reasons[-1][0] == f"{tmp_path}/w.tar:end" and "damaged" in reasons[-1][1]

    good, cut = msgpack.packb({"text": "a"}), msgpack.packb({"text": "a"})[:-1]
    source = write_array_record(tmp_path / "r.array_record", good, cut, msgpack.packb([1]))
    assert says(source[0]) == [">a"]
    assert source[1].origin == f"{tmp_path}/r.array_record:1"
    assert source[2].reason == "TypeError: a record is a map of fields, not list"


def test_pixels_of_a_parquet_picture_are_those_of_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    row = {"image": [{"bytes": file.getvalue(), "path": "x.png"}], "caption": ["noise"]}
    pq.write_table(pa.table(row), tmp_path / "hf.parquet")
    source = open_source({"format": "parquet", "path": str(tmp_path)})
    np.testing.assert_array_equal(source[0].segments[1].content, pixels)


@pytest.mark.parametrize(
    ("weight", "said"),
    [(-1.0, "train.a.weight=-1.0 must be at least 0"), (0, "train: the weight of each is 0")],
)
def test_weights_of_nothing_are_told_by_field(weight, said):
    data = {"train": {"a": {"format": "jsonl", "path": "none", "weight": weight}}}
    with pytest.raises(ValueError, match=f"^config.data.{said}"):
        open_split(data, "train")
