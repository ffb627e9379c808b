"""What the TPU kernels cost, by the TPU compiler's own estimate: no TPU is needed, only libtpu.

    python -m pallas_kernels.interval_attention.bench cost --chip v5e --way forward --visit partial
    python -m pallas_kernels.interval_attention.bench splash --chip v5e --block 1024 --compute 512
    python -m pallas_kernels.interval_attention.bench workloads --full 1076 --partial 1091 --row 299
    python -m pallas_kernels.interval_attention.bench compile --chip v5p --length 16384

`cost` compiles a kernel on dense grids of three sizes and fits cycles per visit and head, per block
of queries and head, and per key head. The compiler takes the plan's words for zeros, so the kernel
runs in the mode of `Tiles.cost`. Its estimate of memory is twice too fast: report the larger of
cycles and bytes. libtpu compiles one program at a time on a machine, and waits for nobody.
"""

import argparse
import glob
import os
import re
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention import (
    context,
    make_plan,
    tpu_backward,
    tpu_forward,
)
from pallas_kernels.interval_attention.tpu_tiles import Tiles, Walk
from pallas_kernels.interval_attention.workload import causal, packing

ROWS = ("mixed_16k", "text_to_image_16k", "text_heavy_16k", "mixed_32k")
HEAD_DIM = 128


class Chip(NamedTuple):
    """`flops` of a core's matrix unit in a cycle, in bfloat16."""

    topology: str
    clock: float
    cores: int
    flops: int


CHIPS = {
    "v5e": Chip("v5e:2x4", 1.5e9, 1, 131072),
    "v5p": Chip("v5p:2x2x1", 1.75e9, 2, 131072),
    "v6e": Chip("v6e:2x2", 1.75e9, 1, 524288),
}


class Sizes(NamedTuple):
    """A dense grid: blocks of queries by blocks of keys, of a number of key heads."""

    rows: int
    columns: int
    key_heads: int


def floor(chip: Chip, pairs: float, products: int = 2) -> float:
    """Cycles of the matrix unit for `pairs` of one head, `products` of them forward or backward."""
    return pairs * products * 2 * HEAD_DIM / chip.flops


def start(dump: str, profile: bool = True) -> None:
    """Must come before libtpu is loaded."""
    flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_static_llo_profile_to={dump}"
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ["LIBTPU_INIT_ARGS"] = flags if profile else ""
    jax.config.update("jax_platforms", "cpu")


