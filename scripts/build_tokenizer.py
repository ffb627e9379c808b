"""Trains the tokenizer that ships with the package, on the texts of the emoji tasks.

    python scripts/build_tokenizer.py [--vocab_size 1024] [--output tokenizer.json]

Byte-level BPE, so that it reads and writes any Unicode text; Qwen's marks, so that code written for
published tokenizers finds them. Prints the tokens per text of each task, on texts not trained on.
"""

import argparse
import collections
import itertools
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from unified.tokenizers.text import DEFAULT, MARKS
from unified.worlds.emoji.tasks import TASKS, EmojiSource

# Words and numbers below 100 with the blank before them, runs of anything else: as GPT-4, shorter.
WORDS = r"'(?:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+"


def texts(task: str, first: int, count: int, seed: int) -> Iterator[str]:
    source = EmojiSource(tasks={task: 1.0}, seed=seed)
    for i in range(first, first + count):
        yield from (s.content for s in source[i].segments if s.modality == "text")


def train(vocab_size: int, per_task: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(MARKS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = (texts(task, 0, per_task, seed=1) for task in TASKS)
    tokenizer.train_from_iterator(itertools.chain.from_iterable(corpus), trainer)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab_size", type=int, default=1024)
    parser.add_argument("--per_task", type=int, default=4000)
    parser.add_argument("--output", default=DEFAULT)
    args = parser.parse_args()
    tokenizer = train(args.vocab_size, args.per_task)
    tokenizer.save(args.output)
    print(f"{args.output}: {tokenizer.get_vocab_size()} tokens")
    for task in TASKS:
        counts = collections.Counter(
            len(tokenizer.encode(text).ids) for text in texts(task, 1 << 20, 300, seed=2)
        )
        mean = sum(n * count for n, count in counts.items()) / counts.total()
        print(f"  {task:10} {mean:5.1f} tokens a text, at most {max(counts)}")


if __name__ == "__main__":
    main()
