"""Cuts as networkx computes them: the work behind `derand_fast.networkx_backend`.

Everything here gives what networkx gives, to the bit and to the order of the sets it returns. What
decides is the order in which Python adds up the weights of a cut, which is the order of the set
that holds one side. So this side is kept as the very set that networkx would hold, and

- where all sums are exact, whatever their order, moves are chosen by compiled code alone;
- where sums are rounded, compiled code chooses as long as no rounding can matter, and returns to
  Python's own sums where it might;
- weights that are not numbers of a known kind are left to Python altogether.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels.one_exchange import (
    OPTIMUM,
    UNDECIDED,
    WORDS,
    best_exchanges,
    boundary_entries,
    shuffle,
    temper,
)

__all__ = ["ConvertedGraph", "cut_size", "one_exchange", "randomized_partitioning"]

FloatArray = NDArray[np.float64]
Partition = tuple[set[Any], set[Any]]

# Significant bits of Python's sums of such weights; integers are exact.
_FLOAT_BITS: dict[type, int] = {float: 53, np.float64: 53, np.float32: 24}
_INTEGERS: tuple[type, ...] = (np.int8, np.int16, np.int32, np.int64)
_KERNEL_TYPES = {int, bool, *_FLOAT_BITS, *_INTEGERS}
_UNIT_ROUNDOFF = 2.0**-53
# Vertices looked at between two chances for an interrupt, about 20 ms.
_STEP = 4_000_000


# --------------------------------------------------------------------------------------------------
# Weights
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Weights:
    """Weights of all stored entries: Python's objects, and numbers for the kernels.

    values : the objects, or None where all are 1
    numbers : (entries,) float64, 0 for a vertex that meets itself; None if Python must add
    rounding : largest error of Python's sum over any cut, 0.0 if all sums are exact
    """

    values: list[Any] | None
    numbers: FloatArray | None
    rounding: float

    @staticmethod
    def of(values: list[Any] | None, loops: NDArray[np.bool_]) -> _Weights:
        if values is None:
            return _Weights(None, np.where(loops, 0.0, 1.0), 0.0)
        numbers = _numbers(values)
        if numbers is None:
            return _Weights(values, None, np.inf)
        numbers[loops] = 0.0
        rounding = _rounding(set(map(type, values)), numbers)
        return _Weights(values, numbers if np.isfinite(rounding) else None, rounding)


def _numbers(values: list[Any]) -> FloatArray | None:
    if not set(map(type, values)) <= _KERNEL_TYPES:
        return None
    try:
        return np.fromiter(values, dtype=np.float64, count=len(values))
    except OverflowError:  # a Python integer beyond the range of float64
        return None


def _rounding(types: set[type], numbers: FloatArray) -> float:
    """Bound the error of Python's sum of any of the weights, in any order; inf if it may overflow.

    Sums are exact if all weights are multiples of one power of two and the sum of their absolute
    values is below 2^bits times it. Otherwise the error of a sum of m terms, those that enter as
    integers rounded first, is below 1.1 (m + 2) 2^-bits sum |w|, for m 2^-bits < 0.05.
    """
    bits = min((_FLOAT_BITS[kind] for kind in types if kind in _FLOAT_BITS), default=53)
    with np.errstate(over="ignore"):
        total = float(np.abs(numbers).sum())  # each edge twice: to spare
    limits = [float(np.iinfo(kind).max) for kind in types if kind in _INTEGERS]
    limits.append(float(np.finfo(np.float32).max) if bits < 53 else 2.0**1020)
    if not total < min(limits):
        return np.inf
    mantissas, exponents = np.frexp(numbers[numbers != 0.0])
    if mantissas.size == 0:
        return 0.0
    whole = (mantissas * 2.0**53).astype(np.int64)
    _, trailing = np.frexp((whole & -whole).astype(np.float64))
    lowest = int((exponents - 54 + trailing).min())
    if total < np.ldexp(1.0, min(lowest + bits, 1023)):
        return 0.0
    terms = numbers.size + 2
    if terms * 2.0**-bits > 0.05:
        return np.inf
    return 1.1 * terms * 2.0**-bits * total


# --------------------------------------------------------------------------------------------------
# The converted graph
# --------------------------------------------------------------------------------------------------


class ConvertedGraph:
    """Undirected graph with the nodes, the neighbours and their orders of a networkx graph.

    Attributes
    ----------
    nodes : tuple of the nodes' labels
    position : dict from labels to places in it
    indptr, indices : CSR rows in networkx's order; a node that meets itself is listed once
    loops : (entries,) bool, where a node meets itself
    """

    __networkx_backend__ = "derand_fast"

    def __init__(
        self,
        nodes: tuple[Any, ...],
        position: dict[Any, int],
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32],
        attributes: dict[Any, list[Any]] | list[dict[Any, Any]],
    ) -> None:
        self.nodes = nodes
        self.position = position
        self.indptr = indptr
        self.indices = indices
        self.loops = indices == np.repeat(np.arange(len(nodes)), np.diff(indptr))
        self._attributes = attributes
        self._weights: dict[Any, _Weights] = {}

    @staticmethod
    def of(graph: Any, edge_attrs: dict[Any, Any] | None) -> ConvertedGraph:
        """Convert a networkx graph; ``edge_attrs`` None takes over all attributes of edges."""
        if graph.is_directed() or graph.is_multigraph():
            raise NotImplementedError(
                f"derand_fast takes undirected graphs, not {type(graph).__name__}"
            )
        nodes = tuple(graph)
        position = {node: place for place, node in enumerate(nodes)}
        rows = [neighbours for _, neighbours in graph.adjacency()]
        indptr = np.zeros(len(nodes) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        places = map(position.__getitem__, chain.from_iterable(rows))
        indices = np.fromiter(places, dtype=np.int32, count=int(indptr[-1]))
        attributes: dict[Any, list[Any]] | list[dict[Any, Any]]
        if edge_attrs is None:
            attributes = [dict(edge) for row in rows for edge in row.values()]
        else:
            attributes = {
                attribute: [edge.get(attribute, default) for row in rows for edge in row.values()]
                for attribute, default in edge_attrs.items()
            }
        return ConvertedGraph(nodes, position, indptr, indices, attributes)

    def is_directed(self) -> bool:
        """Return False."""
        return False

    def is_multigraph(self) -> bool:
        """Return False."""
        return False

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        """Sizes only."""
        edges = (self.indices.size + int(self.loops.sum())) // 2
        return f"ConvertedGraph({len(self)} nodes, {edges} edges)"

    def holds(self, attribute: Any) -> bool:
        """Whether an attribute of the edges was taken over; None, all ones, always is."""
        return (
            attribute is None
            or isinstance(self._attributes, list)
            or attribute in (self._attributes)
        )

    def weights(self, attribute: Any) -> _Weights:
        """Weights by an attribute of the edges, absent means 1; by None all are 1."""
        if attribute not in self._weights:
            self._weights[attribute] = _Weights.of(self._values(attribute), self.loops)
        return self._weights[attribute]

    def _values(self, attribute: Any) -> list[Any] | None:
        if attribute is None:
            return None
        if not self.holds(attribute):
            raise ValueError(
                f"the graph was converted without the edge attribute {attribute!r}: give "
                f"convert_from_nx edge_attrs={{{attribute!r}: 1}}"
            )
        if isinstance(self._attributes, list):
            return [edge.get(attribute, 1) for edge in self._attributes]
        return self._attributes[attribute]

    def to_networkx(self) -> nx.Graph:
        """Return a networkx graph with the nodes, the edges and their attributes."""
        graph = nx.Graph()
        graph.add_nodes_from(self.nodes)
        heads = [self.nodes[j] for j in self.indices.tolist()]
        tails = chain.from_iterable(
            [node] * count for node, count in zip(self.nodes, np.diff(self.indptr), strict=True)
        )
        data: Iterable[dict[Any, Any]]
        if isinstance(self._attributes, list):
            data = self._attributes
        else:
            names, columns = tuple(self._attributes), self._attributes.values()
            rows = zip(*columns, strict=True) if names else [()] * len(heads)
            data = (dict(zip(names, row, strict=True)) for row in rows)
        graph.add_edges_from(zip(tails, heads, data, strict=True))
        return graph

    def members(self, nodes: Iterable[Any]) -> set[Any]:
        """Set of those that are nodes of the graph, as networkx makes it."""
        listed = list(nodes)
        try:
            return {node for node in listed if node in self.position}
        except TypeError:  # networkx passes over what cannot be hashed
            return {node for node in listed if _is_hashable(node) and node in self.position}

    def boundary(self, source: set[Any], target: set[Any] | None, weights: _Weights) -> Any:
        """Sum of the weights between two sets of nodes, as networkx adds them.

        ``source`` holds nodes of the graph only; its order is that of the sum. ``target`` None is
        its complement.
        """
        n = len(self.nodes)
        rows = np.fromiter(map(self.position.__getitem__, source), np.int32, len(source))
        rank = np.full(n, rows.size, dtype=np.int32)
        rank[rows] = np.arange(rows.size, dtype=np.int32)
        if target is None:
            inside = rank == rows.size
        else:
            inside = np.zeros(n, dtype=np.bool_)
            inside[[self.position[node] for node in target if node in self.position]] = True
        entries = np.empty(self.indices.size, dtype=np.int64)
        count = boundary_entries(self.indptr, self.indices, rows, rank, inside, entries)
        if weights.values is None:
            return int(count)
        return sum([weights.values[entry] for entry in entries[:count].tolist()])

    def cut_value(self, side: set[Any], weights: _Weights) -> Any:
        """Sum of the weights between a set and its complement, as networkx adds them."""
        return self.boundary({node for node in side if node in self.position}, None, weights)

    def partition(self, side: set[Any]) -> Partition:
        """One side, and the set of the other nodes."""
        return side, {node for node in self.nodes if node not in side}


def _is_hashable(node: Any) -> bool:
    try:
        hash(node)
    except TypeError:
        return False
    return True


# --------------------------------------------------------------------------------------------------
# Random numbers
# --------------------------------------------------------------------------------------------------


class _Twister:
    """State of a `random.Random` for the kernels, and back to it."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator
        self._version, internal, self._gauss = generator.getstate()
        self.words = np.array(internal[:WORDS], dtype=np.uint32)
        self.place = np.array(internal[WORDS:], dtype=np.int64)
        self.numbers = np.empty(WORDS, dtype=np.uint32)
        temper(self.words, self.numbers)

    def give_back(self) -> None:
        """Set the generator to the state reached."""
        internal = (*self.words.tolist(), *self.place.tolist())
        self._generator.setstate((self._version, internal, self._gauss))


