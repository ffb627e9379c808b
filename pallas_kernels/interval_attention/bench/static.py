"""What libtpu says of a kernel for a TPU that is not there.

It schedules statically and estimates cycles. Its estimate of memory is twice too fast: report the
larger of cycles and bytes. It compiles one program at a time on a machine, and waits for nobody.
"""

import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

HEAD_DIM = 128


class Chip(NamedTuple):
    """`flops` of a core's matrix unit in a cycle, in bfloat16."""

    topology: str
    clock: float
    cores: int
    flops: int

    @property
    def devices(self):
        """Must come after `start`."""
        return topologies.get_topology_desc(platform="tpu", topology_name=self.topology).devices

    def floor(self, pairs: float, products: int) -> float:
        """Cycles of the matrix unit for so many products over the pairs of one head."""
        return pairs * products * 2 * HEAD_DIM / self.flops


CHIPS = {
    "v5e": Chip("v5e:2x4", 1.5e9, 1, 131072),
    "v5p": Chip("v5p:2x2x1", 1.75e9, 2, 131072),
    "v6e": Chip("v6e:2x2", 1.75e9, 1, 524288),
}
PRODUCTS = {"forward": 2, "backward": 5}  # of matrices


class Grid(NamedTuple):
    """Blocks of queries by blocks of keys, all of them visited."""

    rows: int
    columns: int


class Fit(NamedTuple):
    """Cycles of a core: of a visit and a block of queries of one head, and of a key head."""

    visit: float
    row: float
    fixed: float


def fit(cycles: Callable[[Grid], int], least: Grid, heads: int) -> Fit:
    """From the cycles of a grid, of one twice as wide and of one twice as tall."""
    n, m = least
    few, wide, tall = (cycles(Grid(*size)) for size in ((n, m), (n, 2 * m), (2 * n, m)))
    visit = (wide - few) / (n * m) / heads
    row = (tall - few) / n / heads - m * visit
    return Fit(visit, row, few - (n * m * visit + n * row) * heads)


def start(*flags: str) -> None:
    """Must come before libtpu is loaded."""
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ["LIBTPU_INIT_ARGS"] = " ".join(flags)
    jax.config.update("jax_platforms", "cpu")


class Profile(NamedTuple):
    """The estimates of one process."""

    dump: str
    sharding: NamedSharding

    @classmethod
    @contextmanager
    def of(cls, chip: Chip) -> Iterator["Profile"]:
        with tempfile.TemporaryDirectory() as dump:
            start(f"--xla_jf_dump_to={dump}", f"--xla_jf_dump_static_llo_profile_to={dump}")
            yield cls(dump, NamedSharding(Mesh(np.array(chip.devices[:1]), ("d",)), P()))

    def shape(self, dtype, *shape: int) -> jax.ShapeDtypeStruct:
        """An argument of a program for one device."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self.sharding)

    def cycles(self, run: Callable, args, operations: str = "attention|splash") -> int:
        """Of those operations of `run` in whose names the pattern is found: by default kernels."""
        jax.jit(run).lower(*args).compile()
        found: dict[str, int] = {}
        for path in glob.glob(f"{self.dump}/*static_llo_profile.textproto"):
            with open(path) as file:
                estimates = _ESTIMATE.findall(file.read())
            os.remove(path)
            found |= {name: int(n) for name, n in estimates if re.search(operations, name)}
        return sum(found.values())


_ESTIMATE = re.compile(r'hlo_op_estimate \{\s+hlo_op_name: "(.*?)".*?estimated_cycles: (\d+)', re.S)


def in_hbm(run: Callable) -> Callable:
    """`run`, whose arguments stay in HBM, but the first: elsewhere the profiler aborts."""
    place = lambda x: pltpu.with_memory_space_constraint(x, pltpu.HBM)
    return lambda first, *rest: run(first, *map(place, rest))
