"""Cuts, bounds and memory of max_cut on published graphs, beside rivals in the same run.

    python bench/maxcut_table.py cuts --set 14 --seconds 1 5 20 --csv cuts.csv
    python bench/maxcut_table.py cuts --set random torus --seconds 1 --threads 2
    python bench/maxcut_table.py cuts --set gset --seconds 20 --seeds 0 --threads 2 --no-rivals
    python bench/maxcut_table.py bounds
    python bench/maxcut_table.py memory

prints Markdown tables. ``--data`` names a folder with maxcut/gset/G1.txt.gz, ... (rudy files) and
maxcut/best_known.csv; where it is absent, generated graphs take their place and say so. Everything
is compiled beforehand, and graphs are read before the clock starts. Rivals run on one thread.

Rivals: simulated annealing of dwave-samplers, with as many sweeps as fill the same seconds
(calibrated by a run that is not counted), in one read and, from four seconds on, in four reads; the
one with the better median counts. For the bounds, scipy's eigsh (one smallest eigenvalue, tol 1e-4,
of the matrix's size, ncv 60; an estimate, not certified) on the dual matrix of the relaxation that
our bound comes from.
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
from typing import Any

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
SETS = {
    "14": GRAPHS,
    "random": ["G6", "G7", "G8", "G10", "G27", "G30", "G31", "G39", "G42", "G61"],
    "torus": ["G11", "G34", "G57", "torusg3-8", "toruspm3-8-50", "toruspm3-15-50"],
    "large": ["soc-Epinions1"],
}
# Several short reads are tried where each gets at least a second.
SHORT_READS = 4
CALIBRATION_SECONDS = 2.0
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
    parser.add_argument("--set", nargs="+", choices=(*SETS, "gset", "all"), default=["14"])
    parser.add_argument("--graphs", nargs="+", help="in place of a set")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1, help="of max_cut")
    parser.add_argument("--no-bound", action="store_true", help="all time goes into the cut")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--csv", type=Path, help="write every run of the table of cuts")
    arguments = parser.parse_args()
    if arguments.graphs is None:
        sets = {**SETS, "gset": gset(arguments.data)}
        names = list(SETS) if "all" in arguments.set else arguments.set
        arguments.graphs = [graph for name in names for graph in sets[name]]
    print(describe(), end="\n\n")
    max_cut(random_graph(50, 200, seed=0), n_threads=1)
    tables: dict[str, Callable[[argparse.Namespace], None]] = {
        "cuts": print_cuts,
        "bounds": print_bounds,
        "memory": print_memory,
    }
    tables[arguments.table](arguments)


def gset(data: Path) -> list[str]:
    """Return the names of all graphs in the folder of the G-set, by number."""
    names = [path.name.removesuffix(".txt.gz") for path in data.glob("maxcut/gset/G*.txt.gz")]
    return sorted(names, key=lambda name: int(name[1:]))


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
    """Cut after the same seconds: ours and simulated annealing."""
    known = best_known(arguments)
    graphs = list(load(arguments))
    runs: list[dict[str, Any]] = []
    for seconds in arguments.seconds:
        print_cuts_after(seconds, graphs, known, arguments, runs)
    if arguments.csv is not None:
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, runs[0])
            writer.writeheader()
            writer.writerows(runs)


def print_cuts_after(
    seconds: float,
    graphs: list[tuple[str, CSRGraph]],
    known: dict[str, float],
    arguments: argparse.Namespace,
    runs: list[dict[str, Any]],
) -> None:
    """Print the table for one time limit and add its runs to the list."""
    seeds = arguments.seeds
    with_bound = "without a bound" if arguments.no_bound else "the bound included"
    print(
        f"{seconds:g} s, max_cut on {arguments.threads} thread(s), {with_bound}, seeds {seeds}: "
        "worst / median / best\n"
    )
    print("| graph | n | m | best known | max_cut | gap % | upper bound | s | SA | gap % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    gaps: list[tuple[float, float]] = []
    behind: list[str] = []
    for name, graph in graphs:
        results = [
            max_cut(
                graph,
                time_limit=seconds,
                n_threads=arguments.threads,
                seed=seed,
                bound=not arguments.no_bound,
            )
            for seed in seeds
        ]
        ours = [result.cut_value for result in results]
        rival = [] if arguments.no_rivals else anneal_rival(graph, seconds, seeds)
        for solver, cuts in (("max_cut", ours), ("SA", rival)):
            for seed, cut in zip(seeds, cuts, strict=False):
                runs.append(
                    {"graph": name, "seconds": seconds, "solver": solver, "seed": seed, "cut": cut}
                )
        best = known.get(name)
        gaps.append((gap(best, ours), gap(best, rival)))
        if rival and statistics.median(ours) < statistics.median(rival):
            behind.append(name)
        bounds = [result.upper_bound for result in results if result.upper_bound is not None]
        print(
            f"| {name} | {graph.n_vertices} | {graph.n_edges} | {number(best)} "
            f"| {spread(ours)} | {gaps[-1][0]:.3f} | {number(max(bounds, default=None))} "
            f"| {max(result.seconds['total'] for result in results):.2f} "
            f"| {spread(rival)} | {gaps[-1][1]:.3f} |",
            flush=True,
        )
    print(f"\nmean gap of the medians: max_cut {mean(gaps, 0):.3f} %, SA {mean(gaps, 1):.3f} %")
    known_gaps = [row[0] for row in gaps if not np.isnan(row[0])]
    if known_gaps:
        reached = sum(gap <= 0.0 for gap in known_gaps)
        print(
            f"best known cut or better on {reached} of {len(known_gaps)} graphs; largest gap "
            f"{max(known_gaps):.3f} %"
        )
    print(f"behind SA on: {', '.join(behind) or '-'}\n", flush=True)


def mean(gaps: list[tuple[float, float]], column: int) -> float:
    """Mean of the gaps that are known."""
    known = [row[column] for row in gaps if not np.isnan(row[column])]
    return statistics.fmean(known) if known else float("nan")


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

    def solve(sweeps: int, reads: int, seed: int) -> float:
        answer = sampler.sample(model, num_reads=reads, num_sweeps=sweeps, seed=seed)
        # Columns come in the order of answer.variables.
        signs = np.empty((reads, n))
        signs[:, np.asarray(list(answer.variables), dtype=np.int64)] = answer.record.sample
        return max(float(weights[row[tails] != row[heads]].sum()) for row in signs)

    # Sweeps get quicker as the samples cool, and setting up takes a part of a short run: so the
    # number is corrected until its run fills the time.
    enough = min(seconds, CALIBRATION_SECONDS)
    sweeps, taken = 64, 0.0
    while taken < 0.95 * enough:
        sweeps = max(sweeps + 1, int(sweeps * min(4.0, enough / max(taken, 1e-3))))
        begin = time.perf_counter()
        solve(sweeps, 1, 0)
        taken = time.perf_counter() - begin
    sweeps = max(1, int(sweeps * seconds / taken))
    choices = [1, SHORT_READS] if seconds >= SHORT_READS else [1]
    outcomes = [
        [solve(max(1, sweeps // reads), reads, seed) for seed in seeds] for reads in choices
    ]
    return max(outcomes, key=statistics.median)


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
    graphs = list(load(arguments))
    print("one thread; best of 3 runs each; excess is over the optimum of the relaxation\n")
    print(
        "| graph | SDP optimum | value found | upper bound | excess | SDP + bound s "
        "| bound alone s | eigsh s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, graph in graphs:
        runs = [max_cut(graph, sweeps=2, n_threads=1, seed=seed) for seed in range(3)]
        seconds = min(relaxation_seconds(run) for run in runs)
        bound_seconds = min(run.seconds.get("bound", 0.0) for run in runs)
        bound = max(run.upper_bound or np.inf for run in runs)
        value = min(run.sdp_value or -np.inf for run in runs)
        optimum = SDP_OPTIMUM.get(name)
        excess = "-" if optimum is None else f"{bound / optimum - 1.0:.1e}"
        rival = float("nan") if arguments.no_rivals else min(eigsh_seconds(graph, 3))
        print(
            f"| {name} | {number(optimum)} | {value:.2f} | {bound:.10g} | {excess} "
            f"| {seconds:.3f} | {bound_seconds:.4f} | {rival:.4f} |",
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
    # ARPACK holds the residual against the eigenvalue itself, which is about 0 here and would never
    # be reached; shifted, against the size of the matrix.
    matrix -= abs(dual).max() * scipy.sparse.eye_array(n, format="csr")
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
        command = [
            sys.executable,
            "-P",
            "-c",
            _MEMORY_PROGRAM,
            str(path),
            str(arguments.seconds[0]),
        ]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {name} | {float(answer.stdout.split()[0]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
