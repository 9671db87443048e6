"""Upper bounds: how near to the relaxation's value, and how far odd cycles take them below it.

    python bench/bounds_table.py semidefinite --tolerance 1e-4
    python bench/bounds_table.py tight --seconds 60

prints Markdown tables. ``--data`` names a folder with maxcut/*/G1.txt.gz, ... and
maxcut/best_known.csv; where it is absent, generated graphs take their place. The first table
alternates sweeps and certificates until the certified bound is within the tolerance of the
relaxation's value, beside the same with plain mixing sweeps (over-relaxation 1). Times are those of
the thread's processor.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
from machine import describe

from derand_fast import CSRGraph, as_graph
from derand_fast.bounds import ChebyshevCertificate, DualMatrix
from derand_fast.budget import Budget
from derand_fast.generators import planar_union, random_graph, torus_grid
from derand_fast.kernels.row_ascent import PANEL, mixing_rows
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank
from derand_fast.tight_bound import tight_bound
from derand_fast.vertex_order import reorder, sweep_order

DEFAULT_DATA = Path("../shared/data")
GRAPHS = {
    "semidefinite": ["G1", "G14", "G22", "G32", "G55", "G63", "G70", "G81", "soc-Epinions1"],
    "tight": ["G11", "G12", "G32", "G34", "G48", "G14", "G15", "G1", "toruspm3-8-50", "torusg3-8"],
}
DELTA = 1e-9
STEP = 20
MAX_SWEEPS = 6400


def main() -> None:
    """Read the arguments and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("table", choices=tuple(GRAPHS))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--graphs", nargs="+")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    graphs = load(arguments)
    if arguments.table == "semidefinite":
        print_semidefinite(graphs, arguments.tolerance)
    else:
        print_tight(graphs, best_known(arguments.data), arguments.seconds)


def load(arguments: argparse.Namespace) -> dict[str, CSRGraph]:
    """Return the graphs asked for, and generated ones."""
    graphs = {}
    for name in arguments.graphs or GRAPHS[arguments.table]:
        path = next((arguments.data / "maxcut").glob(f"*/{name}.txt.gz"), None)
        if path is not None:
            graphs[name] = as_graph(path)
    if arguments.table == "semidefinite":
        graphs["random 20000/100000"] = random_graph(20_000, 100_000, seed=1)
    if not graphs:
        graphs["sign torus 30x30"] = torus_grid(30, 30, seed=1, weights="signs")
        graphs["planar union 500"] = planar_union(500, seed=1)
    return graphs


def best_known(data: Path) -> dict[str, str]:
    """Return the published best cuts."""
    path = data / "maxcut" / "best_known.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["instance"]: row["best_known"] for row in csv.DictReader(file)}


# --------------------------------------------------------------------------------------------------
# The relaxation
# --------------------------------------------------------------------------------------------------


def print_semidefinite(graphs: dict[str, CSRGraph], tolerance: float) -> None:
    """Print value, bound and seconds, with over-relaxation and without."""
    print(
        "graph | method | sweeps | seconds | value | bound | relative | certificate steps | seconds"
    )
    print("---|---|---:|---:|---:|---:|---:|---:|---:")
    for name, csr_graph in graphs.items():
        graph = ScaledGraph.of(reorder(csr_graph, sweep_order(csr_graph)))
        for method in ("over-relaxed", "mixing"):
            print(f"{name} | {method} | {certified(graph, method, tolerance)}", flush=True)


def certified(graph: ScaledGraph, method: str, tolerance: float) -> str:
    """Return the cells of one line."""
    rank = default_rank(graph.n_vertices)
    relaxation = Relaxation(graph, rank, np.random.default_rng(0))
    seconds, certificate_seconds, sweeps, target = 0.0, 0.0, 0, 50
    value = bound = math.inf
    steps = 0
    while sweeps < MAX_SWEEPS:
        begin = time.thread_time()
        if method == "mixing":
            plain_sweeps(graph, relaxation, target - sweeps)
        else:
            relaxation.advance(target - sweeps, Budget(None))
        value, dual = relaxation.dual()
        middle = time.thread_time()
        bound, steps = certify(graph, dual, value, tolerance)
        certificate_seconds += time.thread_time() - middle
        seconds += middle - begin
        sweeps, target = target, 2 * target
        if bound <= value + tolerance * abs(value):
            break
    return (
        f"{sweeps} | {seconds:.2f} | {value:.2f} | {bound:.2f} | {bound / value - 1.0:.1e} | "
        f"{steps} | {certificate_seconds:.2f}"
    )


def plain_sweeps(graph: ScaledGraph, relaxation: Relaxation, count: int) -> None:
    """Sweep without over-relaxation, over the same rows by the same kernel."""
    rows = relaxation._padded
    decreases = np.empty(graph.n_vertices)
    arrays = graph.indptr, graph.indices, graph.weights32, rows.reshape(-1), rows.shape[1] // PANEL
    for _ in range(count):
        mixing_rows(*arrays, 1.0, 0, graph.n_vertices, decreases)


def certify(
    graph: ScaledGraph, dual: np.ndarray, value: float, tolerance: float
) -> tuple[float, int]:
    """Return the certified bound, and how many steps it took or when it was given up."""
    matrix = DualMatrix.of(graph, dual)
    certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(1), DELTA)
    bound = math.inf
    while not certificate.exhausted and bound > value + tolerance * abs(value):
        certificate.advance(STEP, Budget(None))
        shift = certificate.shift()
        if certificate.growth(2 * STEP) > 0.8 * shift:
            break
        bound = matrix.upper_bound(graph, shift)
    return bound, certificate.steps


# --------------------------------------------------------------------------------------------------
# Odd cycles
# --------------------------------------------------------------------------------------------------


def print_tight(graphs: dict[str, CSRGraph], best: dict[str, str], seconds: float) -> None:
    """Print the gap to the best known cut before and after."""
    print("graph | best known | relaxation | gap | tight | gap | seconds | how")
    print("---|---:|---:|---:|---:|---:|---:|---")
    for name, csr_graph in graphs.items():
        plain = certified_value(csr_graph)
        begin = time.thread_time()
        known = float(best.get(name) or "nan")
        result = tight_bound(
            csr_graph,
            target=known if known == known else -math.inf,
            budget=Budget(None),
            until=seconds,
        )
        print(
            f"{name} | {known:g} | {plain:.2f} | {gap(plain, known)} | {result.upper_bound:.2f} | "
            f"{gap(result.upper_bound, known)} | {time.thread_time() - begin:.1f} | "
            f"{result.certificate}",
            flush=True,
        )


def certified_value(csr_graph: CSRGraph) -> float:
    """Return the relaxation's bound."""
    graph = ScaledGraph.of(csr_graph)
    relaxation = Relaxation(graph, default_rank(graph.n_vertices), np.random.default_rng(0))
    relaxation.advance(300, Budget(None))
    value, dual = relaxation.dual()
    return certify(graph, dual, value, 1e-4)[0]


def gap(bound: float, known: float) -> str:
    """Return the gap to the best known cut in per cent."""
    return f"{100.0 * (bound / known - 1.0):.2f} %"


if __name__ == "__main__":
    main()
