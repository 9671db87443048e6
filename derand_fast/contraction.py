r"""Cuts with some vertices fixed to a side, as plain cuts of a smaller graph.

Let F be the fixed vertices, f one of them, and g_v = +1 where v is free or on f's side, -1 where it
is fixed to the other side. With s_v = g_v t_v a cut is fixed as asked for (up to exchanging both
sides) exactly if t is one sign on all of F, so that F acts as one vertex; and edge by edge

    w_uv (1 - s_u s_v) / 2  =  g_u g_v w_uv (1 - t_u t_v) / 2  +  (w_uv if g_u g_v = -1, else 0).

Summed: the value of a cut is that of the contracted cut t, in the graph with F merged into f and
edge weights g_u g_v w_uv (parallel edges add up, edges within F vanish), plus the constant
C = sum of the w_uv with g_u g_v = -1. The two problems are the same one. So an upper bound U on
every cut of the contracted graph makes U + C one on every cut of the caller's graph that has the
vertices where they are fixed.

In floating point C and the sums of parallel edges are rounded, unless all weights are integers (in
the sense of `CSRGraph.integral`), or one vertex at most is fixed and nothing is summed, or all are
and C alone is left, a correctly rounded cut. Up to |F| edges are summed into one, so the contracted
weights are off by at most gamma_|F| T in all, where T is the sum of the |w| between fixed and free
vertices. `Contraction.bound` adds that, and the roundings of C and of its own sum. Bounds rounded
down to integers are so before C is added: in the contracted graph, whose weights decide whether
that is right.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.vertex_order import reorder

__all__ = ["Contraction", "exact_cut_value"]

SignArray = NDArray[np.int8]

_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True, slots=True)
class Contraction:
    """The graph that is left to cut, and the way back to the caller's.

    Attributes
    ----------
    graph : CSRGraph
        The contracted graph; the caller's own where one vertex at most is fixed.
    original : CSRGraph
        The caller's graph.
    vertex : (n,) int array
        Which vertex of ``graph`` stands for each of the caller's.
    kept : int array
        One of the caller's vertices for each of ``graph``.
    gauge : (n,) int8 array
        -1 for vertices fixed to the side opposite to ``side``, else +1.
    anchor : int
        Vertex of ``graph`` whose side is known: the merged one, or 0 where nothing is fixed.
    side : int
        The side of ``anchor``.
    any_fixed : bool
        Whether ``side`` was asked for. Otherwise exchanging the sides yields the same cut.
    constant : float
        What to add to a cut of ``graph``.
    rounding : float
        Bound on the rounding errors of the contracted weights in any cut.
    exact : bool
        Whether there are none, and adding the constant makes none.
    """

    graph: CSRGraph
    original: CSRGraph
    vertex: NDArray[np.intp]
    kept: NDArray[np.intp]
    gauge: SignArray
    anchor: int = 0
    side: int = 1
    any_fixed: bool = False
    constant: float = 0.0
    rounding: float = 0.0
    exact: bool = True

    @classmethod
    def of(cls, graph: CSRGraph, fixed: Mapping[Any, Any] | None = None) -> Contraction:
        """Merge the fixed vertices.

        Parameters
        ----------
        graph : CSRGraph
        fixed : mapping, optional
            Label of a vertex to its side, +1 or -1.

        Raises
        ------
        TypeError
            If ``fixed`` is no mapping.
        ValueError
            For a label that no vertex has, or another side.

        Notes
        -----
        O(n + m) time and memory; O(n) where one vertex at most is fixed.

        Examples
        --------
        A triangle with two corners apart: one edge is cut, and of the others always one.

        >>> graph = as_graph((3, [(0, 1), (1, 2), (0, 2)], None))
        >>> contraction = Contraction.of(graph, {0: +1, 1: -1})
        >>> contraction.graph, contraction.constant
        (CSRGraph(n_vertices=2, n_edges=0, total_weight=0.0), 2.0)
        >>> contraction.partition(np.array([1, -1], np.int8)).tolist()
        [1, -1, -1]
        """
        every = np.arange(graph.n_vertices)
        free = cls(graph, graph, every, every, np.ones(every.size, np.int8))
        if fixed is None:
            return free
        sides = _sides_of(fixed, graph)
        held = np.flatnonzero(sides)
        if held.size == 0:
            return free
        side = int(sides[held[0]])
        if held.size == 1:
            return replace(free, anchor=int(held[0]), side=side, any_fixed=True)
        return _merge(graph, sides, held, side)

    def reordered(self, order: NDArray[np.int32]) -> Contraction:
        """Return the same with other numbers for the vertices of ``graph``: order[k] becomes k."""
        position = np.empty(order.size, np.intp)
        position[order] = np.arange(order.size)
        return replace(
            self,
            graph=reorder(self.graph, order),
            vertex=position[self.vertex],
            kept=self.kept[order],
            anchor=int(position[self.anchor]),
        )

    def partition(self, signs: SignArray) -> SignArray:
        """Return the caller's cut: the fixed vertices as asked for, else the first one on +1."""
        if signs.size == 0:
            return signs
        return signs[self.vertex] * self.gauge * (signs[self.anchor] * np.int8(self.side))

    def contract(self, partition: SignArray) -> SignArray:
        """Return the contracted form of a cut of the caller's graph.

        Raises
        ------
        ValueError
            If the cut has two of the fixed vertices on one side that belong on two, or the reverse.
        """
        gauged = partition * self.gauge
        signs = gauged[self.kept]
        wrong = np.flatnonzero(gauged != signs[self.vertex])
        if wrong.size:
            labels = self.original.labels or range(self.original.n_vertices)
            one, other = int(self.kept[self.anchor]), int(wrong[0])
            asked = "one side" if self.gauge[other] == 1 else "two sides"
            raise ValueError(
                f"initial does not have {labels[one]!r} and {labels[other]!r} on {asked}, where "
                "fixed puts them"
            )
        return signs

    def value(self, value: float) -> float:
        """Return the value of the caller's cut from that of the contracted one, to rounding."""
        return value + self.constant

    def bound(self, bound: float) -> float:
        """Return an upper bound on the caller's cuts from one on the contracted cuts."""
        total = bound + self.constant
        if self.exact:
            return total
        return total + (self.rounding + 8.0 * _UNIT_ROUNDOFF * (abs(bound) + abs(self.constant)))


