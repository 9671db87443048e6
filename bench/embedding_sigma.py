"""Noise collapses: from a Gaussian Johnson-Lindenstrauss matrix to a fixed one, by descent.

    python bench/embedding_sigma.py [--csv FILE] [--plot FILE]

on 100 x 500 uniform numbers, rows of length 1, k = 30 (the setting of arXiv 2510.19382, Section 5):
Markdown tables of

1. the norms of the rows, by three methods that escape saddles, with exact expectations;
2. that of newton_cg step by step, also as CSV and as a picture;
3. all 4,950 pairs: one tolerance that is met from the start, then moments of rising order, each
   from the result of the one before.

"raw" is the largest | ||M u||^2 - 1 |, "scaled" the same at the best scale of M. Runs start from
M = 0, sigma^2 = 1/k, use one thread and share one random seed; compiling is not timed.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
from machine import describe

from derand_fast.objectives import block_view
from derand_fast.objectives.distortion import JLObjective
from derand_fast.optimize import hessian_descent, newton_cg, pgd

N, D, K = 100, 500, 30
# Sums over 100 norms, and over 4,950 pairs divided by a power of eps.
LAM, PAIRS_LAM = 0.1, 10.0
ORDERS = (2, 4, 8, 16, 32, 64, 128)


def rows():
    """Return the rows in an orthonormal basis of their span: (100, 100), all lengths kept."""
    X = np.random.default_rng(0).random((N, D))
    X /= np.linalg.norm(X, axis=1)[:, None]
    return X @ np.linalg.qr(X.T)[0]


def unit(vectors):
    """Return the rows divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def distortions(M, directions):
    """Return (raw, scaled) of a matrix."""
    ratios = np.sum((directions @ M.T) ** 2, axis=1)
    low, high = float(ratios.min()), float(ratios.max())
    return max(high - 1.0, 1.0 - low), (high - low) / (high + low) if high > 0.0 else 1.0


def compile_all(X):
    """Run every kernel once."""
    for pairs, loss in (("norms", "moment2"), ("all", "moment2"), ("all", "tail")):
        f = JLObjective(X, 2, eps=0.5, pairs=pairs, lam=LAM, loss=loss, n_threads=1)
        f.hvp(f.gaussian_start(), f.value_and_grad(f.gaussian_start())[1])


def gaussian_reference(directions, draws=200):
    """Return mean raw and scaled distortion of Gaussian matrices."""
    rng = np.random.default_rng(0)
    size = K, directions.shape[1]
    values = [distortions(rng.normal(size=size) / math.sqrt(K), directions) for _ in range(draws)]
    return np.mean(values, axis=0)


def norms_of_rows(X, time_limit):
    """Print the first table."""
    directions = unit(X)
    print(
        f"Norms, E sum (q - 1)^2, lam {LAM:g}, curvature target {LAM:g}. Gaussian matrices: "
        f"raw {gaussian_reference(directions)[0]:.3f} on average\n"
    )
    print(
        "| method | rho | s | steps | gradient-equivalents | certified | sigma | its bound "
        "| f | f of the start | raw |\n|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|"
    )
    f = JLObjective(X, K, eps=1.0, pairs="norms", lam=LAM, loss="moment2", n_threads=1)
    for rho in (1e-2, 1e-4):
        for method in (newton_cg, hessian_descent, pgd):
            result = method(
                f,
                f.gaussian_start(),
                rho=rho,
                curvature_tol=LAM,
                max_iter=10**6,
                time_limit=time_limit,
            )
            raw, _ = distortions(block_view(f, result.x, "b"), directions)
            print(
                f"| {method.__name__} | {rho:g} | {result.seconds:.3f} | {result.nit} "
                f"| {result.n_gradient_equivalents} | {collapse(f, result)} | {raw:.2g} |",
                flush=True,
            )


