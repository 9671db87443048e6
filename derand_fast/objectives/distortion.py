"""The distortion of a random linear map as an objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse.linalg
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.kernels import jl, matmul
from derand_fast.kernels.pairs import TILE, inverse_squared_distances, squared_norms
from derand_fast.objectives.protocol import Block, Blocks
from derand_fast.threads import map_ranges, thread_count

__all__ = ["JLObjective"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_HIGHEST_MOMENT = 128
_EPS_RANGE = (1e-9, 1e9)
# Multiply-adds from which waking threads (0.1 ms) pays.
_PARALLEL_WORK = 1_000_000

# Below this sigma no float64 but the bound itself lies within a transition.
_LEAST_SIGMA = 1e-15

# Origin, offset, 1 / width of a panel, coefficients, values before and after: see jl.fill_table.
_Table = tuple[float, float, float, FloatArray, float, float]
_NO_TABLE: _Table = (0.0, 0.0, 1.0, np.empty(0), 0.0, 0.0)
# Where the second table begins, two tables.
_Tables = tuple[float, _Table, _Table]
_NO_TABLES: _Tables = (math.inf, _NO_TABLE, _NO_TABLE)
# Order of the moment (0: tail), k, sigma^2, eps, tables.
_Loss = tuple[int, int, float, float, float, _Table, _Table]


class JLObjective:
    """f(w, M): bound of the probability that A = M + sigma Z distorts some distance, + penalty.

    Z (k, d) has independent N(0, 1) entries, sigma = |w| / sqrt(k d). For pairs (i, j) let
    u = (x_i - x_j) / ||x_i - x_j|| and q = ||A u||^2, the squared length that A leaves of 1. Then

        f = sum_pairs h + lam w^2,        P(some |q - 1| > eps) <= sum_pairs h,
        h = P(|q - 1| > eps)  ("tail")   or   h = E[((q - 1) / eps)^p]  ("moment2", "moment4", ...),

    exactly, without sampling: q / sigma^2 is noncentral chi-square, a function of sigma and
    ||M u||^2. In the framework's terms b = vec(M) and W = sigma I of size k d, so ||W||_F = |w| and
    the penalty is lam ||W||_F^2. The flat vector is x = (w, M row by row).

    Parameters
    ----------
    X : (n, d) array-like
        Rows of finite real numbers, of any scale.
    k : int
        Rows of M, at least 1.
    eps : float
        Tolerated distortion of squared lengths, 1e-9 to 1e9.
    pairs : "all", "norms" or a pair of integer arrays
        All pairs of rows; every row and 0 (the norms of the rows); or rows i and rows j, by number.
        Pairs of equal rows are left out.
    lam : float
        Weight of ||W||_F^2, finite and not negative.
    loss : str
        "tail", or "moment" and an even order up to 128. By Markov's inequality all bound the same
        probability: the tail is the tightest, low orders are the smoothest.
    sigma : {"scalar", "rows"}
        One sigma, or one for each row, A_r = M_r + sigma_r z (moments only). Then x = (w_1 ... w_k,
        M), sigma_r = |w_r| / sqrt(d), W = diag(sigma_r I_d), and the penalty is lam ||w||^2.
    n_threads : int, optional
        Threads at most, by default all usable cores. The bits of the results do not depend on it.

    Attributes
    ----------
    k, d, eps, lam, loss, sigma, n_threads
        As above.
    n_pairs, n_zero_pairs : int
        Pairs in the sum; pairs left out: of equal rows, or (among all pairs) of rows that differ by
        less than 1e-14 of their distance from the mean.
    n_params : int
        k d + 1, or k d + k.
    blocks : mapping
        "W" (1, 1) or (k, 1), and "b" (k, d), which is M.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or outside these ranges, and if no pair is left. The methods
        raise them for points and directions that are not finite real vectors of length n_params.

    Notes
    -----
    The heat equation is Stein's identity along W: df/dw = (c + 2 lam) w with c the mean of the
    diagonal of H_bb, the Hessian in M. As c >= lambda_min(H_bb), wherever that is at least
    -mu > -2 lam

        ||W||_F = |w| <= |df/dw| / (2 lam - mu),

    the derandomization lemma. Descent from M = 0, sigma^2 = 1/k, a Gaussian Johnson-Lindenstrauss
    matrix, first meets the stationary point with M = 0 and c = -2 lam, a strict saddle; beyond it
    sigma falls to 0.

    A pass over N pairs costs 6 k N flops (14 k N for a Hessian product), 4 n k d for the products
    with X, and for each pair 6 p flops (a moment) or 20 ns (the tail, from a table of about 1,000
    exact values for each sigma, 1 ms). Errors of h are a few 1e-14 of its largest value; tails
    below 1e-32 count as 0. Listed pairs and norms cost twice that, several sigmas about 8 p times.
    Memory: 8 N bytes for distances, n d for X, and up to 32 arrays (n, k) during a call. Methods
    may be called from several threads.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.objectives import JLObjective
    >>> f = JLObjective(np.eye(4), 2, eps=0.5, lam=0.01, loss="moment2")
    >>> x = f.gaussian_start()
    >>> f.n_pairs, round(f.violation_bound(x), 9)  # for each pair E[(q - 1)^2] = 2 / k, / eps^2
    (6, 24.0)
    >>> value, gradient = f.value_and_grad(x)
    >>> bool(gradient[0] > 0.0), bool(np.all(gradient[1:] == 0.0))
    (True, True)
    """

    def __init__(
        self,
        X: ArrayLike,
        k: int,
        *,
        eps: float,
        pairs: str | tuple[ArrayLike, ArrayLike] = "all",
        lam: float,
        loss: str = "tail",
        sigma: str = "scalar",
        n_threads: int | None = None,
    ) -> None:
        points = _checked_points(X)
        self.k = whole_number("k", k, 1)
        self.eps = finite_number("eps", eps, *_EPS_RANGE)
        self.lam = finite_number("lam", lam, 0.0)
        if sigma not in ("scalar", "rows"):
            raise ValueError(f"sigma must be 'scalar' or 'rows', got {sigma!r}")
        self.sigma = sigma
        self._order = _order_of(loss, sigma)
        self.loss = loss
        self.n_threads = thread_count(n_threads)
        self.d = points.shape[1]
        n_sigmas = 1 if sigma == "scalar" else self.k
        self._copies = self.k * self.d // n_sigmas
        self.n_params = n_sigmas + self.k * self.d
        self.blocks: Mapping[str, Block] = Blocks(
            {
                "W": Block(slice(0, n_sigmas), (n_sigmas, 1)),
                "b": Block(slice(n_sigmas, self.n_params), (self.k, self.d)),
            }
        )
        self._pairs = _make_pairs(points, pairs, sigma, self.n_threads)
        self.n_zero_pairs = self._pairs.n_zero
        self.n_pairs = self._pairs.n_all - self.n_zero_pairs
        if self.n_pairs == 0:
            raise ValueError(f"no pair has a distance: {len(points)} rows, pairs={pairs!r}")
        self._tables: tuple[float, _Tables] = (math.nan, _NO_TABLES)

    def __repr__(self) -> str:
        """Sizes and parameters."""
        return (
            f"JLObjective({self.n_pairs} pairs in {self.d} dimensions, {self.k}, eps={self.eps!r}, "
            f"lam={self.lam!r}, loss={self.loss!r}, sigma={self.sigma!r}, "
            f"n_threads={self.n_threads})"
        )

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        W, M = self._parts("x", x)
        return self._sum_of_losses(W, M) + self.lam * float(np.add.reduce(W * W))

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and its gradient."""
        W, M = self._parts("x", x)
        totals, forces = self._gradient_sums(W, self._pairs.images(M), with_gradient=True)
        gradient = np.empty(self.n_params)
        gradient[: W.size] = 2.0 * W * (totals[1:] / self._copies + self.lam)
        gradient[W.size :] = 2.0 * self._pairs.pull_back(forces).ravel()
        return float(totals[0]) + self.lam * float(np.add.reduce(W * W)), gradient

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at x times v, in closed form."""
        W, M = self._parts("x", x)
        return self._product(W, self._pairs.images(M), *self._parts("v", v))

    def bias_hessian(self, x: ArrayLike) -> scipy.sparse.linalg.LinearOperator:
        """H_bb, the Hessian of f in M alone, as an operator on vectors of length k d."""
        W, M = self._parts("x", x)
        images, still = self._pairs.images(M), np.zeros(W.size)

        def multiply(vector: FloatArray) -> FloatArray:
            direction = flat_vector("vector", np.reshape(vector, -1), M.size).reshape(M.shape)
            return self._product(W, images, still, direction)[W.size :]

        return scipy.sparse.linalg.LinearOperator(
            (M.size, M.size), matvec=multiply, rmatvec=multiply, dtype=np.float64
        )

    def weight_curvature(self, x: ArrayLike) -> FloatArray:
        """Mean of the diagonal of H_bb over the entries of M that share a sigma, shaped like W.

        Exactly, grad_W f = (weight_curvature + 2 lam) W, entry by entry.
        """
        W, M = self._parts("x", x)
        totals, _ = self._gradient_sums(W, self._pairs.images(M), with_gradient=False)
        return (2.0 / self._copies) * totals[1:].reshape(-1, 1)

    # -- what only an embedding has ----------------------------------------------------------------

    def gaussian_start(self) -> FloatArray:
        """Return sigma^2 = 1/k and M = 0, a Gaussian matrix with E ||A u||^2 = 1, as a new x."""
        x = np.zeros(self.n_params)
        x[self.blocks["W"].slice] = math.sqrt(self._copies / self.k)
        return x

    def noise(self, x: ArrayLike) -> FloatArray:
        """Return sigma: one number, or k of them."""
        W, _ = self._parts("x", x)
        return np.abs(W) / math.sqrt(self._copies)

    def violation_bound(self, x: ArrayLike) -> float:
        """Bound of P(some | ||A u||^2 - 1 | > eps): f without the penalty, may exceed 1."""
        return self._sum_of_losses(*self._parts("x", x))

    # -- pieces ------------------------------------------------------------------------------------

    def _parts(self, name: str, vector: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """W, flat, and M."""
        flat = flat_vector(name, vector, self.n_params)
        split = self.n_params - self.k * self.d
        return flat[:split], flat[split:].reshape(self.k, self.d)

    def _sum_of_losses(self, W: FloatArray, M: FloatArray) -> float:
        totals, _ = self._gradient_sums(W, self._pairs.images(M), with_gradient=False)
        return float(totals[0])

    def _gradient_sums(
        self, W: FloatArray, images: FloatArray, with_gradient: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Sums over pairs of h and of its derivative in each sigma^2; half the forces on images."""
        variances = W * W / self._copies
        if isinstance(self._pairs, _ListedPairs) and self.sigma == "rows":
            return self._pairs.row_noise_gradient(images, self._order, variances, self.eps)
        return self._pairs.gradient(images, self._loss(float(variances[0])), with_gradient)

    def _product(
        self, W: FloatArray, images: FloatArray, dW: FloatArray, dM: FloatArray
    ) -> FloatArray:
        dimages = self._pairs.images(dM)
        variances, dvariances = W * W / self._copies, 2.0 * W * dW / self._copies
        if isinstance(self._pairs, _ListedPairs) and self.sigma == "rows":
            totals, forces = self._pairs.row_noise_product(
                images, dimages, self._order, variances, dvariances, self.eps
            )
        else:
            loss = self._loss(float(variances[0]))
            totals, forces = self._pairs.product(images, dimages, float(dvariances[0]), loss)
        slopes, changes = totals[: W.size], totals[W.size :]
        product = np.empty(self.n_params)
        product[: W.size] = 2.0 * dW * (slopes / self._copies + self.lam)
        product[: W.size] += 2.0 * W * changes / self._copies
        product[W.size :] = 2.0 * self._pairs.pull_back(forces).ravel()
        return product

    def _loss(self, variance: float) -> _Loss:
        """Return what the kernels need to know."""
        tables = _NO_TABLES
        if self._order == 0:
            # The tables of the last sigma are kept: Hessian products come in series.
            variance_of_last, tables = self._tables
            if variance_of_last != variance:
                tables = _make_tables(self.k, math.sqrt(variance), self.eps)
                self._tables = variance, tables
        return self._order, self.k, variance, self.eps, *tables


