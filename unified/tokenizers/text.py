"""Text tokens: any Hugging Face `tokenizer.json`, and the four marks of a packed sequence."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer

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
    `begin_text`, `end_text`, `begin_image`, `end_image`. All ids are below `vocab_size`. Raises
    FileNotFoundError, or ValueError for a damaged file and for a token that the vocabulary lacks.
    """

    def __init__(self, path: str | Path = DEFAULT, marks: Mapping[str, str] | None = None):
        if unknown := set(marks or {}) - set(MARKS):
            raise ValueError(f"unknown marks {sorted(unknown)}: they are {', '.join(MARKS)}")
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no less general one
            raise ValueError(f"{path} is no tokenizer.json: {error}") from error
        # A mark that a user writes is plain text: only the packer places marks.
        self.tokenizer.encode_special_tokens = True
        ids = {
            name: self._id(token, name, path) for name, token in (MARKS | dict(marks or {})).items()
        }
        self.vocab_size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.begin_text, self.end_text = ids["begin_text"], ids["end_text"]
        self.begin_image, self.end_image = ids["begin_image"], ids["end_image"]

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone, without marks. Raises ValueError for half characters (surrogates):
        Python makes them of arguments that are no UTF-8."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            wrong = text[error.start : error.end]
            raise ValueError(f"text {text!r} is not valid Unicode: take out {wrong!r}") from None
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def _id(self, token: str, name: str, path: Path) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"{path} has no token {token!r} for {name}: name another in marks")
        return found