def collapse(f, result):
    """Return cells: certified, sigma, the bound of the lemma, f, f of the Gaussian start.

    ||W|| = sqrt(k d) sigma is at most ``collapse_bound`` where the point is certified; "!" marks
    what the theory excludes.
    """
    sigma, start = float(f.noise(result.x)[0]), f.value(f.gaussian_start())
    bound = math.nan
    if result.collapse_bound is not None:
        bound = result.collapse_bound / math.sqrt(f.k * f.d)
    excluded = result.success and (sigma > bound or result.fun > start)
    return (
        f"{'yes' if result.success else 'no'} | {sigma:.2g} | {bound:.2g}{'!' * excluded} "
        f"| {result.fun:.3g} | {start:.3g}"
    )


def step_by_step(X, path, picture):
    """Print the second table, write it to ``path`` and draw it."""
    f = JLObjective(X, K, eps=1.0, pairs="norms", lam=LAM, loss="moment2", n_threads=1)
    directions = unit(X)
    points = [f.gaussian_start()]
    result = newton_cg(
        f, points[0], rho=1e-6, curvature_tol=LAM, callback=lambda x: points.append(x.copy())
    )
    lines = []
    for row, x in zip(result.history, points, strict=True):
        raw, _ = distortions(block_view(f, x, "b"), directions)
        sigma = float(f.noise(x)[0])
        lines.append((row.iteration, row.step, row.seconds, row.fun, row.grad_norm, sigma, raw))
    names = "iteration", "step", "seconds", "f", "gradient", "sigma", "raw"
    print(
        f"\nnewton_cg, step by step\n\n| {' | '.join(names)} |\n|---:|---|---:|---:|---:|---:|---:|"
    )
    for iteration, step, *numbers in lines:
        print(f"| {iteration} | {step} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
    if path is not None:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([names, *lines])
    if picture is not None:
        draw(lines, picture)


def draw(lines, path):
    """Draw the noise and the distortion of M over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    iterations = [line[0] for line in lines]
    axes.semilogy(iterations, [line[5] for line in lines], marker="o", label="sigma")
    axes.semilogy(
        iterations, [line[6] for line in lines], marker="s", label="largest distortion of a norm"
    )
    axes.set_xlabel("iterations of newton_cg")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path)


def all_pairs(X, time_limit):
    """Print the third table."""
    left, right = np.triu_indices(N, 1)
    directions = unit(X[left] - X[right])
    raw, scaled = gaussian_reference(directions)
    print(
        f"\nAll pairs, newton_cg, lam {PAIRS_LAM:g}, curvature target {PAIRS_LAM:g}, rho 1. "
        f"Gaussian matrices: raw {raw:.3f}, scaled {scaled:.3f} on average\n"
    )
    print(
        "| loss | eps | s | steps | products | certified | sigma | its bound | f | f of the start "
        "| raw | scaled |\n|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    minimise(X, "tail", 0.4, None, directions, time_limit)
    x, eps = None, 0.3
    for order in ORDERS:
        # The distortion reached so far is the unit of the next moment: nothing overflows.
        x, eps = minimise(X, f"moment{order}", eps, x, directions, time_limit)


def minimise(X, loss, eps, x, directions, time_limit):
    """Print one line of the third table; return the point and its raw distortion."""
    f = JLObjective(X, K, eps=eps, lam=PAIRS_LAM, loss=loss, n_threads=1)
    start = f.gaussian_start() if x is None else x
    begin = time.perf_counter()
    result = newton_cg(
        f, start, rho=1.0, curvature_tol=PAIRS_LAM, max_iter=1000, time_limit=time_limit
    )
    seconds = time.perf_counter() - begin
    raw, scaled = distortions(block_view(f, result.x, "b"), directions)
    print(
        f"| {loss} | {eps:.4f} | {seconds:.2f} | {result.nit} | {result.nhev} "
        f"| {collapse(f, result)} | {raw:.4f} | {scaled:.4f} |",
        flush=True,
    )
    return result.x, raw


def main():
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--csv", type=Path, help="file for the second table")
    parser.add_argument("--plot", type=Path, help="file for a picture of it (needs matplotlib)")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for each run")
    arguments = parser.parse_args()
    X = rows()
    compile_all(X)
    print(describe(), end="\n\n")
    norms_of_rows(X, arguments.time_limit)
    step_by_step(X, arguments.csv, arguments.plot)
    all_pairs(X, arguments.time_limit)


if __name__ == "__main__":
    main()
