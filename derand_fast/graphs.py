"""One straight way from whatever holds a graph to one read-only CSR form.

`as_graph` accepts networkx graphs, scipy.sparse and dense matrices, edge lists and files, checks
them, and returns a `CSRGraph`: the only graph type that the solvers see. The checks come first and
name the offending value; nothing is built from input that fails one.

Each kind of input ends in an `EdgeList` (every undirected edge once or more, in either
orientation); `_assemble` alone turns that into CSR, so all kinds of input share one summing order.
"""

from __future__ import annotations

import numbers
import operator
import os
import reprlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from derand_fast.readers import EdgeList, read_file

__all__ = ["CSRGraph", "as_graph"]

IntArray = NDArray[np.int32] | NDArray[np.int64]
FloatArray = NDArray[np.float64]

_INT32_MAX = int(np.iinfo(np.int32).max)
# Integers of smaller magnitude than this are exact in float64, and so are their sums.
_EXACT_LIMIT = 2.0**53


# --------------------------------------------------------------------------------------------------
# The CSR form
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CSRGraph:
    """Undirected weighted graph in compressed sparse rows, read-only.

    Row i lists the neighbours of vertex i in increasing order, so each edge is stored twice, with
    equal weights. There are no self-loops, no zero weights and no repeated entries. `as_graph`
    builds the form; the constructor checks only what memory safety needs (shapes, dtypes and index
    ranges), not the symmetry and the order of the rows.

    Parameters
    ----------
    indptr : (n + 1,) int32 or int64 array
        Row i is the slice ``indptr[i]:indptr[i + 1]`` of the other two arrays. int32 when the
        number of stored entries (twice the edges) fits, otherwise int64.
    indices : (2 m,) int32 array
        Neighbours, row by row.
    weights : (2 m,) float64 array
        Weights of the same entries.
    labels : sequence of length n, or None
        The caller's own names of the vertices, kept as a tuple; None means 0, ..., n - 1.

    Raises
    ------
    TypeError
        If indptr or indices are not integers, or weights not real numbers.
    ValueError
        If shapes do not agree, indptr is not a row pointer, or an index is out of range.

    Notes
    -----
    The arrays are C-contiguous read-only views, copies only where a conversion is due. Construction
    costs O(n + m) time. Graphs compare by identity.

    Examples
    --------
    >>> graph = as_graph((3, [(0, 1), (1, 2)], [2.0, -1.0]))
    >>> graph
    CSRGraph(n_vertices=3, n_edges=2, total_weight=1.0)
    >>> graph.indptr.tolist(), graph.indices.tolist(), graph.weights.tolist()
    ([0, 1, 3, 4], [1, 0, 2, 1], [2.0, 2.0, -1.0, -1.0])
    """

    indptr: IntArray
    indices: NDArray[np.int32]
    weights: FloatArray
    labels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        """Check what the unchecked kernels rely on and make the arrays read-only."""
        indptr, indices = np.asarray(self.indptr), np.asarray(self.indices)
        weights = np.asarray(self.weights)
        _check_csr_arrays(indptr, indices, weights)
        labels = None if self.labels is None else tuple(self.labels)
        if labels is not None and len(labels) != indptr.size - 1:
            raise ValueError(f"got {len(labels)} labels for {indptr.size - 1} vertices")
        pointer_type = np.int32 if indices.size <= _INT32_MAX else np.int64
        object.__setattr__(self, "indptr", _read_only(indptr, pointer_type))
        object.__setattr__(self, "indices", _read_only(indices, np.int32))
        object.__setattr__(self, "weights", _read_only(weights, np.float64))
        object.__setattr__(self, "labels", labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild through the constructor, so that copies are checked and read-only too."""
        return CSRGraph, (self.indptr, self.indices, self.weights, self.labels)

    def __repr__(self) -> str:
        """Sizes only: the arrays may be large."""
        return (
            f"CSRGraph(n_vertices={self.n_vertices}, n_edges={self.n_edges}, "
            f"total_weight={self.total_weight!r})"
        )

    @property
    def n_vertices(self) -> int:
        """Number of vertices n."""
        return int(self.indptr.size) - 1

    @property
    def n_edges(self) -> int:
        """Number of undirected edges m (half the stored entries)."""
        return int(self.indices.size) // 2

    @property
    def total_weight(self) -> float:
        """Sum of the weights, each edge once; exact when `integral`. O(n + m), not cached."""
        return float(self.edges()[2].sum())

    @property
    def integral(self) -> bool:
        """Whether all weights are integers whose sums are exact. O(n + m), not cached.

        True if every weight is an integer and the sum of their absolute values, each edge once, is
        below 2**53: then every cut value is an exact float64 integer.
        """
        weights = self.edges()[2]
        # A rounded sum of non-negative integers stays below 2**53 only if no partial sum rounded.
        small = bool(np.abs(weights).sum() < _EXACT_LIMIT)
        return small and bool(np.array_equal(weights, np.rint(weights)))

    def edges(self) -> tuple[NDArray[np.int32], NDArray[np.int32], FloatArray]:
        """Each edge once, as arrays (tails, heads, weights) with tail < head, in row order.

        Returns
        -------
        tails, heads : (m,) int32 arrays
        weights : (m,) float64 array

        Notes
        -----
        O(n + m) time; new arrays.

        Examples
        --------
        >>> tails, heads, weights = as_graph((3, [(2, 0), (1, 0)], None)).edges()
        >>> tails.tolist(), heads.tolist(), weights.tolist()
        ([0, 0], [1, 2], [1.0, 1.0])
        """
        rows = np.repeat(np.arange(self.n_vertices, dtype=np.int32), np.diff(self.indptr))
        upper = rows < self.indices
        return rows[upper], self.indices[upper], self.weights[upper]

    def to_scipy(self) -> scipy.sparse.csr_array[np.float64]:
        """Weight matrix as a `scipy.sparse.csr_array` that shares the (read-only) arrays.

        Examples
        --------
        >>> as_graph((2, [(0, 1)], [3])).to_scipy().toarray().tolist()
        [[0.0, 3.0], [3.0, 0.0]]
        """
        n = self.n_vertices
        return scipy.sparse.csr_array((self.weights, self.indices, self.indptr), shape=(n, n))


def _check_csr_arrays(indptr: Any, indices: Any, weights: Any) -> None:
    for name, array in (("indptr", indptr), ("indices", indices)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, not {array.dtype}")
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"weights must be real numbers, not {weights.dtype}")
    if indptr.ndim != 1 or indices.ndim != 1 or indptr.size == 0 or weights.shape != indices.shape:
        raise ValueError(
            "expected indptr (n + 1,) and indices, weights of one length; "
            f"got shapes {indptr.shape}, {indices.shape}, {weights.shape}"
        )
    n = indptr.size - 1
    _check_vertex_count(n)
    if indptr[0] != 0 or indptr[-1] != indices.size or np.any(indptr[1:] < indptr[:-1]):
        raise ValueError(f"indptr must rise from 0 to the {indices.size} entries without falling")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(f"indices must lie in 0..{n - 1}")


def _read_only(array: Any, dtype: Any) -> Any:
    # A view, so that the flag of an array that the caller still holds stays as it is.
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.setflags(write=False)
    return view


# --------------------------------------------------------------------------------------------------
# The public conversion
# --------------------------------------------------------------------------------------------------


def as_graph(graph: object, *, weight: str | None = "weight") -> CSRGraph:
    """Convert any supported graph to the one CSR form.

    Parameters
    ----------
    graph : CSRGraph, networkx graph, scipy.sparse, ndarray, tuple or path
        - `CSRGraph`: returned as it is.
        - undirected networkx ``Graph`` or ``MultiGraph``: vertices in the graph's own order;
          parallel edges add up.
        - scipy.sparse array or matrix of any format, or dense 2-D ndarray: square and exactly
          symmetric, real; boolean entries count as 0 and 1.
        - tuple ``(n, edges, weights)``: edges an (m, 2) integer array-like with entries in
          0..n-1, each undirected edge once (repeated pairs add up, in either orientation); weights
          an (m,) real array-like, or None for all 1.
        - str or os.PathLike: a text file, see Notes.
    weight : str or None
        Name of the networkx edge attribute that holds the weight; edges without it weigh 1. None:
        every edge weighs 1. For other kinds of input it has no meaning and must be left alone.

    Returns
    -------
    CSRGraph
        float64 weights, int32 indices. Edges of weight 0, also those that add up to 0, are dropped.
        Labels are the networkx nodes or the edge-list labels, None where these are 0, ..., n - 1.

    Raises
    ------
    TypeError
        For a directed graph, a kind of input not listed, weights or indices of a wrong type
        (complex, object, text).
    ValueError
        For weights that are not finite or whose sum overflows, asymmetric matrices, indices out of
        range, shapes that do not fit, and malformed files (with the line number).
    OSError
        If a file cannot be opened (FileNotFoundError and the like).

    Warns
    -----
    UserWarning
        If there are self-loops (or nonzero diagonal entries): no cut contains them, so they are
        ignored.

    Notes
    -----
    Time and memory are O(n + m), without comparison sorts (O(n**2) for dense matrices); a networkx
    graph costs one Python pass over its edges.

    Files are UTF-8 text, decompressed first if the name ends in ``.gz``. The format is decided in
    this order, on the name without ``.gz``, in any case:

    1. suffix ``.mtx``, or first line starting with ``%%MatrixMarket``: Matrix Market, any real
       field (pattern entries weigh 1); symmetric, or general with symmetric values.
    2. suffix ``.edges``, ``.edgelist``, ``.csv`` or ``.tsv``: edge list, a line ``u v [w]`` for
       each edge, no header line, w = 1 by default. ``.csv`` splits at commas and ``.tsv`` at tabs;
       the others split at commas if the first data line has one, otherwise at runs of blanks and
       tabs. There is no quoting. If every label is an integer, labels are ints in increasing
       order; otherwise they are strings in the order of first appearance.
    3. anything else, ``.txt`` included: rudy, first a line ``n m``, then exactly m lines
       ``i j [w]`` with vertices 1..n; vertex i becomes index i - 1 and no labels are kept.

    In edge lists and rudy files blank lines, and lines starting with ``#`` or ``%``, are skipped.

    Examples
    --------
    >>> import networkx as nx
    >>> as_graph(nx.cycle_graph(4))
    CSRGraph(n_vertices=4, n_edges=4, total_weight=4.0)
    >>> as_graph(np.array([[0, 2], [2, 0]])).weights.tolist()
    [2.0, 2.0]
    """
    if not (weight is None or isinstance(weight, str)):
        raise TypeError(f"weight must be the name of an edge attribute or None, not {weight!r}")
    if isinstance(graph, nx.Graph):
        return _assemble_warning(_edges_from_networkx(graph, weight))
    if weight != "weight":
        raise ValueError(
            f"weight={weight!r} names a networkx edge attribute; "
            f"a graph given as {type(graph).__name__} has none"
        )
    if isinstance(graph, CSRGraph):
        return graph
    if isinstance(graph, (str, os.PathLike)):
        return _assemble_warning(_edges_from_file(os.fsdecode(graph)))
    if scipy.sparse.issparse(graph):
        return _assemble_warning(_edges_from_sparse(graph, "the matrix"))
    if isinstance(graph, np.ndarray):
        return _assemble_warning(_edges_from_dense(graph, "the matrix"))
    if isinstance(graph, tuple):
        return _assemble_warning(_edges_from_tuple(graph))
    raise TypeError(
        "expected a CSRGraph, an undirected networkx graph, a scipy.sparse or dense NumPy matrix, "
        f"a tuple (n, edges, weights) or a path, not {type(graph).__name__}"
    )


def _assemble_warning(edges: EdgeList) -> CSRGraph:
    loops = int(np.count_nonzero(edges.weights[edges.tails == edges.heads]))
    if loops:
        warnings.warn(
            f"ignored {loops} self-loop{'s' if loops > 1 else ''}: no cut contains one",
            UserWarning,
            stacklevel=3,  # the caller of as_graph
        )
    return _assemble(edges)


# --------------------------------------------------------------------------------------------------
# Assembly
# --------------------------------------------------------------------------------------------------


def _assemble(edges: EdgeList) -> CSRGraph:
    """CSR form of checked edges: loops dropped, parallel edges added, zeros dropped, mirrored."""
    n, tails, heads, weights = edges[:4]
    labels = None if edges.labels is None else _without_identity(edges.labels)
    keep = (tails != heads) & (weights != 0.0)
    tails, heads, weights = tails[keep], heads[keep], weights[keep]
    _check_total(weights)
    if weights.size == 0:
        empty = np.zeros(0, dtype=np.int32)
        return CSRGraph(np.zeros(n + 1, dtype=np.int32), empty, np.zeros(0), labels)
    low = np.minimum(tails, heads).astype(np.int32, copy=False)
    high = np.maximum(tails, heads).astype(np.int32, copy=False)
    upper = _sum_parallel_edges(n, low, high, weights)
    # Mirroring after the sums makes both copies of an edge equal to the last bit.
    full = scipy.sparse.csr_array(upper + upper.T)
    return CSRGraph(full.indptr, full.indices, full.data, labels)


def _without_identity(labels: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """None for the labels 0, ..., n - 1 in this order, whatever else unchanged."""
    # The type counts: True == 1 and 1.0 == 1, but the caller wants his own labels back.
    plain = set(map(type, labels)) <= {int} and labels == tuple(range(len(labels)))
    return None if plain else labels


def _sum_parallel_edges(n: int, low: Any, high: Any, weights: FloatArray) -> Any:
    """Upper triangle in canonical CSR; parallel edges are added in the order they were given.

    A stable radix sort by (low, high), O(n + m). `coo.tocsr` would leave the order within a row,
    hence the rounding of the sums, to an unstable sort of the platform's C++ library.
    """
    by_high, values_by_high, _ = _group_stably(n, high, weights)
    by_low, values, indptr = _group_stably(n, low[by_high], values_by_high)
    upper = scipy.sparse.csr_array((values, high[by_high][by_low], indptr), shape=(n, n))
    upper.sum_duplicates()
    upper.eliminate_zeros()
    return upper


def _group_stably(n: int, keys: Any, values: FloatArray) -> tuple[Any, Any, Any]:
    """Counting sort by keys in 0..n-1: (order, values in that order, start of each group).

    The transposition of a matrix with one entry per row, (item, key), is exactly that sort.
    """
    item_pointer = np.arange(keys.size + 1, dtype=_index_type(keys.size))
    items = scipy.sparse.csr_array((values, keys, item_pointer), shape=(keys.size, n))
    groups = items.tocsc()
    return groups.indices, groups.data, groups.indptr


def _index_type(largest: int) -> Any:
    return np.int32 if largest <= _INT32_MAX else np.int64


def _check_total(weights: FloatArray) -> None:
    with np.errstate(over="ignore"):
        total = 2.0 * float(np.abs(weights).sum())
    if total == np.inf:
        largest = float(np.abs(weights).max())
        raise ValueError(
            "weights are too large: the sum of |w| over both directions of all edges must be "
            f"finite (largest |w| is {largest!r})"
        )


def _check_vertex_count(n: int) -> None:
    if n < 0:
        raise ValueError(f"number of vertices must not be negative, got {n}")
    if n > _INT32_MAX:
        raise ValueError(f"number of vertices must fit int32 (at most {_INT32_MAX}), got {n}")


def _check_finite(weights: FloatArray, name_of: Callable[[int], str]) -> None:
    finite = np.isfinite(weights)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(
            f"{name_of(first)} has weight {float(weights[first])!r}; weights must be finite"
        )


def _to_float64(array: Any, what: str) -> Any:
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{what} must hold real numbers (bool, integer or float), not dtype {array.dtype}"
        )
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf, refused later
        return array.astype(np.float64)


# --------------------------------------------------------------------------------------------------
# networkx
# --------------------------------------------------------------------------------------------------


def _edges_from_networkx(graph: Any, weight: str | None) -> EdgeList:
    if graph.is_directed():
        raise TypeError(
            f"{type(graph).__name__} is directed; cuts are of undirected graphs: convert it first, "
            "e.g. with graph.to_undirected()"
        )
    labels = tuple(graph)
    _check_vertex_count(len(labels))
    # Flattened at once: a list of as many tuples would keep the garbage collector busy.
    triples = graph.edges(data=False if weight is None else weight, default=1)
    flat = list(chain.from_iterable(triples))
    width = 2 if weight is None else 3
    tails, heads = flat[::width], flat[1::width]
    values = [1] * len(tails) if weight is None else flat[2::width]
    weights = _weights_from_objects(tails, heads, values)
    position = {label: index for index, label in enumerate(labels)}.__getitem__
    return EdgeList(
        len(labels),
        np.fromiter(map(position, tails), dtype=np.int64, count=len(tails)),
        np.fromiter(map(position, heads), dtype=np.int64, count=len(heads)),
        weights,
        labels,
    )


def _weights_from_objects(
    tails: Sequence[Any], heads: Sequence[Any], values: Sequence[Any]
) -> FloatArray:
    def name_of(edge: int) -> str:
        return f"edge ({tails[edge]!r}, {heads[edge]!r})"

    real = (numbers.Real, np.bool_)
    if not all(issubclass(kind, real) for kind in set(map(type, values))):
        first = next(k for k, value in enumerate(values) if not isinstance(value, real))
        raise TypeError(
            f"{name_of(first)} has weight {values[first]!r} of type "
            f"{type(values[first]).__name__}; weights must be real numbers"
        )
    try:
        weights = np.fromiter(values, dtype=np.float64, count=len(values))
    except OverflowError:  # a Python integer or fraction beyond the range of float64
        first = next(k for k, value in enumerate(values) if not _fits_float64(value))
        raise ValueError(
            f"{name_of(first)} has weight {reprlib.repr(values[first])}; "
            "weights must be within the range of float64"
        ) from None
    _check_finite(weights, name_of)
    return weights


def _fits_float64(value: Any) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


# --------------------------------------------------------------------------------------------------
# Matrices
# --------------------------------------------------------------------------------------------------


def _check_square(shape: tuple[int, ...], what: str) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{what} must be square and 2-D, got shape {shape}")
    _check_vertex_count(shape[0])


def _raise_asymmetric(i: int, j: int, value: Any, mirrored: Any, what: str) -> None:
    raise ValueError(
        f"{what} must be symmetric: entry ({i}, {j}) is {float(value)!r} but entry ({j}, {i}) is "
        f"{float(mirrored)!r}"
    )


def _edges_from_sparse(matrix: Any, what: str) -> EdgeList:
    _check_square(matrix.shape, what)
    if matrix.format in ("csr", "csc", "bsr"):
        # Hand-made containers may hold indices out of range, which the C++ code never checks.
        matrix.check_format(full_check=True)
    if matrix.dtype == np.bool_:
        # Repeated boolean entries mean "or", so they are merged while still boolean.
        matrix = scipy.sparse.csr_array(matrix, copy=True)
        matrix.sum_duplicates()
    # Conversion before the sums: small integer types would wrap round.
    csr = scipy.sparse.csr_array(_to_float64(matrix, what))
    csr.sum_duplicates()

    def name_of(entry: int) -> str:
        row = int(np.searchsorted(csr.indptr, entry, side="right")) - 1
        return f"entry ({row}, {csr.indices[entry]}) of {what}"

    _check_finite(csr.data, name_of)
    _check_sparse_symmetry(csr, what)
    upper = scipy.sparse.triu(csr, format="coo")
    return EdgeList(csr.shape[0], upper.row, upper.col, upper.data)


def _check_sparse_symmetry(csr: Any, what: str) -> None:
    mirrored = csr.T.tocsr()
    if all(
        np.array_equal(getattr(csr, part), getattr(mirrored, part))
        for part in ("indptr", "indices", "data")
    ):
        return
    # Explicit zeros may still differ in place, so only values count from here on.
    rows, columns = (csr != mirrored).nonzero()
    if rows.size:
        first = int(np.lexsort((columns, rows))[0])
        i, j = int(rows[first]), int(columns[first])
        _raise_asymmetric(i, j, csr[i, j], csr[j, i], what)


def _edges_from_dense(matrix: NDArray[Any], what: str) -> EdgeList:
    if isinstance(matrix, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array; fill it first, e.g. with matrix.filled(0)")
    _check_square(matrix.shape, what)
    values = _to_float64(np.asarray(matrix), what)
    n = int(values.shape[0])
    _check_finite(values.ravel(), lambda k: f"entry ({k // n}, {k % n}) of {what}")
    differs = values != values.T
    if differs.any():
        i, j = divmod(int(differs.argmax()), n)
        _raise_asymmetric(i, j, values[i, j], values[j, i], what)
    rows, columns = np.nonzero(np.triu(values))
    return EdgeList(n, rows, columns, values[rows, columns])


# --------------------------------------------------------------------------------------------------
# Tuple (n, edges, weights)
# --------------------------------------------------------------------------------------------------


def _edges_from_tuple(graph: tuple[Any, ...]) -> EdgeList:
    if len(graph) != 3:
        raise ValueError(f"a graph tuple must be (n, edges, weights), got {len(graph)} items")
    n = _vertex_count(graph[0])
    edges = _edge_array(graph[1], n)
    weights = _weight_array(graph[2], edges)
    return EdgeList(n, edges[:, 0], edges[:, 1], weights)


def _vertex_count(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"number of vertices must be an integer, not {value!r}")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"number of vertices must be an integer, not {value!r}") from None
    _check_vertex_count(n)
    return n


def _edge_array(edges: Any, n: int) -> NDArray[Any]:
    array = _array_of(edges, "edges", "(m, 2)")
    if array.size == 0 and array.shape in ((0,), (0, 2)):
        return np.zeros((0, 2), dtype=np.int64)  # [] has no dtype worth checking
    if array.dtype.kind not in "iu":
        raise TypeError(f"edges must be integers, not dtype {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"edges must have shape (m, 2), got {array.shape}")
    outside = (array < 0) | (array >= n)
    if outside.any():
        edge = int(outside.any(axis=1).argmax())
        raise ValueError(
            f"edge {edge} is {tuple(array[edge].tolist())}; vertices must lie in 0..n-1 "
            f"with n = {n}"
        )
    return array


def _weight_array(weights: Any, edges: NDArray[Any]) -> FloatArray:
    m = edges.shape[0]
    if weights is None:
        return np.ones(m)
    array = _array_of(weights, "weights", "(m,)")
    if array.shape != (m,):
        raise ValueError(f"weights must have shape ({m},) for {m} edges, got {array.shape}")
    values: FloatArray = _to_float64(array, "weights")
    _check_finite(values, lambda k: f"edge {k} {tuple(edges[k].tolist())}")
    return values


def _array_of(value: Any, what: str, shape: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:  # ragged rows
        raise ValueError(f"{what} must be an array-like of shape {shape}: {error}") from None


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------


def _edges_from_file(name: str) -> EdgeList:
    content = read_file(name)
    if isinstance(content, EdgeList):
        return content
    if scipy.sparse.issparse(content):
        return _edges_from_sparse(content, name)
    return _edges_from_dense(content, name)