def _checked_points(X: ArrayLike) -> FloatArray:
    """Return the rows as new float64, divided by the power of two above the largest entry."""
    array = np.asarray(X)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"X must be real numbers, not {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"X must have shape (n, d) with n, d >= 1, got {array.shape}")
    points = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(points).all():
        row, column = np.argwhere(~np.isfinite(points))[0]
        raise ValueError(f"X must be finite; X[{row}, {column}] is {points[row, column]}")
    largest = float(np.abs(points).max())
    return np.ldexp(points, -math.frexp(largest)[1])


def _order_of(loss: str, sigma: str) -> int:
    """Return the order of a moment loss, 0 for the tail."""
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a string, not {loss!r}")
    if loss == "tail":
        if sigma == "rows":
            raise ValueError("loss='tail' needs sigma='scalar': with several sigmas use a moment")
        return 0
    digits = loss.removeprefix("moment")
    if loss.startswith("moment") and digits.isascii() and digits.isdigit():
        order = int(digits)
        if order % 2 == 0 and 2 <= order <= _HIGHEST_MOMENT:
            return order
    raise ValueError(
        f"loss must be 'tail' or 'moment' and an even order from 2 to {_HIGHEST_MOMENT}, "
        f"got {loss!r}"
    )


def _make_tables(k: int, sigma: float, eps: float) -> _Tables:
    """Tabulate the tail over the sqrt(t) for which it is undecided.

    In one piece, or around each bound with a gap of probability 0 between.
    """
    below, above = 1.0 - eps, 1.0 + eps
    if below <= 0.0:
        return math.inf, _make_table(k, sigma, below, above, 0.0, 1.0), _NO_TABLE
    reach = jl.REACH * sigma
    if math.sqrt(below) + reach > math.sqrt(above) - reach - math.sqrt(k) * sigma:
        return math.inf, _make_table(k, sigma, below, above, 1.0, 1.0), _NO_TABLE
    return (
        math.sqrt(below) + reach,
        _make_table(k, sigma, below, math.inf, 1.0, 0.0),
        _make_table(k, sigma, 0.0, above, 0.0, 1.0),
    )


