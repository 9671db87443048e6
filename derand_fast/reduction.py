"""A smaller maximum cut problem with the same best cuts: low degrees are eliminated exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels.reduction import eliminate_low_degrees, lift_signs
from derand_fast.relaxation import ScaledGraph

__all__ = ["Reduction"]

SignArray = NDArray[np.int8]

# Graphs with fewer vertices are left alone: they are searched at once as they are, and the search
# then comes upon cuts of all kinds.
LEAST_VERTICES = 500
# Nor is a copy worth while that is smaller by less than this part.
_LEAST_PART = 0.02


@dataclass(frozen=True, slots=True)
class Reduction:
    """A graph without vertices of degree three or less, and the way back.

    ``core`` has the vertices ``kept`` of the original, in order. A best cut of the core lifts to a
    best cut of the original. The core's weights are good to rounding: cuts should be valued in the
    original graph.
    """

    core: ScaledGraph
    kept: NDArray[np.intp]
    removed: NDArray[np.int32]
    removed_neighbours: NDArray[np.int32]
    removed_weights: NDArray[np.float64]

    @classmethod
    def of(cls, graph: ScaledGraph, least_vertices: int = LEAST_VERTICES) -> Reduction:
        """Eliminate until every vertex has four neighbours or more; O(n + m) but for hubs."""
        n = graph.n_vertices
        removed = np.empty(n, np.int32)
        removed_neighbours = np.empty((n, 3), np.int32)
        removed_weights = np.empty((n, 3))
        original = np.diff(graph.indptr).astype(np.int64)
        count = 0
        if n >= least_vertices and np.count_nonzero(original <= 3) >= _LEAST_PART * n:
            # Room for rows that grow: one entry for each removed neighbour.
            capacities = 2 * original + 4
            starts = np.cumsum(capacities) - capacities
            neighbours = np.empty(int(capacities.sum()), np.int32)
            weights = np.empty(neighbours.size)
            entries = np.repeat(starts - graph.indptr[:-1], original) + np.arange(
                graph.indices.size
            )
            neighbours[entries] = graph.indices
            weights[entries] = graph.weights
            degrees = original.copy()
            count = eliminate_low_degrees(
                starts,
                degrees,
                capacities,
                neighbours,
                weights,
                removed,
                removed_neighbours,
                removed_weights,
                np.empty((2, 4 * n), np.int32),
            )
        if count == 0:
            core, kept = graph, np.arange(n)
        else:
            core, kept = _core(graph, starts, degrees, neighbours, weights)
        return cls(core, kept, removed[:count], removed_neighbours[:count], removed_weights[:count])

    def restrict(self, signs: SignArray) -> SignArray:
        """Return the signs of the core's vertices."""
        return signs[self.kept]

    def lift(self, signs: SignArray) -> SignArray:
        """Return the cut of the original graph that is best for these signs of the core."""
        whole = np.empty(self.kept.size + self.removed.size, np.int8)
        whole[self.kept] = signs
        lift_signs(whole, self.removed, self.removed_neighbours, self.removed_weights)
        return whole


def _core(
    graph: ScaledGraph,
    starts: NDArray[np.int64],
    degrees: NDArray[np.int64],
    neighbours: NDArray[np.int32],
    weights: NDArray[np.float64],
) -> tuple[ScaledGraph, NDArray[np.intp]]:
    """Pack the rows that are left."""
    kept = np.flatnonzero(degrees >= 0)
    lengths = degrees[kept]
    indptr = np.zeros(kept.size + 1, graph.indptr.dtype)
    np.cumsum(lengths, out=indptr[1:])
    entries = np.repeat(starts[kept] - indptr[:-1], lengths) + np.arange(indptr[-1])
    position = np.cumsum(degrees >= 0) - 1
    core_weights = weights[entries]
    core_weights32 = core_weights.astype(np.float32)
    indices = position[neighbours[entries]].astype(np.int32)
    for array in (indptr, indices, core_weights, core_weights32):
        array.flags.writeable = False
    core = ScaledGraph(
        indptr,
        indices,
        core_weights,
        core_weights32,
        scale=graph.scale,
        total_weight=graph.scale * 0.5 * float(core_weights.sum()),
        positive_weight=graph.scale * 0.5 * float(core_weights[core_weights > 0.0].sum()),
    )
    return core, kept
