"""Greedy colourings of a graph, and independent runs of consecutive vertices."""

from typing import Any

from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel

IndexArray = NDArray[Any]


@kernel(fastmath=False)
def greedy_colouring(
    indptr: IndexArray,
    indices: IndexArray,
    order: IndexArray,
    last_seen: IndexArray,
    colours: IndexArray,
) -> int:
    """Give each vertex, in the order given, the smallest colour that no neighbour has yet.

    order (n,) int32 is a permutation; colours (n,) int32 is written; scratch last_seen
    (max degree + 1,) int32. Returns the number of colours, at most max degree + 1. Cost O(n + m).
    """
    colours[:] = -1
    last_seen[:] = -1
    count = 0
    for k in range(len(order)):
        i = order[k]
        for e in range(indptr[i], indptr[i + 1]):
            colour = colours[indices[e]]
            if colour >= 0:
                last_seen[colour] = i
        colour = 0
        while last_seen[colour] == i:
            colour += 1
        colours[i] = colour
        count = max(count, colour + 1)
    return count


@kernel(fastmath=False)
def independent_runs(indptr: IndexArray, indices: IndexArray, starts: IndexArray) -> int:
    """Cut 0..n-1 into the longest runs, from the left, that hold no edge.

    starts (n + 1,) receives the first vertex of each run and, after the last, n. Returns how many
    runs there are. Cost O(n + m).
    """
    n = len(indptr) - 1
    count = 0
    start = 0
    starts[0] = 0
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            if start <= indices[e] < i:
                start = i
                count += 1
                starts[count] = start
                break
    if n > 0:
        count += 1
    starts[count] = n
    return count
