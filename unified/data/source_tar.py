"""WebDataset: tar files in which members of one base name (`7.jpg`, `7.txt`) make a record."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unified.data.record import as_fields
from unified.data.sources import RecordSource, find_files, opened

SUFFIXES = (".tar", ".tar.gz", ".tgz")  # compressed ones are refused, not passed over
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # how such files begin
IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
Member = tuple[str, int, int]  # extension, offset and size of the content


class TarSource(RecordSource):
    """`path`: a folder, a glob or uncompressed `.tar` files.

    The headers are read once, when the source is opened. `.json` gives the fields of the record,
    `.txt` its caption, the pictures (in order of name) its `image`, or its `image_list` where there
    is an `instruction_list`. A tar that ends in the middle gives a last, bad record. Raises
    ValueError for a compressed one.
    """

    def __init__(self, path, **options):
        super().__init__(**options)
        files = find_files(path, SUFFIXES)
        self.records = [(file, *record) for file in files for record in opened(file, _index)]

    @property
    def num_records(self) -> int:
        return len(self.records)

    def origin(self, row: int) -> str:
        file, key, _ = self.records[row]
        return f"{file}:{key}"

    def read(self, row: int) -> Mapping[str, Any]:
        file, _, members = self.records[row]
        if not isinstance(members, list):
            raise members
        record: dict[str, Any] = {}
        images = []
        with file.open("rb") as tar:
            for extension, offset, size in sorted(members):
                tar.seek(offset)
                content = tar.read(size)
                extension = extension.rpartition(".")[2]
                if extension in IMAGES:
                    images.append(content)
                elif extension == "json":
                    record |= as_fields(json.loads(content))
                elif extension == "txt":
                    record["caption"] = content.decode()
        if images:
            record["image_list" if "instruction_list" in record else "image"] = images
        return record


def _index(file: Path) -> list[tuple[str, list[Member] | OSError]]:
    """Records of a tar in order: (base name, members)."""
    records: dict[str, list[Member]] = {}
    broken: list[tuple[str, OSError]] = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                key, dot, extension = name.partition(".")
                if member.isfile() and dot:
                    place = (extension.lower(), member.offset_data, member.size)
                    records.setdefault(folder + slash + key, []).append(place)
    except tarfile.TarError as error:
        with file.open("rb") as content:
            if not records and content.read(8).startswith(COMPRESSED):
                raise ValueError("compressed, so without random access: uncompress it") from error
        broken = [("end", OSError(f"the tar is damaged after {len(records)} records: {error}"))]
    return [*records.items(), *broken]
