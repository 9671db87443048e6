"""Cuts, bounds and memory of max_cut on published graphs, beside rivals in the same run.

    python bench/maxcut_table.py cuts --seconds 5 --seeds 0 1 2
    python bench/maxcut_table.py bounds
    python bench/maxcut_table.py memory

prints Markdown tables. ``--data`` names a folder with maxcut/gset/G1.txt.gz, ... (rudy files) and
maxcut/best_known.csv; where it is absent, generated graphs take their place and say so. All solvers
run on one thread, compiled beforehand.

Rivals: simulated annealing of dwave-samplers, one read whose number of sweeps fills the same
seconds (calibrated by a run that is not counted); scipy's eigsh (one smallest eigenvalue, tol 1e-4,
ncv 60) on the dual matrix of the relaxation that our bound comes from.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One thread everywhere, decided before the libraries load.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import scipy.sparse
from machine import describe
from scipy.sparse.linalg import eigsh

from derand_fast import CSRGraph, CutResult, as_graph, max_cut
from derand_fast.budget import Budget
from derand_fast.generators import random_graph, torus_grid
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank

DEFAULT_DATA = Path("../shared/data")
GRAPHS = [
    *("G1", "G14", "G22", "G32", "G35", "G43", "G48"),
    *("G55", "G60", "G63", "G67", "G70", "G77", "G81"),
]
# What a prototype of this method reached within 5 seconds: figures to hold.
FLOOR = dict(
    zip(
        GRAPHS,
        (11600, 3054, 13320, 1410, 7655, 6646, 6000, 10266, 14140, 26920, 6938, 9580, 9922, 14025),
        strict=True,
    )
)
# Optima of the relaxation, to the digits given, from interior-point or long low-rank runs.
SDP_OPTIMUM = dict(
    zip(
        GRAPHS,
        (
            *(12083.2, 3191.6, 14136.0, 1567.6, 8014.7, 7032.2, 6000.0),
            *(11039.4, 15222.3, 28244.4, 7744.0, 9861.5, 11045.0, 15656.0),
        ),
        strict=True,
    )
)


def main() -> None:
    """Read the arguments and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("table", choices=("cuts", "bounds", "memory"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--graphs", nargs="+", default=GRAPHS)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-rivals", action="store_true")
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    max_cut(random_graph(50, 200, seed=0), n_threads=1)
    tables: dict[str, Callable[[argparse.Namespace], None]] = {
        "cuts": print_cuts,
        "bounds": print_bounds,
        "memory": print_memory,
    }
    tables[arguments.table](arguments)


def load(arguments: argparse.Namespace) -> Iterator[tuple[str, CSRGraph]]:
    """Yield the graphs asked for, or generated ones where there is no data."""
    folder = arguments.data / "maxcut"
    if not folder.is_dir():
        print(f"{folder} is absent: generated graphs in place of the published ones\n")
        yield "random 800/19176", random_graph(800, 19176, seed=1)
        yield "random 5000/12500", random_graph(5000, 12500, seed=1)
        yield "sign torus 100x100", torus_grid(100, 100, seed=1, weights="signs")
        return
    for name in arguments.graphs:
        path = next(folder.glob(f"*/{name}.txt.gz"), None)
        if path is None:
            print(f"{name} is not in {folder}: skipped", file=sys.stderr)
            continue
        yield name, as_graph(path)


def best_known(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the published best cuts."""
    path = arguments.data / "maxcut" / "best_known.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["instance"]: float(row["best_known"])
            for row in csv.DictReader(file)
            if row["best_known"]
        }


# --------------------------------------------------------------------------------------------------
# Cuts
# --------------------------------------------------------------------------------------------------


def print_cuts(arguments: argparse.Namespace) -> None:
    """Cut after the same seconds: ours (bound included in the time) and simulated annealing."""
    known = best_known(arguments)
    seeds = arguments.seeds
    print(f"{arguments.seconds:g} s, one thread, seeds {seeds}: worst / median / best\n")
    print("| graph | n | m | best known | floor | max_cut | gap % | upper bound | s | SA | gap % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    gaps: list[tuple[float, float]] = []
    for name, graph in load(arguments):
        results = [
            max_cut(graph, time_limit=arguments.seconds, n_threads=1, seed=seed) for seed in seeds
        ]
        ours = [result.cut_value for result in results]
        rival = [] if arguments.no_rivals else anneal_rival(graph, arguments.seconds, seeds)
        best = known.get(name)
        gaps.append((gap(best, ours), gap(best, rival)))
        bound = max(result.upper_bound or np.inf for result in results)
        seconds = max(result.seconds["total"] for result in results)
        print(
            f"| {name} | {graph.n_vertices} | {graph.n_edges} | {number(best)} "
            f"| {number(FLOOR.get(name))} | {spread(ours)} | {gaps[-1][0]:.2f} | {bound:.10g} "
            f"| {seconds:.2f} | {spread(rival)} | {gaps[-1][1]:.2f} |",
            flush=True,
        )
    ours_mean, rival_mean = (statistics.fmean(column) for column in zip(*gaps, strict=True))
    print(f"\nmean gap of the medians: max_cut {ours_mean:.3f} %, SA {rival_mean:.3f} %")


def anneal_rival(graph: CSRGraph, seconds: float, seeds: list[int]) -> list[float]:
    """Cuts of dwave-samplers' simulated annealing in about the same seconds."""
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    tails, heads, weights = graph.edges()
    n = graph.n_vertices
    model = dimod.BinaryQuadraticModel.from_numpy_vectors(
        np.zeros(n), (tails, heads, weights), 0.0, dimod.SPIN
    )
    sampler = SimulatedAnnealingSampler()

    def solve(sweeps: int, seed: int) -> float:
        answer = sampler.sample(model, num_reads=1, num_sweeps=sweeps, seed=seed)
        # Columns come in the order of answer.variables.
        signs = np.empty(n)
        signs[np.asarray(list(answer.variables), dtype=np.int64)] = answer.record.sample[0]
        return float(weights[signs[tails] != signs[heads]].sum())

    # Sweeps that take a twentieth of the budget at least tell how many fill it.
    sweeps, taken = 16, 0.0
    while taken < 0.05 * seconds:
        sweeps *= 2
        begin = time.perf_counter()
        solve(sweeps, 0)
        taken = time.perf_counter() - begin
    sweeps = max(1, int(sweeps * seconds / taken))
    return [solve(sweeps, seed) for seed in seeds]


def gap(best: float | None, cuts: list[float]) -> float:
    """Gap of the median cut to the best known, in percent."""
    if best is None or not cuts:
        return float("nan")
    return 100.0 * (best - statistics.median(cuts)) / best


def spread(cuts: list[float]) -> str:
    """Worst, median and best."""
    if not cuts:
        return "-"
    return " / ".join(f"{f(cuts):.10g}" for f in (min, statistics.median, max))


def number(value: float | None) -> str:
    """Return a figure, or a dash."""
    return "-" if value is None else f"{value:.10g}"


# --------------------------------------------------------------------------------------------------
# Bounds
# --------------------------------------------------------------------------------------------------


def print_bounds(arguments: argparse.Namespace) -> None:
    """Seconds for relaxation and certified bound, beside eigsh on the same dual matrix."""
    print("one thread; best of 3 runs each; excess is over the optimum of the relaxation\n")
    print("| graph | SDP optimum | value found | upper bound | excess | SDP + bound s | eigsh s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, graph in load(arguments):
        runs = [max_cut(graph, sweeps=2, n_threads=1, seed=seed) for seed in range(3)]
        seconds = min(relaxation_seconds(run) for run in runs)
        bound = max(run.upper_bound or np.inf for run in runs)
        value = min(run.sdp_value or -np.inf for run in runs)
        optimum = SDP_OPTIMUM.get(name)
        excess = "-" if optimum is None else f"{bound / optimum - 1.0:.1e}"
        rival = float("nan") if arguments.no_rivals else min(eigsh_seconds(graph, 3))
        print(
            f"| {name} | {number(optimum)} | {value:.2f} | {bound:.10g} | {excess} "
            f"| {seconds:.3f} | {rival:.3f} |",
            flush=True,
        )


def relaxation_seconds(result: CutResult) -> float:
    """Seconds for the vectors, the dual variables and the certificate."""
    return result.seconds.get("sdp", 0.0) + result.seconds.get("bound", 0.0)


def eigsh_seconds(graph: CSRGraph, repeats: int) -> list[float]:
    """Seconds of scipy's eigsh for the smallest eigenvalue of Diag(y) + A."""
    scaled = ScaledGraph.of(graph)
    rank = default_rank(graph.n_vertices)
    relaxation = Relaxation(scaled, rank, np.random.default_rng(0))
    relaxation.advance(200, Budget(None))
    _, dual = relaxation.dual()
    n = graph.n_vertices
    pattern = (scaled.weights, scaled.indices, scaled.indptr)
    matrix = (
        scipy.sparse.csr_array(pattern, shape=(n, n)) + scipy.sparse.diags_array(dual)
    ).tocsr()
    seconds = []
    for seed in range(repeats):
        start = np.random.default_rng(seed).standard_normal(n)
        begin = time.perf_counter()
        eigsh(matrix, k=1, which="SA", tol=1e-4, ncv=60, v0=start, return_eigenvectors=False)
        seconds.append(time.perf_counter() - begin)
    return seconds


# --------------------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------------------

_MEMORY_PROGRAM = """
import resource, sys
from derand_fast import max_cut
result = max_cut(sys.argv[1], time_limit=float(sys.argv[2]), n_threads=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result.cut_value)
"""


def print_memory(arguments: argparse.Namespace) -> None:
    """Peak memory of a fresh process that solves one graph; Python and libraries included."""
    print("| graph | peak MB of the whole process |")
    print("|---|---:|")
    folder = arguments.data / "maxcut"
    for name in arguments.graphs:
        path = next(folder.glob(f"*/{name}.txt.gz"), None)
        if path is None:
            print(f"{name} is not in {folder}: skipped", file=sys.stderr)
            continue
        command = [sys.executable, "-P", "-c", _MEMORY_PROGRAM, str(path), str(arguments.seconds)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {float(answer.stdout.split()[0]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
