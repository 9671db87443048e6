"""The paper's toy example: who carries the solution, the random weight or the bias?

    python bench/toy_example.py [--plot FILE] [--csv FILE]

minimises f(w, b) = E[(ReLU_iota(w x + b)^3 - 1)^2] + lam w^2, x ~ N(0, 1), from w = 1, b = 0, once
over w and b and once over w alone with b = 0, for a sweep of lam, and prints a Markdown table. With
a trained bias w collapses and f goes to 0 for every lam; with the bias frozen at 0 the randomness
has to stay, or the loss does.
"""

import argparse
import math
from pathlib import Path

import numba
import numpy as np
from machine import describe
from scipy.optimize import minimize
from tables import write_csv

from derand_fast.objectives import GaussianExpectation, GaussianFunction

IOTA = 2.0
LAMBDAS = np.geomspace(1e-4, 10.0, 11)


@numba.njit
def smooth_relu(z):
    """Return ReLU_iota(z) and its derivative."""
    e = math.exp(-IOTA * abs(z))
    sigmoid = (1.0 if z >= 0.0 else e) / (1.0 + e)
    return max(z, 0.0) + math.log1p(e) / IOTA, sigmoid


@numba.njit
def value(z, _theta):
    """Return (ReLU_iota(z)^3 - 1)^2."""
    relu, _ = smooth_relu(z[0])
    return (relu**3 - 1.0) ** 2


@numba.njit
def gradient(z, _theta, out_z, _out_theta):
    """Write the derivative of the above, return the value."""
    relu, slope = smooth_relu(z[0])
    out_z[0] = 6.0 * (relu**3 - 1.0) * relu**2 * slope
    return (relu**3 - 1.0) ** 2


def solve(lam, trained):
    """Return (|w|, b, f, error of f by quadrature) at a local minimum."""
    f = GaussianExpectation(GaussianFunction(value, gradient), (1, 1), lam=lam)
    free = slice(None) if trained else slice(1)

    def restricted(y):
        x = np.zeros(2)
        x[free] = y
        loss, slope = f.value_and_grad(x)
        return loss, slope[free]

    x = np.zeros(2)
    x[free] = minimize(restricted, [1.0, 0.0][free], jac=True, method="BFGS", tol=1e-10).x
    return abs(float(x[0])), float(x[1]), *f.value_with_error(x)


def main():
    """Print the table, and draw it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="file for a picture (needs matplotlib)")
    parser.add_argument("--csv", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    print(f"{describe()}\n")
    print("| lam | trained: w | b | f | frozen: w | f | quadrature error |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for lam in LAMBDAS:
        w, b, f, error = solve(lam, trained=True)
        w_frozen, _, f_frozen, error_frozen = solve(lam, trained=False)
        rows.append(
            {"lam": lam, "w": w, "b": b, "f": f, "w_frozen": w_frozen, "f_frozen": f_frozen}
        )
        print(
            f"| {lam:.1e} | {w:.1e} | {b:.6f} | {f:.1e} | {w_frozen:.4f} | {f_frozen:.4f} "
            f"| {max(error, error_frozen):.0e} |"
        )
    if arguments.plot:
        draw(arguments.plot, rows)
    if arguments.csv:
        write_csv(arguments.csv, rows)


def draw(path, rows):
    """Draw |w| at the minimum against lam."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    lams = [row["lam"] for row in rows]
    axes.loglog(lams, [row["w_frozen"] for row in rows], "o-", label="bias frozen at 0")
    trained = [max(row["w"], 1e-16) for row in rows]
    axes.loglog(lams, trained, "s-", label="bias trained (1e-16 stands for less)")
    axes.set(xlabel="lambda", ylabel="|w| at the minimum")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
