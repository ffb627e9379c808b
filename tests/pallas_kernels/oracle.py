"""What every implementation must equal: dense attention in float64 numpy, and packed rows to try.

A row is described by its documents, and its mask is read off that description, not off the
intervals: tokens of one document see text that came before, pictures that came before or that they
are part of, and so on. The intervals of the table in docs/kernels.md are derived separately.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `V` value dim.
"""

import functools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

einsum = functools.partial(np.einsum, optimize=True)  # by matrix products
WINDOW = 3  # tokens that a key of kind "window" stays visible


class Outputs(NamedTuple):
    out: np.ndarray  # [B T N V]
    lse: np.ndarray  # [B T N]
    dq: np.ndarray  # as q, k, v
    dk: np.ndarray
    dv: np.ndarray


def attention(q, k, v, mask, d_out, d_lse, *, scale=None, soft_cap=None) -> Outputs:
    """`mask` bool `[B T S]`. Gradients are those of `sum(out d_out) + sum(lse d_lse)`.

    With probabilities p and scores s: d out / d s = p (v - out), d lse / d s = p.
    """
    q, k, v, d_out, d_lse = (np.asarray(x, np.float64) for x in (q, k, v, d_out, d_lse))
    (B, S, K, H), N = k.shape, q.shape[2]
    many = lambda x: np.repeat(x, N // K, axis=2)  # one copy of a key head for each query head
    few = lambda x: x.reshape(B, S, K, N // K, -1).sum(3)
    scale = H**-0.5 if scale is None else scale
    s = scale * einsum("btnh,bsnh->bnts", q, many(k))
    slope = np.full_like(s, scale)
    if soft_cap is not None:
        t = np.tanh(s / soft_cap)
        s, slope = soft_cap * t, scale * (1 - t * t)
    s = np.where(mask[:, None], s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-1e9)
    e = np.exp(s - top)
    total = e.sum(-1, keepdims=True)
    p = e / np.maximum(total, 1e-300)  # rows that see nothing stay zero
    out = einsum("bnts,bsnv->btnv", p, many(v))
    with np.errstate(divide="ignore"):
        lse = np.where(total > 0, top + np.log(total), -np.inf)[..., 0].swapaxes(1, 2)
    d_p = einsum("btnv,bsnv->bnts", d_out, many(v))
    d_s = p * (d_p - (p * d_p).sum(-1, keepdims=True) + d_lse.swapaxes(1, 2)[..., None]) * slope
    dq = einsum("bnts,bsnh->btnh", d_s, many(k))
    dk = few(einsum("bnts,btnh->bsnh", d_s, q))
    return Outputs(out, lse, dq, dk, few(einsum("bnts,btnv->bsnv", p, d_out)))


class Packing(NamedTuple):
    """A batch of rows: int32 vectors of the interface, and the mask they must give."""

    clock: np.ndarray  # [B T]
    start: np.ndarray  # [B S]
    stop: np.ndarray  # [B S]
    mask: np.ndarray  # bool [B T S]


class Row(NamedTuple):
    """Documents of spans (kind, tokens), the stream of each kind, and free slots after each."""

    documents: list[list[tuple[str, int]]]
    streams: dict[str, int]
    gaps: list[int]


KINDS = ("text", "image", "noised", "global", "window")
NUM_STREAMS = 3


def rows(longest: int):
    """Any row whose spans have up to `longest` tokens."""
    span = st.tuples(st.sampled_from(KINDS), st.integers(1, longest))
    return st.builds(
        Row,
        st.lists(st.lists(span, min_size=1, max_size=4), max_size=5),
        st.fixed_dictionaries({kind: st.integers(0, NUM_STREAMS - 1) for kind in KINDS}),
        st.lists(st.integers(0, 5), min_size=NUM_STREAMS, max_size=NUM_STREAMS),
    )


def pack(batch: list[Row], length: int) -> Packing:
    """Rows of `length` slots; documents that no longer fit are left out."""
    packed = [_pack(row, length) for row in batch]
    return Packing(*(np.stack(column) for column in zip(*packed, strict=True)))


def _pack(row: Row, length: int) -> Packing:
    tokens = _tokens(row, length - sum(row.gaps))
    n = len(tokens)
    slots: list[int | None] = []  # the token in each slot, stream after stream
    for stream, gap in enumerate(row.gaps):
        slots += [i for i, token in enumerate(tokens) if row.streams[token.kind] == stream]
        slots += [None] * gap
    slots += [None] * (length - len(slots))
    intervals = [(n, 0, 0) if i is None else (i, *_interval(tokens, i)) for i in slots]
    mask = [[q is not None and k is not None and _sees(tokens, q, k) for k in slots] for q in slots]
    return Packing(*np.array(intervals, np.int32).T, np.array(mask))


class Token(NamedTuple):
    document: int
    span: int  # of the row
    kind: str


def _tokens(row: Row, room: int) -> list[Token]:
    """In reading order."""
    tokens: list[Token] = []
    span = 0
    for d, spans in enumerate(row.documents):
        if len(tokens) + sum(n for _, n in spans) > room:
            continue
        for kind, n in spans:
            tokens += [Token(d, span, kind)] * n
            span += 1
    return tokens


def _sees(tokens: list[Token], q: int, k: int) -> bool:
    """The rule in words: what query token `q` may know of key token `k`."""
    query, key = tokens[q], tokens[k]
    if query.document != key.document:
        return False
    same_span, earlier = query.span == key.span, k <= q
    return {
        "text": earlier,
        "image": earlier or same_span,
        "noised": same_span,
        "global": True,
        "window": earlier and q - k < WINDOW,
    }[key.kind]


def _interval(tokens: list[Token], k: int) -> tuple[int, int]:
    """The table in docs/kernels.md."""
    key = tokens[k]
    document = [i for i, token in enumerate(tokens) if token.document == key.document]
    span = [i for i, token in enumerate(tokens) if token.span == key.span]
    end = document[-1] + 1
    return {
        "text": (k, end),
        "image": (span[0], end),
        "noised": (span[0], span[-1] + 1),
        "global": (document[0], end),
        "window": (k, min(k + WINDOW, end)),
    }[key.kind]


TYPICAL = (
    Row(
        [
            [("text", 7), ("noised", 9), ("image", 9), ("text", 4)],
            [("text", 1)],
            [("image", 9), ("text", 6), ("noised", 5)],
            [("global", 2), ("window", 9)],
        ],
        {"text": 0, "image": 1, "noised": 2, "global": 0, "window": 0},
        [2, 0, 3],
    ),
    Row([], dict.fromkeys(KINDS, 0), [0] * NUM_STREAMS),
)

# A row with all kinds of blocks: full, partial, seen by none, and more than fit into the slots.
EVERY_BLOCK = Row(
    [[("image", 270)], [("text", 20), ("noised", 30), ("image", 30), ("text", 10)]],
    {"text": 0, "image": 1, "noised": 2, "global": 0, "window": 0},
    [3, 0, 2],
)

LONG = (
    Row(
        [
            [("text", 30), ("noised", 36), ("image", 36), ("text", 20)],
            [("text", 1)],
            [("image", 36), ("text", 24), ("noised", 20)],
            [("global", 8), ("window", 40)],
        ],
        {"text": 0, "image": 1, "noised": 2, "global": 0, "window": 0},
        [8, 0, 12],
    ),
    Row(
        [[("image", 150), ("text", 60), ("noised", 40)], [("text", 1)], [("window", 30)]],
        dict.fromkeys(KINDS, 0),
        [0] * NUM_STREAMS,
    ),
)
