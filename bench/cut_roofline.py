"""Bytes moved by one annealing or relaxation sweep, against the machine's measured bandwidth.

    python bench/cut_roofline.py --vertices 1000000

prints a table. The bandwidth is that of a triad a = b + s c over arrays that no cache holds, in the
same run, on one thread and on all; a sweep at "100 %" moves its bytes as fast. Two counts of bytes:
least, every array once (the rows of a graph whose neighbours are near stay in the caches); and
gathered, one whole 64-byte line or more for each neighbour's row. Random graphs have no order that
avoids the second; a grid numbered at random has one, and ``vertex_order`` finds it.
"""

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from machine import describe

from derand_fast.budget import Budget
from derand_fast.generators import random_graph, torus_grid
from derand_fast.graphs import CSRGraph
from derand_fast.kernels._jit import kernel
from derand_fast.kernels.row_ascent import anneal_range
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import Relaxation, ScaledGraph
from derand_fast.threads import map_ranges
from derand_fast.vertex_order import RangeSchedule, reorder, sweep_order

REPETITIONS = 3
LINE = 64
TRIAD_ELEMENTS = 1 << 25


@kernel(fastmath=True, cache=False)
def triad(a, b, c, scale, start, stop):
    """Write a = b + scale * c over a range."""
    for i in range(start, stop):
        a[i] = b[i] + scale * c[i]


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--vertices", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    n = arguments.vertices
    side = int(n**0.5)
    shuffled = np.random.default_rng(arguments.seed).permutation(side * side)
    graphs = {
        "random, 5 edges a vertex": random_graph(n, 5 * n, seed=arguments.seed),
        "grid, numbered at random": reorder(
            torus_grid(side, side, seed=arguments.seed, weights="signs"), shuffled
        ),
    }
    for threads in dict.fromkeys(arguments.threads):
        print_table(graphs, threads)


def print_table(graphs: dict[str, CSRGraph], threads: int) -> None:
    """Print one line a graph, order and kernel."""
    bandwidth = triad_bandwidth(threads)
    print(f"\n{threads} threads, triad {bandwidth / 1e9:.1f} GB/s\n")
    print("graph | order | kernel | ms a sweep | least GB/s | gathered GB/s | of the triad")
    print("---|---|---|---:|---:|---:|---:")
    for name, graph in graphs.items():
        for order in ("given", "runs"):
            csr = graph if order == "given" else reorder(graph, sweep_order(graph))
            for title, columns, sweep in sweeps(csr, threads):
                seconds = smallest(sweep)
                least, gathered = bytes_moved(csr, columns)
                print(
                    f"{name} | {order} | {title} | {1e3 * seconds:.1f} | "
                    f"{least / seconds / 1e9:.1f} | {gathered / seconds / 1e9:.1f} | "
                    f"{100 * gathered / seconds / bandwidth:.0f} %",
                    flush=True,
                )


def sweeps(csr: CSRGraph, threads: int) -> list[tuple[str, int, Callable[[], object]]]:
    """Return names, columns and one sweep each of the kernels."""
    graph = ScaledGraph.of(csr)
    rows = np.random.default_rng(0).standard_normal((graph.n_vertices, LANES), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    flat = rows.reshape(-1)
    schedule = RangeSchedule(graph.indptr, graph.indices, threads)
    arrays = graph.indptr, graph.indices, graph.weights32

    def anneal(start: int, stop: int) -> None:
        anneal_range(*arrays, flat, 0.3, start, stop)

    result: list[tuple[str, int, Callable[[], object]]] = [
        ("annealing, rank 8", LANES, lambda: schedule.run(anneal))
    ]
    for rank in (16, 64):
        relaxation = Relaxation(graph, rank, np.random.default_rng(0), threads)
        result.append(
            (f"relaxation, rank {rank}", rank, lambda r=relaxation: r.advance(1, Budget(None)))
        )
    return result


def bytes_moved(csr: CSRGraph, columns: int) -> tuple[float, float]:
    """Return bytes with every row read and written once, and with a read for each neighbour."""
    entries, n = csr.indices.size, csr.n_vertices
    pattern = entries * 8 + n * 4
    own = 2 * n * columns * 4
    return pattern + own, pattern + own + entries * max(LINE, columns * 4)


def triad_bandwidth(threads: int) -> float:
    """Return bytes a second of a triad; the line that is written is read first."""
    a, b, c = (np.full(TRIAD_ELEMENTS, value) for value in (0.0, 1.0, 2.0))
    triad(a[:8], b[:8], c[:8], 3.0, 0, 8)
    seconds = smallest(
        lambda: map_ranges(lambda i, j: triad(a, b, c, 3.0, i, j), TRIAD_ELEMENTS, threads)
    )
    return 4 * 8 * TRIAD_ELEMENTS / seconds


def smallest(work: Callable[[], object]) -> float:
    """Return the smallest of some wall times, after one that does not count."""
    work()
    best = np.inf
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
    return best


if __name__ == "__main__":
    main()
