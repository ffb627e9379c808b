"""Releases with one thing wrong: every field, every tensor, every file, bytes at random.

The tests try some of each. All of them, counted: `python -m tests.interop.damage 900`, in seconds
for each kind.
"""

import contextlib
import copy
import dataclasses
import io
import itertools
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from flax import nnx

import eval as evaluation
import unified
from tests.recipes.small import small
from unified import cli
from unified.interop import model as models
from unified.interop import release
from unified.recipes import packed
from unified.training import config as configs

PATIENCE = 60  # seconds, on a busy machine; nothing takes more than two on a quiet one
MEMORY = 1_500_000  # kB that all cases together may add


class Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()
VALUES = (
    ABSENT, None, True, 3, -1, 0, 10**9, 10**30, 0.5, 1e39, float("nan"), float("inf"), "",
    "payload", "os:system", "[/b]\n\x1b[31m", "\ud800", [], [None], [[1, 2]], {}, {"": None},
    {"a": {"b": 1}},
)  # fmt: skip
DTYPES = ("F8_E4M3", "I32", "BOOL", "F64", "F4", "C64", "X", 3)  # said, of data that is float32
STORED = ("int8", "int32", "uint16", "bool", "float8_e4m3fn", "float8_e5m2")
TEXTS = {
    "empty": b"", "html": b"<!doctype html><title>404</title>", "binary": bytes(range(256)) * 9,
    "utf16": "{}".encode("utf-16"), "list": b"[]", "null": b"null", "deep": b"[" * 100_000,
    "deep fields": b'{"a":' * 900 + b"1" + b"}" * 900, "twice": b'{"a": 1, "a": 2}',
    "digits": b'{"seed": ' + b"9" * 5000 + b"}", "fields": b"{}",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """`group` is what it damages."""

    name: str
    group: str
    apply: Callable[[Path], Any]  # to the folder of a release


def make(folder: Path) -> Path:
    """A small model with random weights, released."""
    config = configs.complete(small(num_layers=1))
    config.model.backbone.joint = "all"
    sources = {"emoji": {"format": "unified.worlds.emoji.tasks:EmojiSource", "length": 4}}
    with config.ignore_type():
        config.benchmark = {"module": "unified.evaluation.samples", "sources": sources}
    config.validation.tasks = ()
    shapes = models.shapes(config, most=10**6)
    params = nnx.to_pure_dict(nnx.state(shapes, nnx.Param))
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(np.float32)
    named = release.flatten(params)
    params = release.unflatten({name: draw(leaf) for name, leaf in named.items()})
    release.save(folder, params, models.keep_tokenizer(folder, config))
    return folder


def places(tree: Any, at: tuple = ()) -> Iterator[tuple]:
    """Where the fields of a config are, groups of them included."""
    parts = tree.items() if isinstance(tree, dict) else ()
    parts = list(enumerate(tree))[:1] if isinstance(tree, list) else parts
    for key, value in parts:
        yield (*at, key)
        yield from places(value, (*at, key))


def of_fields(folder: Path) -> Iterator[Case]:
    """Each field of the config with each value."""
    config = json.loads((folder / "config.json").read_text())
    for at in places(config):
        where = f"config.{'.'.join(map(str, at))}"
        for value in VALUES:
            yield Case(f"{where}={value!r}", where, _set(config, at, value))


def _set(config: dict, at: tuple, value: Any, file: str = "config.json") -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        changed = parent = copy.deepcopy(config)
        for key in at[:-1]:
            parent = parent[key]
        if value is ABSENT:
            del parent[at[-1]]
        else:
            parent[at[-1]] = value
        (folder / file).write_text(json.dumps(changed))

    return apply


def of_tensors(folder: Path) -> Iterator[Case]:
    """Each tensor: absent, of another name, shape, kind or place, or not finite."""
    header, start = _header((folder / "model.safetensors").read_bytes())
    for name, tensor in header.items():
        shape = tensor["shape"]
        forms: list[dict] = [{"dtype": dtype} for dtype in DTYPES]
        forms += [{"shape": s} for s in ([], [*shape, 1], [1, *shape], [-1], [2**62, 4], None)]
        lo, hi = tensor["data_offsets"]
        forms += [{"data_offsets": o} for o in ([hi, lo], [lo, hi + 4], [0, 2**62], [0], "x")]
        for form in forms:
            yield Case(f"{name}: {form}", name, _reheaded({**header, name: {**tensor, **form}}))
        for other in (f"{name}/x", name.rpartition("/")[0] or "x/y", "", "/", "a/" * 2000, "\n"):
            renamed = {k: v for k, v in header.items() if k != name}
            yield Case(f"{name} -> {other[:20]!r}", name, _reheaded({**renamed, other: tensor}))
        without = {k: v for k, v in header.items() if k != name}
        yield Case(f"{name}: absent from the header", name, _reheaded(without))
        for dtype in (None, *STORED):
            yield Case(f"{name}: as {dtype}", name, _stored(name, dtype))
        for number in (np.nan, np.inf, -np.inf):
            at, content = start + lo, struct.pack("<f", number)
            yield Case(f"{name}: {number}", name, overwritten("model.safetensors", at, content))


def _header(content: bytes) -> tuple[dict, int]:
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), 8 + size


