"""What the TPU kernels cost, by the TPU compiler's own estimate: no TPU is needed, only libtpu.

    python -m pallas_kernels.interval_attention.bench cost --chip v5e --way forward --visit partial
    python -m pallas_kernels.interval_attention.bench splash --chip v5e --way backward --block 1024
    python -m pallas_kernels.interval_attention.bench workloads --full 1076 --partial 1091
    python -m pallas_kernels.interval_attention.bench plan --chip v5e --length 16384
    python -m pallas_kernels.interval_attention.bench compile --chip v5p --heads 16,16,72

`cost` compiles a kernel on dense grids of three sizes and fits cycles per visit and head, per block
of queries and head, and per key head; `splash` does the same with JAX's splash attention. The
compiler takes a plan's words for zeros, so our kernels run in the mode of `Tiles.cost`.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.interval_attention import context, make_plan, tpu_backward, tpu_forward
from pallas_kernels.interval_attention.bench import splash, static
from pallas_kernels.interval_attention.bench.static import CHIPS, HEAD_DIM, PRODUCTS, Grid, Profile
from pallas_kernels.interval_attention.bench.workload import cases, causal, pairs
from pallas_kernels.interval_attention.tpu_tiles import Tiles, Walk

# What `cost` prints of a full and a partial visit, a block of queries that ends with either, and a
# key head, and what `splash` prints of 512 x 512 pairs and a block of queries.
FORWARD_V5E = {"full": 1076, "partial": 1091, "row": 299, "row_partial": 359, "fixed": 8308}
FORWARD_V5E |= {"splash": 1240, "splash_row": 1230}
PACKINGS = "mixed_16k", "text_to_image_16k", "text_heavy_16k", "mixed_32k"
ROWS = (*PACKINGS, "causal_16k", "everything_1k")


def dense(tiles: Tiles, way: str, grid: Grid, key_heads: int, shape) -> tuple[Callable, list]:
    """A kernel on a dense grid, and its arguments."""
    (n, m), K = grid, key_heads
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
    chip, G, way = CHIPS[options.chip], options.group, options.way
    blocks = options.block_q, options.block_k
    scale = HEAD_DIM**-0.5
    tiles = Tiles(G, 1, HEAD_DIM, HEAD_DIM, *blocks, scale, None, False, options.visit)
    with Profile.of(chip) as profile:

        def cycles(grid: Grid) -> int:
            run, args = dense(tiles, way, grid, chip.cores, profile.shape)
            return profile.cycles(static.in_hbm(run), args)

        fit = static.fit(cycles, Grid(2, 4), G)
    least = chip.floor(blocks[0] * blocks[1], PRODUCTS[way])
    print(f"{options.chip} {way} {options.visit} {blocks} {G} heads:", end=" ")
    print(f"visit {fit.visit:.0f} (floor {least:.0f}),", end=" ")
    print(f"row {fit.row:.0f}, key head {fit.fixed:.0f} cycles")


def plan(options) -> None:
    """Prints what it costs to make a plan: cycles of all its operations, and bytes they move."""
    chip = CHIPS[options.chip]
    with Profile.of(chip) as profile:
        make = functools.partial(make_plan, block_q=options.block_q, block_k=options.block_k)
        vectors = [profile.shape(jnp.int32, 1, options.length)] * 3
        cycles = profile.cycles(make, vectors, operations="")
        cost: Any = jax.jit(make).lower(*vectors).compile().cost_analysis()
    print(f"{options.chip} plan of {options.length} tokens: {cycles} cycles,", end=" ")
    print(f"{cycles / chip.clock * 1e6:.0f} us, {cost['bytes accessed'] / 1e6:.1f} MB")


def workloads(options) -> None:
    """Prints a table of the benchmark rows in milliseconds, from what `cost` and `splash` said.

    Splash attention stands beside ours twice: with a causal mask of the row's length, and with one
    of as many visible pairs (equal work).
    """
    chip, (N, K, _) = CHIPS[options.chip], map(int, options.heads.split(","))
    sizes = {"block_q": options.block_q, "block_k": options.block_k}
    milliseconds = lambda cycles, cores: cycles / cores / chip.clock * 1e3
    titles = ["row", "visited / least", "floor", "ours", "of floor", "splash, causal", "of it"]
    titles += ["splash, equal work", "of it"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for case in cases(ROWS):
        plan = make_plan(*case.mask, **sizes)
        visited, full, partial, least = (int(x[0]) for x in plan.stats)
        rows, ending_full = plan.rows.full.size, int((plan.rows.full > 0).sum())
        head = full * options.full + partial * options.partial
        head += ending_full * options.row + (rows - ending_full) * options.row_partial
        ours = milliseconds(N * head + K * options.fixed, chip.cores)
        useful = pairs(*case.mask)
        floor = milliseconds(N * chip.floor(useful, PRODUCTS[options.way]), chip.cores)
        n = case.length // options.block
        blocks = n * (n + 1) / 2 * (options.block / 512) ** 2
        splash_ms = milliseconds(N * (blocks * options.splash + n * options.splash_row), 1)
        equal = splash_ms * useful / pairs(*causal(case.length))
        cells = [case.name, f"{visited} / {least}", f"{floor:.2f}", f"{ours:.2f}"]
        cells += [f"{ours / floor:.2f}"]
        for theirs in (splash_ms, equal):
            cells += [f"{theirs:.2f}", f"{ours / theirs:.2f}"]
        print(f"| {' | '.join(cells)} |")


def compile_layers(options) -> None:
    """Compiles the gradient of two scanned, rematerialised layers, and prints their memory.

    On several devices each holds a stretch of the row.
    """
    N, K, H = map(int, options.heads.split(","))
    static.start()
    devices = CHIPS[options.chip].devices[: options.devices]
    mesh = Mesh(np.array(devices), ("context",))
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
        shape(options.dtype, 1, options.length, N * H, axes=row),
        shape(options.dtype, 2, N * H, (N + 2 * K) * H),
        *[shape(jnp.int32, 1, options.length, axes=row)] * 3,
    ]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*arrays).compile()
    memory: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    print(f"{options.chip} {options.length} {options.heads} {options.dtype}", end=" ")
    print(f"{mesh.size} devices:", end=" ")
    print(f"temporary {memory.temp_size_in_bytes / 1e6:.0f} MB each,", end=" ")
    print(*(f"{text.count(f' {name}(')} {name}" for name in ("all-gather", "reduce-scatter")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    commands = {
        "workloads": workloads,
        "cost": cost,
        "splash": splash.cost,
        "plan": plan,
        "compile": compile_layers,
    }
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
    parser.add_argument("--dtype", default="bfloat16", help="of `compile`")
    parser.add_argument("--devices", type=int, default=1, help="that share a row")
    parser.add_argument("--heads", default="28,4,128", help="query heads, key heads, head dim")
    for name, cycles in FORWARD_V5E.items():
        parser.add_argument(f"--{name}", type=float, default=cycles, help="cycles, of `workloads`")
    options = parser.parse_args()
    commands[options.command](options)


if __name__ == "__main__":
    main()
