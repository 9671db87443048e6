"""Seeded generators of test graphs: the same arguments give the same graph.

They stand in for the classical families of the maximum-cut literature: uniform random graphs,
toroidal grids and unions of planar graphs. Each returns a `CSRGraph`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.graphs import CSRGraph, as_graph

__all__ = ["demo_graph", "planar_union", "random_graph", "torus_grid"]

_UNIFORM_WEIGHTS = ("unit", "signs")
_GRID_WEIGHTS = ("unit", "signs", "gaussian")
_INT32_MAX = int(np.iinfo(np.int32).max)


def random_graph(n: int, m: int, *, seed: int, weights: str = "unit") -> CSRGraph:
    """Draw a graph uniformly from all graphs with n vertices and exactly m edges.

    Parameters
    ----------
    n, m : int
        Vertices, and distinct edges, 0 <= m <= n (n - 1) / 2.
    seed : int
        Non-negative seed of `numpy.random.default_rng`.
    weights : {"unit", "signs"}
        All weights 1, or independent fair signs -1 and +1.

    Returns
    -------
    CSRGraph

    Raises
    ------
    TypeError
        If n, m or seed is not an integer.
    ValueError
        If n, m or seed is out of range, or weights is not one of the names.

    Notes
    -----
    O(n + m log m) expected time and O(n + m) memory, also for dense graphs.

    Examples
    --------
    >>> random_graph(10, 20, seed=1)
    CSRGraph(n_vertices=10, n_edges=20, total_weight=20.0)
    """
    n = _integer("n", n, 0, _INT32_MAX)
    pairs = n * (n - 1) // 2
    m = _integer("m", m, 0, pairs)
    _check_choice(weights, _UNIFORM_WEIGHTS)
    rng = _rng(seed)
    keys = _sample_distinct(rng, pairs, m)
    return as_graph((n, _decode_pairs(keys, n), _draw_weights(rng, m, weights)))


def torus_grid(rows: int, cols: int, *, seed: int, weights: str = "unit") -> CSRGraph:
    """Build the rows x cols grid on the torus; vertex (r, c) has index r * cols + c.

    Each vertex is joined to its right and its lower neighbour, with wrap-around. Along a side of
    length 2 the two edges between a pair add up (weight 2 for unit weights; for signs 2, -2 or
    0, and then the edge is gone). Along a side of length 1 there are no edges.

    Parameters
    ----------
    rows, cols : int
        Side lengths, at least 1.
    seed : int
        Non-negative seed of `numpy.random.default_rng`; unit weights do not use it.
    weights : {"unit", "signs", "gaussian"}
        All weights 1, independent fair signs, or independent standard normal numbers.

    Returns
    -------
    CSRGraph

    Raises
    ------
    TypeError
        If rows, cols or seed is not an integer.
    ValueError
        If rows, cols or seed is out of range, or weights is not one of the names.

    Notes
    -----
    O(rows * cols) time and memory.

    Examples
    --------
    >>> torus_grid(3, 4, seed=0)
    CSRGraph(n_vertices=12, n_edges=24, total_weight=24.0)
    """
    rows = _integer("rows", rows, 1, _INT32_MAX)
    cols = _integer("cols", cols, 1, _INT32_MAX // rows)
    _check_choice(weights, _GRID_WEIGHTS)
    rng = _rng(seed)
    index = np.arange(rows * cols, dtype=np.int64).reshape(rows, cols)
    neighbours = [np.roll(index, -1, axis=axis) for axis in (0, 1) if index.shape[axis] > 1]
    edges = np.concatenate(
        [np.column_stack((index.ravel(), other.ravel())) for other in neighbours]
        or [np.zeros((0, 2), dtype=np.int64)]
    )
    return as_graph((rows * cols, edges, _draw_weights(rng, len(edges), weights)))


def planar_union(n: int, *, seed: int) -> CSRGraph:
    """Build the union of two Delaunay triangulations of n random points in the unit square.

    The two draws of points are independent, so the union is far from planar. An edge of both
    triangulations counts once; all weights are 1. There are at most 6 n - 12 edges for n >= 3.

    Parameters
    ----------
    n : int
        Vertices, at least 0. For n < 3 the graph is complete.
    seed : int
        Non-negative seed of `numpy.random.default_rng`.

    Returns
    -------
    CSRGraph

    Raises
    ------
    TypeError
        If n or seed is not an integer.
    ValueError
        If n or seed is out of range.

    Notes
    -----
    O(n log n) expected time, O(n) memory. The triangulation is Qhull's (`scipy.spatial.Delaunay`).

    Examples
    --------
    >>> planar_union(3, seed=0)
    CSRGraph(n_vertices=3, n_edges=3, total_weight=3.0)
    """
    n = _integer("n", n, 0, _INT32_MAX)
    rng = _rng(seed)
    if n < 3:
        return as_graph((n, [(0, 1)] if n == 2 else [], None))
    # Keys tail * n + head with tail < head make the union a matter of sorted integers.
    keys = _distinct_sorted(np.concatenate([_delaunay_keys(rng.random((n, 2))) for _ in range(2)]))
    return as_graph((n, np.column_stack(np.divmod(keys, n)), None))


def demo_graph() -> CSRGraph:
    """Return the built-in example: a uniform random graph of 800 vertices and 19,176 unit edges.

    Examples
    --------
    >>> demo_graph()
    CSRGraph(n_vertices=800, n_edges=19176, total_weight=19176.0)
    """
    return random_graph(800, 19176, seed=1)


# --------------------------------------------------------------------------------------------------
# Helpers
# --------------------------------------------------------------------------------------------------


def _sample_distinct(rng: np.random.Generator, population: int, size: int) -> NDArray[np.int64]:
    """Sorted uniform sample of distinct integers in 0..population-1, O(size) memory."""
    if 2 * size <= population:
        return _sample_sparse(rng, population, size)
    # More than half: draw the ones left out. The mask is no longer than 2 * size.
    chosen = np.ones(population, dtype=np.bool_)
    chosen[_sample_sparse(rng, population, population - size)] = False
    return np.flatnonzero(chosen)


def _sample_sparse(rng: np.random.Generator, population: int, size: int) -> NDArray[np.int64]:
    """Sorted uniform sample of at most half the population.

    Each round draws as many integers as are still missing and drops repeats. No step prefers one
    integer to another, so given its size the set is uniform; at least about half of a round is new,
    so the rounds shrink geometrically.
    """
    keys: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    while keys.size < size:
        draws = rng.integers(population, size=size - keys.size, dtype=np.int64)
        keys = _distinct_sorted(np.concatenate((keys, draws)))
    return keys


def _distinct_sorted(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    # np.unique of NumPy 2.3 and later hashes integers: several times slower at millions of keys.
    ordered = np.sort(keys)
    if ordered.size == 0:
        return ordered
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    return ordered[first]


def _decode_pairs(keys: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Pairs of vertices for keys in 0..n(n-1)/2 - 1, a bijection in integers only.

    Key = (d - 1) n + u stands for u and u + d mod n, with the distance d = 1, 2, ... on the circle.
    For odd n each distance up to (n - 1)/2 gives n pairs; for even n the last one, n/2, gives n/2.
    """
    if n == 0:
        return np.zeros((0, 2), dtype=np.int64)
    distance, tails = np.divmod(keys, n)
    return np.column_stack((tails, (tails + distance + 1) % n))


def _delaunay_keys(points: NDArray[np.float64]) -> NDArray[np.int64]:
    from scipy.spatial import Delaunay  # slow to import, and only this generator needs it

    triangles = Delaunay(points).simplices.astype(np.int64)
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return sides.min(axis=1) * len(points) + sides.max(axis=1)


def _draw_weights(rng: np.random.Generator, m: int, weights: str) -> NDArray[np.float64]:
    if weights == "gaussian":
        return rng.standard_normal(m)
    if weights == "signs":
        return rng.choice(np.array([-1.0, 1.0]), size=m)
    return np.ones(m)


def _rng(seed: Any) -> np.random.Generator:
    return np.random.default_rng(_integer("seed", seed, 0, None))


def _integer(name: str, value: Any, low: int, high: int | None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} must be {limits}, got {number}")
    return number


def _check_choice(weights: Any, choices: tuple[str, ...]) -> None:
    if weights not in choices:
        raise ValueError(f"weights must be one of {', '.join(choices)}; got {weights!r}")