def _reheaded(header: dict) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()
        text = json.dumps(header).encode()
        data = content[_header(content)[1] :]
        file.write_bytes(struct.pack("<Q", len(text)) + text + data)

    return apply


def _stored(name: str, dtype: str | None) -> Callable[[Path], Any]:
    """A sound file, but for a tensor of another dtype, or without it."""

    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = safetensors.numpy.load(file.read_bytes())
        tensor = tensors.pop(name)
        if dtype:
            tensors[name] = tensor.astype(getattr(ml_dtypes, dtype, dtype))
        file.write_bytes(safetensors.numpy.save(tensors))

    return apply


def overwritten(name: str, at: int, new: bytes) -> Callable[[Path], Any]:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at : at + len(new)] = new
        (folder / name).write_bytes(content)

    return apply


def of_files(folder: Path) -> Iterator[Case]:
    """Each file: of other content, cut short, longer, a folder, a pipe, a device, absent."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        yield from _of_file(folder, name)


def _of_file(folder: Path, name: str) -> Iterator[Case]:
    content = (folder / name).read_bytes()
    texts = TEXTS | {f"cut at {n}": content[:n] for n in (1, 8, 100)}
    texts |= {"without its last character": content[:-1]}
    texts |= {"longer": content + b"\0", "twice over": content * 2}
    for what, text in texts.items():
        write = lambda folder, text=text: (folder / name).write_bytes(text)
        yield Case(f"{name}: {what}", name, write)
    for what, put in {
        "folder": lambda file: file.mkdir(),
        "pipe": os.mkfifo,
        "device": lambda file: file.symlink_to("/dev/zero"),
        "link to nothing": lambda file: file.symlink_to("nowhere"),
    }.items():
        put = lambda folder, put=put: ((folder / name).unlink(), put(folder / name))
        yield Case(f"{name}: {what}", name, put)
    yield Case(f"{name}: of 2**40 bytes", name, lambda folder: os.truncate(folder / name, 2**40))


def of_checksums(folder: Path) -> Iterator[Case]:
    """The file of checksums, and each of them."""
    file = release.CHECKSUMS
    said = json.loads((folder / file).read_text())
    for name in said:
        for value in (ABSENT, None, 3, "", "float32[1]:0", said[name][:-1] + "g", [], {}):
            yield Case(f"{file}: {name}={value!r}", name, _set(said, (name,), value, file))
    for name in ("", "x", "a/b"):
        yield Case(f"{file}: {name!r} more", file, _set(said, (name,), "float32[1]:0", file))
    yield from _of_file(folder, file)


def of_tokenizer(folder: Path) -> Iterator[Case]:
    """Each field of the tokenizer, and some of its tokens, with some values."""
    fields = json.loads((folder / "tokenizer.json").read_text())
    for at in places(fields):
        where = f"tokenizer.{'.'.join(map(str, at))}"
        if "vocab." not in where or zlib.crc32(where.encode()) % 50 == 0:
            for value in (ABSENT, None, 3, "x", [], {}):
                change = _set(fields, at, value, "tokenizer.json")
                yield Case(f"{where}={value!r}", where, change)


def of_bytes(folder: Path, seed: int) -> Iterator[Case]:
    """Bytes of each file changed at random, for ever."""
    rng = random.Random(seed)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    sizes = {name: (folder / name).stat().st_size for name in names}
    while True:
        name = rng.choice(names)
        size = min(sizes[name], 20_000) if rng.random() < 0.8 else sizes[name]
        at, new = rng.randrange(size), rng.randbytes(rng.choice((1, 1, 2, 8)))
        yield Case(f"{name}[{at}]={new!r}", name, overwritten(name, at, new))


def loads(folder: Path) -> str:
    """The error of `unified.load`, if there is one. What it raises otherwise is a fault."""
    try:
        unified.load(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def evaluates(folder: Path) -> str:
    """The error of `eval.py`, if there is one."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = evaluation.main(["--checkpoint", str(folder), "--output", str(folder / "out")])
    said = errors.getvalue()
    assert status == (2 if said else 0), (status, said)
    assert said.count("\n") == bool(said), said
    return said.removesuffix("\n").removeprefix("eval.py: error: ")


