"""Coordinates of rows in the space they span, and what no map into k dimensions can beat."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

__all__ = ["RowSpace", "distinct_rows", "distortion_bound", "is_sparse", "row_space"]

FloatArray = NDArray[np.float64]

# Directions in which the rows spread less than this share of the widest are rounding errors.
_DENSE_CUTOFF = 1e-12
# A Gram matrix squares the spreads, and loses half of the digits.
_GRAM_CUTOFF = 1e-7
# Steps of the bisection for the bound: its interval [0, 1] is then below 1e-15.
_BISECTIONS = 50


def is_sparse(rows: Any) -> bool:
    """Return whether these are rows of a sparse matrix or array."""
    return bool(scipy.sparse.issparse(rows))


class RowSpace:
    """Rows as U diag(s) V' with U (n, r), V' (r, d), both with orthonormal rows or columns.

    Attributes
    ----------
    left : (n, r) array
        U.
    spreads : (r,) array
        s, descending, all positive.
    """

    def __init__(self, left: FloatArray, spreads: FloatArray, rows: Any, right: Any) -> None:
        self.left, self.spreads = left, spreads
        self._rows, self._right = rows, right

    @property
    def rank(self) -> int:
        """Return r."""
        return self.spreads.size

    @property
    def points(self) -> FloatArray:
        """Return U diag(s): the rows in r coordinates, all distances kept."""
        return self.left * self.spreads

    @cached_property
    def square_norms(self) -> FloatArray:
        """Return the squared lengths of the rows."""
        points = self.points
        return np.add.reduce(points * points, axis=1)

    def components(self, matrix: FloatArray) -> FloatArray:
        """Return the (k, d) map whose images of the rows are U matrix, matrix (r, k)."""
        # Of all such maps the one that vanishes on what is orthogonal to the rows.
        scaled = matrix / self.spreads[:, None]
        if self._right is not None:
            return np.ascontiguousarray(scaled.T @ self._right)
        # V' = diag(1/s) U' X; U is orthogonal to the constants, so X need not be centred.
        weights = self.left @ (scaled / self.spreads[:, None])
        return np.ascontiguousarray((self._rows.T @ weights).T)


def row_space(rows: Any, *, centred: bool) -> RowSpace:
    """Return an orthonormal basis of the span of the rows, or of their differences if centred.

    Parameters
    ----------
    rows : (n, d) float64 array or sparse matrix
        Never made dense. A sparse matrix goes through the smaller of its two Gram matrices, and
        directions that spread less than 1e-7 of the widest are then left out.
    centred : bool
        Subtract the mean first.

    Notes
    -----
    O(n d min(n, d)) flops; min(n, d)^2 numbers of memory beside one copy of dense rows.
    """
    n, d = rows.shape
    if is_sparse(rows):
        return _sparse_row_space(rows, centred=centred)
    centre = rows.mean(axis=0) if centred else np.zeros(d)
    moved = rows - centre
    if n > d:
        # R of rows = Q R has their singular values and right singular vectors.
        triangle = scipy.linalg.qr(moved, mode="r")[0][:d]
        _, spreads, right = scipy.linalg.svd(triangle, full_matrices=False)
        kept = _kept(spreads, _DENSE_CUTOFF)
        right = right[kept]
        return RowSpace(moved @ right.T / spreads[kept], spreads[kept], None, right)
    factor, triangle = scipy.linalg.qr(moved.T, mode="economic")
    inner, spreads, outer = scipy.linalg.svd(triangle, full_matrices=False)
    kept = _kept(spreads, _DENSE_CUTOFF)
    return RowSpace(
        np.ascontiguousarray(outer[kept].T), spreads[kept], None, inner[:, kept].T @ factor.T
    )


def _kept(spreads: FloatArray, cutoff: float) -> NDArray[np.bool_]:
    return spreads > cutoff * spreads.max(initial=0.0)


def _sparse_row_space(rows: Any, *, centred: bool) -> RowSpace:
    n, d = rows.shape
    mean = np.asarray(rows.mean(axis=0)).ravel() if centred else np.zeros(d)
    if n <= d:
        gram = np.asarray((rows @ rows.T).todense())
        if centred:
            gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
        squares, vectors = scipy.linalg.eigh(0.5 * (gram + gram.T))
        spreads, left = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1]
        kept = _kept(spreads, _GRAM_CUTOFF)
        left = left[:, kept]
        if centred:
            left = left - left.mean(axis=0)
        return RowSpace(np.ascontiguousarray(left), spreads[kept], rows, None)
    gram = np.asarray((rows.T @ rows).todense()) - n * np.outer(mean, mean)
    squares, vectors = scipy.linalg.eigh(0.5 * (gram + gram.T))
    spreads, right = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors[:, ::-1]
    kept = _kept(spreads, _GRAM_CUTOFF)
    right = np.ascontiguousarray(right[:, kept].T)
    left = (rows @ right.T - mean @ right.T) / spreads[kept]
    return RowSpace(left, spreads[kept], None, right)


def distinct_rows(rows: Any) -> tuple[NDArray[np.intp], int]:
    """Return the numbers of the rows that differ from all before, and the pairs of equal rows."""
    first: dict[bytes, int] = {}
    counts: list[int] = []
    kept: list[int] = []
    for i in range(rows.shape[0]):
        if is_sparse(rows):
            part = slice(rows.indptr[i], rows.indptr[i + 1])
            key = rows.indices[part].tobytes() + b"|" + (rows.data[part] + 0.0).tobytes()
        else:
            # Adding zero makes -0.0 equal to 0.0.
            key = (rows[i] + 0.0).tobytes()
        place = first.setdefault(key, len(kept))
        if place == len(kept):
            kept.append(i)
            counts.append(0)
        counts[place] += 1
    return np.array(kept, dtype=np.intp), sum(count * (count - 1) // 2 for count in counts)


def distortion_bound(spreads: FloatArray, square_norms: FloatArray, n_components: int) -> float:
    """Return a distortion below which no linear map into k dimensions can get on all pairs.

    Parameters
    ----------
    spreads : (r,) array
        Singular values of the centred rows, descending.
    square_norms : (n,) array
        Squared norms of the centred rows.
    n_components : int
        k.

    Notes
    -----
    Let G be the Gram matrix of the centred rows, with eigenvalues l_1 >= l_2 >= ... = spreads^2 and
    trace T, and D the matrix of squared distances. Suppose that all squared distances D' of the
    images satisfy |D' - D| <= eps D. With J the centring projection, the Gram matrix of the centred
    images is G' = -J D' J / 2, so

        ||G' - G||_F = ||J (D' - D) J||_F / 2 <= eps ||D||_F / 2,
        tr G' = sum_ij D'_ij / (2 n) >= (1 - eps) T.

    G' is positive semidefinite with rank at most k. By Hoffman and Wielandt, with its eigenvalues
    m_1 >= ... >= m_k and Cauchy-Schwarz on the first k,

        ||G' - G||_F^2 >= sum_{i<=k} (m_i - l_i)^2 + sum_{i>k} l_i^2 >= k mu^2 + sum_{i>k} l_i^2,
        mu = max(0, ((1 - eps) T - sum_{i<=k} l_i) / k).

    So k mu^2 + sum_{i>k} l_i^2 <= eps^2 ||D||_F^2 / 4. The left side falls with eps and the right
    side grows; the smallest eps that satisfies it is the bound. In ||D||_F^2 the mixed terms
    vanish, since rows of G sum to zero:

        ||D||_F^2 = 2 n sum_i G_ii^2 + 2 T^2 + 4 ||G||_F^2,

    so no n x n matrix is formed: O(n + r) time and memory. Each sum is moved to the safe side by
    more than its rounding error, that of the eigenvalues (some max(n, r) eps l_1) included.
    """
    n, k = square_norms.size, n_components
    unit = 8.0 * np.finfo(np.float64).eps * max(n, spreads.size, 16)
    values = spreads * spreads
    if values.size == 0 or k >= values.size:
        return 0.0
    trace = float(square_norms.sum())
    tail = float((np.maximum(values[k:] - unit * values[0], 0.0) ** 2).sum()) * (1.0 - unit)
    head = float(values[:k].sum()) + k * unit * values[0]
    square_of_gram = float((values * values).sum())
    square_of_distances = (1.0 + 4.0 * unit) * (
        2.0 * n * float((square_norms * square_norms).sum())
        + 2.0 * trace * trace
        + 4.0 * square_of_gram
    )
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        eps = 0.5 * (low + high)
        missing = max(0.0, (1.0 - eps) * trace * (1.0 - unit) - head)
        if missing * missing / k + tail > eps * eps * square_of_distances / 4.0:
            low = eps
        else:
            high = eps
    return low * (1.0 - math.sqrt(np.finfo(np.float64).eps))
