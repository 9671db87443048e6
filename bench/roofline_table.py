"""Kernels under the machine's roof: flops and bytes counted, bandwidth and peaks measured.

    python bench/roofline_table.py --vertices 200000

prints two tables. The roof of a kernel is the smaller of its peak and intensity times bandwidth.
The bandwidth is that of a triad over arrays that no cache holds; the peaks are those of the better
of numpy's matrix product (BLAS) and ours in either precision; all on one thread, in the same run.
Counts are of the algorithm: each array once, whole 64-byte lines for the row of a neighbour; a
square root or a division is one flop. A kernel whose data fits a cache may pass the roof of the
memory. Seconds are the least of the repetitions.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import NamedTuple

# One thread everywhere, decided before the libraries load.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import describe

from derand_fast.budget import Budget
from derand_fast.generators import random_graph
from derand_fast.kernels._jit import kernel
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.kernels.maxcut import cut_value, flip_gains
from derand_fast.kernels.row_ascent import anneal_range
from derand_fast.relaxation import Relaxation, ScaledGraph
from derand_fast.vertex_order import RangeSchedule, reorder, sweep_order

REPETITIONS = 5
TRIAD_ELEMENTS = 1 << 24
LINE = 64
RANK = 64


class Work(NamedTuple):
    """One call of a kernel, and what it has to do."""

    name: str
    precision: str
    flops: float
    bytes: float
    call: Callable[[], object]


@kernel(fastmath=True, cache=False)
def triad(a, b, c, scale):
    """Write a = b + scale * c."""
    for i in range(a.size):
        a[i] = b[i] + scale * c[i]


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--vertices", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    bandwidth = triad_bandwidth()
    peaks = {name: peak(np.dtype(name)) for name in ("float64", "float32")}
    print("measured roof\n\n| roof | value | unit |\n|---|---:|---|")
    print(f"| bandwidth of a triad | {bandwidth / 1e9:.2f} | GB/s |")
    for name, value in peaks.items():
        print(f"| peak, {name} | {value / 1e9:.1f} | GFLOP/s |")
    print("\nkernels under the roof\n")
    print("| kernel | precision | ms | flops a byte | GFLOP/s | GB/s | roof GFLOP/s | of it % |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for work in (*products(), *passes(arguments.vertices)):
        seconds = smallest(work.call)
        intensity = work.flops / work.bytes
        roof = min(peaks[work.precision], intensity * bandwidth)
        rate = work.flops / seconds
        print(
            f"| {work.name} | {work.precision} | {1e3 * seconds:.3g} | {intensity:.3g} "
            f"| {rate / 1e9:.3g} | {work.bytes / seconds / 1e9:.3g} | {roof / 1e9:.3g} "
            f"| {100.0 * rate / roof:.0f} |",
            flush=True,
        )


def triad_bandwidth() -> float:
    """Return bytes a second; the line that is written is read first."""
    a, b, c = (np.full(TRIAD_ELEMENTS, value) for value in (0.0, 1.0, 2.0))
    return 4 * 8 * TRIAD_ELEMENTS / smallest(lambda: triad(a, b, c, 3.0))


def peak(dtype: np.dtype) -> float:
    """Return flops a second of the best matrix product that is here, numpy's or ours."""
    a = np.ones((1024, 1024), dtype)
    out, workspace = np.empty_like(a), np.empty(workspace_size(1024, 1024), dtype)
    theirs = smallest(lambda: np.matmul(a, a, out=out))
    ours = smallest(lambda: multiply(a, a, out, False, workspace))
    return 2 * 1024**3 / min(theirs, ours)


def products() -> list[Work]:
    """Return our matrix products, square and of the shape of a network's layer."""
    works = []
    for name in ("float64", "float32"):
        for m, n, k in ((1024, 1024, 1024), (1024, 256, 256), (1024, 1000, 2)):
            dtype = np.dtype(name)
            a, b = np.ones((m, k), dtype), np.ones((k, n), dtype)
            out, workspace = np.empty((m, n), dtype), np.empty(workspace_size(n, k), dtype)
            works.append(
                Work(
                    f"matrix product {m} x {k} x {n}",
                    name,
                    2.0 * m * n * k,
                    dtype.itemsize * (m * k + k * n + 2.0 * m * n),
                    lambda a=a, b=b, out=out, w=workspace: multiply(a, b, out, False, w),
                )
            )
    return works


def passes(n: int) -> list[Work]:
    """Return passes over a random graph, five edges a vertex, in the order of `max_cut`."""
    natural = random_graph(n, 5 * n, seed=1)
    graph = ScaledGraph.of(reorder(natural, sweep_order(natural)))
    generator = np.random.default_rng(0)
    signs = np.where(generator.random(n) < 0.5, 1, -1).astype(np.int8)
    gains = np.empty(n)
    rows = unit_rows(generator, n, 8).reshape(-1)
    single_arrays = graph.indptr, graph.indices, graph.weights32
    schedule = RangeSchedule(graph.indptr, graph.indices, 1)
    relaxation = Relaxation(graph, RANK, np.random.default_rng(0))
    arrays = graph.indptr, graph.indices, graph.weights
    entries = graph.indices.size
    # Weight and index of each stored edge; signs of neighbours are gathered from n bytes, in cache.
    scalar, single = 12.0 * entries + 4.0 * n, 8.0 * entries + 4.0 * n
    return [
        Work("cut value", "float64", 2.0 * entries, scalar, lambda: cut_value(*arrays, signs)),
        Work(
            "gains of all flips",
            "float64",
            2.0 * entries,
            scalar + 8.0 * n,
            lambda: flip_gains(*arrays, signs, gains),
        ),
        Work(
            "annealing sweep, rank 8",
            "float32",
            # A product of rows, a factor of five operations, a row added.
            (16 + 5 + 16.0) * entries + 25.0 * n,
            single + LINE * (entries + 1.0 * n),
            lambda: schedule.run(
                lambda start, stop: anneal_range(*single_arrays, rows, 0.3, start, stop)
            ),
        ),
        Work(
            f"relaxation sweep, rank {RANK}",
            "float32",
            2.0 * RANK * entries + 4.0 * RANK * n,
            single + 4.0 * RANK * (entries + 2.0 * n),
            lambda: relaxation.advance(1, Budget(None)),
        ),
    ]


def unit_rows(generator: np.random.Generator, n: int, columns: int) -> np.ndarray:
    """Return random unit rows."""
    rows = generator.standard_normal((n, columns), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def smallest(call: Callable[[], object]) -> float:
    """Return the least of some wall times, after a call that does not count."""
    call()
    best = np.inf
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        count = 0
        while count == 0 or time.perf_counter() - begin < 0.02:
            call()
            count += 1
        best = min(best, (time.perf_counter() - begin) / count)
    return best


if __name__ == "__main__":
    main()