def _make_table(
    k: int, sigma: float, below: float, above: float, before: float, after: float
) -> _Table:
    lowest = math.sqrt(below if below > 0.0 else above)
    highest = math.sqrt(above if above < math.inf else below)
    if sigma < _LEAST_SIGMA:
        return lowest, 0.0, 1.0, np.empty(0), before, after
    # ||A u|| lies in sqrt(t) + [-REACH, sqrt(k) + REACH] sigma, but for 1e-32 of the probability.
    offset = max(-lowest, -(math.sqrt(k) + jl.REACH) * sigma)
    width = (highest - lowest) + jl.REACH * sigma - offset
    panels = math.ceil(width / sigma)
    table = np.empty((panels, jl.DEGREE + 1, 8))
    jl.fill_table(k, sigma * sigma, below, above, lowest, offset, width / panels, table)
    return lowest, offset, panels / width, table.ravel(), before, after


# --------------------------------------------------------------------------------------------------
# Sums over pairs
# --------------------------------------------------------------------------------------------------


def _make_pairs(
    points: FloatArray, pairs: Any, sigma: str, n_threads: int
) -> _AllPairs | _ListedPairs:
    n = len(points)
    if isinstance(pairs, str):
        if pairs == "all":
            if sigma == "scalar":
                return _AllPairs(points, n_threads)
            left, right = np.triu_indices(n, 1)
            return _ListedPairs(points, left, right, n_threads)
        if pairs == "norms":
            with_origin = np.vstack([points, np.zeros(points.shape[1])])
            return _ListedPairs(with_origin, np.arange(n), np.full(n, n), n_threads)
    elif isinstance(pairs, tuple | list) and len(pairs) == 2:
        left, right = (_checked_rows(f"pairs[{side}]", rows, n) for side, rows in enumerate(pairs))
        if left.size != right.size:
            raise ValueError(f"pairs must be equally long, got {left.size} and {right.size}")
        return _ListedPairs(points, left, right, n_threads)
    raise ValueError(f"pairs must be 'all', 'norms' or two integer arrays, got {pairs!r}")


