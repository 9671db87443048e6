"""The Goemans-Williamson relaxation in low rank: unit rows, their value, their dual variables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget, Pace
from derand_fast.graphs import CSRGraph
from derand_fast.kernels.maxcut import mixing_sweeps, round_to_signs, sdp_dual
from derand_fast.kernels.smoothed_cut import expected_hyperplane_cut_serial

__all__ = ["DEFAULT_MAX_RANK", "Relaxation", "ScaledGraph", "default_rank"]

# Past this rank a sweep only costs more: on the G-set the dual bound after equal sweeps differs by
# less than 1e-4 between rank 64 and rank ceil(sqrt(2 n)) + 1, at a third of the time.
DEFAULT_MAX_RANK = 64


def default_rank(n_vertices: int) -> int:
    """Return ceil(sqrt(2 n)) + 1, where no spurious local optimum is left, but 64 at the most."""
    return min(math.ceil(math.sqrt(2.0 * n_vertices)) + 1, DEFAULT_MAX_RANK)


@dataclass(frozen=True, slots=True)
class ScaledGraph:
    """A graph with weights divided by a power of two, so that the largest lies in [1, 2).

    The division is exact (barring underflow of weights 2**-970 times the largest), and float32
    kernels are safe from overflow. ``total_weight`` and ``positive_weight``, the sums of all and of
    the positive weights, are in the caller's units and correctly rounded.
    """

    indptr: NDArray[np.int32] | NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float64]
    weights32: NDArray[np.float32]
    scale: float
    total_weight: float
    positive_weight: float

    @classmethod
    def of(cls, graph: CSRGraph) -> ScaledGraph:
        """Scale a graph that has at least one edge."""
        exponent = math.frexp(float(np.abs(graph.weights).max()))[1] - 1
        weights = np.ldexp(graph.weights, -exponent)
        weights32 = weights.astype(np.float32)
        # Read-only like the graph's own arrays: kernels compile once for each combination.
        weights.flags.writeable = False
        weights32.flags.writeable = False
        return cls(
            graph.indptr,
            graph.indices,
            weights,
            weights32,
            scale=math.ldexp(1.0, exponent),
            total_weight=math.fsum(graph.weights.tolist()) / 2.0,
            positive_weight=math.fsum(graph.weights[graph.weights > 0.0].tolist()) / 2.0,
        )

    @property
    def n_vertices(self) -> int:
        """Number of vertices n."""
        return int(self.indptr.size) - 1


class Relaxation:
    """Maximise sum_{i<j} w_ij (1 - v_i . v_j) / 2 over unit rows v_i of length ``rank``.

    Rows are float32; all values are computed from them in float64 and in the caller's units.
    """

    def __init__(self, graph: ScaledGraph, rank: int, generator: np.random.Generator) -> None:
        self._graph = graph
        self.rows = generator.standard_normal((graph.n_vertices, rank), dtype=np.float32)
        lengths = np.linalg.norm(self.rows, axis=1, keepdims=True)
        # One float32 normal in 2**23 is 0: at rank 1 that is a whole row.
        self.rows[lengths[:, 0] == 0.0, 0] = 1.0
        self.rows /= np.where(lengths > 0.0, lengths, np.float32(1.0))
        self.sweeps = 0
        self._pace = Pace()
        self._total_magnitude = 0.5 * float(np.abs(graph.weights).sum())
        self._inverse_norms = np.empty(graph.n_vertices)
        self._row_values = np.empty(graph.n_vertices)

    def advance(self, sweeps: int, budget: Budget, until: float = math.inf) -> float:
        """Do row-update sweeps; return the gain of the last one relative to the total |weight|.

        Ends early, with an infinite gain, once the budget is past ``until``.
        """
        graph = self._graph
        gain = math.inf
        target = self.sweeps + sweeps
        while self.sweeps < target:
            if budget.past(until):
                return math.inf
            count = self._pace.units(target - self.sweeps)
            with self._pace.measure(count):
                gain = mixing_sweeps(graph.indptr, graph.indices, graph.weights32, self.rows, count)
            self.sweeps += count
        return float(gain) / self._total_magnitude

    def dual(self) -> tuple[float, NDArray[np.float64]]:
        """Return the value of the relaxation at the rows, and y_i = ||sum_j w_ij v_j|| (scaled)."""
        graph = self._graph
        dual = np.empty(graph.n_vertices)
        product = sdp_dual(
            graph.indptr, graph.indices, graph.weights, self.rows, self._inverse_norms, dual
        )
        return 0.5 * graph.total_weight - 0.25 * graph.scale * product, dual

    def expected_cut(self) -> float:
        """Return the expected cut of random hyperplane rounding of the rows, in closed form."""
        graph = self._graph
        return graph.scale * expected_hyperplane_cut_serial(
            graph.indptr,
            graph.indices,
            graph.weights,
            self.rows,
            self._inverse_norms,
            self._row_values,
        )

    def round(self, generator: np.random.Generator, signs: NDArray[np.int8]) -> None:
        """Write the signs of one random hyperplane rounding."""
        normal = generator.standard_normal(self.rows.shape[1], dtype=np.float32)
        round_to_signs(self.rows, normal, signs)
