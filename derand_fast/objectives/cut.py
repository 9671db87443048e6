"""The smoothed maximum cut as an objective."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.kernels import smoothed_cut
from derand_fast.objectives.protocol import Block, Blocks, without_weights
from derand_fast.threads import thread_count

__all__ = ["MaxCutObjective"]

FloatArray = NDArray[np.float64]

# From here on a pass takes about a millisecond, many times what it costs to wake the threads:
# stored entries, each counting 1 + rank / 32 (its transcendental functions, its sums over a row).
_PARALLEL_WORK = 20_000
# Squares of tau and of 1 / tau must stay far inside the range of float64.
_TAU_RANGE = (1e-60, 1e60)
# Numba's workqueue layer aborts when two Python threads are in parallel kernels at once.
_parallel_lock = threading.Lock()
_is_forked = False


def _after_fork() -> None:
    global _is_forked
    _is_forked = True


# Numba's OpenMP layer ends a forked child that enters a parallel kernel after its parent did.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _threads(n_threads: int) -> Iterator[bool]:
    """Let parallel kernels run on this many threads; yields False where another has them."""
    if n_threads == 1 or _is_forked or not _parallel_lock.acquire(blocking=False):
        yield False
        return
    try:
        before = numba.get_num_threads()
        numba.set_num_threads(n_threads)
        try:
            yield True
        finally:
            numba.set_num_threads(before)
    finally:
        _parallel_lock.release()


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
    A gradient costs about 50 ns and 2 rank multiply-adds for each stored edge (two per undirected
    edge), a Hessian product 65 ns and 4 rank; value_and_grad adds 100 ns per undirected edge for
    the value. Memory is O(n rank + m) during a call, O(m) between calls; nothing is kept of x.
    Methods may be called from several threads. Parallel kernels are Numba's: with its OpenMP layer,
    processes forked after a parallel pass must use ``n_threads=1``.

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
        work = self.graph.indices.size * (1.0 + self.rank / 32.0)
        workers = min(self.n_threads, numba.config.NUMBA_NUM_THREADS)
        self._workers = workers if work >= _PARALLEL_WORK else 1

    def __repr__(self) -> str:
        """Sizes and parameters."""
        return (
            f"MaxCutObjective({self.graph!r}, {self.rank}, tau={self.tau!r}, lam={self.lam!r}, "
            f"n_threads={self.n_threads})"
        )

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        return self._value(x, self.lam)

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and its gradient; the gradient in W is (H_bb + 2 lam I) W, exact by Stein."""
        value, gradient, _, _ = self._derivatives(x, with_value=True)
        return value, gradient

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at x times v, in closed form."""
        W, b = self._parts("x", x)
        direction_W, direction_b = self._parts("v", v)
        product = np.empty(self.n_params)
        vertex = np.empty((b.size, smoothed_cut.VERTEX_COLUMNS))
        rates = np.empty((b.size, smoothed_cut.RATE_COLUMNS))
        with _threads(self._workers) as parallel:
            kernel = (
                smoothed_cut.smoothed_cut_hessian_product_parallel
                if parallel
                else smoothed_cut.smoothed_cut_hessian_product_serial
            )
            kernel(
                *self._graph_arrays,
                *(W, b, self.tau, self.lam, direction_W, direction_b, vertex, rates),
                *self._views(product),
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
        _, _, offdiagonal, diagonal = self._derivatives(x, with_value=False)
        indptr, indices, at_edges, at_diagonal = self._hessian_pattern
        data = np.empty(indices.size)
        data[at_edges] = offdiagonal
        data[at_diagonal] = diagonal
        return scipy.sparse.csr_array((data, indices, indptr), shape=2 * (diagonal.size,))

    # -- what only a cut has -----------------------------------------------------------------------

    def expected_cut(self, x: ArrayLike) -> float:
        """Expected cut when vertex i goes to the side sign((W x + b)_i + tau xi_i)."""
        return 0.5 * self._total_weight - self._value(x, 0.0)

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

    def _value(self, x: ArrayLike, lam: float) -> float:
        W, b = self._parts("x", x)
        vertex = np.empty((b.size, smoothed_cut.VERTEX_COLUMNS))
        with _threads(self._workers) as parallel:
            kernel = (
                smoothed_cut.smoothed_cut_value_parallel
                if parallel
                else smoothed_cut.smoothed_cut_value_serial
            )
            value = kernel(*self._graph_arrays, W, b, self.tau, lam, vertex, np.empty(b.size))
        return float(value)

    def _derivatives(
        self, x: ArrayLike, with_value: bool
    ) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        """Value, gradient, and H_bb as entries aligned with the edges and a diagonal."""
        W, b = self._parts("x", x)
        gradient = np.empty(self.n_params)
        offdiagonal, diagonal = np.empty(self.graph.indices.size), np.empty(b.size)
        scratch = np.empty((b.size, smoothed_cut.VERTEX_COLUMNS)), np.empty(b.size)
        with _threads(self._workers) as parallel:
            kernel = (
                smoothed_cut.smoothed_cut_gradient_parallel
                if parallel
                else smoothed_cut.smoothed_cut_gradient_serial
            )
            value = kernel(
                *self._graph_arrays,
                *(W, b, self.tau, self.lam, with_value, *scratch),
                *self._views(gradient),
                *(offdiagonal, diagonal),
            )
        return float(value), gradient, offdiagonal, diagonal

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
