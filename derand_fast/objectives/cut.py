"""The smoothed maximum cut as an objective."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.kernels import smoothed_cut
from derand_fast.objectives.protocol import Block, Blocks, without_weights
from derand_fast.threads import map_ranges, thread_count

__all__ = ["MaxCutObjective"]

FloatArray = NDArray[np.float64]
# What a pass over rows costs grows with these.
_Unit = Literal["vertices", "entries", "edges"]

# From here on a pass takes about two milliseconds, ten times what it costs to start a thread:
# stored entries, each counting 1 + rank / 32 (its transcendental functions, its sums over a row).
_PARALLEL_WORK = 40_000
# Squares of tau and of 1 / tau must stay far inside the range of float64.
_TAU_RANGE = (1e-60, 1e60)


class MaxCutObjective:
    """f(W, b) = sum_{i<j} w_ij E[s(z_i) s(z_j)] / 2 + lam ||W||_F^2: minus a smoothed cut.

    z = W x + b with x ~ N(0, I_rank) and s(z) = erf(z / (tau sqrt 2)), the mean of the sign of
    z + tau xi with xi ~ N(0, 1). So sum_{i<j} w_ij / 2 minus the edge part of f is the expected cut
    when vertex i goes to the side sign(z_i + tau xi_i). Everything is in closed form. The flat
    vector is x = (W row by row, b), of length n rank + n.

    Parameters
    ----------
    graph : CSRGraph or whatever `derand_fast.as_graph` accepts
        n vertices, at least one; weights of any sign.
    rank : int
        Columns of W, at least 1.
    tau : float
        Smoothing, in units of the biases: 1e-60 to 1e60.
    lam : float
        Weight of ||W||_F^2, finite and not negative.
    n_threads : int, optional
        Threads at most, by default all usable cores; a pass over a small graph uses one. The bits
        of the results do not depend on it.

    Attributes
    ----------
    graph, rank, tau, lam, n_threads
        As above; ``graph`` as a `CSRGraph`.
    n_params : int
        n rank + n.
    blocks : mapping
        "W" (n, rank) and "b" (n,).

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or outside these ranges, and for what `as_graph` rejects. The
        methods raise them for points and directions that are not finite real vectors of length
        n_params.

    Notes
    -----
    A gradient costs about 40 ns and 2 rank multiply-adds for each stored edge (two per undirected
    edge), a Hessian product 50 ns and 4 rank; value_and_grad adds 45 ns per undirected edge for
    the value. Memory is O(n rank + m) during a call, O(m) between calls; nothing is kept of x.
    Methods may be called from several threads.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.objectives import MaxCutObjective, pack
    >>> f = MaxCutObjective((3, [(0, 1), (1, 2), (0, 2)], None), 2, tau=0.01, lam=0.5)
    >>> x = pack(f, b=[1.0, -1.0, 1.0])
    >>> round(f.expected_cut(x), 12), f.partition(x).tolist(), round(f.value(x), 12)
    (2.0, [1, -1, 1], -0.5)
    >>> value, gradient = f.value_and_grad(x)
    >>> gradient.shape, f.bias_hessian(x).shape
    ((9,), (3, 3))
    """

    def __init__(
        self, graph: Any, rank: int, *, tau: float, lam: float, n_threads: int | None = None
    ) -> None:
        self.graph: CSRGraph = as_graph(graph)
        if self.graph.n_vertices == 0:
            raise ValueError("the graph must have at least one vertex")
        self.rank = whole_number("rank", rank, 1)
        self.tau = finite_number("tau", tau, *_TAU_RANGE)
        self.lam = finite_number("lam", lam, 0.0)
        self.n_threads = thread_count(n_threads)
        n = self.graph.n_vertices
        self._split = n * self.rank
        self.n_params = self._split + n
        self.blocks: Mapping[str, Block] = Blocks(
            {
                "W": Block(slice(0, self._split), (n, self.rank)),
                "b": Block(slice(self._split, self.n_params), (n,)),
            }
        )

    def __repr__(self) -> str:
        """Sizes and parameters."""
        return (
            f"MaxCutObjective({self.graph!r}, {self.rank}, tau={self.tau!r}, lam={self.lam!r}, "
            f"n_threads={self.n_threads})"
        )

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        W, b = self._parts("x", x)
        return self._value(W, self._prepared(W, b), self.lam)

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and its gradient; the gradient in W is (H_bb + 2 lam I) W, exact by Stein."""
        W, b = self._parts("x", x)
        vertex = self._prepared(W, b)
        return self._value(W, vertex, self.lam), self._derivatives(W, vertex)[0]

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at x times v, in closed form."""
        W, b = self._parts("x", x)
        direction_W, direction_b = self._parts("v", v)
        product = np.empty(self.n_params)
        vertex = np.empty((b.size, smoothed_cut.VERTEX_COLUMNS))
        rates = np.empty((b.size, smoothed_cut.RATE_COLUMNS))

        def prepare(first: int, last: int) -> None:
            smoothed_cut.prepare_vertices(first, last, W, b, self.tau, vertex)
            smoothed_cut.prepare_rates(first, last, W, direction_W, direction_b, vertex, rates)

        self._share(prepare, "vertices")
        self._pass(
            *(smoothed_cut.product_rows, "entries", W, self.lam),
            *(direction_W, vertex, rates, *self._views(product)),
        )
        return product

    def collapse_step(self, x: ArrayLike) -> FloatArray:
        """Newton's step in W alone, with H_bb + 2 lam I for its Hessian: -W, and 0 elsewhere."""
        return without_weights(self, flat_vector("x", x, self.n_params))

    def bias_hessian(self, x: ArrayLike) -> scipy.sparse.csr_array[np.float64]:
        """H_bb, the Hessian of f in b alone: sparse like the graph, plus the diagonal.

        Exactly symmetric, entries in order. The arrays of its pattern are shared with every other
        such matrix of this objective, and read-only.
        """
        W, b = self._parts("x", x)
        _, offdiagonal, diagonal = self._derivatives(W, self._prepared(W, b))
        indptr, indices, at_edges, at_diagonal = self._hessian_pattern
        data = np.empty(indices.size)
        data[at_edges] = offdiagonal
        data[at_diagonal] = diagonal
        return scipy.sparse.csr_array((data, indices, indptr), shape=2 * (diagonal.size,))

    # -- what only a cut has -----------------------------------------------------------------------

    def expected_cut(self, x: ArrayLike) -> float:
        """Expected cut when vertex i goes to the side sign((W x + b)_i + tau xi_i)."""
        W, b = self._parts("x", x)
        return 0.5 * self._total_weight - self._value(W, self._prepared(W, b), 0.0)

    def partition(self, x: ArrayLike) -> NDArray[np.int8]:
        """Sides sign(b) as a new (n,) array of +1 and -1; +1 where b is 0.

        Once W is 0 and tau is small against every |b|, their cut is the expected cut.
        """
        _, b = self._parts("x", x)
        return np.where(b >= 0.0, 1, -1).astype(np.int8)

    # -- pieces ------------------------------------------------------------------------------------

    @property
    def _graph_arrays(self) -> tuple[Any, Any, Any]:
        return self.graph.indptr, self.graph.indices, self.graph.weights

    def _views(self, flat: FloatArray) -> tuple[FloatArray, FloatArray]:
        """W and b of a flat vector that is contiguous."""
        return flat[: self._split].reshape(-1, self.rank), flat[self._split :]

    def _parts(self, name: str, vector: ArrayLike) -> tuple[FloatArray, FloatArray]:
        return self._views(flat_vector(name, vector, self.n_params))

    def _share(self, work: Callable[[int, int], None], unit: _Unit) -> None:
        """Call ``work(first, last)`` on ranges of rows with equal numbers of the unit of work."""
        n, m = self.graph.n_vertices, self.graph.n_edges
        count = {"vertices": n, "entries": 2 * m, "edges": m}[unit]
        if self.n_threads == 1 or count * (1.0 + self.rank / 32.0) < _PARALLEL_WORK:
            work(0, n)
            return
        ends = self._ends(unit)

        def on_rows(start: int, stop: int) -> None:
            work(*map(int, np.searchsorted(ends, (start, stop))))

        map_ranges(on_rows, int(ends[-1]), self.n_threads)

    def _pass(
        self, kernel: Any, unit: _Unit, W: FloatArray, lam: float, *arrays: FloatArray
    ) -> None:
        """Run a kernel over all rows."""
        arguments = (*self._graph_arrays, W, self.tau, lam, *arrays)
        self._share(lambda first, last: kernel(first, last, *arguments), unit)

    def _prepared(self, W: FloatArray, b: FloatArray) -> FloatArray:
        """What the passes read at both ends of an edge."""
        vertex = np.empty((b.size, smoothed_cut.VERTEX_COLUMNS))

        def prepare(first: int, last: int) -> None:
            smoothed_cut.prepare_vertices(first, last, W, b, self.tau, vertex)

        self._share(prepare, "vertices")
        return vertex

    def _value(self, W: FloatArray, vertex: FloatArray, lam: float) -> float:
        row_values = np.empty(len(W))
        self._pass(smoothed_cut.value_rows, "edges", W, lam, vertex, row_values)
        return float(smoothed_cut.sum_in_blocks(row_values))

    def _derivatives(
        self, W: FloatArray, vertex: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gradient, and H_bb as entries aligned with the edges and a diagonal."""
        gradient = np.empty(self.n_params)
        offdiagonal, diagonal = np.empty(self.graph.indices.size), np.empty(len(W))
        outputs = *self._views(gradient), offdiagonal, diagonal
        self._pass(smoothed_cut.gradient_rows, "entries", W, self.lam, vertex, *outputs)
        return gradient, offdiagonal, diagonal

    def _ends(self, unit: _Unit) -> NDArray[np.int64]:
        """Where rows end, in units of work and one more for each row: strictly rising."""
        ends: NDArray[np.int64] = np.arange(self.graph.n_vertices + 1)
        if unit == "entries":
            ends += self.graph.indptr
        elif unit == "edges":
            ends += self._edges_before
        return ends

    @functools.cached_property
    def _edges_before(self) -> NDArray[np.int64]:
        """How many edges have their first end above a row: what the value's pass sums up."""
        indptr, columns, _ = self._graph_arrays
        rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
        return np.concatenate([[0], np.cumsum(columns > rows)])[indptr]

    @functools.cached_property
    def _total_weight(self) -> float:
        return math.fsum(self.graph.weights.tolist()) / 2.0

    @functools.cached_property
    def _hessian_pattern(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Row pointers and columns of H_bb, and where the edges' and diagonal entries go in it."""
        indptr, columns, _ = self._graph_arrays
        vertices = np.arange(indptr.size - 1)
        rows = np.repeat(vertices, np.diff(indptr))
        before = rows > columns
        # Each row's own diagonal entry pushes back what follows it, and so do those of rows above.
        at_edges = np.arange(columns.size) + rows + ~before
        at_diagonal = indptr[:-1] + vertices + np.bincount(rows[before], minlength=vertices.size)
        size = columns.size + vertices.size
        index_type = np.int32 if size <= np.iinfo(np.int32).max else np.int64
        indices = np.empty(size, index_type)
        indices[at_edges] = columns
        indices[at_diagonal] = vertices
        pointers = (indptr + np.arange(indptr.size)).astype(index_type)
        for array in (indices, pointers):
            array.flags.writeable = False
        return pointers, indices, at_edges, at_diagonal
