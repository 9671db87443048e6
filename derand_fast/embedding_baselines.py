"""The maps that an embedding is compared with: a random Gaussian one and principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from derand_fast.distortion_search import distortion_of
from derand_fast.embedding_basis import distinct_rows, row_space
from derand_fast.embedding_pairs import ListedPairs
from derand_fast.embedding_solver import EmbeddingProblem
from derand_fast.threads import thread_count

__all__ = ["Baselines"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Up to so many pairs are all shown, of more so many are drawn.
_MOST_PAIRS = 2_000_000
_DRAWN_PAIRS = 500_000
# Differences of rows that are looked at together.
_PAIRS_AT_ONCE = 4096


class Baselines:
    """A Gaussian map and principal components, each at its best scale, on the rows of X.

    Parameters
    ----------
    X : (n, d) array or scipy.sparse matrix
        Finite.
    n_components : int
        Dimension k of the images; principal components beyond the rank are 0.
    pairs : {"all", "norms"} or (m, 2) array or tuple of two arrays
        Whose lengths count, as in `JLEmbedding`.
    seed : int
        Of the Gaussian map and of sampled pairs.
    n_threads : int, optional
        Threads at most; they change no bit of the result.

    Attributes
    ----------
    names : tuple of str
        ``("Gaussian", "PCA")``, the keys of what the methods return.

    Notes
    -----
    O(n d min(n, d)) flops for a basis of the rows and O(n^2 (r + k)) for all pairs, r the rank.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.embedding_baselines import Baselines
    >>> X = np.random.default_rng(0).random((30, 8))
    >>> distortions = Baselines(X, 8).distortions()
    >>> round(distortions["PCA"], 9), distortions["Gaussian"] > 0.3
    (0.0, True)
    """

    names = ("Gaussian", "PCA")

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        pairs: Any = "all",
        seed: int = 0,
        n_threads: int | None = None,
    ) -> None:
        is_sparse: bool = scipy.sparse.issparse(X)
        rows = scipy.sparse.csr_array(X) if is_sparse else np.asarray(X)
        rows = rows.astype(np.float64)
        listed: IndexArray | None = None
        every_pair = isinstance(pairs, str) and pairs == "all"
        if every_pair:
            rows = rows[distinct_rows(rows)[0]]
        else:
            rows, listed = _listed(rows, pairs)
        self._rows, self._listed, self._seed = rows, listed, seed
        self._n_threads = thread_count(n_threads)
        self._space = row_space(rows, centred=not isinstance(pairs, str) or every_pair)
        self._maps: dict[str, FloatArray] = {}
        if self._space.rank and (listed is None or len(listed)):
            self._problem = EmbeddingProblem(self._space, listed, self._n_threads, seed)
            maps = (self._problem.gaussian(n_components), self._problem.principal(n_components))
            self._maps = dict(zip(self.names, maps, strict=True))
            self._extremes = {
                name: self._problem.extremes(coordinates)
                for name, coordinates in self._maps.items()
            }

    def distortions(self) -> dict[str, float]:
        """Return max |r - 1| over all pairs; 0 where all rows are equal."""
        if not self._maps:
            return dict.fromkeys(self.names, 0.0)
        return {name: distortion_of(*self._extremes[name]) for name in self.names}

    def sampled_ratios(self, components: NDArray[Any]) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Return r of pairs of different rows under a (k, d) map as it is, and under each of these.

        All pairs up to two million, else half a million drawn at random.
        """
        if not self._maps:
            return np.empty(0), dict.fromkeys(self.names, np.empty(0))
        listed = ListedPairs(self._space.points, self._sample(), self._n_threads)
        images = np.asarray(self._rows @ components.T, dtype=np.float64)
        ratios = {}
        for name in self.names:
            scale = 2.0 / sum(self._extremes[name])
            ratios[name] = scale * listed.ratios(self._problem.images(self._maps[name]))
        return listed.ratios(images), ratios

    def _sample(self) -> IndexArray:
        generator = np.random.default_rng(self._seed)
        if self._listed is not None:
            if len(self._listed) <= _MOST_PAIRS:
                return self._listed
            return self._listed[generator.choice(len(self._listed), _DRAWN_PAIRS, replace=False)]
        n = self._rows.shape[0]
        if n * (n - 1) // 2 <= _MOST_PAIRS:
            return np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
        first = generator.integers(n, size=_DRAWN_PAIRS)
        second = (first + generator.integers(1, n, size=_DRAWN_PAIRS)) % n
        return np.stack([first, second], axis=1)


def _listed(rows: Any, pairs: Any) -> tuple[Any, IndexArray]:
    """Return rows and pairs of different ones; norms are distances to the origin, appended."""
    if isinstance(pairs, str):
        n, d = rows.shape
        with_origin: Any = (rows, np.zeros((1, d)))
        if scipy.sparse.issparse(rows):
            rows = scipy.sparse.csr_array(scipy.sparse.vstack(with_origin))
        else:
            rows = np.concatenate(with_origin)
        listed = np.stack([np.arange(n), np.full(n, n)], axis=1)
    else:
        listed = np.stack(pairs, axis=-1) if isinstance(pairs, tuple) else np.asarray(pairs)
    different = [
        _differ(rows[part[:, 0]] - rows[part[:, 1]])
        for part in np.array_split(listed, -(-len(listed) // _PAIRS_AT_ONCE))
    ]
    return rows, np.ascontiguousarray(listed[np.concatenate(different)], dtype=np.int64)


def _differ(differences: Any) -> NDArray[np.bool_]:
    is_sparse: bool = scipy.sparse.issparse(differences)
    if not is_sparse:
        return np.asarray(differences.any(axis=1))
    rows = scipy.sparse.csr_array(differences)
    rows.eliminate_zeros()
    return np.asarray(np.diff(rows.indptr) > 0)