def shapes(chip: Chip):
    """Makes arguments of a program for one device of a chip."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices
    sharding = NamedSharding(Mesh(np.array(devices[:1]), ("d",)), P())
    return lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def cycles(run, args, dump: str) -> int:
    """The estimate for the one kernel in `run`, whose first argument stays where XLA puts it."""

    def in_hbm(first, *rest):  # operands elsewhere make the profiler abort
        return run(first, *(pltpu.with_memory_space_constraint(x, pltpu.HBM) for x in rest))

    jax.jit(in_hbm).lower(*args).compile()
    found = []
    for path in glob.glob(f"{dump}/*static_llo_profile.textproto"):
        with open(path) as file:
            blocks = re.findall(r"hlo_op_estimate \{(.*?)\n\}", file.read(), re.S)
        os.remove(path)
        found += [int(x) for b in blocks if _KERNEL.search(b) for x in _ESTIMATE.findall(b)]
    return max(found)


_ESTIMATE = re.compile(r"estimated_cycles: (\d+)")
_KERNEL = re.compile("attention|splash")


def dense(tiles: Tiles, way: str, sizes: Sizes, shape) -> tuple[Callable, list]:
    """A kernel on a dense grid, and its arguments."""
    n, m, K = sizes
    T, S, N = n * tiles.block_q, m * tiles.block_k, K * tiles.heads
    walk = Walk(tiles, n * m, m)
    b16, f32, i32 = jnp.bfloat16, jnp.float32, jnp.int32
    args: list = [
        shape(i32, 1, n * m),
        shape(b16, 1, T, N * tiles.dim),
        shape(b16, 1, S, K * tiles.dim),
        shape(b16, 1, S, K * tiles.value_dim),
        shape(i32, 1, 1, T),
        shape(i32, 1, 2, S),
    ]
    if way == "forward":
        return lambda words, *x: tpu_forward.forward(walk, words, n * m, *x), args
    args += [shape(b16, 1, T, N * tiles.value_dim)] * 2 + [shape(f32, 1, K, tiles.heads, T)] * 2

    def backward(words, *arrays: Any):
        blocks = range(m)
        return tpu_backward.backward(walk, words, n * m, *arrays, blocks=blocks, dtype=b16)

    return backward, args


def cost(options) -> None:
    """Prints cycles of a core: per visit and head, per block of queries and head, per key head."""
    chip = CHIPS[options.chip]
    blocks = options.block_q, options.block_k
    dims = HEAD_DIM, HEAD_DIM
    scale = HEAD_DIM**-0.5
    tiles = Tiles(options.group, 1, *dims, *blocks, scale, None, False, options.visit)
    grids = [Sizes(n, m, chip.cores) for n, m in ((2, 4), (2, 8), (4, 4))]
    with tempfile.TemporaryDirectory() as dump:
        start(dump)
        shape = shapes(chip)
        programs = [dense(tiles, options.way, grid, shape) for grid in grids]
        few, wide, tall = (cycles(run, args, dump) for run, args in programs)
    visit = (wide - few) / 8 / tiles.heads
    row = (tall - few) / 2 / tiles.heads - 4 * visit
    fixed = few - (8 * visit + 2 * row) * tiles.heads
    least = floor(chip, blocks[0] * blocks[1], 2 if options.way == "forward" else 5)
    print(f"{options.chip} {options.way} {options.visit} {blocks} {tiles.heads} heads: visit")
    print(f"{visit:.0f} (floor {least:.0f}), row {row:.0f}, key head {fixed:.0f} cycles")


def splash(options) -> None:
    """Prints what jax's splash attention costs with a causal mask, per 512 x 512 pairs of a head.

    Its tables are left out, so that it evaluates the mask in every block and skips none.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    chip, block, G = CHIPS[options.chip], options.block, options.group

    def kernel(T, S):
        sizes = library.BlockSizes(block_q=block, block_kv=block, block_kv_compute=options.compute)
        mask = library.MultiHeadMask([library.CausalMask((T, S)) for _ in range(G)])
        made = library.make_splash_mqa_single_device(mask, block_sizes=sizes)
        info = made.fwd_mask_info._replace(data_next=None, block_mask=None)
        return type(made)(info, None, None, **made.kwargs)

    with tempfile.TemporaryDirectory() as dump:
        start(dump)
        shape, found = shapes(chip), []
        for n, m in ((2, 2), (2, 4), (4, 2)):
            T, S = n * block, m * block
            keys = shape(jnp.bfloat16, S, HEAD_DIM)
            args = (shape(jnp.bfloat16, G, T, HEAD_DIM), keys, keys)
            run = kernel(T, S)
            in_hbm = lambda q, *kv, run=run: run(
                pltpu.with_memory_space_constraint(q, pltpu.HBM), *kv
            )
            found.append(cycles(in_hbm, args, dump))
    few, wide, tall = found
    visit, unit = (wide - few) / 4 / G, (block / 512) ** 2
    row = (tall - few) / 2 / G - 2 * visit
    print(f"{options.chip} splash {block}/{options.compute}: {visit / unit:.0f}, row {row:.0f}")


