r"""Upper bounds on the maximum cut, and what is proven about them.

For any y > 0 let A be the weight matrix, W the total weight, and eps such that
A + (1 + eps) Diag(y) is positive semidefinite. Then each x in {-1, 1}^n has
-x'Ax <= (1 + eps) sum_i y_i, so

    maxcut = max_x (W / 2 - x'Ax / 4)  <=  W / 2 + (1 + eps) sum_i y_i / 4.

The dual variables of the relaxation are good y. Scaling by them, in place of shifting by a multiple
of the identity, makes eps a relative error whatever the degrees. Two ways show the matrix
semidefinite: `ChebyshevCertificate` with high probability, `prove` by a factorisation.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpotrf
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.special import ndtri

from derand_fast.budget import Budget, Pace
from derand_fast.kernels.chebyshev import BLOCK, chebyshev_start, chebyshev_steps
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import ScaledGraph
from derand_fast.threads import map_ranges

__all__ = [
    "FAILURE_PROBABILITY",
    "BandFactorisation",
    "ChebyshevCertificate",
    "DualMatrix",
    "trivial_bound",
]

# All certificates of one call together fail with at most this probability.
FAILURE_PROBABILITY = 1e-9
_UNIT_ROUNDOFF = 2.0**-53
# A dual variable is at least this part of the vertex's total |weight|: it costs the bound at most
# 1e-4 of the total |weight| / 2, and keeps the scaled matrix bounded where a y_i vanishes.
_SMALLEST_DUAL = 1e-4
# And no less than this, so that 1 / y cannot overflow (the largest scaled weight is in [1, 2)).
_TINY_DUAL = 2.0**-900
_POWER_ITERATIONS = 12
_PANEL = 256
# Stored entries below which a second thread costs more than it saves.
_PARALLEL_ENTRIES = 1 << 19


def _gamma(count: int) -> float:
    """Return k u / (1 - k u): the relative error of k roundings (Higham, Lemma 3.1)."""
    return count * _UNIT_ROUNDOFF / (1.0 - count * _UNIT_ROUNDOFF)


def trivial_bound(graph: ScaledGraph) -> float:
    """Return the sum of the positive weights: no cut holds more. Rounded correctly."""
    return graph.positive_weight


@dataclass(frozen=True, slots=True)
class DualMatrix:
    """The matrix S = I + N, N_ij = w_ij d_i d_j with d_i = y_i^(-1/2), and what bounds need.

    Attributes
    ----------
    values : (2 m,) float64 array
        Entries of N on the graph's pattern, each within two roundings.
    dual : (n,) float64 array
        y_i = d_i^-2, within two roundings; 0 for an isolated vertex.
    top : float
        Proven upper bound on the largest eigenvalue of S: 1 + max_i (|N| h)_i / h_i for a
        positive vector h (Collatz and Wielandt).
    max_degree : int
    """

    values: NDArray[np.float64]
    dual: NDArray[np.float64]
    top: float
    max_degree: int

    @classmethod
    def of(cls, graph: ScaledGraph, dual: NDArray[np.float64]) -> DualMatrix:
        """Scale the graph's weights by the dual variables."""
        degrees = np.diff(graph.indptr)
        rows = np.repeat(np.arange(graph.n_vertices), degrees)
        total = np.bincount(rows, weights=np.abs(graph.weights), minlength=graph.n_vertices)
        floor = np.maximum(_SMALLEST_DUAL * total, _TINY_DUAL)
        dual = np.where(total > 0.0, np.maximum(dual, floor), 0.0)
        factors = np.zeros(graph.n_vertices)
        np.divide(1.0, np.sqrt(dual), out=factors, where=dual > 0.0)
        dual = np.zeros(graph.n_vertices)
        np.divide(1.0, factors * factors, out=dual, where=factors > 0.0)
        values = graph.weights * factors[rows] * factors[graph.indices]
        max_degree = int(degrees.max(initial=0))
        top = 1.0 + _spectral_radius_bound(graph, np.abs(values)) * (1.0 + _gamma(max_degree + 8))
        return cls(values, dual, top, max_degree)

    def upper_bound(self, graph: ScaledGraph, shift: float) -> float:
        """Return W / 2 + (1 + shift) sum y / 4, rounded up, in the caller's units."""
        total_dual = math.fsum(self.dual.tolist()) * graph.scale
        bound = 0.5 * graph.total_weight + 0.25 * (1.0 + shift) * total_dual
        return bound + 8.0 * _UNIT_ROUNDOFF * (abs(graph.total_weight) + (1.0 + shift) * total_dual)


