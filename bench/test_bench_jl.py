"""Exact tails of a squared length, and passes over all pairs of points.

Rivals: scipy.stats.ncx2 for the tails; for a pass the same formulas in vectorised numpy, whose
matrix products use as many threads as BLAS likes; for a Hessian product, a central difference of
our own gradient. ``extra_info`` holds time per tail or pair and the deviation from the rival.
"""

import math

import numpy as np
import pytest
from scipy.stats import ncx2

from derand_fast.kernels import jl
from derand_fast.kernels._jit import kernel
from derand_fast.objectives.distortion import JLObjective, _make_tables

TAILS = 2000
# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("product",)
EPS, LAM = 0.2, 0.01


@kernel(fastmath=False, cache=False)
def _tails(k, s, x, t, scratch, out):
    for i in range(t.size):
        jl.crossing(k, t[i], x - t[i], s, x, scratch)
        out[i] = scratch[1]


def _ours(k, s, x, t, out):
    _tails(k, s, x, t, np.empty(6), out)


def _scipy(k, s, x, t, out):
    out[:] = ncx2.sf(x / s, k, t / s)


def _record(benchmark, count, deviation):
    benchmark.extra_info["deviation"] = f"{deviation:.2g}"
    if benchmark.stats is not None:
        benchmark.extra_info["ns each"] = round(benchmark.stats["min"] / count * 1e9, 1)


@pytest.mark.benchmark(group="P(q > 1.2), t uniform in [0.5, 1.5]")
@pytest.mark.parametrize("name", ["ours", "scipy"])
@pytest.mark.parametrize(("k", "sigma"), [(2, 0.5), (30, 0.18), (30, 0.01), (1000, 0.03)])
def test_tails(benchmark, name, k, sigma):
    """Ours includes four derivatives in t. Deviations are absolute: scipy errs far out."""
    t = np.random.default_rng(0).uniform(0.5, 1.5, TAILS)
    function = _ours if name == "ours" else _scipy
    out, other = np.empty(TAILS), np.empty(TAILS)
    function(k, sigma**2, 1.2, t, out)
    benchmark(function, k, sigma**2, 1.2, t, out)
    (_scipy if name == "ours" else _ours)(k, sigma**2, 1.2, t, other)
    _record(benchmark, TAILS, np.max(np.abs(out - other)))


@pytest.mark.benchmark(group="losses and derivatives at 64 t, k = 30, sigma = 0.05")
@pytest.mark.parametrize("order", [0, 2, 8, 32], ids=["tail", "moment2", "moment8", "moment32"])
def test_losses(benchmark, order):
    """Rows of one tile's line, as the passes use them: the tail is read from its table."""
    t = np.random.default_rng(0).uniform(0.5, 1.5, 64)
    rows, state = np.empty((jl.ROWS, 64)), np.empty((jl.ROWS + 1, 64))

    def tail():
        jl.table_rows(*tables, t, rows, row)

    def moment():
        jl.moment_rows(order, 30, 0.05**2, EPS, t, rows, state)

    tables, row = _make_tables(30, 0.05, EPS), np.empty(8)
    function = moment if order else tail
    function()
    benchmark(function)
    if order == 0:
        above = np.empty(64), np.empty(64)
        _ours(30, 0.05**2, 1.0 + EPS, t, above[0])
        _ours(30, 0.05**2, 1.0 - EPS, t, above[1])
        deviation = np.max(np.abs(rows[0] - (above[0] + 1.0 - above[1])))
    else:
        moment_rows = np.empty((jl.ROWS, 64))
        jl.moment_rows(order, 30, 0.05**2, EPS, t[::-1].copy(), moment_rows, state)
        deviation = np.max(np.abs(rows - moment_rows[:, ::-1]))
    _record(benchmark, 64, deviation)


@pytest.mark.benchmark(group="a table of the tail, one sigma")
@pytest.mark.parametrize("sigma", [0.18, 0.01])
def test_table(benchmark, sigma):
    benchmark(_make_tables, 30, sigma, EPS)


class Problem:
    """All pairs of n rows at a random matrix, and the second moment in plain numpy."""

    def __init__(self, n, loss, n_threads):
        rng = np.random.default_rng(0)
        self.X = rng.normal(size=(n, 100))
        self.f = JLObjective(self.X, 30, eps=EPS, lam=LAM, loss=loss, n_threads=n_threads)
        self.x = rng.normal(size=self.f.n_params) / math.sqrt(30)
        self.x[0] = 0.05 * math.sqrt(30 * 100)
        self.v = rng.normal(size=self.f.n_params)
        squares = np.sum(self.X**2, axis=1)
        distances = squares[:, None] + squares - 2.0 * self.X @ self.X.T
        np.fill_diagonal(distances, np.inf)
        self.inverse = 1.0 / distances

    def gradient(self):
        return self.f.value_and_grad(self.x)[1]

    def product(self):
        return self.f.hvp(self.x, self.v)

    def difference(self):
        step = 1e-5
        up = self.f.value_and_grad(self.x + step * self.v)[1]
        return (up - self.f.value_and_grad(self.x - step * self.v)[1]) / (2.0 * step)

    def plain_gradient(self):
        k, n = 30, len(self.X)
        M, s = self.x[1:].reshape(k, -1), 0.05**2
        Y = self.X @ M.T
        squares = np.sum(Y * Y, axis=1)
        t = (squares[:, None] + squares - 2.0 * Y @ Y.T) * self.inverse
        slope = (2.0 * (t + k * s - 1.0) + 4.0 * s) / EPS**2
        C = slope * self.inverse
        np.fill_diagonal(C, 0.0)
        forces = C.sum(axis=1)[:, None] * Y - C @ Y
        # The diagonal of the matrix of pairs is no pair.
        slopes = 0.5 * (np.sum(k * slope + 4.0 * t / EPS**2) - n * k * slope[0, 0])
        first = 2.0 * self.x[0] * (slopes / (k * 100) + LAM)
        return np.r_[first, 2.0 * (forces.T @ self.X).ravel()]


@pytest.mark.benchmark(group="gradient over all pairs, k = 30, d = 100")
@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize(
    ("name", "loss", "n_threads"),
    [
        ("numpy", "moment2", 1),
        ("ours", "moment2", 1),
        ("ours", "moment2", 2),
        ("ours", "moment8", 1),
        ("ours", "tail", 1),
    ],
)
def test_gradient(benchmark, n, name, loss, n_threads):
    problem = Problem(n, loss, n_threads)
    function = problem.plain_gradient if name == "numpy" else problem.gradient
    result = function()
    benchmark(function)
    other = problem.plain_gradient() if loss == "moment2" else result
    _record(benchmark, problem.f.n_pairs, np.max(np.abs(result - other)) / np.max(np.abs(other)))


@pytest.mark.benchmark(group="Hessian product over all pairs, k = 30, d = 100, n = 1000")
@pytest.mark.parametrize("name", ["product", "difference"])
@pytest.mark.parametrize("loss", ["moment2", "tail"])
def test_product(benchmark, name, loss):
    problem = Problem(1000, loss, 1)
    function = getattr(problem, name)
    result = function()
    benchmark(function)
    other = problem.product()
    _record(benchmark, problem.f.n_pairs, np.max(np.abs(result - other)) / np.max(np.abs(other)))
