"""Text tokens: any Hugging Face `tokenizer.json`, and the four marks of a packed sequence."""

import json
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

LARGEST = 2**28  # bytes; vocabularies of a quarter of a million tokens take 2**25
DEFAULT = str(files("unified.tokenizers") / "emoji_bpe.json")
MARKS = {
    "begin_text": "<|im_start|>",
    "end_text": "<|im_end|>",
    "begin_image": "<|vision_start|>",
    "end_image": "<|vision_end|>",
}


class TextTokenizer:
    """`path`: a `tokenizer.json` or the folder that holds one (default: the one that ships).

    `marks` names the special tokens where they differ from Qwen's, which BAGEL uses: their ids are
    `begin_text`, `end_text`, `begin_image`, `end_image`. All ids are below `vocab_size`. Of the
    file the vocabulary and its rules count: padding, truncation and dropout that were on when it
    was saved are off, and a mark is a special token. Raises FileNotFoundError, or ValueError for a
    file that is no tokenizer, or naming the token that the vocabulary lacks.
    """

    def __init__(self, path: str | Path = DEFAULT, marks: Mapping[str, str] | None = None):
        if unknown := set(marks or {}) - set(MARKS):
            raise ValueError(f"unknown marks {sorted(unknown)}: they are {', '.join(MARKS)}")
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}")
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{path} is no tokenizer.json: {size} bytes are more than {LARGEST}")
        names = MARKS | dict(marks or {})
        try:
            state = _as_rules(json.loads(path.read_bytes()), set(names.values()))
            self.tokenizer = _tokenizer(json.dumps(state))
        except Exception as error:  # the library raises Exception itself
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} is no tokenizer.json: {reason}") from error
        ids = {name: self._id(token, name, path) for name, token in names.items()}
        self.vocab_size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.begin_text, self.end_text = ids["begin_text"], ids["end_text"]
        self.begin_image, self.end_image = ids["begin_image"], ids["end_image"]
        self.marks = frozenset(ids.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "tokenizer": self.tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, tokenizer=_tokenizer(state["tokenizer"]))

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone, without marks. Raises ValueError for half characters (surrogates):
        Python makes them of arguments that are no UTF-8; and for what the vocabulary has no way to
        write but as a mark."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            wrong = text[error.start : error.end]
            raise ValueError(f"text {text!r} is not valid Unicode: take out {wrong!r}") from None
        try:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"text {text[:80]!r} cannot be written in tokens: {error}") from error
        if found := self.marks.intersection(ids):
            mark = self.tokenizer.id_to_token(min(found))
            raise ValueError(f"text {text[:80]!r}: to this tokenizer a part of it is {mark!r}")
        return ids

    def encode_marks(self, text: str) -> tuple[int, ...]:
        """Ids of what stands around the texts of a document, such as "<|im_start|>user\n": special
        tokens that are written in it are those tokens."""
        plain = Tokenizer.from_str(self.tokenizer.to_str())  # without what `_tokenizer` sets
        return tuple(plain.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def _id(self, token: str, name: str, path: Path) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"{path} has no token {token!r} for {name}: name another in marks")
        return found


def _as_rules(state: dict[str, Any], marks: Collection[str]) -> dict[str, Any]:
    """What a tokenizer file says about text, without how its last user called it. The marks are
    special, so that no text is taken for one, and none is shown."""
    added = [
        {**token, "special": True} if token["content"] in marks else token
        for token in state.get("added_tokens", ())
    ]
    off = {"added_tokens": added, "padding": None, "truncation": None}
    model = state["model"]
    return {**state, **off, "model": {**model, "dropout": None} if "dropout" in model else model}


def _tokenizer(state: str) -> Tokenizer:
    made = Tokenizer.from_str(state)
    # A mark that a user writes is plain text: only the packer places marks. This is not saved.
    made.encode_special_tokens = True
    return made