def workloads(options) -> None:
    """Prints blocks and milliseconds of the benchmark rows, from what `cost` said of a visit."""
    chip, (N, K, _) = CHIPS[options.chip], map(int, options.heads.split(","))
    sizes = {"block_q": options.block_q, "block_k": options.block_k}
    products = 2 if options.way == "forward" else 5
    for name in (*ROWS, "causal"):
        for two_streams in (False, True)[: 1 if name == "causal" else 2]:
            mask = causal(16384) if name == "causal" else packing(name, two_streams=two_streams)
            visited, full, partial, least = (int(x[0]) for x in make_plan(*mask, **sizes).stats)
            rows = -(-mask[0].size // options.block_q)
            head = full * options.full + partial * options.partial + rows * options.row
            time = (N * head + K * options.fixed) / chip.cores / chip.clock
            best = N * floor(chip, pairs(*mask), products) / chip.cores / chip.clock
            print(f"{name:18}", "two streams" if two_streams else "row order", end=" ")
            print(f"visited {visited} (least {least}), full {full},", end=" ")
            print(f"floor {best * 1e3:.2f} ms, kernel {time * 1e3:.2f} ms")


def pairs(clock: np.ndarray, start: np.ndarray, stop: np.ndarray) -> int:
    """Visible pairs of the rows."""
    count = 0
    for row in zip(clock, start, stop, strict=True):
        below = [np.searchsorted(np.sort(row[0]), bound) for bound in row[1:]]
        count += int(np.maximum(below[1] - below[0], 0).sum())
    return count


def compile_layers(options) -> None:
    """Compiles the gradient of two scanned, rematerialised layers, and prints their memory.

    On several devices each holds a stretch of the row.
    """
    N, K, H = map(int, options.heads.split(","))
    start("", profile=False)
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=CHIPS[options.chip].topology
    ).devices
    mesh = Mesh(np.array(devices[: options.devices]), ("context",))
    over: Any = {"sharding": context.Sharding(mesh, length="context")}

    def loss(x, weights, clock, start, stop):
        plans = context.make_plans(clock, start, stop, **over)

        def layer(x, w):
            qkv = (x @ w).reshape(*x.shape[:2], N + 2 * K, H)
            q, k, v = jnp.split(qkv, [N, N + K], axis=2)
            out: Any = context.interval_attention(q, k, v, clock, start, stop, plan=plans, **over)
            return x + out.reshape(x.shape), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, weights)[0].astype(jnp.float32))

    def shape(dtype, *shape, axes=()):
        sharding = NamedSharding(mesh, P(*axes))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    row = (None, "context")
    arrays = [
        shape(jnp.bfloat16, 1, options.length, N * H, axes=row),
        shape(jnp.bfloat16, 2, N * H, (N + 2 * K) * H),
        *[shape(jnp.int32, 1, options.length, axes=row)] * 3,
    ]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile()
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    print(f"{options.chip} {options.length} {options.heads} {mesh.size} devices:", end=" ")
    print(f"temporary {memory.temp_size_in_bytes / 1e6:.0f} MB each,", end=" ")
    print(*(f"{text.count(f' {name}(')} {name}" for name in ("all-gather", "reduce-scatter")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = {"workloads": workloads, "cost": cost, "splash": splash, "compile": compile_layers}
    parser.add_argument("command", choices=commands)
    parser.add_argument("--chip", choices=CHIPS, default="v5e")
    parser.add_argument("--way", choices=["forward", "backward"], default="forward")
    parser.add_argument("--visit", choices=["full", "partial"], default="full")
    parser.add_argument("--group", type=int, default=7, help="query heads of a key head")
    parser.add_argument("--block_q", type=int, default=512)
    parser.add_argument("--block_k", type=int, default=512)
    parser.add_argument("--block", type=int, default=1024, help="of splash attention")
    parser.add_argument("--compute", type=int, default=512, help="keys at a time, of splash")
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--devices", type=int, default=1, help="that share a row")
    parser.add_argument("--heads", default="28,4,128", help="query heads, key heads, head dim")
    for name, cycles_of in {"full": 1076, "partial": 1091, "row": 299, "fixed": 8308}.items():
        parser.add_argument(f"--{name}", type=float, default=cycles_of, help="cycles, of `cost`")
    options = parser.parse_args()
    commands[options.command](options)


if __name__ == "__main__":
    main()