def _spectral_radius_bound(graph: ScaledGraph, magnitudes: NDArray[np.float64]) -> float:
    """Return the best Collatz-Wielandt bound of a few damped power iterations on |N|."""
    n = graph.n_vertices
    matrix = scipy.sparse.csr_array((magnitudes, graph.indices, graph.indptr), shape=(n, n))
    vector = np.ones(n)
    bound = math.inf
    for _ in range(_POWER_ITERATIONS):
        product = np.asarray(matrix @ vector)
        bound = min(bound, float((product / vector).max()))
        # Damping keeps bipartite graphs from oscillating, the floor keeps the vector positive.
        vector = product + 0.25 * bound * vector
        vector = np.maximum(vector / vector.max(), 1e-9)
    return bound


class ChebyshevCertificate:
    """High-probability lower bound on the smallest eigenvalue of S, from eight random vectors.

    Let u be a unit eigenvector of the smallest eigenvalue -eps of S, and let X be n x 8 with
    independent standard normal entries, drawn after S was fixed. With T the Chebyshev polynomial
    of degree k, t(s) = 2 s / top - 1 and mu = 1 + 2 eps / top, column c of Z = T(t(S)) X satisfies

        T(mu) |u'x_c| = |u'z_c| <= ||z_c||.

    Some column has |u'x_c| >= q unless all eight fall below, which has probability
    P(|N(0, 1)| < q)^8 = delta. So with probability at least 1 - delta, T(mu) q <= max_c ||z_c||,
    for all degrees at once: one event covers every look at the recurrence. This bounds eps.

    Rounding (IEEE double, round to nearest, no underflow, fused or not): step j adds an error of
    norm at most e_j = 8 gamma_(d+8) max_(i<j) ||z_i|| with d the largest degree, which later steps
    carry to at most (k - j + 1) T_(k-j)(mu) e_j along u. The test therefore asks

        q  <=  ||z_k|| / T_k(mu)  +  sum_j (k - j + 1) e_j / T_j(mu),

    in which e_j also covers the two roundings of each entry of N; 4 u top is added to eps for good
    measure. Against one vector at the same delta this needs three times fewer steps, and against
    Lanczos with re-orthogonalisation no basis (Kuczynski and Wozniakowski 1992 count the same
    number of products for one vector).

    Parameters
    ----------
    graph, matrix
        Pattern, and S on it.
    generator : numpy.random.Generator
        Source of X.
    delta : float
        Failure probability.
    n_threads : int
        The bits are the same for any number.
    """

    def __init__(
        self,
        graph: ScaledGraph,
        matrix: DualMatrix,
        generator: np.random.Generator,
        delta: float,
        n_threads: int = 1,
    ) -> None:
        self._graph = graph
        self._matrix = matrix
        self._blocks = -(-graph.n_vertices // BLOCK)
        self._n_threads = n_threads if graph.indices.size >= _PARALLEL_ENTRIES else 1
        per_column = delta ** (1.0 / LANES)
        self._threshold = float(ndtri(0.5 + 0.5 * per_column))
        self._previous = generator.standard_normal(graph.n_vertices * LANES)
        self._current = np.empty_like(self._previous)
        chebyshev_start(
            graph.indptr,
            graph.indices,
            matrix.values,
            matrix.top,
            self._previous,
            self._current,
        )
        self._pace = Pace()
        # The norm of a computed sum of squares is good to n + 2 roundings.
        self._norm_inflation = 1.0 + _gamma(graph.n_vertices + 2)
        self._norms = [_largest_column_norm(self._previous), _largest_column_norm(self._current)]

    @property
    def steps(self) -> int:
        """Degree k reached; each step is one product of S with eight vectors."""
        return len(self._norms) - 1

    @property
    def exhausted(self) -> bool:
        """Whether the vectors have grown so far that more steps could overflow."""
        return self._norms[-1] > 1e120

    def advance(self, steps: int, budget: Budget) -> None:
        """Do an even number of steps, or fewer if the budget expires."""
        target = self.steps + steps
        while self.steps < target and not budget.expired:
            pairs = self._pace.units((target - self.steps) // 2)
            with self._pace.measure(pairs):
                squares = self._two_steps(pairs)
            self._norms.extend(np.sqrt(squares.sum(axis=1).max(axis=1)).tolist())

    def _two_steps(self, pairs: int) -> NDArray[np.float64]:
        """Do pairs of steps; return the squared norms by step, block and column."""
        squares = np.empty((2 * pairs, self._blocks, LANES))
        graph, matrix = self._graph, self._matrix
        arrays = graph.indptr, graph.indices, matrix.values, matrix.top
        if self._n_threads == 1:
            chebyshev_steps(*arrays, self._previous, self._current, 0, squares)
            return squares
        for step in range(len(squares)):
            vectors = (self._previous, self._current)[:: 1 if step % 2 == 0 else -1]

            def work(start: int, stop: int, step: int = step, vectors: Any = vectors) -> None:
                part = squares[step : step + 1, start:stop]
                chebyshev_steps(*arrays, *vectors, start, part)

            map_ranges(work, self._blocks, self._n_threads)
        return squares

    def shift(self) -> float:
        """Return eps >= 0 with lambda_min(S) >= -eps, the smallest that is certified; or inf."""
        norms = np.array(self._norms) * self._norm_inflation
        if not np.isfinite(norms[-1]):
            return math.inf
        step = np.arange(1, norms.size)
        error = 8.0 * _gamma(self._matrix.max_degree + 8) * np.maximum.accumulate(norms[:-1])
        carried = (self.steps - step + 1) * error
        low, high = 0.0, 4.0
        if not self._contradicts(high, norms[-1], step, carried):
            return math.inf
        for _ in range(50):
            middle = 0.5 * (low + high)
            if self._contradicts(middle, norms[-1], step, carried):
                high = middle
            else:
                low = middle
        top = self._matrix.top
        return 0.5 * top * (math.cosh(high) - 1.0) + 4.0 * _UNIT_ROUNDOFF * top

    def growth(self, window: int) -> float:
        """Estimate |lambda_min(S)| from the growth over the last steps; 0 while nothing grows."""
        if self.steps <= window:
            return 0.0
        rate = math.log(self._norms[-1] / self._norms[-1 - window]) / window
        return 0.5 * self._matrix.top * (math.cosh(max(rate, 0.0)) - 1.0)

    def _contradicts(
        self,
        angle: float,
        last_norm: float,
        step: NDArray[np.int64],
        carried: NDArray[np.float64],
    ) -> bool:
        """Whether an eigenvalue with mu = cosh(angle) would break the inequality above."""
        # 1 / T_j(cosh a) = 1 / cosh(j a) <= 2 exp(-j a); exact enough, and it cannot overflow.
        # A relative 1e-12 covers the rounding of this test itself.
        left = self._threshold * (1.0 - 1e-12)
        decay = 2.0 * np.exp(-angle * step) / (1.0 + np.exp(-2.0 * angle * step))
        return left > (last_norm * decay[-1] + float(carried @ decay)) * (1.0 + 1e-12)


def _largest_column_norm(flat: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(flat.reshape(-1, LANES)).sum(axis=0).max()))


class BandFactorisation:
    """Proof that A + Diag(h) is positive semidefinite up to a proven rounding term.

    The vertices are put in reverse Cuthill-McKee order, which gives bandwidth b (n - 1 at worst),
    and the matrix is factorised by a blocked Cholesky within the band. If it runs to completion in
    floating point then R'R = A + Diag(h) + E with |E_ij| <= g / (1 - g) sqrt(h_i h_j) inside the
    band, g = gamma_k for sums of k = 2 (b + 256) + 20 terms in any order (Higham, Accuracy and
    Stability, Theorem 10.3; Demmel 1989), so A + (1 + (2 b + 1) g / (1 - g)) Diag(h) is positive
    semidefinite: no probability is left. Model: IEEE double, no underflow, and a BLAS that
    multiplies in the conventional way and solves triangular blocks by substitution (OpenBLAS does).

    Parameters
    ----------
    graph : ScaledGraph
    memory_limit : float, optional
        Bytes that the factor may take; by default half of the machine's memory.

    Raises
    ------
    ValueError
        If the factor would not fit into half of the machine's memory.
    """

    def __init__(self, graph: ScaledGraph, memory_limit: float | None = None) -> None:
        n = graph.n_vertices
        pattern = scipy.sparse.csr_array((graph.weights, graph.indices, graph.indptr), shape=(n, n))
        self._order = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
        ordered = pattern[self._order][:, self._order].tocsc()
        ordered.sort_indices()
        # The lower triangle by columns, which the panels are cut from.
        self._lower = scipy.sparse.csc_array(scipy.sparse.tril(ordered, -1, format="csc"))
        columns = np.repeat(np.arange(n), np.diff(self._lower.indptr))
        self.bandwidth = int((self._lower.indices - columns).max(initial=0))
        needed = 8.0 * n * min(self.bandwidth + _PANEL, n)
        limit = _half_of_memory() if memory_limit is None else memory_limit
        if needed > limit:
            raise ValueError(
                f"bound='proof' needs {needed / 2**30:.1f} GiB for the factor of {n} vertices at "
                f"bandwidth {self.bandwidth}, more than the {limit / 2**30:.1f} GiB allowed; use "
                "bound=True, which holds with probability at least 1 - 1e-9"
            )

    def inflation(self) -> float:
        """Return the proven relative rounding term (2 b + 1) g / (1 - g)."""
        g = _gamma(2 * (self.bandwidth + _PANEL) + 20)
        return (2 * self.bandwidth + 1) * g / (1.0 - g)

    def succeeds(self, diagonal: NDArray[np.float64], budget: Budget, until: float) -> bool | None:
        """Factorise A + Diag(diagonal); None if the budget passes ``until`` first."""
        if not np.isfinite(diagonal).all():
            return False  # OpenBLAS reports success on NaN
        diagonal = diagonal[self._order]
        starts = range(0, len(diagonal), _PANEL)
        panels: dict[int, NDArray[np.float64]] = {}
        for start in starts:
            if budget.past(until):
                return None
            panel = panels.pop(start, None)
            if panel is None:
                panel = self._panel(start, diagonal)
            width = panel.shape[1]
            factor, info = dpotrf(panel[:width], lower=1)
            if info != 0:
                return False
            if len(panel) == width:
                continue
            below = dtrsm(1.0, factor, panel[width:].T, lower=1).T
            for later in range(start + width, start + len(panel), _PANEL):
                if budget.past(until):
                    return None
                if later not in panels:
                    panels[later] = self._panel(later, diagonal)
                rows = below[later - start - width :]
                columns = rows[: panels[later].shape[1]]
                panels[later][: len(rows), : len(columns)] -= rows @ columns.T
        return True

    def _panel(self, start: int, diagonal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 256 columns of the lower band from the diagonal on, dense."""
        end = min(start + _PANEL, len(diagonal))
        panel = np.zeros((min(end + self.bandwidth, len(diagonal)) - start, end - start))
        pointer = self._lower.indptr[start : end + 1]
        entries = slice(pointer[0], pointer[-1])
        column = np.repeat(np.arange(end - start), np.diff(pointer))
        panel[self._lower.indices[entries] - start, column] = self._lower.data[entries]
        corner = np.arange(end - start)
        panel[corner, corner] = diagonal[start:end]
        return panel


def _half_of_memory() -> float:
    return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
