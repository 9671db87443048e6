"""Cuts after runs of several lengths: what time-to-target curves and performance profiles need.

    python bench/target_table.py --seconds 0.1 0.3 1 --seeds 3 --csv targets.csv

Every solver gets every length of run for every graph and seed; a line of the file has the seconds
that the run really took and its cut. Ours: `max_cut` without a bound, and with it. Rival: simulated
annealing of dwave-samplers with its own schedule of temperatures, in one read and in four (a
quarter of the sweeps each), its sweeps calibrated by runs that do not count. All on one thread; the
model of the rival is built before the clock starts. Without ``--data`` graphs are generated.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# One thread everywhere, decided before the libraries load.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import describe
from tables import write_csv

from derand_fast import CSRGraph, as_graph, max_cut
from derand_fast.generators import planar_union, random_graph, torus_grid

PUBLISHED = ("G1", "G22", "G32", "G14", "G35", "G43", "G48", "G55", "G60", "G63", "G67", "G70")
Solve = Callable[[float, int], float]


def generated() -> dict[str, CSRGraph]:
    """Return graphs of several kinds."""
    return {
        "random 800/19176": random_graph(800, 19176, seed=1),
        "random 5000/12500": random_graph(5000, 12500, seed=1),
        "sign torus 50x50": torus_grid(50, 50, seed=1, weights="signs"),
        "planar union 800": planar_union(800, seed=1),
        "random 2000/20000": random_graph(2000, 20000, seed=1),
        "sign torus 100x100": torus_grid(100, 100, seed=1, weights="signs"),
    }


def published(data: Path) -> dict[str, CSRGraph]:
    """Return the graphs that are in the folder."""
    paths = {name: next(data.glob(f"maxcut/*/{name}.txt.gz"), None) for name in PUBLISHED}
    return {name: as_graph(path) for name, path in paths.items() if path is not None}


def best_known(data: Path) -> dict[str, str]:
    """Return the published best cuts."""
    path = data / "maxcut" / "best_known.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["instance"]: row["best_known"] for row in csv.DictReader(file)}


def ours(graph: CSRGraph, *, bound: bool) -> Solve:
    """Return our solver."""

    def solve(seconds: float, seed: int) -> float:
        result = max_cut(graph, time_limit=seconds, n_threads=1, seed=seed, bound=bound)
        return result.cut_value

    return solve


def annealing(graph: CSRGraph, reads: int) -> Solve:
    """Return simulated annealing that takes about the seconds it is given."""
    import dimod
    from dwave.samplers import SimulatedAnnealingSampler

    tails, heads, weights = graph.edges()
    linear = np.zeros(graph.n_vertices)
    edges = tails, heads, weights
    model = dimod.BinaryQuadraticModel.from_numpy_vectors(linear, edges, 0.0, dimod.SPIN)
    sampler = SimulatedAnnealingSampler()

    def anneal(sweeps: int, seed: int) -> float:
        answer = sampler.sample(model, num_reads=reads, num_sweeps=sweeps, seed=seed)
        # The energy is the weight of what is not cut less that of what is.
        return float(0.5 * (weights.sum() - answer.record.energy.min()))

    def seconds_of(sweeps: int) -> float:
        begin = time.perf_counter()
        anneal(sweeps, 0)
        return time.perf_counter() - begin

    anneal(1, 0)
    overhead = min(seconds_of(1) for _ in range(3))
    sweeps, taken = 16, overhead
    while taken < overhead + 0.05:
        sweeps *= 2
        taken = seconds_of(sweeps)
    each = (taken - overhead) / sweeps

    def solve(seconds: float, seed: int) -> float:
        return anneal(max(1, int((seconds - overhead) / each)), seed)

    return solve


def main() -> None:
    """Read the arguments, run everything, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("absent"))
    parser.add_argument("--graphs", type=int, help="only the first graphs")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reads", type=int, nargs="+", default=[1, 4], help="of the rival")
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    max_cut(random_graph(50, 200, seed=0), n_threads=1)
    known = best_known(arguments.data)
    graphs = published(arguments.data) or generated()
    runs = []
    for name in list(graphs)[: arguments.graphs]:
        solvers = {
            "ours": ours(graphs[name], bound=False),
            "ours, bound included": ours(graphs[name], bound=True),
        }
        if not arguments.no_rival:
            for reads in arguments.reads:
                title = f"simulated annealing, {reads} read{'s' if reads > 1 else ''}"
                solvers[title] = annealing(graphs[name], reads)
        for seconds in arguments.seconds:
            for seed in range(arguments.seeds):
                for solver, solve in solvers.items():
                    begin = time.perf_counter()
                    cut = solve(seconds, seed)
                    runs.append(
                        {
                            "graph": name,
                            "solver": solver,
                            "seed": seed,
                            "limit": seconds,
                            "seconds": time.perf_counter() - begin,
                            "cut": cut,
                            "best_known": known.get(name, ""),
                        }
                    )
    print_medians(runs, arguments.seeds)
    if arguments.csv is not None:
        write_csv(arguments.csv, runs)


def print_medians(runs: list[dict], seeds: int) -> None:
    """Print the median cut for each graph and length, a column for each solver."""
    solvers = list(dict.fromkeys(run["solver"] for run in runs))
    print(f"median cut of {seeds} seeds\n")
    print(f"| graph | s | {' | '.join(solvers)} | best known |")
    print(f"|---|---:|{'---:|' * (len(solvers) + 1)}")
    for graph, limit in dict.fromkeys((run["graph"], run["limit"]) for run in runs):
        same = [run for run in runs if (run["graph"], run["limit"]) == (graph, limit)]
        cells = [
            f"{statistics.median(run['cut'] for run in same if run['solver'] == solver):.10g}"
            for solver in solvers
        ]
        print(f"| {graph} | {limit:g} | {' | '.join(cells)} | {same[0]['best_known'] or '-'} |")


if __name__ == "__main__":
    main()