def _checked_rows(name: str, rows: Any, n: int) -> IndexArray:
    array = np.asarray(rows)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= n):
        raise ValueError(
            f"{name} must be rows of X, 0 to {n - 1}; got {array.min()} to {array.max()}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


class _Pairs:
    """Points, pairs, and sums over them that threads share, part by part."""

    n_all: int
    n_zero: int
    _n_parts: int

    def __init__(self, points: FloatArray, n_threads: int) -> None:
        self._points = points
        self._n_threads = n_threads

    def images(self, M: FloatArray) -> FloatArray:
        """Images M x_i of all points, as the kernels want them."""
        raise NotImplementedError

    def pull_back(self, forces: FloatArray) -> FloatArray:
        """Turn forces on the images (n, k) into forces on M, (k, d)."""
        n, k = forces.shape
        d = self._points.shape[1]
        out = np.empty((k, d))
        workspace = matmul.workspace_size(d, n)
        self._share(
            lambda first, last: matmul.multiply(
                *(forces.T, self._points[:, first:last], out[:, first:last], False),
                np.empty(workspace),
            ),
            d,
            n * k * d,
        )
        return out

    def _map(self, M: FloatArray, out: FloatArray) -> None:
        """Write M x_i into the rows of out."""
        (n, d), k = self._points.shape, len(M)
        workspace = matmul.workspace_size(k, d)
        self._share(
            lambda first, last: matmul.multiply(
                self._points[first:last], M.T, out[first:last], False, np.empty(workspace)
            ),
            n,
            n * k * d,
        )

    def _share(self, work: Any, count: int, cost: int) -> None:
        map_ranges(work, count, self._n_threads if cost >= _PARALLEL_WORK else 1)


class _AllPairs(_Pairs):
    """All pairs of rows, tile by tile. Images are (padded n, k + 1) with ones last."""

    def __init__(self, points: FloatArray, n_threads: int) -> None:
        # Differences do not change, and their squares cancel less.
        super().__init__(points - points.mean(axis=0), n_threads)
        n, d = points.shape
        self.n_all = n * (n - 1) // 2
        self._n_blocks = -(-n // TILE)
        rows, columns = np.triu_indices(self._n_blocks)
        self._tiles = rows.astype(np.int64), columns.astype(np.int64)
        self._n_parts = min(jl.STRIPS, rows.size)
        padded = self._padded(d)
        padded[:n] = self._points
        norms = np.empty(len(padded))
        squared_norms(padded, d, norms)
        self._inverse = np.empty((rows.size, TILE, TILE))
        workspace = matmul.workspace_size(TILE, d)
        self._share(
            lambda first, last: inverse_squared_distances(
                *(first, last, *self._tiles, n, padded, norms, self._inverse),
                *(np.empty((TILE, TILE)), np.empty(workspace)),
            ),
            rows.size,
            self.n_all * d,
        )
        self.n_zero = self.n_all - int(np.count_nonzero(self._inverse))

    def _padded(self, columns: int) -> FloatArray:
        return np.zeros((self._n_blocks * TILE, columns))

    def images(self, M: FloatArray) -> FloatArray:
        images = self._padded(len(M) + 1)
        self._map(M, images[: len(self._points), :-1])
        images[:, -1] = 1.0
        return images

    def gradient(
        self, images: FloatArray, loss: _Loss, with_gradient: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Sums of h and h_s; half the derivative in the images, (n, k)."""
        totals = np.empty((self._n_parts, 2))
        sums = np.empty((self._n_parts if with_gradient else 1, *images.shape))
        arguments = (*self._tiles, len(self._points), self._inverse, images, _norms(images))
        self._share(
            lambda first, last: jl.all_pairs_gradient(
                first, last, *arguments, loss, with_gradient, totals, sums
            ),
            self._n_parts,
            self.n_all * images.shape[1],
        )
        with np.errstate(over="ignore", invalid="ignore"):
            return np.add.reduce(totals), self._laplacian(sums, images)

    def product(
        self, images: FloatArray, dimages: FloatArray, ds: float, loss: _Loss
    ) -> tuple[FloatArray, FloatArray]:
        """Sums of h_s and its change; the change of half the derivative in the images."""
        totals = np.empty((self._n_parts, 2))
        sums, changes = np.empty((2, self._n_parts, *images.shape))
        arguments = (*self._tiles, len(self._points), self._inverse, images, _norms(images))
        dnorms = np.einsum("ij,ij->i", images[:, :-1], dimages[:, :-1])
        self._share(
            lambda first, last: jl.all_pairs_product(
                first, last, *arguments, dimages, dnorms, ds, loss, totals, sums, changes
            ),
            self._n_parts,
            self.n_all * images.shape[1],
        )
        with np.errstate(over="ignore", invalid="ignore"):
            forces = self._laplacian(sums, dimages) + self._laplacian(changes, images)
            return np.add.reduce(totals), forces

    def _laplacian(self, sums: FloatArray, images: FloatArray) -> FloatArray:
        """(diag(C 1) - C) Y from the parts of C (Y, 1), which are added in order."""
        n = len(self._points)
        # Far from any solution a high moment overflows: infinities and NaN are for the caller.
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.add.reduce(sums)[:n]
            return total[:, -1:] * images[:n, :-1] - total[:, :-1]


def _norms(images: FloatArray) -> FloatArray:
    norms = np.empty(len(images))
    squared_norms(images, images.shape[1] - 1, norms)
    return norms


class _ListedPairs(_Pairs):
    """Pairs from a list. Images are (n, k)."""

    def __init__(
        self, points: FloatArray, left: IndexArray, right: IndexArray, n_threads: int
    ) -> None:
        super().__init__(points, n_threads)
        self._ends = left, right
        self.n_all = left.size
        self._n_parts = jl.listed_pairs_strips(left.size)
        self._inverse = np.empty(left.size)
        zeros = np.zeros(self._n_parts, dtype=np.int64)
        self._sums_over_strips(
            jl.listed_pairs_weights, points.shape[1], points, *self._ends, self._inverse, zeros
        )
        self.n_zero = int(zeros.sum())

    def _sums_over_strips(self, kernel: Any, depth: int, *arguments: Any) -> None:
        self._share(
            lambda first, last: kernel(first, last, *arguments), self._n_parts, self.n_all * depth
        )

    def _reduced(
        self, kernel: Any, columns: int, shape: tuple[int, int], *arguments: Any
    ) -> tuple[FloatArray, FloatArray]:
        totals = np.empty((self._n_parts, columns))
        partial = np.empty((self._n_parts, *shape))
        self._sums_over_strips(kernel, 4 * shape[1], *arguments, totals, partial)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.add.reduce(totals), np.add.reduce(partial)

    def images(self, M: FloatArray) -> FloatArray:
        images = np.empty((len(self._points), len(M)))
        self._map(M, images)
        return images

    def gradient(
        self, images: FloatArray, loss: _Loss, with_gradient: bool
    ) -> tuple[FloatArray, FloatArray]:
        """As for all pairs."""
        pairs = images, *self._ends, self._inverse
        return self._reduced(jl.listed_pairs_gradient, 2, images.shape, *pairs, loss, with_gradient)

    def product(
        self, images: FloatArray, dimages: FloatArray, ds: float, loss: _Loss
    ) -> tuple[FloatArray, FloatArray]:
        """As for all pairs."""
        pairs = images, dimages, ds, *self._ends, self._inverse
        return self._reduced(jl.listed_pairs_product, 2, images.shape, *pairs, loss)

    def row_noise_gradient(
        self, images: FloatArray, order: int, s: FloatArray, eps: float
    ) -> tuple[FloatArray, FloatArray]:
        """Sums of h and of its derivative in each of several sigma^2; the same forces."""
        arguments = images, *self._ends, self._inverse, order, s, eps
        return self._reduced(jl.row_noise_gradient, 1 + s.size, images.shape, *arguments)

    def row_noise_product(
        self,
        images: FloatArray,
        dimages: FloatArray,
        order: int,
        s: FloatArray,
        ds: FloatArray,
        eps: float,
    ) -> tuple[FloatArray, FloatArray]:
        """Sums of the derivatives in each sigma^2, then of their changes; the change of forces."""
        arguments = images, dimages, *self._ends, self._inverse, order, s, ds, eps
        return self._reduced(jl.row_noise_product, 2 * s.size, images.shape, *arguments)
