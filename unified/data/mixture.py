"""Weighted mixtures of sources as random access: what element `i` is depends on (seed, i) alone.

Every source is reshuffled each epoch and repeated for ever, so the state of a mixture is an index.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import grain
import numpy as np

from unified.data.sources import BadRecord, Source, check_weights
from unified.sequence import Example, Segment

WINDOW = 4096


def mixture(
    sources: Sequence[Source], weights: Sequence[float] | None = None, *, seed: int = 0
) -> grain.MapDataset:
    """Endless examples, source k in proportion to `weights[k]` (default: equal).

    Raises ValueError as `check_weights` does.
    """
    weights = [1.0] * len(sources) if weights is None else list(weights)
    check_weights("sources", range(len(sources)), weights)
    pairs = [(source, w) for source, w in zip(sources, weights, strict=True) if w]
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(len(pairs) + 1)]
    parts = [_endless(source, s) for (source, _), s in zip(pairs, seeds[1:], strict=True)]
    return Mixture(parts, [w for _, w in pairs], seed=seeds[0])


def _endless(source: Source, seed: int) -> grain.MapDataset:
    if isinstance(source, GroupedSource):
        return GroupShuffle(source, seed=seed).repeat()
    return grain.MapDataset.source(source).shuffle(seed=seed).repeat()


class Mixture(grain.MapDataset):
    """Each `WINDOW` examples hold the same number of each part, in an order of their own.

    Unlike `grain.MapDataset.mix`, whose pattern is regular: rows of a batch, which take every R-th
    example, would see it. Each part is still read in its own order, so that reads stay local.
    """

    def __init__(self, parts: Sequence[grain.MapDataset], weights: Sequence[float], *, seed: int):
        super().__init__(parts)
        share = np.array(weights) / sum(weights) * WINDOW
        self.counts = np.maximum(share.astype(int), 1)
        for k in np.argsort(self.counts - share)[: max(WINDOW - self.counts.sum(), 0)]:
            self.counts[k] += 1  # largest remainders
        self.seed = seed

    @functools.cached_property
    def _window(self):  # made at its first use, so that a mixture can be sent to a process
        return functools.lru_cache(4)(self._shuffle)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        window, place = divmod(index, int(self.counts.sum()))
        part, rank = self._window(window)
        k = part[place]
        return self._parents[k][int(window * self.counts[k] + rank[place])]

    def _shuffle(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Part of each example of a window, and how many of that part come before it."""
        part = np.repeat(np.arange(len(self.counts)), self.counts)
        part = np.random.default_rng((self.seed, window)).permutation(part)
        rank = np.empty(len(part), np.int64)
        for k, n in enumerate(self.counts):
            rank[part == k] = np.arange(n)
        return part, rank


@runtime_checkable
class GroupedSource(Source, Protocol):
    """A source that is read a group at a time: examples of each group in order, groups it keeps."""

    group_sizes: Sequence[int]
    cached_groups: int


class GroupShuffle(grain.MapDataset):
    """Shuffles the groups of a source, and its examples only among a few groups.

    As examples mingle over half as many groups as the source keeps, each group is read about once
    an epoch.
    """

    def __init__(self, source: GroupedSource, *, seed: int):
        super().__init__()
        self.source, self.seed = source, seed
        self.sizes = np.array(source.group_sizes)
        self.firsts = np.cumsum(self.sizes) - self.sizes
        self.mingle = max(source.cached_groups // 2, 1)

    @functools.cached_property
    def _groups(self):
        return functools.lru_cache(2)(self._order)

    @functools.cached_property
    def _window(self):
        return functools.lru_cache(4)(self._shuffle)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, len(self))
        _, ends = self._groups(epoch)
        window = int(np.searchsorted(ends, place, side="right")) // self.mingle
        first = ends[window * self.mingle - 1] if window else 0
        return self.source[int(self._window(epoch, window)[place - first])]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Order of the groups in an epoch, and where each ends."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.sizes))
        return order, np.cumsum(self.sizes[order])

    def _shuffle(self, epoch: int, window: int) -> np.ndarray:
        order, _ = self._groups(epoch)
        groups = order[window * self.mingle : (window + 1) * self.mingle]
        examples = [self.firsts[g] + np.arange(self.sizes[g]) for g in groups]
        rng = np.random.default_rng((self.seed, epoch, window))
        return rng.permutation(np.concatenate(examples))


def drop_conditions(
    example: Example | BadRecord,
    rng: np.random.Generator,
    rates: Mapping[str, float],
    views: Callable[[Segment], tuple[str, ...]],
) -> Example | BadRecord:
    """Condition dropout, for guidance: forgets texts and views of pictures that are read.

    `rates` gives the probability for each `text`, for each `image` as a whole, and for each view by
    its name, so that a picture may lose one view and keep another; `views` the views of a picture.
    Only examples that draw a picture lose anything. What is dropped takes no place and no
    position, as if it had never been there (BAGEL keeps a position for a dropped picture in
    training, though its sampler does not).
    """
    if isinstance(example, BadRecord) or not any(map(_is_drawn, example.segments)):
        return example
    keeps = lambda what: rng.random() >= rates.get(what, 0.0)
    kept = []
    for segment in example.segments:
        if segment.modality == "text":
            if segment.role == "target" or keeps("text"):
                kept.append(segment)
            continue
        read = views(segment)
        left = tuple(view for view in read if keeps(view)) if keeps("image") else ()
        if left or segment.role == "target":
            lost = tuple(view for view in read if view not in left)
            kept.append(dataclasses.replace(segment, without=(*segment.without, *lost)))
    return dataclasses.replace(example, segments=tuple(kept))


def _is_drawn(segment: Segment) -> bool:
    return segment.modality == "image" and segment.role == "target"
