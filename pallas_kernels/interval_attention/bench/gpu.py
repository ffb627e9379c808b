"""What attention costs on a GPU: these kernels, cuDNN's and PyTorch's FlexAttention, side by side.

    python -m pallas_kernels.interval_attention.bench.gpu --out results.json
    python -m pallas_kernels.interval_attention.bench.gpu --only flex --out results.json
    python -m pallas_kernels.interval_attention.bench.gpu --table results.json

Ours and FlexAttention compute the mask of a row, the others a causal one of the row's length, for
they know no other. So they are compared by useful work: floating-point operations of visible pairs,
`4 H` a pair and query head forward, 2.5 times that backward, over seconds. Times are medians of
samples of many calls, enqueued together and awaited by the host. With `--out`, results are added to
those of earlier commands in the file, which can be of one implementation each.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.interval_attention import gpu, interval_attention
from pallas_kernels.interval_attention.bench import pytorch
from pallas_kernels.interval_attention.bench.workload import Case, Heads, cases, pairs

PACKINGS = ("mixed_16k", "text_to_image_16k", "text_heavy_16k")
ROWS = (*PACKINGS, "causal_16k", "causal_4k", "everything_4k")
WAYS = {"forward": 1.0, "forward and backward": 3.5}  # floating-point operations, of the forward's
SAMPLES = 7
SAMPLE_SECONDS = 0.06
MAX_CALLS = 60  # of a sample
MAX_SCORES = 2**29  # of all heads, that XLA's attention may hold: 2 GB

Run = Callable[[], Any]


class Result(NamedTuple):
    implementation: str
    case: str
    heads: str
    way: str
    ms: float
    teraflops: float  # useful ones, a second
    device: str


def ours(q, k, v, mask, plan):
    return interval_attention(q, k, v, *mask, plan=plan)


def library(q, k, v, mask, plan, *, implementation: Any):
    """jax.nn's attention, which computes a causal mask, or none."""
    del mask, plan
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation)


JAX: dict[str, Callable] = {
    "ours": ours,
    "cudnn": functools.partial(library, implementation="cudnn"),
    "xla": functools.partial(library, implementation="xla"),
}
IMPLEMENTATIONS = (*JAX, *pytorch.IMPLEMENTATIONS)


@functools.partial(jax.jit, static_argnums=(0, 1))
def call(implementation: str, way: str, qkv, d_out, mask, plan):
    """Output, and the gradients of q, k and v."""
    attend = lambda *qkv: JAX[implementation](*qkv, mask, plan)
    if way == "forward":
        return attend(*qkv)
    out, backward = jax.vjp(attend, *qkv)
    return out, backward(d_out)


@functools.cache
def arrays(length: int, heads: Heads):
    """Random q, k and v, and the gradient of the output, bfloat16."""
    N, K, H = heads
    keys = jax.random.split(jax.random.key(0), 4)
    make = lambda key, n: jax.random.normal(key, (1, length, n, H), jnp.bfloat16)
    q, k, v, d_out = map(make, keys, (N, K, K, N))
    return (q, k, v), d_out


make_plan = jax.jit(gpu.default_plan)


def prepare_jax(implementation: str, case: Case, heads: Heads, way: str) -> Run:
    mask = tuple(map(jnp.asarray, case.mask))
    plan = make_plan(*mask) if implementation == "ours" else None
    args = (*arrays(case.length, heads), mask, plan)
    return functools.partial(call, implementation, way, *args)


def prepare(implementation: str, case: Case, heads: Heads, way: str) -> tuple[Run, Callable]:
    """`run()`, which only enqueues, and `wait(result)`."""
    if implementation in JAX:
        return prepare_jax(implementation, case, heads, way), jax.block_until_ready
    return pytorch.prepare(implementation, case, heads, way == "forward")