@functools.cache
def _kernel_shuffles_like_python() -> bool:
    """Whether this Python's shuffle is the one that the kernel repeats: Python does not promise."""
    ours, theirs = random.Random(1), random.Random(1)
    order = np.empty(700, dtype=np.int32)
    twister = _Twister(ours)
    shuffle(twister.words, twister.numbers, twister.place, order, True)
    twister.give_back()
    shuffled = list(range(order.size))
    theirs.shuffle(shuffled)
    return shuffled == order.tolist() and ours.getstate() == theirs.getstate()


# --------------------------------------------------------------------------------------------------
# One exchange
# --------------------------------------------------------------------------------------------------


def one_exchange(
    graph: ConvertedGraph, initial_cut: Iterable[Any] | None, seed: Any, weight: Any
) -> tuple[Any, Partition]:
    """See `derand_fast.networkx_backend.one_exchange`."""
    side: set[Any] = set() if initial_cut is None else set(initial_cut)
    weights = graph.weights(weight)
    if len(graph) > 0:
        if weights.numbers is None:
            side = _exchange_in_python(graph, weights, side, seed)
        else:
            side = _Exchange(graph, weights, weights.numbers, side).run(seed)
    return graph.cut_value(side, weights), graph.partition(side)


def _swapped(side: set[Any], node: Any) -> set[Any]:
    """Copy of a set with one node moved, in the order that networkx's copy has."""
    return side - {node} if node in side else side.union({node})


