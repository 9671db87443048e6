"""Who leaves a strict saddle, started exactly on it: our three methods beside scipy's.

    python bench/saddles_table.py --seeds 20
    python bench/saddles_table.py --seeds 3 --largest 100 --problems planar octopus

prints one Markdown table per problem. A run escapes when `certify` certifies the point where it
stopped: gradient norm at most rho, lambda_min at least -sqrt(rho), failure probability 1e-6. For
every method the table says how often it reported success, how often its point is certified,
lambda_min there (a Ritz value; the worst of all runs), the work in gradient equivalents (values or
gradients, plus Hessian products) and seconds, medians over the runs. scipy's methods know no seed:
one run each, with exact gradients and Hessian products (trust-exact: dense Hessians, small problems
only). Starts: the saddle, exactly; for maxcut, unit rows of W and b = 0, from where the gradient in
b stays 0.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from machine import describe
from saddles import (
    DeadNetwork,
    MatrixFactorization,
    Octopus,
    PhaseRetrieval,
    PlanarSaddle,
    SmoothedWells,
)

from derand_fast.generators import random_graph
from derand_fast.objectives import MaxCutObjective, pack
from derand_fast.optimize import certify, hessian_descent, newton_cg, pgd

OURS = (pgd, hessian_descent, newton_cg)
SCIPY = (
    *("L-BFGS-B", "BFGS", "CG", "Newton-CG"),
    *("trust-ncg", "trust-krylov", "trust-exact", "trust-constr"),
)
# Dense matrices beyond this would take the table's time for themselves.
DENSE_LIMIT = 200


class Start(NamedTuple):
    """A problem and the point to start from."""

    objective: Any
    x0: np.ndarray


class Outcome(NamedTuple):
    """One run, checked by certify."""

    said_success: bool
    certified: bool
    fun: float
    lambda_min: float
    work: int
    seconds: float


def at_saddle(problem: Any) -> Start:
    return Start(problem, problem.saddle)


def cut_start(n: int) -> Start:
    """Smoothed maximum cut: unit rows, no bias."""
    objective = MaxCutObjective(random_graph(n, 10 * n, seed=1), 8, tau=1.0, lam=0.5, n_threads=1)
    W = np.random.default_rng(0).standard_normal((n, 8))
    return Start(objective, pack(objective, W=W / np.linalg.norm(W, axis=1)[:, None]))


def problems(largest: int) -> dict[str, Callable[[], Start]]:
    """Return every problem by name; sizes up to `largest`."""
    table: dict[str, Callable[[], Start]] = {
        "planar": lambda: at_saddle(PlanarSaddle()),
        "octopus": lambda: at_saddle(Octopus(10)),
        "phase": lambda: at_saddle(PhaseRetrieval()),
        "network": lambda: at_saddle(DeadNetwork()),
        "wells": lambda: at_saddle(SmoothedWells()),
        "maxcut": lambda: cut_start(100),
    }
    for n in (20, 100, 500):
        if n <= largest:
            table[f"matrix-{n}"] = lambda n=n: at_saddle(MatrixFactorization(n))
    return table


def run_ours(method: Callable[..., Any], start: Start, rho: float, seed: int) -> Outcome:
    begin = time.perf_counter()
    result = method(start.objective, start.x0, rho=rho, seed=seed, time_limit=120.0)
    seconds = time.perf_counter() - begin
    return checked(start, rho, result, result.n_gradient_equivalents, seconds)


def run_scipy(method: str, start: Start, rho: float) -> Outcome:
    """Count what the objective is asked for, whatever scipy counts."""
    objective = start.objective
    calls = {"value_and_grad": 0, "hvp": 0}

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        calls["value_and_grad"] += 1
        return objective.value_and_grad(x)

    def product(x: np.ndarray, v: np.ndarray) -> np.ndarray:
        calls["hvp"] += 1
        return objective.hvp(x, v)

    def dense(x: np.ndarray) -> np.ndarray:
        return np.column_stack([product(x, e) for e in np.eye(x.size)])

    extra = {}
    if method == "trust-exact":
        extra["hess"] = dense
    elif method in ("Newton-CG", "trust-ncg", "trust-krylov", "trust-constr"):
        extra["hessp"] = product
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = minimize(fun, start.x0, jac=True, method=method, **extra)
    return checked(start, rho, result, sum(calls.values()), time.perf_counter() - begin)


def checked(start: Start, rho: float, result: Any, work: int, seconds: float) -> Outcome:
    # scipy stops at its own gradient tolerances; only the curvature is held against it.
    allowed = max(rho, 1.01 * float(np.linalg.norm(start.objective.value_and_grad(result.x)[1])))
    found = certify(
        start.objective, result.x, rho=allowed, curvature_tol=rho**0.5, delta=1e-6, seed=12345
    )
    return Outcome(
        bool(result.success),
        found.certified,
        float(result.fun),
        found.lambda_min,
        work,
        seconds,
    )


def row(name: str, outcomes: list[Outcome]) -> str:
    runs = len(outcomes)
    said = sum(outcome.said_success for outcome in outcomes)
    certified = sum(outcome.certified for outcome in outcomes)
    work = statistics.median(outcome.work for outcome in outcomes)
    seconds = statistics.median(outcome.seconds for outcome in outcomes)
    worst = min(outcome.lambda_min for outcome in outcomes)
    fun = statistics.median(outcome.fun for outcome in outcomes)
    return (
        f"| {name} | {said}/{runs} | {certified}/{runs} | {fun:.6g} | {worst:.4g} | {work:,.0f} "
        f"| {seconds:.3g} |"
    )


def print_table(name: str, start: Start, rho: float, seeds: int) -> None:
    n = start.x0.size
    at_start = certify(start.objective, start.x0, rho=rho, seed=1)
    print(
        f"\n### {name}: {n} parameters, rho = {rho:g}; at the start ||grad|| = "
        f"{at_start.grad_norm:.3g}, lambda_min = {at_start.lambda_min:.4g}\n"
    )
    print("| method | said success | certified | f (median) | lambda_min (worst) | work | s |")
    print("|---|---|---|---|---|---|---|")
    for method in OURS:
        outcomes = [run_ours(method, start, rho, seed) for seed in range(seeds)]
        print(row(method.__name__, outcomes), flush=True)
    for rival in SCIPY:
        if rival == "trust-exact" and n > DENSE_LIMIT:
            continue
        print(row(f"scipy {rival}", [run_scipy(rival, start, rho)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rho", type=float, default=1e-4)
    parser.add_argument("--largest", type=int, default=500, help="largest n of matrix-n")
    parser.add_argument("--problems", nargs="*", help="names; default all")
    arguments = parser.parse_args()
    table = problems(arguments.largest)
    unknown = set(arguments.problems or ()) - set(table)
    if unknown:
        parser.error(f"unknown problems {sorted(unknown)}; choose from {', '.join(table)}")
    print(describe())
    for name in arguments.problems or table:
        print_table(name, table[name](), arguments.rho, arguments.seeds)


if __name__ == "__main__":
    main()