def exact_cut_value(graph: CSRGraph, partition: SignArray) -> float:
    """Return the value of a cut, correctly rounded."""
    tails, heads, weights = graph.edges()
    return math.fsum(weights[partition[tails] != partition[heads]].tolist())


def _merge(graph: CSRGraph, sides: SignArray, held: NDArray[np.intp], side: int) -> Contraction:
    """Merge two or more fixed vertices into the first of them; the others keep their order."""
    is_kept = sides == 0
    is_kept[held[0]] = True
    vertex = np.cumsum(is_kept) - 1
    vertex[held] = vertex[held[0]]
    kept = np.flatnonzero(is_kept)
    gauge = np.where(sides == -side, -1, 1).astype(np.int8)
    tails, heads, weights = graph.edges()
    apart = gauge[tails] != gauge[heads]
    signed = np.where(apart, -weights, weights)
    edges = np.column_stack((vertex[tails], vertex[heads]))
    left = edges[:, 0] != edges[:, 1]
    merged = left & ((sides[tails] != 0) | (sides[heads] != 0))
    # gamma_k <= 2 k u, as k u < 1 / 2 for any number of vertices that fits int32.
    exact = graph.integral or not left.any()
    error = 2.0 * (held.size + 2) * _UNIT_ROUNDOFF * float(np.abs(weights[merged]).sum())
    return Contraction(
        graph=as_graph((kept.size, edges[left], signed[left])),
        original=graph,
        vertex=vertex,
        kept=kept,
        gauge=gauge,
        anchor=int(vertex[held[0]]),
        side=side,
        any_fixed=True,
        constant=math.fsum(weights[apart].tolist()),
        rounding=0.0 if exact else error,
        exact=exact,
    )


def _sides_of(fixed: Mapping[Any, Any], graph: CSRGraph) -> SignArray:
    """Return +1 or -1 for the fixed vertices and 0 for the others."""
    if not isinstance(fixed, Mapping):
        raise TypeError(f"fixed must be a mapping from vertices to +1 or -1, not {fixed!r}")
    sides = np.zeros(graph.n_vertices, np.int8)
    labels = range(graph.n_vertices) if graph.labels is None else graph.labels
    index = {label: k for k, label in enumerate(labels)}
    for label, side in fixed.items():
        if label not in index:
            raise ValueError(f"fixed holds {label!r}, which is no vertex")
        if isinstance(side, bool) or not isinstance(side, numbers.Real) or side not in (1, -1):
            raise ValueError(f"fixed[{label!r}] is {side!r}; a side must be +1 or -1")
        sides[index[label]] = 1 if side == 1 else -1
    return sides