def _improved(
    graph: ConvertedGraph, weights: _Weights, side: set[Any], places: Iterable[int]
) -> set[Any] | None:
    """Move the best vertex, the first of equals; None if this is no better. Python's own sums."""

    def value_after(place: int) -> Any:
        return graph.cut_value(_swapped(side, graph.nodes[place]), weights)

    moved = _swapped(side, graph.nodes[max(places, key=value_after)])
    if graph.cut_value(moved, weights) > graph.cut_value(side, weights):
        return moved
    return None


def _exchange_in_python(
    graph: ConvertedGraph, weights: _Weights, side: set[Any], seed: Any
) -> set[Any]:
    improved: set[Any] | None = side
    while improved is not None:
        side = improved
        order = list(range(len(graph)))
        seed.shuffle(order)
        improved = _improved(graph, weights, side, order)
    return side


class _Exchange:
    """Local search from one side of a cut: that side as a set, and as signs for the kernel."""

    def __init__(
        self, graph: ConvertedGraph, weights: _Weights, numbers: FloatArray, side: set[Any]
    ) -> None:
        n = len(graph)
        self._graph = graph
        self._weights = weights
        self._numbers = numbers
        self._side = side
        self._signs = np.fromiter((1 if v in side else -1 for v in graph.nodes), np.int8, n)
        self._gains = np.empty(n)
        self._order = np.empty(n, dtype=np.int32)
        steps = min(max(_STEP // n, 1), 4 * n)
        self._moves = np.empty(steps, dtype=np.int32)
        self._tolerance = self._largest_rounding(steps)

    def run(self, seed: Any) -> set[Any]:
        """Search to the end; returns the side."""
        if type(seed) is not random.Random or not _kernel_shuffles_like_python():
            twister, shuffled = _Twister(random.Random(0)), True
            self._moves = self._moves[:1]
        else:
            twister, shuffled = _Twister(seed), False
        try:
            while self._advance(twister, seed.shuffle if shuffled else None):
                pass
        finally:
            if not shuffled:
                twister.give_back()
        return self._side

    def _advance(self, twister: _Twister, shuffle_list: Callable[[Any], Any] | None) -> bool:
        """Make some moves; returns whether there may be more."""
        if shuffle_list is not None:
            order = list(range(len(self._graph)))
            shuffle_list(order)
            self._order[:] = order
        status, count = best_exchanges(
            self._graph.indptr,
            self._graph.indices,
            self._numbers,
            self._signs,
            self._gains,
            self._tolerance,
            twister.words,
            twister.numbers,
            twister.place,
            self._order,
            shuffle_list is not None,
            self._moves,
        )
        for place in self._moves[:count].tolist():
            self._side = _swapped(self._side, self._graph.nodes[place])
        if status == UNDECIDED:
            return self._decide()
        return bool(status != OPTIMUM)

    def _decide(self) -> bool:
        """Choose among the largest gains by Python's sums; returns whether a vertex moved."""
        gains = self._gains[self._order]
        largest = self._order[gains >= gains.max() - self._tolerance].tolist()
        improved = _improved(self._graph, self._weights, self._side, largest)
        if improved is None:
            return False
        (moved,) = improved ^ self._side
        place = self._graph.position[moved]
        self._signs[place] = -self._signs[place]
        self._side = improved
        return True

    def _largest_rounding(self, steps: int) -> float:
        """Differences of gains up to this may have another sign in Python's sums.

        The error of a gain is below 1.1 u (d + steps + 2) D with unit roundoff u, d entries in the
        row, D the sum of their |w|: one rounding each for the terms and for each move of a
        neighbour. Both gains, and both of Python's sums, may err.
        """
        if self._weights.rounding == 0.0:
            return 0.0
        rows = np.repeat(np.arange(len(self._graph)), np.diff(self._graph.indptr))
        sums = np.bincount(rows, np.abs(self._numbers), minlength=len(self._graph))
        terms = int(np.diff(self._graph.indptr).max()) + steps + 2
        return 2.0 * (self._weights.rounding + 1.1 * _UNIT_ROUNDOFF * terms * float(sums.max()))


# --------------------------------------------------------------------------------------------------
# Other functions
# --------------------------------------------------------------------------------------------------


def randomized_partitioning(
    graph: ConvertedGraph, seed: Any, p: Any, weight: Any
) -> tuple[Any, Partition]:
    """See `derand_fast.networkx_backend.randomized_partitioning`."""
    side = {node for node in graph.nodes if seed.random() < p}
    return graph.cut_value(side, graph.weights(weight)), graph.partition(side)


def cut_size(graph: ConvertedGraph, S: Iterable[Any], T: Iterable[Any] | None, weight: Any) -> Any:
    """See `derand_fast.networkx_backend.cut_size`."""
    source = graph.members(S)
    target = None if T is None else set(T)
    return graph.boundary(source, target, graph.weights(weight))
