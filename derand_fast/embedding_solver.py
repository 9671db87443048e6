"""From rows to the map: which pairs to search on, where to start, which dimension to try."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.distortion_search import Best, HistoryRow, Progress, distortion_of, search
from derand_fast.embedding_annealing import anneal
from derand_fast.embedding_basis import RowSpace
from derand_fast.embedding_pairs import AllPairs, ListedPairs, PairSet, product
from derand_fast.optimize import SOSPResult
from derand_fast.unbiased_bases import nearly_orthogonal

__all__ = ["EmbeddingProblem"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# With more rows than this the search begins on a sample of them.
_ROWS_AT_ONCE = 3000
_SAMPLE = 2048
# Share of the time, and passes, that the sample gets, and the last sharpness on it: further on, the
# map would fit the sample alone.
_SHARE_OF_SAMPLE = 0.3
_SAMPLE_PASSES = 300
_SAMPLE_SHARPNESS = 10.0
# The search never uses more rows than this; whatever is reported counts all of them.
_MOST_ROWS = 23000
# Passes over all pairs that are made in any case.
_LEAST_PASSES = 120
# Flops that one search may take at most: half a minute on two cores of a server.
_MOST_FLOPS = 8.5e11
# A search for the smallest dimension tries about so many, with this share of the flops for each.
_PROBES = 4
# The descent moves along a direction of spread s, relative to the widest, in units of sqrt(s), and
# of s / sqrt(0.1) where s is below 0.1. Units sqrt(s) for all fit the rows better by a hair and
# blow up others: half of the benchmarks' manifold is mapped to 20 dimensions at 0.142 against
# 0.150, its other half at 0.80 against 0.52. Units s for all end at worse maps of some data:
# clinical measurements in 10 dimensions at 0.294 against 0.267.
_NARROW = 0.1
# Above this ratio of the least to the widest spread the metric is left out where it can be.
_EVEN_SPREAD = 0.1
_UNUSED_NOISE = 1e-3
# Sharpness to begin with at a map that is good already, and at one found on a sample.
_WARM_SHARPNESS = 12.0
_SECOND_SHARPNESS = 8.0


class EmbeddingProblem:
    """Rows in their own span, the pairs that count, and a seed.

    Parameters
    ----------
    space : RowSpace
        The rows.
    pairs : (m, 2) array or None
        Pairs of row numbers; None for all pairs.
    n_threads, seed : int
        Threads change no bit of the result.
    annealing : bool
        Anneal the noise of a random map (`derand_fast.embedding_annealing`), instead of the search.
    report : callable, optional
        Called with the row of the history at the end of each stage.
    """

    def __init__(
        self,
        space: RowSpace,
        pairs: IndexArray | None,
        n_threads: int,
        seed: int,
        *,
        annealing: bool = False,
        report: Callable[[HistoryRow], object] | None = None,
    ) -> None:
        self.space = space
        self.n_threads = n_threads
        self._seed = seed
        self._report = report
        self._listed, self._annealing = pairs, annealing
        self._rows = space.left.shape[0]
        relative = space.spreads / space.spreads[0]
        self._metric = np.sqrt(relative * np.minimum(1.0, relative / _NARROW))
        self.passes = 0
        self.history: list[HistoryRow] = []
        self.interrupted = False
        self.stationary_point: SOSPResult | None = None
        self._n_pairs = self._rows**2 / 2.0 if pairs is None else float(len(pairs))
        self._sampled = pairs is None and self._rows > _ROWS_AT_ONCE
        self.all_pairs = AllPairs(space.points, n_threads) if pairs is None else None
        self._pairs: PairSet | None = self.all_pairs
        if pairs is not None:
            self._pairs = ListedPairs(space.points, pairs, n_threads)
        # Where the rows are independent every set of images is the image of some map. Without the
        # metric, though, directions of next to no spread would be used like any other, and blow up
        # other rows: on half of the manifold of the benchmarks the others collapsed (1.000).
        independent = pairs is None and not self._sampled and space.rank == self._rows - 1
        self._free = independent and bool(space.spreads[-1] > _EVEN_SPREAD * space.spreads[0])

    # -- maps worth measuring, as matrices (r, k): images = U matrix --------------------------

    def principal(self, k: int) -> FloatArray:
        """Return principal components."""
        out = np.zeros((self.space.rank, k))
        np.fill_diagonal(out, self.space.spreads[:k])
        return out

    def whitened(self, k: int) -> FloatArray:
        """Return principal components with equal spread in each."""
        out = np.zeros((self.space.rank, k))
        np.fill_diagonal(out, 1.0)
        return out

    def gaussian(self, k: int) -> FloatArray:
        """Return a random Gaussian map."""
        generator = np.random.default_rng((self._seed, k))
        rows = generator.standard_normal((self.space.rank, k)) / math.sqrt(k)
        return self.space.spreads[:, None] * rows

    def split(self, k: int, exact: int) -> FloatArray:
        """Return so many principal components, and a Gaussian map of the rest."""
        out = self.gaussian(k) * math.sqrt(k / max(k - exact, 1))
        out[:, :exact] = 0.0
        out[:exact] = 0.0
        out[:exact, :exact] = np.diag(self.space.spreads[:exact])
        return out

    def unbiased(self, k: int) -> FloatArray | None:
        """Return the map that makes all rows nearly orthogonal, at their lengths.

        Only where every set of images is the image of some map, and where random images are much
        worse: for k^2 / 4 rows and more, but not more than there are such vectors.
        """
        if not self._free or self._rows < k * k // 4:
            return None
        vectors = nearly_orthogonal(self._rows, k)
        if vectors is None:
            return None
        # Directions of which no vector makes use would never be used by a descent either.
        noise = np.random.default_rng((self._seed, k, 1)).standard_normal(vectors.shape)
        vectors += _UNUSED_NOISE / math.sqrt(k) * noise
        lengths = np.linalg.norm(self.space.points, axis=1)
        found: FloatArray = self.space.left.T @ (lengths[:, None] * vectors)
        return found

    def _references(self, k: int) -> list[FloatArray]:
        parts = sorted({k // 4, k // 2, 3 * k // 4} - {0})
        return [self.principal(k), self.gaussian(k), *(self.split(k, part) for part in parts)]

    def note(self, row: HistoryRow) -> None:
        """Add a row to the history."""
        self.history.append(row)
        if self._report is not None:
            self._report(row)

    # -- one dimension ------------------------------------------------------------------------

    def solve(
        self,
        k: int,
        passes: int,
        seconds: float = math.inf,
        goal: float = 0.0,
        warm: FloatArray | None = None,
        flops: float = _MOST_FLOPS,
    ) -> Best:
        """Return the best map found into k < rank dimensions, coordinates (r, k)."""
        if self._annealing:
            return self._anneal(k, Progress(passes, seconds, goal))
        affordable = flops / self._flops_of_pass(k)
        passes = min(passes, max(_LEAST_PASSES, int(affordable)))
        if self._sampled:
            return self._solve_from_sample(k, passes, seconds, goal, warm)
        assert self._pairs is not None
        basis = None if self._free else self.space.left
        return self._search(
            self._pairs, basis, k, Progress(passes, seconds, goal), warm, self._references(k)
        )

    def _flops_of_pass(self, k: int) -> float:
        """Return about how many flops a pass takes: pairs, and images with their adjoint."""
        images = 0.0 if self._free else 4.0 * self._rows * self.space.rank * k
        return self._n_pairs * (6.0 * k + 40.0) + images

    def _search(
        self,
        pairs: PairSet,
        basis: FloatArray | None,
        k: int,
        progress: Progress,
        warm: FloatArray | None,
        references: list[FloatArray],
        sharpness: tuple[float, float] = (_WARM_SHARPNESS, math.inf),
        warm_name: str = "larger k",
    ) -> Best:
        if warm is None:
            sharpness = 0.0, sharpness[1]
            starts = {
                "whitened": self.whitened(k),
                "PCA": self.principal(k),
                "Gaussian": self.gaussian(k),
            }
            unbiased = self.unbiased(k)
            if unbiased is not None:
                starts["unbiased bases"] = unbiased
        else:
            starts = {warm_name: warm}
        if basis is None:
            starts = {name: self.space.left @ start for name, start in starts.items()}
            references = [self.space.left @ reference for reference in references]
        else:
            basis = basis * self._metric
            starts = {name: start / self._metric[:, None] for name, start in starts.items()}
            references = [reference / self._metric[:, None] for reference in references]
        best = search(
            pairs,
            basis,
            starts,
            references=references,
            n_threads=self.n_threads,
            progress=progress,
            sharpness=sharpness,
            report=self.note,
        )
        self.passes += progress.passes
        self.interrupted |= progress.interrupted
        if basis is None:
            best.coordinates = self.space.left.T @ best.coordinates
        else:
            best.coordinates *= self._metric[:, None]
        return best

    def _anneal(self, k: int, progress: Progress) -> Best:
        """Descend from a random Gaussian map until its noise is gone."""
        best, spreads = Best(), self.space.spreads[:, None]
        self._measure(self.gaussian(k), best)
        try:
            self.stationary_point = anneal(
                *(self.space.points, self._listed, k),
                lambda transposed: self._measure(spreads * transposed, best),
                n_threads=self.n_threads,
                seed=self._seed,
                progress=progress,
                report=self.note,
            )
        except KeyboardInterrupt:  # not caught by newton_cg: between two descents
            progress.interrupted = True
        self.passes += progress.passes
        self.interrupted |= progress.interrupted
        return best

    # -- many rows ----------------------------------------------------------------------------

    def _solve_from_sample(
        self, k: int, passes: int, seconds: float, goal: float, warm: FloatArray | None
    ) -> Best:
        """Search on a sample of the rows, as far as that helps, then on all of them."""
        clock = Progress(1, seconds)
        generator = np.random.default_rng((self._seed, 1))
        order = generator.permutation(self._rows)
        best = Best()
        for reference in self._references(k):
            self._measure(reference, best)
        if warm is None:
            rows = np.sort(order[:_SAMPLE])
            pairs: PairSet = AllPairs(self.space.points[rows], self.n_threads)
            share = Progress(_SAMPLE_PASSES, seconds * _SHARE_OF_SAMPLE)
            basis = np.ascontiguousarray(self.space.left[rows])
            only_early = 0.0, _SAMPLE_SHARPNESS
            warm = self._search(pairs, basis, k, share, None, [], only_early).coordinates
            self._measure(warm, best)
            if self.interrupted:
                return best
        rows = np.sort(order[:_MOST_ROWS])
        found = self._search(
            *(self._most_pairs(rows), np.ascontiguousarray(self.space.left[rows]), k),
            *(Progress(passes, clock.remaining(), goal), warm, []),
            (_SECOND_SHARPNESS, math.inf),
            "sample",
        )
        self._measure(found.coordinates, best)
        return best

    def _most_pairs(self, rows: NDArray[np.intp]) -> PairSet:
        """Return all pairs of the rows the search may use."""
        assert self.all_pairs is not None
        if rows.size == self._rows:
            return self.all_pairs
        return AllPairs(self.space.points[rows], self.n_threads)

    def images(self, coordinates: FloatArray) -> FloatArray:
        """Return the images of all rows."""
        return product(self.space.left, np.ascontiguousarray(coordinates), self.n_threads)

    def extremes(self, coordinates: FloatArray) -> tuple[float, float]:
        """Return the lowest and the highest ratio over the pairs that count."""
        images = self.images(coordinates)
        if self.all_pairs is not None:
            return self.all_pairs.pairs_outside(images, -1.0, math.inf, 0.0, 0)[2:]
        assert self._pairs is not None
        return self._pairs.evaluate(images, 0.0, 0.0)[1:3]

    def _measure(self, coordinates: FloatArray, best: Best) -> tuple[float, float]:
        """Offer a map at its distortion over all pairs; return its extreme ratios."""
        low, high = self.extremes(coordinates)
        best.offer(distortion_of(low, high), coordinates * math.sqrt(2.0 / (low + high)))
        return low, high

    # -- the smallest dimension ---------------------------------------------------------------

    def smallest(
        self, eps: float, passes: int, seconds: float, bound: Callable[[int], float]
    ) -> tuple[int, Best | None]:
        """Return the smallest k found whose distortion is at most eps, and its map.

        Bisection between the largest k that ``bound`` (the proven lower bound of k) excludes and
        the rank, where the distortion is 0 (map None). Each search is warm-started from the last
        success, cut to its leading k directions. Ends early, with the smallest k so far, when time
        is over or after KeyboardInterrupt.
        """
        clock = Progress(1, seconds)
        low, high = 0, self.space.rank
        best: Best | None = None
        while low + 1 < high and bound(low + 1) > eps:
            low += 1
        tries = max(1, math.ceil(math.log2(max(high - low, 2))))
        while high - low > 1 and clock.remaining() > 0.0 and not self.interrupted:
            k = (low + high) // 2
            # Far below the rank is likelier: distortions fall geometrically with k.
            if best is None:
                k = low + max(1, (high - low) // 4)
            limit = clock.remaining() / tries if seconds < math.inf else math.inf
            warm = None if best is None else _leading(best.coordinates, k)
            found = self.solve(k, passes, limit, eps, warm, _MOST_FLOPS / _PROBES)
            tries = max(1, tries - 1)
            if found.distortion <= eps:
                high, best = k, found
            else:
                low = k
        return high, best


def _leading(coordinates: FloatArray, k: int) -> FloatArray:
    """Return the k leading directions of a map's images."""
    left, values, _ = np.linalg.svd(coordinates, full_matrices=False)
    leading: Any = left[:, :k] * values[:k]
    return np.ascontiguousarray(leading)