def commands(folder: Path) -> str:
    """The error of `unified generate`. A release that draws is none of these."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        given = ["generate", "a dog", "--checkpoint", str(folder), "-o", str(folder / "out.png")]
        assert cli.main(given) == 1
    assert errors.getvalue().count("\n") == 1, errors.getvalue()
    return errors.getvalue().removesuffix("\n")


def check_told(said: str, folder: Path) -> None:
    """An error is one printable line that names the folder."""
    assert said.isprintable() and len(said) < 2000, said
    assert not said or folder.name in said, said


def copied(sound: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(sound, folder)


def tried(case: Case, sound: Path, how: Callable[[Path], str]) -> str:
    """What is said of a damaged copy of a sound release."""
    folder = copied(sound, sound.with_name("damaged"))
    if not case.name.startswith(release.CHECKSUMS):  # they tell of any tensor, before other checks
        (folder / release.CHECKSUMS).unlink()
    case.apply(folder)
    said = how(folder)
    check_told(said, folder)
    return said


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Models of equal configs are made of shapes once: most of what is wrong is not in those. And
    evaluation itself is not run, only all that comes before it."""
    known: dict[Any, Any] = {}
    make, evaluate = models.shapes, packed.evaluate

    def shapes(config: Any, most: int) -> Any:
        recipe = models.recipe_of(config)
        key = recipe.__name__, recipe.parse(config) if hasattr(recipe, "parse") else None, most
        if key not in known:
            known[key] = make(config, most)
        return known[key]

    models.shapes, packed.evaluate = shapes, lambda *_: {}
    try:
        yield
    finally:
        models.shapes, packed.evaluate = make, evaluate


def grown() -> int:
    """The most memory that this process has had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def faults(
    cases: Iterable[Case], sound: Path, how: Callable[[Path], str]
) -> tuple[dict[str, str], list[str]]:
    """What was said of each case that was told, and those that ended in another way."""
    said, wrong = {}, []
    threads, memory = set(threading.enumerate()), grown()
    for case in cases:
        began = time.monotonic()
        try:
            said[case.name] = tried(case, sound, how)
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
        if (seconds := time.monotonic() - began) > PATIENCE:
            wrong.append(f"{case.name}: {seconds:.0f} s")
    wrong += [
        f"thread {t.name}" for t in threading.enumerate() if t not in threads and t.is_alive()
    ]
    if (more := grown() - memory) > MEMORY:
        wrong.append(f"memory grew by {more} kB")
    return {name: text for name, text in said.items() if text}, wrong


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as place, quick():
        sound = make(Path(place) / "sound")
        kinds = {
            "fields, loaded": (of_fields(sound), loads),
            "fields, evaluated": (of_fields(sound), evaluates),
            "tensors, loaded": (of_tensors(sound), loads),
            "files, loaded": (of_files(sound), loads),
            "checksums, loaded": (of_checksums(sound), loads),
            "tokenizers, loaded": (of_tokenizer(sound), loads),
            "bytes, loaded": (of_bytes(sound, seed=0), loads),
        }
        for name, (cases, how) in kinds.items():
            some = [*{case.name: case for case in itertools.islice(cases, 20_000)}.values()]
            random.Random(0).shuffle(some)
            end, tried = time.monotonic() + seconds, []
            in_time = itertools.takewhile(lambda _, end=end: time.monotonic() < end, some)
            told, wrong = faults((tried.append(case) or case for case in in_time), sound, how)
            print(f"{name}: {len(tried)} tried, {len(told)} told in a line, {len(wrong)} at fault")
            print(*wrong, sep="\n", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
