"""Recombination of many cuts: vertices that all of them place alike become one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from derand_fast.relaxation import ScaledGraph

__all__ = ["Clusters"]

SignArray = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Clusters:
    """A graph whose vertices are clusters: the best cut of it recombines the cuts it came from.

    Two neighbours on which all cuts agree, all with them on one side or all on two, belong to one
    cluster. Turning over a cluster turns over all its vertices, so each cut of ``graph`` is one of
    the original, and the given cuts are among these.

    Source: Houdayer and Martin, "Renormalization for discrete optimization", Phys. Rev. Lett. 83
    (1999).
    """

    graph: ScaledGraph
    cluster: NDArray[np.int32]
    gauge: SignArray

    @classmethod
    def of(cls, graph: ScaledGraph, cuts: SignArray) -> Clusters:
        """Contract along the edges on which all cuts (k, n) agree, k <= 16; cost O(n + m)."""
        n = graph.n_vertices
        codes = np.zeros(n, np.uint16)
        for k, signs in enumerate(cuts):
            codes |= (signs != cuts[0, 0]).astype(np.uint16) << np.uint16(k)
        tails = np.repeat(np.arange(n, dtype=np.int32), np.diff(graph.indptr))
        upper = tails < graph.indices
        tails, heads, weights = tails[upper], graph.indices[upper], graph.weights[upper]
        difference = codes[tails] ^ codes[heads]
        agreed = (difference == 0) | (difference == 2 ** len(cuts) - 1)
        ones = np.ones(int(np.count_nonzero(agreed)), np.int8)
        bonds = scipy.sparse.coo_array((ones, (tails[agreed], heads[agreed])), shape=(n, n))
        count, cluster = connected_components(bonds, directed=False)
        gauge = cuts[0]
        one, other = cluster[tails], cluster[heads]
        outside = one != other
        signed = (weights * (gauge[tails] * gauge[heads]))[outside]
        one, other = one[outside], other[outside]
        pairs = (np.concatenate((one, other)), np.concatenate((other, one)))
        matrix = scipy.sparse.coo_array((np.tile(signed, 2), pairs), shape=(count, count)).tocsr()
        matrix.eliminate_zeros()
        return cls(_scaled(graph, matrix), cluster, gauge.copy())

    def lift(self, signs: SignArray) -> SignArray:
        """Return the cut of the original graph."""
        return self.gauge * signs[self.cluster]


def _scaled(graph: ScaledGraph, matrix: scipy.sparse.csr_array) -> ScaledGraph:
    """Wrap the matrix like any graph: the same types, read-only."""
    indptr = np.zeros(matrix.shape[0] + 1, graph.indptr.dtype)
    indptr[:] = matrix.indptr
    indices = matrix.indices.astype(np.int32)
    weights = matrix.data
    weights32 = weights.astype(np.float32)
    for array in (indptr, indices, weights, weights32):
        array.flags.writeable = False
    return ScaledGraph(
        indptr,
        indices,
        weights,
        weights32,
        scale=graph.scale,
        total_weight=graph.scale * 0.5 * float(weights.sum()),
        positive_weight=graph.scale * 0.5 * float(weights[weights > 0.0].sum()),
    )
