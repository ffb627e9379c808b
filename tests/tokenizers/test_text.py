"""The text tokenizer: any Unicode comes back, marks are found, and cannot be written by users."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from unified.data.emoji.tasks import TASKS, EmojiSource
from unified.tokenizers.text import MARKS, TextTokenizer

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
