"""WebDataset: tar files in which members of one base name (`7.jpg`, `7.txt`) make a record."""

import logging
import posixpath
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

from unified.data.files import check_uncompressed, find_files, opened
from unified.data.record import FIELDS, parse_json
from unified.data.sources import UNREAD, RecordSource
from unified.message import one_line

log = logging.getLogger(__name__)

PACKED = (".tgz", ".taz", ".tbz", ".tbz2", ".txz", ".tzst", ".tlz")
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "pgm")
MAC = "__MACOSX"  # what a Mac knows of the other members
Place = tuple[int, int]  # offset and size of the content of a member
Record = tuple[str, dict[str, Place | str]]  # base name; by extension, a place or what is wrong


class TarSource(RecordSource):
    """`path`: a folder, a glob or uncompressed `.tar` files.

    The headers are read once, when the source is opened. `.json` gives the fields of the record,
    `.txt` its caption, the pictures (in order of name) its `image`, or its `image_list` where there
    is an `instruction_list`, any other member the field or column of its name. Where several end in
    `.txt` or `.json`, the one with nothing else between the first dot and the end counts; a
    member counts before a field of `.json`. A name that comes again begins another record; hidden
    members are left out, and so is what has none of these but other endings (logged). A tar that
    ends in the middle gives a last, bad record. Raises ValueError for a compressed one.
    """

    def __init__(self, path, **options):
        super().__init__(**options)
        self.files = find_files(path, [".tar"], PACKED)
        self.records = [self._whole(file, opened(file, _index)) for file in self.files]
        self.parts = list(zip(self.files, map(len, self.records), strict=True))

    def _whole(self, file: Path, found: list[Record]) -> list[Record]:
        """Without what makes no record, which is logged: `Thumbs.db`, `README.md`."""
        known = {*FIELDS, *self.columns.values(), "json", "txt", *IMAGES}
        is_record = lambda members: any({x, x.rpartition(".")[2]} & known for x in members)
        stray = [f"{key}.{x}" for key, members in found if not is_record(members) for x in members]
        if stray:
            left = f"{file}: {len(stray)} members that make no record are not read, as"
            log.warning("%s %s", left, one_line(stray[0].rstrip(".")))
        return [(key, members) for key, members in found if is_record(members)]

    def name(self, part: int, row: int) -> str:
        return self.records[part][row][0]

    def read(self, part: int, row: int) -> Mapping[str, Any]:
        _, members = self.records[part][row]
        named = {x for x in members if x in FIELDS or x in self.columns.values()}
        rest = sorted(members.keys() - named)
        fields = _main("json", rest)
        has_caption = "caption" in named or "caption" in self.columns
        caption = None if has_caption else _main("txt", rest)
        images = [x for x in rest if x.rpartition(".")[2] in IMAGES]
        with self.files[part].open("rb") as tar:
            content = lambda extension: self._content(tar, extension, members[extension])
            record = parse_json(content(fields)) if fields else {}
            said: dict[str, Any] = {x: content(x) for x in named}
            if caption:
                said["caption"] = content(caption).decode()
            shown = [content(x) for x in images]
        unread = {x for x in rest if x not in (fields, caption, *images)}
        unread |= {f"{x} of {fields}" for x in said if record.get(x, said[x]) != said[x]}
        record |= said
        if shown:
            record["image_list" if "instruction_list" in record else "image"] = shown
        return {**dict.fromkeys(unread, UNREAD), **record}

    def _content(self, tar: IO[bytes], extension: str, place: Place | str) -> bytes:
        if isinstance(place, str):
            raise ValueError(place)
        offset, size = place
        if size > self.pictures.max_bytes:
            raise ValueError(f".{extension}: {size} bytes are more than {self.pictures.max_bytes}")
        tar.seek(offset)
        return tar.read(size)


def _main(ending: str, extensions: Collection[str]) -> str | None:
    """Of several members of an ending the one that is meant."""
    found = [x for x in extensions if x == ending]
    found = found or [x for x in extensions if x.endswith(f".{ending}")]
    if len(found) > 1:
        raise ValueError(f"which one of {found}? Call it .{ending} alone, or name it in `columns`")
    return found[0] if found else None


def _index(file: Path) -> list[Record]:
    """Records of a tar in order, and of those that were joined to it."""
    check_uncompressed(file)
    records: list[Record] = []
    with file.open("rb") as content:
        try:
            _archive(content, records)
            while _is_more(content):
                _archive(content, records)
        except Exception as error:  # damaged headers raise tarfile's errors and others
            what = f"the tar is damaged after {len(records)} records: {error}"
            records.append(("end", {"json": what}))
    return records


def _archive(content: IO[bytes], records: list[Record]) -> None:
    """Adds the records of one archive, and goes to its end. Raises TarError for what is none."""
    start = last = content.tell()
    members: dict[str, Place] = {}
    current: dict[str, dict[str, Place | str]] = {}
    with tarfile.open(fileobj=content, mode="r:") as tar:
        for member in tar:
            if member.offset < last:
                raise tarfile.ReadError("its members go backwards")
            last = member.offset
            name = posixpath.normpath(member.name)
            parts = name.split("/")
            hidden = any(part[:1] == "." and part != ".." for part in parts) or MAC in parts
            if member.isdir() or hidden:
                continue
            place = _place(member, name, members)
            if not isinstance(place, str):
                members[name] = place
            folder, base = posixpath.split(name)
            base, dot, extension = base.partition(".")
            if not dot:
                records.append((name, {"": place}))  # which no other member belongs to
                continue
            key, extension = posixpath.join(folder, base), extension.lower()
            if extension in current.get(key, {extension}):
                current[key] = {}
                records.append((key, current[key]))
            current[key][extension] = place
        end = tar.offset
    if end == start:
        raise tarfile.ReadError("no tar header")
    content.seek(end)


def _place(member: tarfile.TarInfo, name: str, members: Mapping[str, Place]) -> Place | str:
    """Where the content of a member is; of a link, that of the member that it names."""
    if member.islnk() or member.issym():
        folder = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(folder, member.linkname))
        return members.get(target, f"{name} is a link to {target}, which does not come before it")
    if not member.isreg() or member.issparse():
        return f"{name} is no plain file"
    return member.offset_data, member.size


def _is_more(content: IO[bytes]) -> bool:
    """Goes to the first byte that is not zero, the begin of a header, if there is one."""
    while piece := content.read(2**20):
        if left := piece.lstrip(b"\0"):
            content.seek(-len(left), 1)
            return True
    return False
