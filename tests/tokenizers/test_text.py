"""The text tokenizer: any Unicode comes back, marks are found, and cannot be written by users."""

import json
import os
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from unified.tokenizers.text import MARKS, TextTokenizer
from unified.worlds.emoji.tasks import TASKS, EmojiSource

TOKENIZER = TextTokenizer()


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= i < TOKENIZER.vocab_size for i in ids)


@pytest.mark.parametrize(
    "text", ["", " a  b\n\n\tc ", "naïve 東京 привет 👩🏽‍🚀", "<|im_end|> 007"]
)
def test_awkward_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("text", ["a \ud800 dog", "\udcff\udcfe apple"])
def test_halves_of_characters_are_refused(text):
    """Which is what Python makes of arguments that are no UTF-8."""
    with pytest.raises(ValueError, match=r"apple|dog' is not valid Unicode: take out '\\ud"):
        TOKENIZER.encode(text)


def test_marks_are_single_tokens_that_no_text_can_produce():
    marks = [getattr(TOKENIZER, name) for name in MARKS]
    assert len(set(marks)) == 4
    assert not set(marks) & set(TOKENIZER.encode("".join(MARKS.values())))
    assert TOKENIZER.decode([marks[0], *TOKENIZER.encode("a cat"), marks[1]]) == "a cat"


def test_it_is_small_and_knows_the_words_of_the_tasks():
    assert TOKENIZER.vocab_size == 1024
    source = EmojiSource("validation", tasks=dict.fromkeys(TASKS, 1.0))
    texts = [s.content for i in range(200) for s in source[i].segments if s.modality == "text"]
    words = sum(len(text.split()) for text in texts)
    assert sum(len(TOKENIZER.encode(text)) for text in texts) < 1.6 * words


def test_any_tokenizer_json_and_names_of_marks(tmp_path):
    other = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    other.add_special_tokens(["<s>", "</s>", "<img>"])
    other.save(str(tmp_path / "tokenizer.json"))
    names = {"begin_text": "<s>", "end_text": "</s>", "begin_image": "<img>"}
    with pytest.raises(
        ValueError, match=r"no token '<\|vision_end\|>' for end_image: name another"
    ):
        TextTokenizer(tmp_path, names)
    tokenizer = TextTokenizer(tmp_path, names | {"end_image": "</s>"})
    assert (tokenizer.begin_text, tokenizer.end_text, tokenizer.begin_image) == (2, 3, 4)
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("ab") == [0, 1]
    with pytest.raises(ValueError, match=r"unknown marks \['begin'\]"):
        TextTokenizer(tmp_path, {"begin": "<s>"})
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        TextTokenizer(tmp_path / "other.json")


def saved(folder, **changes):
    """The tokenizer that ships, as another program would have saved it."""
    state = json.loads(TOKENIZER.tokenizer.to_str()) | changes
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(state))
    return file


PADDING = {
    "strategy": {"Fixed": 24}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 1, "pad_type_id": 0, "pad_token": "<|im_end|>",
}  # fmt: skip
TRUNCATION = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
WORDS = "a dog and another dog, red and blue"


def test_how_a_tokenizer_was_called_when_it_was_saved_does_not_change_text(tmp_path):
    model = json.loads(TOKENIZER.tokenizer.to_str())["model"] | {"dropout": 0.9}
    file = saved(tmp_path, padding=PADDING, truncation=TRUNCATION, model=model)
    assert TextTokenizer(file).encode(WORDS) == TOKENIZER.encode(WORDS)


SAID = "a<|im_end|> <|vision_start|>b"


@pytest.mark.parametrize("special", [True, False])
def test_a_mark_that_a_user_types_is_text_whatever_the_file_says(tmp_path, special):
    added = json.loads(TOKENIZER.tokenizer.to_str())["added_tokens"]
    tokenizer = TextTokenizer(
        saved(tmp_path, added_tokens=[token | {"special": special} for token in added])
    )
    assert tokenizer.encode(SAID) == TOKENIZER.encode(SAID)
    marks = [getattr(tokenizer, name) for name in MARKS]
    assert tokenizer.decode([marks[0], *tokenizer.encode(SAID), marks[3]]) == SAID


def test_a_mark_stays_text_in_another_process():
    """Which gets the tokenizer as a pickle; the library forgets there that marks are text."""
    other = pickle.loads(pickle.dumps(TOKENIZER))
    assert other.encode(SAID) == TOKENIZER.encode(SAID)
    assert not other.marks & set(other.encode("".join(MARKS.values())))


@pytest.mark.parametrize("text", ["<s>", "and <s> too", "unknown"])
def test_text_that_a_vocabulary_can_write_only_as_a_mark_is_refused(tmp_path, text):
    """Whole words, of which one is a mark and stands for all that are unknown."""
    words = {"<s>": 0, "</s>": 1, "and": 2, "too": 3}
    other = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    other.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    other.save(str(tmp_path / "tokenizer.json"))
    names = dict.fromkeys(MARKS, "</s>") | {"begin_text": "<s>"}
    tokenizer = TextTokenizer(tmp_path, names)
    assert tokenizer.encode("and too") == [2, 3]
    with pytest.raises(ValueError, match="to this tokenizer a part of it is '<s>'"):
        tokenizer.encode(text)


def test_what_a_vocabulary_cannot_write_is_one_kind_of_error(tmp_path):
    Tokenizer(models.WordLevel({"a": 0}, unk_token="none")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path, dict.fromkeys(MARKS, "a"))
    with pytest.raises(ValueError, match="text 'b' cannot be written in tokens: "):
        tokenizer.encode("b")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"<html>", b"[]", b"{}", b'{"model": 3}', b"\xff", b"[" * 10_000, b'{"model": {}}'],
)
def test_a_file_that_is_no_tokenizer_is_named_in_a_line(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no tokenizer\.json: ") as told:
        TextTokenizer(tmp_path)
    assert "\n" not in str(told.value)


def test_a_file_of_any_size_is_not_read(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.touch()
    os.truncate(file, 2**40)  # of nothing: it takes no place
    with pytest.raises(ValueError, match=f"{2**40} bytes are more than {2**28}$"):
        TextTokenizer(file)
