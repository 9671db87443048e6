"""Work of the three descents on the smoothed maximum cut, from a strict saddle at b = 0.

    python bench/descents_table.py --vertices 2000 --edges 20000

prints a Markdown table. A gradient-equivalent is one gradient or one Hessian-vector product. All
methods share the start, the targets and one thread.
"""

import argparse

import numpy as np
from machine import describe

from derand_fast.budget import Budget
from derand_fast.generators import random_graph
from derand_fast.objectives import MaxCutObjective, pack
from derand_fast.optimize import hessian_descent, newton_cg, pgd
from derand_fast.relaxation import Relaxation, ScaledGraph


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--vertices", type=int, default=2000)
    parser.add_argument("--edges", type=int, default=20_000)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--tau", type=float, default=0.1)
    parser.add_argument("--lam", type=float, default=0.03)
    parser.add_argument("--rho", type=float, nargs="+", default=[1e-1, 1e-2, 1e-3])
    parser.add_argument(
        "--start",
        choices=("relaxation", "random"),
        default="relaxation",
        help="unit rows that the descent starts from",
    )
    parser.add_argument("--time-limit", type=float, default=120.0)
    arguments = parser.parse_args()
    graph = random_graph(arguments.vertices, arguments.edges, seed=1)
    relaxation = Relaxation(ScaledGraph.of(graph), arguments.rank, np.random.default_rng(0))
    if arguments.start == "relaxation":
        relaxation.advance(400, Budget(None))
    objective = MaxCutObjective(
        graph, arguments.rank, tau=arguments.tau, lam=arguments.lam, n_threads=1
    )
    start = pack(objective, W=relaxation.rows.astype(np.float64), b=np.zeros(arguments.vertices))
    objective.hvp(start, objective.value_and_grad(start)[1])
    print(describe(), end="\n\n")
    print(
        f"n = {arguments.vertices}, m = {arguments.edges}, rank {arguments.rank}, "
        f"{arguments.start} rows, tau {arguments.tau:g}, lam {arguments.lam:g}, "
        "curvature target lam; one thread\n"
    )
    print("| rho | method | gradient-equivalents | s | certified | escapes | W | bound | cut |")
    print("|---:|---|---:|---:|---|---:|---:|---:|---:|")
    for rho in arguments.rho:
        for method in (newton_cg, hessian_descent, pgd):
            result = method(
                objective,
                start,
                rho=rho,
                curvature_tol=arguments.lam,
                max_iter=10**6,
                time_limit=arguments.time_limit,
            )
            bound = "-" if result.collapse_bound is None else f"{result.collapse_bound:.3g}"
            print(
                f"| {rho:g} | {method.__name__} | {result.n_gradient_equivalents} "
                f"| {result.seconds:.2f} | {'yes' if result.certified else result.message} "
                f"| {result.n_escapes} | {result.W_norm:.3g} | {bound} "
                f"| {objective.expected_cut(result.x):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
