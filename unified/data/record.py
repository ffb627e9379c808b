"""One record of a user's data (a dict) -> an `Example`, whatever file it came from.

The fields that are there say what it is:

- `conversations` `[{"from": "human", "value": ...}, {"from": "gpt", ...}]` and `image` (none, one
  or a list): marks `<image>` in the text place the pictures; what gpt says or shows is the target.
- `image_list` and `instruction_list`: the edit that leads from each picture to the next.
- `image` and `caption` or `captions`: text to image, or captioning with `task="caption"`.
  `file_name` (Hugging Face's `metadata.jsonl`) is the path of an `image`, and `text` its caption.
- `text`: text only.

A picture is what `picture.py` reads. For a caption or an instruction a list or dict of alternatives
may stand (`captions` also as JSON), of which `variant` chooses one. A field that is None is not
there, nor one that is a dict of None: a table has every column in every row. A record that has
nothing to learn (an empty text or caption, no answer) is refused, and so is text that is no
Unicode.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unified.sequence import Example, Role, Segment

# What is read of a record; it is of the first kind whose first field it has.
KINDS = (
    ("conversations", "image"),
    ("image_list", "instruction_list"),
    ("image", "captions", "caption"),
    ("text",),
)
FIELDS = (*dict.fromkeys(field for kind in KINDS for field in kind), "file_name")
PICTURES = ("image", "image_list", "file_name")
MARK = "<image>"


def unread(record: Mapping[str, Any]) -> set[str]:
    """The fields of a record that make no part of its example."""
    fields = _present(record)
    used = set(next((kind for kind in KINDS if kind[0] in fields), ()))
    return fields.keys() - (used - {"caption"} if "captions" in fields else used)


def no_picture(record: Mapping[str, Any]) -> list[str]:
    """The fields for a picture of a record that is without one, since all of them are null."""
    there = [name for name in PICTURES if name in record]
    return there if all(_is_null(record[name]) for name in there) else []


def to_example(
    record: Mapping[str, Any],
    *,
    origin: str,
    picture: Callable[[Any], np.ndarray],
    task: str = "",
    variant: int = 0,
) -> Example:
    """`picture` gives the pixels of what a record holds for one. Raises TypeError, ValueError or
    OSError, saying what is wrong with the record."""
    record = _present(record)
    if "conversations" in record:
        images = [picture(value) for value in as_list(record.get("image", ()))]
        segments = conversation(record["conversations"], images)
    elif "image_list" in record:
        images = [picture(value) for value in as_list(record["image_list"])]
        segments = edits(images, as_list(_field(record, "instruction_list")), variant)
    elif "image" in record:
        images = as_list(record["image"])
        if len(images) != 1:
            raise ValueError(f"{len(images)} pictures with a caption: give one, or `conversations`")
        caption = Segment(_caption(record, variant), "target" if task == "caption" else "context")
        shown = Segment(picture(images[0]), "context" if task == "caption" else "target")
        segments = [shown, caption] if task == "caption" else [caption, shown]
    elif "text" in record:
        segments = [Segment(_said(record["text"]), "target")]
    else:
        raise ValueError(f"no conversations, image_list, image or text among {sorted(record)}")
    return Example(tuple(segments), task or _kind(segments), origin)


def conversation(turns: Sequence[Mapping], images: Sequence[np.ndarray]) -> list[Segment]:
    """Turns of human (context) and gpt (target); pictures without marks come first.

    Raises ValueError where gpt says nothing.
    """
    if not isinstance(turns, (list, tuple)):
        raise TypeError(f"conversations is a list of turns, not {type(turns).__name__}")
    words = lambda turn: _string(_field(turn, "value", "a turn"))
    said: list[tuple[Role, str]] = [(_role(turn), words(turn)) for turn in turns]
    answers = [value for role, value in said if role == "target"]
    if not all(map(str.strip, answers)) or not answers:
        raise ValueError("an answer of gpt is empty" if answers else "no answer of gpt to learn")
    marks = sum(value.count(MARK) for _, value in said)
    if marks == 0 and said:
        said[0] = (said[0][0], MARK * len(images) + said[0][1])
    elif marks != len(images):
        raise ValueError(f"{marks} {MARK} marks for {len(images)} pictures")
    drawn = any(role == "target" and MARK in value for role, value in said)
    use = "edit" if drawn else "see"
    rest, segments = iter(images), []
    for role, value in said:
        for i, part in enumerate(value.split(MARK)):
            if i:
                segments.append(Segment(next(rest), role, use))
            if part.strip():
                segments.append(Segment(part.strip(), role))
    return segments


def edits(images: Sequence[np.ndarray], instructions: Sequence, variant: int = 0) -> list[Segment]:
    """A picture, then an instruction and its result as often as there are instructions."""
    if len(images) < 2 or len(instructions) != len(images) - 1:
        raise ValueError(
            f"{len(images)} pictures with {len(instructions)} instructions between them"
        )
    segments = [Segment(images[0], use="edit")]
    for instruction, image in zip(instructions, images[1:], strict=True):
        segments += [Segment(_choose(instruction, variant)), Segment(image, "target", "edit")]
    return segments


def as_fields(value: Any) -> dict[str, Any]:
    """A record as a reader found it. Raises TypeError for anything but a map."""
    if not isinstance(value, dict):
        raise TypeError(f"a record is a map of fields, not {type(value).__name__}")
    return value


def parse_json(line: bytes) -> dict[str, Any]:
    """A record in UTF-8. Raises TypeError or ValueError, also where a field is named twice."""
    return as_fields(json.loads(line.decode("utf-8-sig"), object_pairs_hook=_once))


def as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"named twice: {sorted({n for n in names if names.count(n) > 1})}")
    return fields


def _is_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(part is None for part in value.values())
    return value is None


def _present(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are there; `file_name` as the path of an image, text beside it as caption."""
    record = {field: value for field, value in record.items() if not _is_null(value)}
    if "file_name" not in record or "image" in record or "image_list" in record:
        return record
    record["image"] = {"path": record.pop("file_name")}
    if "text" in record and not record.keys() & {"conversations", "caption", "captions"}:
        record["caption"] = record.pop("text")
    return record


