"""Packed rows of text and pictures as clocks and intervals: what the benchmarks run on.

The rows are those of `packings.json`, of the sizes that BAGEL (arXiv 2505.14683) trains on.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKINGS = Path(__file__).with_name("packings.json")

Document = Sequence[tuple[int, str]]  # spans: tokens, and `causal`, `full` or `noise`


class Heads(NamedTuple):
    """How many, and their width."""

    query: int
    key: int
    dim: int

    @classmethod
    def parse(cls, text: str) -> "Heads":
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Case(NamedTuple):
    """A row to measure."""

    name: str
    mask: tuple[np.ndarray, ...]  # clock, start and stop, [1 S]

    @property
    def length(self) -> int:
        return self.mask[0].size


def packing(name: str, *, two_streams: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clock, start and stop of a row of `packings.json`, int32 `[1 S]`."""
    row = json.loads(PACKINGS.read_text())[name]
    return intervals(row["documents"], row["length"], two_streams=two_streams)


def intervals(documents: Sequence[Document], length: int, *, two_streams: bool = False):
    """Clock, start and stop of packed documents, int32 `[1 S]`, `S` = `length`.

    In row order, or stream after stream with padding after each: first text and the pictures that
    a vision encoder read, then the noised ones and latents, each stream half as long as the row or
    as long as it must be. Padding has clock `length` as a query and sees nothing.
    """
    spans = list(_spans(documents))
    streams = [[s for s in spans if s[-1] == i] for i in (0, 1)] if two_streams else [spans]
    columns: list[list[np.ndarray]] = [[], [], []]
    for i, stream in enumerate(streams):
        used = sum(stop - begin for begin, stop, *_ in stream)
        left = length - sum(map(len, columns[0]))
        size = left if i == len(streams) - 1 else max(length // 2, used)
        size = min(size, left - sum(s[1] - s[0] for later in streams[i + 1 :] for s in later))
        for begin, stop, end, kind, _ in stream:
            clock = np.arange(begin, stop)
            first = clock if kind == "causal" else np.full_like(clock, begin)
            last = np.full_like(clock, stop if kind == "noise" else end)
            for column, values in zip(columns, (clock, first, last), strict=True):
                column.append(values)
        for column, value in zip(columns, (length, 0, 0), strict=True):
            column.append(np.full(size - used, value))
    return tuple(np.concatenate(column)[None].astype(np.int32) for column in columns)


def _spans(documents: Sequence[Document]) -> Iterator[tuple[int, int, int, str, int]]:
    """Begin, stop, end of the document, kind, and stream of every span.

    Latents are what is noised, the clean picture right after it, and the second of two equal views.
    """
    clock = 0
    for document in documents:
        end = clock + sum(tokens for tokens, _ in document)
        before = (0, "causal")
        for tokens, kind in document:
            is_clean = kind == "full" and (before[1] == "noise" or before == (tokens, "full"))
            yield clock, clock + tokens, end, kind, int(kind == "noise" or is_clean)
            clock, before = clock + tokens, (tokens, kind)


def causal(length: int):
    """Clock, start and stop of plain causal attention, int32 `[1 S]`."""
    clock = np.arange(length, dtype=np.int32)[None]
    return clock, clock, np.full_like(clock, length)


def everything(length: int):
    """Clock, start and stop of attention in which every query sees every key, int32 `[1 S]`."""
    clock, _, stop = causal(length)
    return clock, np.zeros_like(clock), stop


def cases(rows: Sequence[str]) -> Iterator[Case]:
    """Rows of `packings.json`, in row order and as two streams, and plain masks: `causal_16k`."""
    made = {"causal": causal, "everything": everything}
    for row in rows:
        kind, _, size = row.rpartition("_")
        if kind in made:
            yield Case(row, made[kind](1024 * int(size.removesuffix("k"))))
        else:
            yield Case(f"{row}, row order", packing(row))
            yield Case(f"{row}, two streams", packing(row, two_streams=True))


def pairs(clock: np.ndarray, start: np.ndarray, stop: np.ndarray) -> int:
    """Visible pairs of the rows."""
    count = 0
    for row in zip(clock, start, stop, strict=True):
        below = [np.searchsorted(np.sort(row[0]), bound) for bound in row[1:]]
        count += int(np.maximum(below[1] - below[0], 0).sum())
    return count
