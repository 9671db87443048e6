"""Iterations against rho on a problem where the rates of the theory are nearly reached.

    python bench/rates.py [--plot rates.png] [--csv rates.csv]

The problem: f(x, y) = (1 + x^2)^(-p/2) + (y^4/4 - y^2/2), p = 0.1, from (1, 0). y = 0 is a ridge
(curvature -1); then a valley leads to infinity in x, where |f'| is about p x^(-p-1). There

- gradient steps 1/L need about rho^(-(p+2)/(p+1)) iterations: slope 1.91, against the 2 of the
  bound for any smooth f, and p -> 0 reaches it;
- a Newton step damped by 2 eps_H = 2 sqrt(rho) is about g/(2 sqrt(rho)): slope 1.91 - 0.5 = 1.41,
  against 1.5. `newton_cg` lengthens steps that the damping cuts short, and lowers the damping,
  which makes it faster still.

pgd runs with the constants of 2021, hessian_descent with those derived: steps 1/L. (With c = 0.03:
pgd goes on until a window of T steps lowers f by less than F, at gradients of about
rho/(7 iota^2), iota = c ln(...); larger c multiplies the counts, not the slope.) newton_cg runs
twice, as it is and with the published step (no lengthening, full damping).
"""

import argparse
import math
from typing import Any
from unittest import mock

import numpy as np
from machine import describe
from tables import write_csv

from derand_fast.optimize import hessian_descent, line_search, newton_cg, pgd

P = 0.1
# |f_xx| <= p at 0; for |y| <= 1.2, |3 y^2 - 1| <= 3.32 and 6 |y| <= 7.2.
GRAD_LIPSCHITZ = 3.4
HESS_LIPSCHITZ = 7.2
THEORY = {"pgd": 2.0, "hessian_descent": 2.0, "newton_cg, published": 1.5, "newton_cg": 1.5}


class Valley:
    """A ridge, and a valley whose bottom falls ever more slowly."""

    n_params = 2

    def value_and_grad(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = z
        square = 1.0 + x * x
        fun = square ** (-P / 2.0) + y**4 / 4.0 - y**2 / 2.0
        return float(fun), np.array([-P * x * square ** (-P / 2.0 - 1.0), y**3 - y])

    def hvp(self, z: np.ndarray, v: np.ndarray) -> np.ndarray:
        x, y = z
        square = 1.0 + x * x
        curvature = P * square ** (-P / 2.0 - 2.0) * ((P + 2.0) * x * x - square)
        return np.array([curvature * v[0], (3.0 * y * y - 1.0) * v[1]])


def run(name: str, rho: float) -> Any:
    start = np.array([1.0, 0.0])
    constants = {"grad_lipschitz": GRAD_LIPSCHITZ, "hess_lipschitz": HESS_LIPSCHITZ}
    arguments: dict[str, Any] = {"rho": rho, "curvature_tol": math.sqrt(rho)}
    if name == "pgd":
        arguments = {"rho": rho} | constants | {"parameters": "theory-2021", "fun_lower": -0.25}
        return pgd(Valley(), start, c=0.03, max_iter=10**7, **arguments)
    if name == "hessian_descent":
        arguments = {"rho": rho} | constants | {"parameters": "theory"}
        return hessian_descent(Valley(), start, max_iter=10**7, **arguments)
    if name == "newton_cg":
        return newton_cg(Valley(), start, **arguments)
    with mock.patch.object(line_search, "_prolonged", lambda run, direction, best: best):
        return newton_cg(Valley(), start, forcing=0.0, least_damping=1.0, **arguments)


def slope(rhos: list[float], counts: list[int]) -> float:
    """Least-squares slope of log(iterations) against log(1/rho), on the smaller half of rho."""
    half = len(rhos) // 2
    return -float(np.polyfit(np.log(rhos[half:]), np.log(counts[half:]), 1)[0])


def draw(path: str, rhos: list[float], counts: dict[str, list[int]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, iterations in counts.items():
        label = f"{name}: slope {slope(rhos, iterations):.2f} (theory {THEORY[name]:g})"
        axes.loglog(rhos, iterations, marker="o", label=label)
    axes.invert_xaxis()
    axes.set_xlabel("rho")
    axes.set_ylabel("iterations")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", help="save a figure there")
    parser.add_argument("--csv", help="write the iterations there")
    parser.add_argument("--smallest", type=float, default=3e-3, help="smallest rho")
    arguments = parser.parse_args()
    rhos = [float(rho) for rho in np.geomspace(3e-2, arguments.smallest, 7)]
    print(describe())
    print(f"\n| method | {' | '.join(f'rho = {rho:.2g}' for rho in rhos)} | slope | theory |")
    print("|---|" + "---|" * (len(rhos) + 2))
    counts: dict[str, list[int]] = {}
    for name, theory in THEORY.items():
        results = [run(name, rho) for rho in rhos]
        assert all(result.success for result in results), name
        counts[name] = [result.nit for result in results]
        cells = " | ".join(f"{count:,}" for count in counts[name])
        print(f"| {name} | {cells} | {slope(rhos, counts[name]):.2f} | {theory:g} |", flush=True)
    if arguments.plot:
        draw(arguments.plot, rhos, counts)
    if arguments.csv:
        rows = [
            {"method": name, "rho": rho, "iterations": count, "slope": slope(rhos, iterations)}
            for name, iterations in counts.items()
            for rho, count in zip(rhos, iterations, strict=True)
        ]
        write_csv(arguments.csv, rows)


if __name__ == "__main__":
    main()
