"""Time per stored edge from 10^4 to 10^6 vertices, and a cut of the largest graph with its bound.

    python bench/cut_scaling.py --sizes 10000 100000 1000000 --threads 1 2
    python bench/cut_scaling.py --sizes 1000000 --threads 2 --solve 300    # max_cut, five minutes

Uniform random graphs with five edges a vertex. Each kernel's time is the smallest over interleaved
repetitions; on one thread it is the thread's processor time, which other load disturbs less. The
fitted exponent is that of time per sweep against stored edges, 1 where time per edge is constant.
``natural`` is the order of the generator without requests ahead (`kernels.maxcut.anneal_rows`);
``runs`` is `vertex_order.sweep_order` with them.

``--solve`` takes the place of the kernels: one call of `max_cut` for each size and number of
threads, with that time limit, kernels compiled beforehand. The edges cut, the bound and the peak of
memory of the process, graph included, are what it prints.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from machine import describe

from derand_fast import max_cut
from derand_fast.bounds import ChebyshevCertificate, DualMatrix
from derand_fast.budget import Budget
from derand_fast.generators import random_graph
from derand_fast.kernels.maxcut import anneal_rows
from derand_fast.kernels.row_ascent import anneal_range
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import Relaxation, ScaledGraph
from derand_fast.vertex_order import RangeSchedule, reorder, sweep_order

REPETITIONS = 3
EDGES_PER_VERTEX = 5
# A timing covers at least so many stored entries.
ENTRIES = 2_000_000
RANK = 64


def main() -> None:
    """Read the arguments and print one table a number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 31_623, 100_000, 316_228, 1_000_000]
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--solve", type=float, metavar="SECONDS", help="time limit of max_cut")
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    if arguments.solve is not None:
        print_cuts(arguments)
        return
    works(random_graph(50, 250, seed=0), 1)
    columns: dict[tuple[str, int], list[float]] = {}
    for n in arguments.sizes:
        graph = random_graph(n, EDGES_PER_VERTEX * n, seed=arguments.seed)
        for threads in arguments.threads:
            for name, seconds in works(graph, threads).items():
                columns.setdefault((name, threads), []).append(seconds / (2 * graph.n_edges))
    print_table(arguments.sizes, columns)


def print_cuts(arguments: argparse.Namespace) -> None:
    """Print the cut, the bound, time and memory of `max_cut` for each size."""
    max_cut(random_graph(50, 250, seed=0), sweeps=60)
    print("n | threads | edges cut | bound | gap | s | CPU s | peak GB so far")
    print("---|" + "---:|" * 6 + "---:")
    for n in arguments.sizes:
        graph = random_graph(n, EDGES_PER_VERTEX * n, seed=arguments.seed)
        for threads in arguments.threads:
            wall, cpu = time.perf_counter(), time.process_time()
            result = max_cut(
                graph, time_limit=arguments.solve, n_threads=threads, seed=arguments.seed
            )
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            shares = result.cut_value / graph.n_edges, result.upper_bound / graph.n_edges
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"{n} | {threads} | {shares[0]:.3%} | {shares[1]:.3%} | {result.gap:.3%} | "
                f"{wall:.1f} | {cpu:.1f} | {peak:.2f}",
                flush=True,
            )


def works(graph, threads: int) -> dict[str, float]:
    """Return the seconds of one sweep or step of each kernel."""
    natural = ScaledGraph.of(graph)
    ordered = ScaledGraph.of(reorder(graph, sweep_order(graph)))
    count = max(1, ENTRIES // natural.indices.size)
    rows = unit_rows(natural.n_vertices)
    schedule = RangeSchedule(ordered.indptr, ordered.indices, threads)
    relaxation = Relaxation(ordered, RANK, np.random.default_rng(0), threads)
    relaxation.advance(1, Budget(None))
    matrix = DualMatrix.of(ordered, relaxation.dual()[1])
    certificate = ChebyshevCertificate(ordered, matrix, np.random.default_rng(1), 1e-9, threads)

    def anneal(start: int, stop: int) -> None:
        arrays = ordered.indptr, ordered.indices, ordered.weights32
        anneal_range(*arrays, rows, 0.3, start, stop)

    tasks: dict[str, Callable[[], object]] = {
        "anneal, natural": lambda: anneal_rows(
            natural.indptr, natural.indices, natural.weights32, rows, 0.3, 1.0, 1
        ),
        "anneal, runs": lambda: schedule.run(anneal),
        f"relaxation, rank {RANK}": lambda: relaxation.advance(1, Budget(None)),
        "certificate": lambda: certificate.advance(2, Budget(None)),
    }
    clock = time.thread_time if threads == 1 else time.perf_counter
    if threads > 1:
        del tasks["anneal, natural"]
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(REPETITIONS):
        for name, task in tasks.items():
            begin = clock()
            for _ in range(count):
                task()
            best[name] = min(best[name], (clock() - begin) / count)
    best["certificate"] /= 2.0
    return best


def unit_rows(n: int) -> np.ndarray:
    """Return random unit rows of eight numbers, flat."""
    rows = np.random.default_rng(0).standard_normal((n, LANES), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.reshape(-1)


def print_table(sizes: list[int], columns: dict[tuple[str, int], list[float]]) -> None:
    """Print nanoseconds per stored edge, and the exponents below."""
    print("ns a stored edge | " + " | ".join(f"{name} ({t} threads)" for name, t in columns))
    print("|".join(["---"] + ["---:"] * len(columns)))
    for place, n in enumerate(sizes):
        cells = [f"{1e9 * column[place]:.1f}" for column in columns.values()]
        print(f"{n} | " + " | ".join(cells))
    if len(sizes) > 1:
        logs = np.log(np.array(sizes, dtype=np.float64))
        slopes = [1.0 + np.polyfit(logs, np.log(column), 1)[0] for column in columns.values()]
        print("exponent | " + " | ".join(f"{slope:.2f}" for slope in slopes))


if __name__ == "__main__":
    main()