def milliseconds(run: Run, wait: Callable[[Any], Any]) -> float:
    """Of one call, the median of samples."""

    def seconds(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            result = run()
        wait(result)
        return (time.perf_counter() - begin) / calls

    seconds(1)  # compiles
    calls = int(np.clip(SAMPLE_SECONDS / seconds(3), 1, MAX_CALLS))
    return 1e3 * float(np.median([seconds(calls) for _ in range(SAMPLES)]))


def is_of_use(implementation: str, case: Case, heads: Heads) -> bool:
    """Whether a benchmark answers a question, and fits into memory."""
    if implementation in ("ours", "flex"):
        return True
    fits = implementation != "xla" or heads.query * case.length**2 <= MAX_SCORES
    return case.name.startswith("causal") and fits


def measure(implementation: str, case: Case, heads: Heads, way: str) -> Result:
    run, wait = prepare(implementation, case, heads, way)
    ms = milliseconds(run, wait)
    flops = 4 * pairs(*case.mask) * heads.dim * heads.query * WAYS[way]
    device = pytorch.device() if implementation not in JAX else jax.devices()[0].device_kind
    return Result(implementation, case.name, str(heads), way, ms, flops / ms / 1e9, device)


def benchmark(options) -> Iterator[Result]:
    """Skips, with a word, what cannot run here."""
    for heads in map(Heads.parse, options.heads):
        for way in options.ways:
            for case in cases(options.rows):
                for implementation in options.only:  # one soon after the other: clocks drift
                    if not is_of_use(implementation, case, heads):
                        continue
                    try:
                        yield measure(implementation, case, heads, way)
                    except Exception as error:  # of a library that is absent, or cannot do it
                        if implementation == "ours":
                            raise
                        reason = f"{type(error).__name__}: {error}"[:300]
                        print(f"{implementation}, {case.name}, {heads}, {way}: {reason}")


def table(results: Sequence[Result]) -> str:
    """Ours beside cuDNN's of a causal mask, by useful work, and FlexAttention's of the same mask.

    cuDNN's is that of the same length if it was measured, or else of 16k. Of results for the same
    thing, the last one counts.
    """
    found = {result[:4]: result for result in results}
    titles = ["heads", "row", "ms", "TFLOP/s", "cuDNN, causal: TFLOP/s", "of cuDNN's"]
    titles += ["FlexAttention: ms", "over ours"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for way in WAYS:
        lines.append(f"| **{way}** {'| ' * (len(titles) - 1)}|")
        for (implementation, case, heads, of), result in found.items():
            if (implementation, of) == ("ours", way):
                flex = found.get(("flex", case, heads, way))
                lines.append(_line(result, _peer(found, result), flex))
    return "\n".join(lines)


def _peer(found: Mapping[tuple, Result], result: Result) -> Result | None:
    """cuDNN's causal attention that ours is held against."""
    length = result.case.partition(",")[0].rpartition("_")[2]
    peers = (found.get(("cudnn", f"causal_{n}", result.heads, result.way)) for n in (length, "16k"))
    return next(filter(None, peers), None)


def _line(ours: Result, cudnn: Result | None, flex: Result | None) -> str:
    cells = [
        ours.heads,
        ours.case,
        f"{ours.ms:.2f}",
        f"{ours.teraflops:.0f}",
        f"{cudnn.teraflops:.0f}" if cudnn else "",
        f"{ours.teraflops / cudnn.teraflops:.2f}" if cudnn else "",
        f"{flex.ms:.2f}" if flex else "",
        f"{flex.ms / ours.ms:.2f}" if flex else "",
    ]
    return f"| {' | '.join(cells)} |"


def read(paths: Sequence[Path]) -> list[Result]:
    """Results of files, those that are there."""
    return [Result(**x) for path in paths if path.exists() for x in json.loads(path.read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    several: Any = {"nargs": "+"}
    parser.add_argument("--only", choices=IMPLEMENTATIONS, default=IMPLEMENTATIONS, **several)
    parser.add_argument("--rows", default=ROWS, **several, help="of packings.json, or causal_16k")
    parser.add_argument("--heads", default=["28,4,128", "12,2,128"], **several, help="N,K,H")
    parser.add_argument("--ways", choices=WAYS, default=list(WAYS), **several)
    parser.add_argument("--out", type=Path, help="JSON file that results are added to")
    parser.add_argument("--table", type=Path, **several, help="print these results and stop")
    options = parser.parse_args()
    if options.table:
        return print(table(read(options.table)))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
    results = read([options.out] if options.out else [])
    for result in benchmark(options):
        print(f"{', '.join(result[:4])}: {result.ms:.3f} ms, {result.teraflops:.0f} TFLOP/s")
        results.append(result)
        if options.out:
            options.out.write_text(json.dumps([x._asdict() for x in results], indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
