"""Most violated odd-cycle inequalities of a point in the edge space, by shortest paths."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]


@kernel(fastmath=False, inline=True)
def _before(keys: FloatArray, one: int, other: int) -> bool:
    """Whether node ``one`` is nearer than ``other``; equals by number, so that runs agree."""
    return keys[one] < keys[other] or (keys[one] == keys[other] and one < other)


@kernel(fastmath=False)
def _sift_up(heap: IndexArray, place: IndexArray, keys: FloatArray, k: int) -> None:
    """Move the node at heap position k up to where it belongs."""
    node = heap[k]
    while k > 0:
        parent = (k - 1) // 2
        if not _before(keys, node, heap[parent]):
            break
        heap[k] = heap[parent]
        place[heap[k]] = k
        k = parent
    heap[k] = node
    place[node] = k


@kernel(fastmath=False)
def _sift_down(heap: IndexArray, place: IndexArray, keys: FloatArray, size: int) -> None:
    """Move the node at the top of the heap down to where it belongs."""
    node = heap[0]
    k = 0
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _before(keys, heap[child + 1], heap[child]):
            child += 1
        if not _before(keys, heap[child], node):
            break
        heap[k] = heap[child]
        place[heap[k]] = k
        k = child
    heap[k] = node
    place[node] = k


@kernel(fastmath=False)
def shortest_odd_walks(
    indptr: IndexArray,
    indices: IndexArray,
    tails: IndexArray,
    edge_of: IndexArray,
    point: FloatArray,
    toll: float,
    sources: IndexArray,
    longest: float,
    distance: FloatArray,
    arrival: IndexArray,
    heap: IndexArray,
    place: IndexArray,
    touched: IndexArray,
    walk_ends: IndexArray,
    walk_edges: IndexArray,
    walk_odd: NDArray[np.bool_],
) -> int:
    """Find a shortest closed walk with an odd number of odd steps through each source.

    A step along edge e is even and has length x_e, or odd and has length 1 - x_e. On a graph with
    two copies of each vertex, joined by the odd steps, such a walk is a path from one copy of the
    source to the other (Dijkstra, given up beyond ``longest``). A cut's edge vector x in {0, 1}^m
    makes every such walk at least 1 long; a walk shorter than 1 is a violated inequality.

    Each step costs ``toll`` on top. Parameters: tails (2 m,) row and edge_of (2 m,) edge number of
    each stored entry, point (m,) in [0, 1], sources (k,).
    Scratch over 2 n nodes: distance (2 n,) filled with inf, arrival, heap, place, touched (2 n,).
    Walk t occupies walk_edges and walk_odd from walk_ends[t - 1] (0 for the first) to walk_ends[t];
    walk_ends (k,), the other two any length L. Returns the number of sources done: fewer than k
    where L did not suffice. A source without a walk has an empty one.

    Source: Barahona and Mahjoub, "On the cut polytope", Math. Programming 36 (1986).
    """
    n = len(indptr) - 1
    used = 0
    for t in range(len(sources)):
        source = sources[t]
        size = 1
        count = 1
        heap[0] = source
        place[source] = 0
        touched[0] = source
        distance[source] = 0.0
        arrival[source] = -1
        goal = source + n
        found = False
        while size > 0:
            node = heap[0]
            if node == goal:
                found = True
                break
            size -= 1
            if size > 0:
                heap[0] = heap[size]
                place[heap[0]] = 0
                _sift_down(heap, place, distance, size)
            place[node] = -1
            side = n if node >= n else 0
            i = node - side
            for e in range(indptr[i], indptr[i + 1]):
                x = point[edge_of[e]]
                for odd in range(2):
                    length = distance[node] + toll + (1.0 - x if odd else x)
                    other = indices[e] + (n - side if odd else side)
                    if length <= longest and length < distance[other]:
                        if distance[other] == np.inf:
                            touched[count] = other
                            count += 1
                            place[other] = size
                            heap[size] = other
                            size += 1
                        distance[other] = length
                        arrival[other] = 2 * e + odd
                        _sift_up(heap, place, distance, place[other])
        if found:
            node = goal
            steps = 0
            while node != source:
                step = arrival[node]
                if used + steps >= len(walk_edges):
                    for k in range(count):
                        distance[touched[k]] = np.inf
                    return t
                e = step // 2
                walk_edges[used + steps] = edge_of[e]
                walk_odd[used + steps] = step % 2 == 1
                steps += 1
                crosses = (node >= n) != (step % 2 == 1)
                node = tails[e] + (n if crosses else 0)
            used += steps
        for k in range(count):
            distance[touched[k]] = np.inf
        walk_ends[t] = used
    return len(sources)
