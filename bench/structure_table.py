"""Structure discovery: the collapse of a student's weights, certified, over many settings.

    python bench/structure_table.py paper    # the paper's experiment, one row for each lambda
    python bench/structure_table.py grid     # depth, dimension and number of indices, ten seeds
    python bench/structure_table.py large    # d = 100, h = 512

Each prints a Markdown table. Times are of second calls: kernels are compiled. ``paper`` gives plain
stochastic gradient descent (fresh Gaussian samples, weight decay) the same seconds.
"""

import argparse

import numpy as np
from machine import describe

from derand_fast import discover_structure
from derand_fast.objectives import NetworkRisk

LAMBDAS = (1e-7, 1e-5, 1e-4, 1e-3, 1e-1)


def warm_up(hidden=4, **settings):
    """Compile what a setting needs."""
    discover_structure(hidden=hidden, lam=1e-2, **settings)


def bound_of(result):
    """Return the smaller collapse bound as text."""
    certificate = result.certificate
    bounds = certificate.collapse_bound, certificate.collapse_bound_apriori
    bounds = [bound for bound in bounds if bound is not None]
    return f"{min(bounds):.1e}" if bounds else "-"


def paper(arguments):
    """Print d = 2, h = 1000, smooth ReLU, tanh teacher; biases trained and frozen."""
    # As many units as make the series choose the form that serves 1,000.
    warm_up(400, teacher="tanh", d=2)
    warm_up(400, teacher="tanh", d=2, train=("W1",), time_limit=0.5)
    warm_up(teacher="tanh", d=2, method="sgd", steps=2)
    print(
        "| lambda | biases | W_perp / start | bound | certified | lambda_min | risk | s | steps |"
        " least of H_bb + 2 lambda I | SGD in the same s: W_perp / start | weight decay alone |"
    )
    print("|---:|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for lam in arguments.lam:
        for train in (("W1", "b1"), ("W1",)):
            settings = {"teacher": "tanh", "d": 2, "hidden": 1000, "lam": lam, "train": train}
            result = discover_structure(**settings, time_limit=arguments.time_limit)
            seconds = result.seconds
            sgd = discover_structure(
                **settings, method="sgd", steps=10**7, learning_rate=arguments.learning_rate,
                time_limit=seconds,
            )  # fmt: skip
            decay = (1.0 - 2.0 * arguments.learning_rate * lam) ** sgd.history[-1].iteration
            certificate = result.certificate
            print(
                f"| {lam:g} | {'trained' if 'b1' in train else 'frozen'} | {result.collapse:.1e} "
                f"| {bound_of(result)} | {'yes' if certificate.certified else 'no'} "
                f"| {certificate.lambda_min:.1e} | {certificate.fun:.3e} | {seconds:.2f} "
                f"| {certificate.nit} | {least_curvature(result):.1e} | {sgd.collapse:.2f} "
                f"| {decay:.2f} |",
                flush=True,
            )
    print(FROZEN)


FROZEN = """
Frozen biases: the gradient is (H_bb + 2 lambda I) W_perp as before, but H_bb is no longer a part of
the Hessian of what is trained, so that second-order stationarity does not make it almost positive
semidefinite. A stationary point with W_perp != 0 needs only that H_bb has eigenvalues -2 lambda,
with the columns of W_perp for eigenvectors: these weights stand in for the biases. Where the least
eigenvalue of H_bb + 2 lambda I is positive, W_perp has to vanish with the gradient."""


def least_curvature(result):
    """Return the smallest eigenvalue of H_bb + 2 lam I at a result."""
    risk = NetworkRisk(result.network, result.teacher, lam=result.lam)
    return np.linalg.eigvalsh(risk.bias_hessian(risk.start))[0] + 2.0 * result.lam


def grid(arguments):
    """Print collapse over depth, dimension, number of indices and seeds."""
    print(f"teacher sum_of_tanh, lambda 1e-3, rho 1e-6, {arguments.seeds} seeds, "
          f"at most {arguments.time_limit:g} s a run\n")  # fmt: skip
    print(
        "| depth | d | k | h | certified | worst W_perp / start | worst bound | worst lambda_min "
        "| worst angle | median s | max s | where not certified |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    for depth in arguments.depths:
        for d in arguments.dimensions:
            for k in arguments.indices:
                if k <= d:
                    print_cell(arguments, depth, d, k)


def print_cell(arguments, depth, d, k):
    """Print the line of one cell of the grid."""
    hidden = arguments.hidden if depth == 2 else arguments.hidden_deep
    settings = {"teacher": "sum_of_tanh", "d": d, "n_indices": k, "depth": depth}
    warm_up(**settings)
    results = [
        discover_structure(
            **settings, hidden=hidden, seed=seed, lam=1e-3, time_limit=arguments.time_limit
        )
        for seed in range(arguments.seeds)
    ]
    certificates = [result.certificate for result in results]
    seconds = [result.seconds for result in results]
    failures = [
        f"seed {seed}: {c.message}, lambda_min {c.lambda_min:.1e}, gradient {c.grad_norm:.1e}"
        for seed, c in enumerate(certificates)
        if not c.certified
    ]
    # None where k = d: no W_perp.
    bounds = [c.collapse_bound for c in certificates if c.collapse_bound is not None]
    print(
        f"| {depth} | {d} | {k} | {hidden} | {len(results) - len(failures)} of {len(results)} "
        f"| {max(result.collapse for result in results):.1e} "
        f"| {f'{max(bounds):.1e}' if bounds else '-'} "
        f"| {min(c.lambda_min for c in certificates):.1e} "
        f"| {max(result.angle for result in results):.1e} "
        f"| {np.median(seconds):.2f} | {max(seconds):.2f} | {'; '.join(failures)} |",
        flush=True,
    )


def large(arguments):
    """Print two layers, d = 100, h = 512."""
    warm_up(teacher="tanh", d=100)
    for seed in range(arguments.seeds):
        result = discover_structure("tanh", d=100, hidden=512, lam=1e-4, seed=seed)
        print(f"{result}\n", flush=True)


def main():
    """Read the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("table", choices=("paper", "grid", "large"))
    parser.add_argument("--lam", type=float, nargs="+", default=LAMBDAS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--depths", type=int, nargs="+", default=(2, 3, 4))
    parser.add_argument("--dimensions", type=int, nargs="+", default=(2, 10, 100))
    parser.add_argument("--indices", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--hidden-deep", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--time-limit", type=float, default=60.0)
    arguments = parser.parse_args()
    print(describe(), end="\n\n")
    {"paper": paper, "grid": grid, "large": large}[arguments.table](arguments)


if __name__ == "__main__":
    main()
