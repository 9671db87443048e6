"""Maximum cut on a symmetric CSR graph: vector rows, annealing, rounding, local search, values.

All kernels take ``indptr`` (n + 1,), ``indices`` (2 m,) int32 and ``weights`` (2 m,) of a graph in
which each edge is stored twice and no vertex meets itself. Signs are int8, +1 or -1. Kernels are
serial and release the GIL: callers run several searches at once in Python threads.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.simd import (
    LANES,
    add_scaled_row,
    dot_row,
    load_row,
    new_row,
    scale_row,
    squared_norm,
    store_scaled_row,
)
from derand_fast.kernels.smoothed_cut import inverse_norm

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]
RowArray = NDArray[np.float32]
SignArray = NDArray[np.int8]
BoolArray = NDArray[np.bool_]

_LANES = np.uint64(LANES)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
# Below these the direction of a sum of rows is rounding noise; the row then stays as it was.
_TINY_NORM = np.float32(1e-15)
_TINY_SQUARE = np.float32(1e-30)
# 1 - (c r)^2 cannot fall below 1e-8 by the schedule; rounding of r may push it there.
_SMALLEST_COMPLEMENT = np.float32(1e-12)


@kernel(fastmath=True)
def mixing_sweeps(
    indptr: IndexArray,
    indices: IndexArray,
    weights: RowArray,
    rows: RowArray,
    count: int,
) -> float:
    """Do Gauss-Seidel sweeps of the low-rank semidefinite program, rows updated in place.

    Each row becomes v_i = -g_i / ||g_i|| with g_i = sum_j w_ij v_j: the exact minimiser of
    sum_{i<j} w_ij v_i . v_j over unit v_i with the other rows fixed.

    Parameters: weights (2 m,) float32, rows (n, p) float32 of unit norm, count of sweeps.
    Returns the decrease of that sum in the last sweep. Cost 4 m p flops a sweep.

    Source: Wang, Chang and Kolter, "The mixing method", 2017.
    """
    n, p = rows.shape
    gradient = np.empty(p, np.float32)
    decrease = 0.0
    for _ in range(count):
        decrease = 0.0
        for i in range(n):
            for k in range(p):
                gradient[k] = _ZERO
            for e in range(indptr[i], indptr[i + 1]):
                neighbour = rows[indices[e]]
                weight = weights[e]
                for k in range(p):
                    gradient[k] += weight * neighbour[k]
            square = _ZERO
            for k in range(p):
                square += gradient[k] * gradient[k]
            norm = np.sqrt(square)
            if norm > _TINY_NORM:
                own = rows[i]
                product = _ZERO
                scale = -_ONE / norm
                for k in range(p):
                    product += gradient[k] * own[k]
                for k in range(p):
                    own[k] = gradient[k] * scale
                decrease += product + norm
    return decrease


@kernel(fastmath=True)
def sdp_dual(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    rows: RowArray,
    inverse_norms: FloatArray,
    dual: FloatArray,
) -> float:
    """Write the dual variables y_i = ||sum_j w_ij v_j|| and return sum_ij w_ij v_i . v_j.

    weights (2 m,) float64, rows (n, p) float32, brought to unit length on the fly, dual (n,)
    float64; scratch inverse_norms (n,) float64. The returned sum runs over stored entries, so it
    counts each edge twice. Float64 throughout; cost 4 m p flops.
    """
    n, p = rows.shape
    for i in range(n):
        inverse_norms[i] = inverse_norm(rows, i)
    gradient = np.empty(p, np.float64)
    total = 0.0
    for i in range(n):
        for k in range(p):
            gradient[k] = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            factor = weights[e] * inverse_norms[j]
            for k in range(p):
                gradient[k] += factor * np.float64(rows[j, k])
        square = 0.0
        product = 0.0
        for k in range(p):
            square += gradient[k] * gradient[k]
            product += gradient[k] * np.float64(rows[i, k])
        dual[i] = math.sqrt(square)
        total += product * inverse_norms[i]
    return total


@kernel(fastmath=True)
def anneal_rows(
    indptr: IndexArray,
    indices: IndexArray,
    weights: RowArray,
    rows: RowArray,
    smoothing: float,
    ratio: float,
    count: int,
) -> float:
    """Follow the expected cut of smoothed rounding row by row while the smoothing falls.

    With r_ij = v_i . v_j and c = 1 - smoothing, the expected cut is, up to constants,
    -sum_{i<j} w_ij asin(c r_ij); each row becomes

        v_i <- normalise( -sum_j w_ij v_j / sqrt(1 - (c r_ij)^2) ).

    This is the direction of steepest ascent in v_i; its fixed points are stationary. (A single
    update may lower the sum where r_ij is negative and asin concave.) Between sweeps ``smoothing``
    is multiplied by ``ratio``. As it falls most rows collapse towards one line: the
    derandomization of hyperplane rounding. A sweep visits even vertices, then odd.

    Parameters: weights (2 m,) float32, rows (8 n,) float32, eight numbers a vertex, updated in
    place. Returns the smoothing after ``count`` sweeps. Cost about 35 flops a stored edge.
    """
    n = len(indptr) - 1
    own = new_row(rows)
    gradient = new_row(rows)
    for _ in range(count):
        c = np.float32(1.0 - smoothing)
        c_squared = c * c
        # On grids and other graphs numbered along paths, vertex i + 1 would wait for vertex i:
        # by parity a torus sweep takes 4.0 ns an edge in place of 7.1; elsewhere nothing changes.
        for parity in range(2):
            for i in range(parity, n, 2):
                offset = np.uint64(i) * _LANES
                load_row(own, rows, offset)
                scale_row(gradient, _ZERO, rows, offset)
                for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                    neighbour = np.uint64(indices[e]) * _LANES
                    r = dot_row(own, rows, neighbour)
                    complement = max(_ONE - c_squared * r * r, _SMALLEST_COMPLEMENT)
                    add_scaled_row(gradient, -weights[e] / np.sqrt(complement), rows, neighbour)
                square = squared_norm(gradient, rows)
                if square > _TINY_SQUARE:
                    store_scaled_row(gradient, _ONE / np.sqrt(square), rows, offset)
        smoothing *= ratio
    return smoothing


@kernel(fastmath=True)
def round_to_signs(
    rows: RowArray,
    normal: RowArray,
    signs: SignArray,
) -> None:
    """Cut space by a hyperplane: signs[i] = +1 where v_i . normal >= 0, else -1.

    rows (n, p), normal (p,) of the same float type, signs (n,) int8. Cost 2 n p flops.
    """
    n, p = rows.shape
    for i in range(n):
        product = normal[0] * rows[i, 0]
        for k in range(1, p):
            product += normal[k] * rows[i, k]
        signs[i] = 1 if product >= 0 else -1


@kernel(fastmath=False)
def spanning_forest_cut(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
    queue: IndexArray,
) -> None:
    """Satisfy every edge of a breadth-first forest: cut the positive ones, keep the negative ones.

    Where all edges can be satisfied at once (bipartite graphs with positive weights, balanced
    signed graphs) the cut is optimal. signs (n,) int8 is written; scratch queue (n,) int32. Cost
    O(n + m).
    """
    signs[:] = 0
    for root in range(len(signs)):
        if signs[root] != 0:
            continue
        signs[root] = 1
        queue[0] = root
        head = 0
        tail = 1
        while head < tail:
            i = queue[head]
            head += 1
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if signs[j] == 0:
                    signs[j] = -signs[i] if weights[e] > 0.0 else signs[i]
                    queue[tail] = j
                    tail += 1


@kernel(fastmath=False)
def flip_gains(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
    gains: FloatArray,
) -> None:
    """Write what flipping each vertex would add to the cut: sum_j w_ij s_i s_j. gains (n,)."""
    for i in range(len(signs)):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            total += weights[e] * signs[indices[e]]
        gains[i] = total * signs[i]


@kernel(fastmath=False)
def one_flip_ascent(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
    gains: FloatArray,
    threshold: float,
) -> int:
    """Flip vertices whose gain exceeds ``threshold`` until none is left; returns the flips.

    signs and gains (as `flip_gains` left them) are updated in place; a flip costs its degree.
    A positive threshold above the rounding of the gains makes the cut rise with every flip, so
    the loop ends.
    """
    flips = 0
    improved = True
    while improved:
        improved = False
        for i in range(len(signs)):
            if gains[i] > threshold:
                improved = True
                flips += 1
                signs[i] = -signs[i]
                gains[i] = -gains[i]
                for e in range(indptr[i], indptr[i + 1]):
                    j = indices[e]
                    gains[j] += 2.0 * weights[e] * signs[i] * signs[j]
    return flips


@kernel(fastmath=False)
def cut_value(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
) -> float:
    """Return the weight of the edges between the two sides, each edge once; cost O(n + m)."""
    total = 0.0
    for i in range(len(signs)):
        row = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            if indices[e] > i and signs[indices[e]] != signs[i]:
                row += weights[e]
        total += row
    return total


@kernel(fastmath=False)
def merge_cuts(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
    other: SignArray,
    queue: IndexArray,
    visited: BoolArray,
) -> float:
    """Take over from another cut every part that does not make this one worse.

    The vertices on which two cuts differ (up to exchanging the sides of one) fall into connected
    components. No edge joins two components, so each may be flipped by itself: those whose flip
    does not lower the cut are flipped in ``signs``. The result is at least as good as both.

    signs, other (n,) int8; scratch queue (n,) int32 and visited (n,) bool. Returns the gain.
    Cost O(n + m).
    """
    n = len(signs)
    agreement = 0
    for i in range(n):
        agreement += signs[i] * other[i]
        visited[i] = False
    orientation = 1 if agreement >= 0 else -1
    total = 0.0
    for start in range(n):
        if visited[start] or signs[start] == orientation * other[start]:
            continue
        visited[start] = True
        queue[0] = start
        head = 0
        tail = 1
        gain = 0.0
        while head < tail:
            i = queue[head]
            head += 1
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if signs[j] == orientation * other[j]:
                    gain += weights[e] * signs[i] * signs[j]
                elif not visited[j]:
                    visited[j] = True
                    queue[tail] = j
                    tail += 1
        if gain >= 0.0:
            total += gain
            for k in range(tail):
                signs[queue[k]] = -signs[queue[k]]
    return total
