"""Exact removal of vertices with at most three neighbours from a maximum cut problem.

Given the signs of its neighbours, the best sign of a vertex is known, and what its edges then
contribute is a function of these signs that does not change when all are flipped. Such a function
of one, two or three signs is a constant plus weights on the edges between them:

    max_s sum_x w_x [s != s_x] = const + sum_{x<y} J_xy [s_x != s_y],
    J_xy = (K_x + K_y - K_z - K_0) / 2,   K_0 = |a + b + c| / 2,   K_x = K_0 with w_x negated

(the star-triangle transformation). The smaller problem has the same best cuts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]
SignArray = NDArray[np.int8]


@kernel(fastmath=False)
def _find(neighbours: IndexArray, begin: int, degree: int, vertex: int) -> int:
    """Return the place of a vertex in a row, or -1."""
    for e in range(begin, begin + degree):
        if neighbours[e] == vertex:
            return e
    return -1


@kernel(fastmath=False)
def _drop(
    neighbours: IndexArray,
    weights: FloatArray,
    starts: IndexArray,
    degrees: IndexArray,
    i: int,
    j: int,
) -> None:
    """Remove j from the row of i."""
    begin = starts[i]
    place = _find(neighbours, begin, degrees[i], j)
    last = begin + degrees[i] - 1
    neighbours[place] = neighbours[last]
    weights[place] = weights[last]
    degrees[i] -= 1


@kernel(fastmath=False)
def _add(
    neighbours: IndexArray,
    weights: FloatArray,
    starts: IndexArray,
    degrees: IndexArray,
    i: int,
    j: int,
    weight: float,
) -> None:
    """Add to the weight of j in the row of i; an edge of weight 0 goes. Rows have room."""
    begin = starts[i]
    place = _find(neighbours, begin, degrees[i], j)
    if place < 0:
        place = begin + degrees[i]
        neighbours[place] = j
        weights[place] = weight
        degrees[i] += 1
        return
    weights[place] += weight
    if weights[place] == 0.0:
        last = begin + degrees[i] - 1
        neighbours[place] = neighbours[last]
        weights[place] = weights[last]
        degrees[i] -= 1


@kernel(fastmath=False)
def eliminate_low_degrees(
    starts: IndexArray,
    degrees: IndexArray,
    capacities: IndexArray,
    neighbours: IndexArray,
    weights: FloatArray,
    removed: IndexArray,
    removed_neighbours: IndexArray,
    removed_weights: FloatArray,
    stack: IndexArray,
) -> int:
    """Remove vertices with at most three neighbours until none is left that can go.

    Row i holds ``degrees[i]`` entries of ``neighbours`` and ``weights`` from ``starts[i]`` on and
    has room for ``capacities[i]``; all are updated in place. A vertex stays where a neighbour's row
    is full. Vertex ``removed[t]`` went as the t-th, with neighbours ``removed_neighbours[t]``
    (3,), -1 where there are fewer, and weights ``removed_weights[t]``. Scratch stack (2, 4 n).
    Returns how many went; their degree becomes -1. Cost O(sum of the degrees of the neighbours).
    """
    n = len(degrees)
    capacity = stack.shape[1]
    heights = np.zeros(2, np.int64)
    for i in range(n - 1, -1, -1):
        if degrees[i] <= 3:
            level = 0 if degrees[i] <= 2 else 1
            stack[level, heights[level]] = i
            heights[level] += 1
    count = 0
    values = np.empty(3)
    near = np.empty(3, np.int64)
    flipped = np.empty(3)
    while heights[0] + heights[1] > 0:
        # Fewer neighbours first: removing these adds no edges.
        level = 0 if heights[0] > 0 else 1
        heights[level] -= 1
        i = stack[level, heights[level]]
        degree = degrees[i]
        if degree < 0 or degree > 3:
            continue
        near[:] = -1
        values[:] = 0.0
        room = True
        for k in range(degree):
            near[k] = neighbours[starts[i] + k]
            values[k] = weights[starts[i] + k]
            # One entry goes and at most two come.
            room = room and degrees[near[k]] + (1 if degree == 3 else 0) <= capacities[near[k]]
        if not room:
            continue
        for k in range(3):
            removed_neighbours[count, k] = near[k]
            removed_weights[count, k] = values[k]
        removed[count] = i
        count += 1
        degrees[i] = -1
        for k in range(degree):
            _drop(neighbours, weights, starts, degrees, near[k], i)
        total = values[0] + values[1] + values[2]
        for k in range(3):
            flipped[k] = 0.5 * abs(total - 2.0 * values[k])
        for k in range(degree):
            for other in range(k + 1, degree):
                third = 3 - k - other
                weight = 0.5 * (flipped[k] + flipped[other] - flipped[third] - 0.5 * abs(total))
                if weight != 0.0:
                    _add(neighbours, weights, starts, degrees, near[k], near[other], weight)
                    _add(neighbours, weights, starts, degrees, near[other], near[k], weight)
        for k in range(degree):
            j = near[k]
            if degrees[j] <= 3:
                level = 0 if degrees[j] <= 2 else 1
                if heights[level] < capacity:
                    stack[level, heights[level]] = j
                    heights[level] += 1
    return count


@kernel(fastmath=False)
def lift_signs(
    signs: SignArray,
    removed: IndexArray,
    removed_neighbours: IndexArray,
    removed_weights: FloatArray,
) -> None:
    """Give removed vertices their best signs, last removed first; the others' are in ``signs``."""
    for t in range(len(removed) - 1, -1, -1):
        field = 0.0
        for k in range(3):
            j = removed_neighbours[t, k]
            if j >= 0:
                field += removed_weights[t, k] * signs[j]
        signs[removed[t]] = 1 if field <= 0.0 else -1
