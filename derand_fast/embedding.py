"""JLEmbedding: a linear map into few dimensions that keeps all pairwise distances of the data."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, whole_number
from derand_fast.distortion_search import HistoryRow
from derand_fast.embedding_basis import (
    RowSpace,
    distinct_rows,
    distortion_bound,
    is_sparse,
    row_space,
)
from derand_fast.embedding_pairs import AllPairs, product
from derand_fast.embedding_solver import EmbeddingProblem
from derand_fast.kernels.pairs import exact_ratios
from derand_fast.threads import one_blas_thread, thread_count

try:
    import threadpoolctl  # noqa: F401
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "JLEmbedding needs scikit-learn 1.6 or later: pip install 'derand-fast[embedding]'"
    ) from error

__all__ = ["DistortionCertificate", "JLEmbedding"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Ratios from squared norms are good to this, relative to (||y_i||^2 + ||y_j||^2) / ||x_i - x_j||^2
# (1e-16 per operation, some hundred of them, and slack), ...
_MARGIN = 1e-11
# ... and to this where the distances are kept in float32.
_FLOAT32_MARGIN = 3e-7
_LISTED_PER_GROUP = 4096
# Rows of a sparse matrix that are made dense at a time.
_DENSE_BYTES = 64 * 2**20


class DistortionCertificate(NamedTuple):
    """The exact extremes of r = ||A (x_i - x_j)||^2 / ||x_i - x_j||^2 over every pair that counts.

    Attributes
    ----------
    distortion : float
        max |r - 1|.
    lowest_ratio, highest_ratio : float
        Extremes of r, to the rounding of float64: all ratios are first computed in blocks, those
        near an extreme once more from the rows' own differences. "Near" is 1e-11, or 3e-7 with
        distances in float32: well above the rounding of the blocks, but not a proven bound of it.
    lowest_pair, highest_pair : tuple of two ints
        Row numbers where they occur.
    n_pairs : int
        Pairs that count.
    n_equal_pairs : int
        Pairs of equal rows, left out: every linear map sends them to equal images.
    n_recomputed : int
        Pairs that were computed a second time.
    """

    distortion: float
    lowest_ratio: float
    highest_ratio: float
    lowest_pair: tuple[int, int]
    highest_pair: tuple[int, int]
    n_pairs: int
    n_equal_pairs: int
    n_recomputed: int


# Without type stubs for scikit-learn its classes are of type Any.
class JLEmbedding(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Linear map x -> A x that changes squared distances between all pairs of rows the least.

    Where a random projection holds ``| ||A u||^2 / ||u||^2 - 1 | <= eps`` with high probability for
    any data, this transformer searches for the map of the data at hand whose largest error over all
    pairs is smallest, and reports that error exactly: a Johnson-Lindenstrauss embedding without the
    randomness, with a fraction of the dimensions. The guarantee covers the rows given to ``fit``;
    ``distortion`` measures it on other rows, where it can be much larger.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Dimension k of the image. "auto" takes the smallest k found that reaches ``eps``. From the
        rank of the centred data on the result is exact, and rows of zeros fill ``components_``.
    eps : float, default=0.1
        Distortion wanted by "auto", in (0, 1). Not used for a given ``n_components``.
    pairs : "all", "norms" or pair of index arrays, default="all"
        Whose lengths count: all differences of two rows, the rows themselves, or the differences
        listed, as an (m, 2) array or a tuple of two arrays of row numbers.
    method : "search" or "objective", default="search"
        "search" descends on the smooth maximum from several starts
        (``derand_fast.distortion_search``) and is never worse than a Gaussian map, principal
        components or a mixture of them. "objective" is the way of the paper: from a random Gaussian
        map A = M + sigma Z by ``newton_cg`` on ``JLObjective``, moments of order 2 to 128, to a
        certified second-order stationary point, where sigma is 0 up to a proven bound; A = M
        (``derand_fast.embedding_annealing``). It takes longer, keeps 4 n^2 bytes, uses no sample,
        and knows principal components only as far as the descent finds them.
    scale : "optimal" or "contraction", default="optimal"
        Length of A. "optimal" makes max |r - 1| least, "contraction" makes max r = 1, so that no
        distance grows.
    max_iter : int, default=5000
        Most passes over the pairs for one dimension. A pass takes about n^2 (3 k + 20) + 4 n r k
        flops, r the rank; a search also ends after 10^12 flops, half a minute on two server cores,
        or 120 passes, whichever is later; "auto" gives a quarter of these flops to each dimension
        it tries. More than 3,000 rows begin with a sample of 2,048, and of more than 23,000 the
        search sees only a sample of so many; the figures reported always count all rows.
    time_limit : float or None, default=None
        Seconds the search may take, beside preparation and the final check (which take a few passes
        of n^2 d flops). With a limit the clock has a say and results may differ from run to run.
    random_state : int, RandomState instance or None, default=0
        Seed of the starts and samples. Without a time limit the same int gives the same bits, for
        any ``n_jobs``.
    n_jobs : int or None, default=None
        Threads; None is one, -1 all cores.
    verbose : bool, default=False
        Print a line at the end of each stage: seconds, dimension, passes, sharpness, distortion,
        start, and the noise sigma if there is one.
    compute_inverse_components : bool, default=False
        Keep the pseudo-inverse of ``components_`` for ``inverse_transform``.

    Attributes
    ----------
    components_ : (n_components_, n_features_in_) array
        A, of the dtype of the data. ``transform`` is X A'; nothing is subtracted.
    n_components_ : int
    max_distortion_ : float
        Largest |r - 1| over all pairs that count, for ``components_`` as they are.
    lower_bound_ : float
        No linear map into as many dimensions, however scaled, has a distortion below this
        (``derand_fast.embedding_basis.distortion_bound``). 0 unless pairs is "all".
    worst_pair_ : tuple of two ints
        Rows where ``max_distortion_`` occurs; in mode "norms" the same row twice.
    certificate_ : DistortionCertificate
        What exactly was checked.
    history_ : list of HistoryRow
        One row for each stage: seconds, dimension, passes, sharpness, distortion, start, sigma.
    n_iter_ : int
        Passes made over the pairs.
    interrupted_ : bool
        Whether KeyboardInterrupt ended the search; the map is then the best until there, with an
        exact distortion as always ("auto": of the smallest dimension that had reached ``eps``, or
        else of the rank).
    stationary_point_ : SOSPResult or None
        Certificate of the last descent by method "objective", with sigma's bound.
    inverse_components_ : (n_features_in_, n_components_) array
        Only with ``compute_inverse_components``.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Memory is 4 n^2 bytes up to 11,585 rows, half of that up to 23,170 (1 GiB), beyond that 1 GiB
    and O(n (k + d)); sparse data are never made dense. Equal rows count once. If all rows are
    equal, every map is perfect and the first k coordinates are returned.

    References
    ----------
    Johnson, Lindenstrauss, "Extensions of Lipschitz mappings into a Hilbert space", 1984.
    Tsikouras, Pantis, Mitliagkas, Tzamos, "Derandomizing the Johnson-Lindenstrauss lemma via
    structure discovery", arXiv 2510.19382.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast import JLEmbedding
    >>> X = np.random.default_rng(0).random((50, 200))
    >>> embedding = JLEmbedding(n_components=20, max_iter=300).fit(X)
    >>> embedding.transform(X).shape
    (50, 20)
    >>> embedding.lower_bound_ < embedding.max_distortion_ < 0.2
    True
    """

    def __init__(
        self,
        n_components: int | Literal["auto"] = "auto",
        *,
        eps: float = 0.1,
        pairs: Any = "all",
        method: Literal["search", "objective"] = "search",
        scale: Literal["optimal", "contraction"] = "optimal",
        max_iter: int = 5000,
        time_limit: float | None = None,
        random_state: Any = 0,
        n_jobs: int | None = None,
        verbose: bool = False,
        compute_inverse_components: bool = False,
    ) -> None:
        self.n_components = n_components
        self.eps = eps
        self.pairs = pairs
        self.method = method
        self.scale = scale
        self.max_iter = max_iter
        self.time_limit = time_limit
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.compute_inverse_components = compute_inverse_components

    def fit(self, X: Any, y: Any = None) -> JLEmbedding:
        """Find the map for these rows.

        Parameters
        ----------
        X : (n_samples, n_features) array, sparse matrix or dask array
            At least two rows; float32 stays float32, other types become float64. The blocks of a
            dask array stay where they are: see `derand_fast.distributed.embedding.fit_blocks`.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or X is out of range, or n_components exceeds the number of features.
        TypeError
            If a parameter has the wrong type.
        """
        if _is_dask_array(X):
            from derand_fast.distributed.embedding import fit_blocks

            return fit_blocks(self, X)
        X = validate_data(
            self,
            X,
            accept_sparse=["csr", "csc"],
            dtype=[np.float64, np.float32],
            ensure_min_samples=2,
        )
        seconds = self._check_parameters(X.shape[1])
        n_threads = _threads(self.n_jobs)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # BLAS results may depend on its own threads; the kernels here bring their own.
        with one_blas_thread():
            self._fit(X, seconds, n_threads, seed)
        if self.compute_inverse_components:
            self.inverse_components_ = np.linalg.pinv(self.components_)
        return self

    def transform(self, X: Any) -> Any:
        """Return X A', (n_samples, n_components_), dense; of a dask array, a dask array."""
        check_is_fitted(self)
        if _is_dask_array(X):
            from derand_fast.distributed.embedding import transform_blocks

            return transform_blocks(self, X)
        X = self._rows_like_fitted(X)
        images = X @ self.components_.T
        return np.asarray(images.todense() if is_sparse(images) else images)

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return the rows of least norm whose images are X: X pinv(A)', (n_samples, n_features)."""
        check_is_fitted(self)
        images = check_array(X, dtype=[np.float64, np.float32], accept_sparse=("csr", "csc"))
        if images.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {images.shape[1]} columns, but the images have {self.n_components_}"
            )
        inverse = getattr(self, "inverse_components_", None)
        if inverse is None:
            inverse = np.linalg.pinv(self.components_)
        return np.asarray(images @ inverse.T)

    def distortion(self, X: Any, others: Any = None) -> float:
        """Return the exact largest |r - 1| over all pairs of rows of X, also of rows never seen.

        Parameters
        ----------
        X : (n_samples, n_features) array, sparse matrix or dask array
            At least two rows, counted with those of ``others``.
        others : (m, n_features) array or sparse matrix, optional
            More rows, for instance those fitted: all pairs of the rows of both count then. Not
            with a dask array.
        """
        check_is_fitted(self)
        if _is_dask_array(X):
            from derand_fast.distributed.embedding import distortion_of_blocks

            if others is not None:
                raise ValueError("others must be None for a dask array: concatenate the two")
            return distortion_of_blocks(self, X)
        X = self._rows_like_fitted(X)
        if others is not None:
            parts = (X, self._rows_like_fitted(others))
            sparse = any(is_sparse(part) for part in parts)
            X = scipy.sparse.vstack(parts) if sparse else np.concatenate(parts)
        if X.shape[0] < 2:
            raise ValueError("a pair needs two rows; X has n_samples = 1")
        n_threads = _threads(self.n_jobs)
        with one_blas_thread():
            rows = _working_rows(X)
            kept, _ = distinct_rows(rows)
            if kept.size < 2:
                return 0.0
            rows = rows[kept]
            all_pairs = AllPairs(row_space(rows, centred=True).points, n_threads)
            return _certify_all(rows, self.components_, all_pairs, n_threads).distortion

    # -- parts of fit -------------------------------------------------------------------------

    def _rows_like_fitted(self, X: Any) -> Any:
        return validate_data(
            self, X, reset=False, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32]
        )

    def _check_parameters(self, n_features: int) -> float:
        """Raise for parameters that are out of range; return the seconds allowed."""
        if isinstance(self.n_components, str):
            if self.n_components != "auto":
                raise ValueError(
                    f'n_components must be "auto" or an integer, got {self.n_components!r}'
                )
        else:
            k = whole_number("n_components", self.n_components, 1)
            if k > n_features:
                raise ValueError(
                    f"n_components={k} must not exceed the number of features, "
                    f"n_features={n_features}"
                )
        eps = finite_number("eps", self.eps, 0.0, 1.0)
        if eps in (0.0, 1.0):
            raise ValueError(f"eps must be strictly between 0 and 1, got {eps}")
        if self.method not in ("search", "objective"):
            raise ValueError(f'method must be "search" or "objective", got {self.method!r}')
        if self.scale not in ("optimal", "contraction"):
            raise ValueError(f'scale must be "optimal" or "contraction", got {self.scale!r}')
        whole_number("max_iter", self.max_iter, 1)
        if self.time_limit is None:
            return math.inf
        return finite_number("time_limit", self.time_limit, 0.0)

    def _fit(self, X: Any, seconds: float, n_threads: int, seed: int) -> None:
        rows = _working_rows(X)
        n_samples = rows.shape[0]
        if isinstance(self.pairs, str) and self.pairs == "all":
            kept, n_equal = distinct_rows(rows)
            rows = rows[kept]
            listed = None
        else:
            kept, n_equal = np.arange(n_samples + 1), 0
            listed, rows = _listed(self.pairs, rows)
        n_pairs = n_samples * (n_samples - 1) // 2 if listed is None else len(listed)
        space = row_space(rows, centred=not isinstance(self.pairs, str) or self.pairs == "all")
        if space.rank == 0:
            self._set_trivial(X, n_pairs)
            return
        problem = EmbeddingProblem(
            *(space, listed, n_threads, seed),
            annealing=self.method == "objective",
            report=_print_stage if self.verbose else None,
        )
        matrix = self._solve(problem, space, listed is None, seconds)
        components = space.components(matrix)
        self.lower_bound_ = self._bound(space, components.shape[0]) if listed is None else 0.0
        low, high = problem.extremes(matrix)
        components *= math.sqrt(2.0 / (low + high) if self.scale == "optimal" else 1.0 / high)
        self.components_ = components.astype(X.dtype, copy=False)
        self.n_components_ = self._n_features_out = components.shape[0]
        if problem.all_pairs is not None:
            certificate = _certify_all(rows, self.components_, problem.all_pairs, n_threads)
        else:
            assert listed is not None
            certificate = _certify_listed(rows, self.components_, listed)
        self._set_certificate(certificate, kept, n_pairs, n_equal)
        self.history_ = problem.history
        self.n_iter_ = max(1, problem.passes)
        self.interrupted_ = problem.interrupted
        self.stationary_point_ = problem.stationary_point

    def _solve(
        self, problem: EmbeddingProblem, space: RowSpace, bounded: bool, seconds: float
    ) -> FloatArray:
        """Return the coordinates (r, k) of the map."""
        if self.n_components == "auto":
            k, best = problem.smallest(
                self.eps,
                self.max_iter,
                seconds,
                (lambda k: self._bound(space, k)) if bounded else (lambda k: 0.0),
            )
        else:
            k = int(self.n_components)
            best = None if k >= space.rank else problem.solve(k, self.max_iter, seconds)
        return problem.principal(k) if best is None else best.coordinates

    @staticmethod
    def _bound(space: RowSpace, k: int) -> float:
        return distortion_bound(space.spreads, space.square_norms, k)

    def _set_trivial(self, X: Any, n_pairs: int) -> None:
        """All rows are equal: every map is perfect."""
        k = 1 if self.n_components == "auto" else int(self.n_components)
        self.components_ = np.eye(k, X.shape[1], dtype=X.dtype)
        self.n_components_ = self._n_features_out = k
        self.lower_bound_ = 0.0
        self.history_ = []
        self.n_iter_ = 1
        self.interrupted_, self.stationary_point_ = False, None
        certificate = DistortionCertificate(0.0, 1.0, 1.0, (0, 0), (0, 0), 0, n_pairs, 0)
        self.certificate_, self.max_distortion_, self.worst_pair_ = certificate, 0.0, (0, 0)

    def _set_certificate(
        self,
        certificate: DistortionCertificate,
        kept: NDArray[np.intp],
        n_pairs: int,
        n_equal: int,
    ) -> None:
        """Store the certificate in terms of the rows as they were given."""

        def named(pair: tuple[int, int]) -> tuple[int, int]:
            first, second = (int(kept[row]) for row in pair)
            if isinstance(self.pairs, str) and self.pairs == "norms":
                return first, first
            return first, second

        self.certificate_ = certificate._replace(
            lowest_pair=named(certificate.lowest_pair),
            highest_pair=named(certificate.highest_pair),
            n_pairs=n_pairs - n_equal - certificate.n_equal_pairs,
            n_equal_pairs=n_equal + certificate.n_equal_pairs,
        )
        self.max_distortion_ = certificate.distortion
        highest_is_worse = certificate.highest_ratio - 1.0 >= 1.0 - certificate.lowest_ratio
        self.worst_pair_ = (
            self.certificate_.highest_pair if highest_is_worse else self.certificate_.lowest_pair
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _is_dask_array(X: Any) -> bool:
    """Whether X is a dask array; Dask is not imported for that."""
    return type(X).__module__.startswith("dask.array")


def _threads(n_jobs: int | None) -> int:
    """Return the number of threads: scikit-learn's n_jobs."""
    if n_jobs is None:
        return 1
    if n_jobs == -1:
        return thread_count(None)
    return whole_number("n_jobs", n_jobs, 1)


def _print_stage(row: HistoryRow) -> None:
    noise = "" if row.sigma is None else f"  sigma {row.sigma:.2g}"
    print(
        f"[JLEmbedding] {row.seconds:8.2f} s  k = {row.n_components:4d}  {row.passes:6d} passes  "
        f"sharpness {row.sharpness:6.0f}  distortion {row.distortion:.6f}  from {row.start}{noise}",
        flush=True,
    )


def _working_rows(X: Any) -> Any:
    """Return rows as float64 (canonical CSR if sparse), divided by a power of two.

    The largest entry then lies in [1/2, 1), so squares neither overflow nor vanish; ratios of
    distances do not change.
    """
    if is_sparse(X):
        rows = scipy.sparse.csr_array(X, dtype=np.float64, copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        largest = float(np.abs(rows.data).max(initial=0.0))
        rows.data = np.ldexp(rows.data, -math.frexp(largest)[1])
        return rows
    dense = np.array(X, dtype=np.float64, order="C")
    return np.ldexp(dense, -math.frexp(float(np.abs(dense).max()))[1])


def _listed(pairs: Any, rows: Any) -> tuple[IndexArray, Any]:
    """Return the pairs as (m, 2), and the rows, with the origin appended for "norms"."""
    n = rows.shape[0]
    if isinstance(pairs, str):
        if pairs != "norms":
            raise ValueError(f'pairs must be "all", "norms" or index arrays, got {pairs!r}')
        origin = np.zeros((1, rows.shape[1]))
        if is_sparse(rows):
            rows = scipy.sparse.vstack([rows, scipy.sparse.csr_array(origin)], format="csr")
        else:
            rows = np.concatenate([rows, origin])
        return np.stack([np.arange(n), np.full(n, n)], axis=1).astype(np.int64), rows
    listed = np.stack(pairs, axis=-1) if isinstance(pairs, tuple) else np.asarray(pairs)
    if listed.ndim != 2 or listed.shape[1] != 2 or listed.dtype.kind not in "iu":
        raise ValueError(
            "pairs must hold row numbers, in an (m, 2) array or a tuple of two arrays; got shape "
            f"{listed.shape} and {listed.dtype}"
        )
    if listed.size == 0:
        raise ValueError("pairs must list at least one pair")
    if listed.min() < 0 or listed.max() >= n:
        raise ValueError(f"pairs must hold row numbers from 0 to {n - 1}")
    return np.ascontiguousarray(listed, dtype=np.int64), rows


def _exact(rows: Any, components: NDArray[Any], pairs: IndexArray) -> FloatArray:
    """Return the ratios of some pairs from the rows' own differences."""
    A = np.ascontiguousarray(components, dtype=np.float64)
    ratios = np.empty(len(pairs))
    at_once = len(pairs)
    if is_sparse(rows):
        at_once = max(1, _DENSE_BYTES // (16 * rows.shape[1]))
    for begin in range(0, len(pairs), at_once):
        part = pairs[begin : begin + at_once]
        if is_sparse(rows):
            dense = np.asarray(rows[part.ravel()].todense())
            part = np.arange(part.size, dtype=np.int64).reshape(-1, 2)
        else:
            dense = rows
        out = np.empty(len(part))
        exact_ratios(0, len(part), part, dense, A, np.empty(A.shape[1]), out)
        ratios[begin : begin + at_once] = out
    return ratios


def _certify_listed(
    rows: Any, components: NDArray[Any], pairs: IndexArray
) -> DistortionCertificate:
    """Return the exact extremes over listed pairs; equal rows are left out."""
    ratios = _exact(rows, components, pairs)
    kept = np.flatnonzero(~np.isnan(ratios))
    if kept.size == 0:
        return DistortionCertificate(0.0, 1.0, 1.0, (0, 0), (0, 0), 0, len(pairs), len(pairs))
    lowest, highest = (int(kept[pick(ratios[kept])]) for pick in (np.argmin, np.argmax))
    low, high = float(ratios[lowest]), float(ratios[highest])
    return DistortionCertificate(
        max(high - 1.0, 1.0 - low),
        low,
        high,
        (int(pairs[lowest, 0]), int(pairs[lowest, 1])),
        (int(pairs[highest, 0]), int(pairs[highest, 1])),
        len(pairs),
        len(pairs) - kept.size,
        len(pairs),
    )


def _certify_all(
    rows: Any, components: NDArray[Any], all_pairs: AllPairs, n_threads: int
) -> DistortionCertificate:
    """Return the exact extremes over all pairs of distinct rows.

    All ratios are computed from norms and products first; whatever may be extreme, given the
    error of that, is computed again from differences.
    """
    A = np.ascontiguousarray(components, dtype=np.float64)
    if is_sparse(rows):
        images = np.asarray(rows @ A.T)
    else:
        images = product(rows, np.ascontiguousarray(A.T), n_threads)
    images = images - images.mean(axis=0)
    relative = _MARGIN if all_pairs.is_exact else _FLOAT32_MARGIN
    _, _, low, high = all_pairs.pairs_outside(images, -1.0, math.inf, 0.0, 0)
    capacity = _LISTED_PER_GROUP
    while True:
        pairs, count, _, _ = all_pairs.pairs_outside(
            images, low * (1.0 + relative), high * (1.0 - relative), _MARGIN, capacity
        )
        if count == len(pairs):
            break
        capacity *= 8
    return _certify_listed(rows, components, pairs)