def _caption(record: Mapping[str, Any], variant: int) -> str:
    captions = record["captions"] if "captions" in record else _field(record, "caption")
    if "captions" in record and isinstance(captions, str):
        captions = json.loads(captions)
    return _choose(captions, variant)


def _choose(texts: Any, variant: int) -> str:
    """Of several alternatives, the one of this variant."""
    if isinstance(texts, Mapping):
        texts = list(texts.values())
    texts = [text for text in as_list(texts) if text is not None]
    if not texts:
        raise ValueError("no text among the alternatives")
    return _said(texts[variant % len(texts)])


def _field(fields: Mapping[str, Any], name: str, of: str = "the record") -> Any:
    if name not in fields:
        raise ValueError(f"{of} has no {name!r}, only {sorted(fields)}")
    return fields[name]


def _said(value: Any) -> str:
    """A text that is not empty."""
    text = _string(value)
    if not text.strip():
        raise ValueError("the text is empty")
    return text


def _string(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    if not isinstance(value, str):
        raise TypeError(f"text is a string, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        wrong = value[error.start : error.end]
        raise ValueError(f"text that is not valid Unicode: take out {wrong!r}") from None
    return value


def _role(turn: Mapping) -> Role:
    roles: dict[str, Role] = {"human": "context", "user": "context", "system": "context"}
    roles |= {"gpt": "target", "assistant": "target"}
    if not isinstance(turn, Mapping) or turn.get("from") not in roles:
        raise ValueError(f"a turn is {{'from': 'human' or 'gpt', 'value': ...}}, not {turn!r}")
    return roles[turn["from"]]


def _kind(segments: Sequence[Segment]) -> str:
    """A name for the task of an example that states none."""
    images = [segment for segment in segments if segment.modality == "image"]
    if any(segment.role == "target" for segment in images):
        return "edit" if any(s.role == "context" for s in images) else "text_to_image"
    return "vqa" if images else "text"
