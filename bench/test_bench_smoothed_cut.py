"""The edge passes of the smoothed cut on a random graph: 4,000 vertices, 32,000 edges.

Rivals: the same formulas in plain vectorised numpy / scipy on all edges at once (for the value with
24 Gauss-Legendre nodes per edge, which loses accuracy at |r| near 1), and for the product a central
difference of our own gradient. "aligned" rows are close to one line, as near a solution;
``extra_info`` has the largest deviation from our kernel and the time per stored edge.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
from scipy.special import erf

from derand_fast.kernels import smoothed_cut as cut
from derand_fast.kernels.quadrature import gauss_hermite, gauss_legendre
from derand_fast.threads import map_ranges

VERTICES, EDGES = 4000, 32000
# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("one thread", "two threads", "closed form")
RIVAL = "numpy or differences"
TAU, LAM = 0.1, 0.5


class Setup:
    """A graph, a point, a direction, and every array the kernels want."""

    def __init__(self, p, aligned):
        rng = np.random.default_rng(0)
        pairs = rng.integers(0, VERTICES, (EDGES, 2))
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        weights = rng.normal(size=len(pairs))
        half = scipy.sparse.coo_array((weights, pairs.T), shape=(VERTICES, VERTICES))
        self.matrix = (half + half.T).tocsr()
        self.matrix.sort_indices()
        self.graph = (
            self.matrix.indptr.astype(np.int32),
            self.matrix.indices.astype(np.int32),
            self.matrix.data,
        )
        W = rng.normal(size=(VERTICES, p))
        if aligned:
            W = np.outer(rng.choice([-1.0, 1.0], VERTICES), np.ones(p)) + 0.1 * W
        self.W = W / np.linalg.norm(W, axis=1)[:, None]
        self.b = 0.1 * rng.normal(size=VERTICES)
        self.direction = rng.normal(size=(VERTICES, p)), rng.normal(size=VERTICES)
        self.nnz = self.matrix.nnz
        self.vertex = np.empty((VERTICES, cut.VERTEX_COLUMNS))
        self.rates = np.empty((VERTICES, cut.RATE_COLUMNS))
        self.row_values, self.norms = np.empty(VERTICES), np.empty(VERTICES)
        self.derivatives = (
            np.empty((VERTICES, p)),
            np.empty(VERTICES),
            np.empty(self.nnz),
            np.empty(VERTICES),
        )
        self.products = np.empty((VERTICES, p)), np.empty(VERTICES)

    def share(self, who, work):
        map_ranges(work, VERTICES, 2 if who == "two threads" else 1)

    def prepare(self, who, W, b):
        self.share(
            who, lambda first, last: cut.prepare_vertices(first, last, W, b, TAU, self.vertex)
        )

    def value(self, who):
        self.prepare(who, self.W, self.b)
        arguments = *self.graph, self.W, TAU, LAM, self.vertex, self.row_values
        self.share(who, lambda first, last: cut.value_rows(first, last, *arguments))
        return cut.sum_in_blocks(self.row_values)

    def gradient(self, who, step=0.0):
        W, b = self.W, self.b
        if step:
            W, b = W + step * self.direction[0], b + step * self.direction[1]
        self.prepare(who, W, b)
        arguments = *self.graph, W, TAU, LAM, self.vertex, *self.derivatives
        self.share(who, lambda first, last: cut.gradient_rows(first, last, *arguments))
        return self.derivatives

    def product(self, who):
        def prepare(first, last):
            cut.prepare_vertices(first, last, self.W, self.b, TAU, self.vertex)
            cut.prepare_rates(first, last, self.W, *self.direction, self.vertex, self.rates)

        self.share(who, prepare)
        scratch = self.direction[0], self.vertex, self.rates
        arguments = *self.graph, self.W, TAU, LAM, *scratch, *self.products
        self.share(who, lambda first, last: cut.product_rows(first, last, *arguments))
        return self.products

    def difference(self, _who):
        step = 1e-5
        up = [part.copy() for part in self.gradient("one thread", step=step)[:2]]
        down = self.gradient("one thread", step=-step)[:2]
        return [(u - d) / (2 * step) for u, d in zip(up, down, strict=True)]

    def hyperplane(self, _who):
        arrays = self.norms, self.row_values
        return cut.expected_hyperplane_cut(*self.graph, self.W, *arrays)

    # Rivals in numpy: everything on all stored edges at once.

    def _ends(self):
        rows = np.repeat(np.arange(VERTICES), np.diff(self.graph[0]))
        A = np.einsum("ij,ij->i", self.W, self.W) + TAU * TAU
        h = self.b / np.sqrt(A)
        columns = self.graph[1]
        c = np.einsum("ij,ij->i", self.W[rows], self.W[columns])
        return rows, columns, A, h, c / np.sqrt(A[rows] * A[columns])

    def numpy_value(self, _who):
        rows, columns, _, h, r = self._ends()
        once = rows < columns
        h, k, r = h[rows[once]], h[columns[once]], r[once]
        nodes, weights = gauss_legendre(24)
        t = np.arcsin(r)[:, None] * nodes
        inner = (h * h + k * k)[:, None] - 2 * (h * k)[:, None] * np.sin(t)
        integral = np.arcsin(r) * (np.exp(-inner / (2 * np.cos(t) ** 2)) @ weights)
        psi = erf(h / math.sqrt(2)) * erf(k / math.sqrt(2)) + 2 / math.pi * integral
        return 0.5 * self.graph[2][once] @ psi + LAM * np.sum(self.W**2)

    def numpy_gradient(self, _who):
        rows, columns, A, h, r = self._ends()
        w = self.graph[2]
        hi, hj, rest = h[rows], h[columns], 1 - r * r
        density = np.exp(-(hi * hi - 2 * r * hi * hj + hj * hj) / (2 * rest))
        density /= 2 * np.pi * np.sqrt(rest)
        slope = w * erf((hj - r * hi) / np.sqrt(2 * rest))
        phi = np.exp(-0.5 * h * h) / math.sqrt(2 * np.pi)
        slopes = phi * np.bincount(rows, slope, VERTICES)
        diagonal = -(h * slopes + 2 * np.bincount(rows, w * r * density, VERTICES)) / A
        offdiagonal = 2 * w * density / np.sqrt(A[rows] * A[columns])
        H = scipy.sparse.csr_array((offdiagonal, columns, self.graph[0]), (VERTICES, VERTICES))
        gradient_W = H @ self.W + (diagonal + 2 * LAM)[:, None] * self.W
        return gradient_W, slopes / np.sqrt(A), offdiagonal, diagonal

    def numpy_hyperplane(self, _who):
        unit = self.W / np.linalg.norm(self.W, axis=1)[:, None]
        rows = np.repeat(np.arange(VERTICES), np.diff(self.graph[0]))
        cosine = np.einsum("ij,ij->i", unit[rows], unit[self.graph[1]])
        return 0.5 * self.graph[2] @ np.arccos(np.clip(cosine, -1, 1)) / math.pi


def _deviation(actual, expected):
    if isinstance(expected, float):
        return abs(actual - expected)
    pairs = zip(actual, expected, strict=True)
    return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in pairs)


def _copy(result):
    return result if isinstance(result, float) else [part.copy() for part in result]


CASES = {
    "value": ("value", "numpy_value"),
    "gradient and H_bb": ("gradient", "numpy_gradient"),
    "Hessian product": ("product", "difference"),
    "hyperplane cut": ("hyperplane", "numpy_hyperplane"),
}


# One thread only for what is asked for once in a solver's call.
ROWS = [
    (who, case)
    for who, case in itertools.product(("one thread", "two threads", RIVAL), CASES)
    if (who, case) != ("two threads", "hyperplane cut")
]


@pytest.mark.parametrize("rows", ["random", "aligned"])
@pytest.mark.parametrize("p", [8, 90])
@pytest.mark.parametrize(("who", "case"), ROWS)
def test_edge_pass(benchmark, case, p, rows, who):
    benchmark.group = f"{case}, p = {p}, {rows} rows"
    ours, rival = CASES[case]
    setup = Setup(p, rows == "aligned")
    expected = _copy(getattr(setup, ours)("one thread"))
    run = getattr(setup, rival if who == RIVAL else ours)
    benchmark.extra_info["deviation"] = f"{_deviation(_copy(run(who)), expected):.1g}"
    benchmark(run, who)
    _record_time(benchmark, setup.nnz)


def _record_time(benchmark, nnz):
    """No timing under --benchmark-disable."""
    if benchmark.stats is not None:
        benchmark.extra_info["ns per stored edge"] = round(benchmark.stats["min"] / nnz * 1e9, 1)


@pytest.mark.benchmark(group="gradient by Gauss-Hermite, 20 x 20 nodes, p = 8")
@pytest.mark.parametrize("name", ["closed form", "erf_sign", "tanh_sign"])
def test_gauss_hermite(benchmark, name):
    setup = Setup(8, aligned=False)
    if name == "closed form":
        benchmark(setup.gradient, "one thread")
    else:
        kernels = cut.gauss_hermite_cut(getattr(cut, name))
        arguments = *setup.graph, setup.W, setup.b, 1.0, LAM, *gauss_hermite(20)
        benchmark.pedantic(kernels.gradient, (*arguments, *setup.derivatives), warmup_rounds=1)
    _record_time(benchmark, setup.nnz)
