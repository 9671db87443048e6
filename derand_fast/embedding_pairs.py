"""Sets of pairs of rows, and the smooth maximum of how much a linear image stretches them.

A set answers one question, ``evaluate(Y, sharpness, level)``: for images Y of its rows, the sum of
exp(p (g(r) - level)) over its pairs, its gradient divided by p, and the extreme ratios r
(formulas in ``kernels.pairs``). Results have the same bits for any number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels import pairs as kernel
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.threads import map_ranges

__all__ = ["AllPairs", "Evaluation", "ListedPairs", "PairSet", "product"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Work is cut into so many parts, however many threads there are: sums are added part by part.
_GROUPS = 8
# Fewer tiles or listed pairs than this are not worth a part of their own.
_TILES_PER_GROUP = 8
_LISTED_PER_GROUP = 8192
# Below this many flops starting threads costs more than it saves.
_FLOPS_WORTH_THREADS = 3e7
_SUMS_WORTH_THREADS = 3_000_000
# Inverse squared distances are kept in float64 up to this size, then in float32, then not at all.
_FLOAT64_BYTES = 512 * 2**20
_FLOAT32_BYTES = 1024 * 2**20
# Tiles whose distances are computed together where they are not kept.
_TILES_AT_ONCE = 128


class Evaluation(NamedTuple):
    """Sum of exp(p (g - level)), lowest and highest ratio, gradient of the sum divided by p."""

    total: float
    low: float
    high: float
    gradient: FloatArray


class PairSet(Protocol):
    """What a search needs to know about pairs."""

    n_rows: int

    def evaluate(self, Y: FloatArray, sharpness: float, level: float) -> Evaluation:
        """Return the smooth sum over all pairs of the set for images ``Y`` (n_rows, k)."""


def product(a: FloatArray, b: FloatArray, n_threads: int) -> FloatArray:
    """Return a @ b; the bits do not depend on the number of threads."""
    out = np.empty((a.shape[0], b.shape[1]))
    size = workspace_size(b.shape[1], a.shape[1])

    def part(first: int, last: int) -> None:
        multiply(a[first:last], b, out[first:last], False, np.empty(size))

    flops = 2.0 * a.shape[0] * a.shape[1] * b.shape[1]
    map_ranges(part, a.shape[0], n_threads if flops > _FLOPS_WORTH_THREADS else 1)
    return out


def _cuts(count: int, per_group: int) -> list[int]:
    groups = max(1, min(_GROUPS, count // per_group))
    return [count * group // groups for group in range(groups + 1)]


class AllPairs:
    """All pairs of the rows of ``points`` (n, r), float64.

    Memory: 4 n^2 bytes for the inverse squared distances while these are at most 512 MiB, half of
    that in float32 up to 1 GiB, beyond that none: they are computed again in each pass, at
    n^2 r flops.
    """

    def __init__(self, points: FloatArray, n_threads: int, *, keep: bool = True) -> None:
        self.n_rows, rank = points.shape
        self.n_threads = n_threads
        self._blocks = -(-self.n_rows // kernel.TILE)
        rows, columns = np.triu_indices(self._blocks)
        self._tile_rows, self._tile_columns = rows.astype(np.int64), columns.astype(np.int64)
        self._cuts = _cuts(rows.size, _TILES_PER_GROUP)
        self._points = self._padded(points, rank)
        self._norms = self._norms_of(self._points, rank)
        # float64 or float32.
        self._inverse: NDArray[Any] | None = None
        pairs = rows.size * kernel.TILE**2
        if keep and 4 * pairs <= _FLOAT32_BYTES:
            kind = np.float64 if 8 * pairs <= _FLOAT64_BYTES else np.float32
            inverse = np.empty((rows.size, kernel.TILE, kernel.TILE), dtype=kind)
            self._fill_inverse(0, rows.size, inverse)
            self._inverse = inverse
        self._sums = np.empty((0, 0, 0))

    def _padded(self, points: FloatArray, columns: int) -> FloatArray:
        out = np.zeros((self._blocks * kernel.TILE, columns))
        out[: self.n_rows, : points.shape[1]] = points
        return out

    @staticmethod
    def _norms_of(rows: FloatArray, size: int) -> FloatArray:
        out = np.empty(rows.shape[0])
        kernel.squared_norms(rows, size, out)
        return out

    @property
    def is_exact(self) -> bool:
        """Whether ratios are good to about ten digits (False: inverse distances in float32)."""
        return self._inverse is None or self._inverse.dtype == np.float64

    def _fill_inverse(self, first: int, last: int, inverse: NDArray[Any]) -> None:
        """Compute the inverse squared distances of tiles first to last."""
        size = workspace_size(kernel.TILE, self._points.shape[1])
        tiles = self._tile_rows[first:last], self._tile_columns[first:last]

        def part(begin: int, end: int) -> None:
            kernel.inverse_squared_distances(
                *(begin, end, *tiles, self.n_rows, self._points, self._norms, inverse),
                *(np.empty((kernel.TILE, kernel.TILE)), np.empty(size)),
            )

        map_ranges(part, last - first, self.n_threads)

    def evaluate(self, Y: FloatArray, sharpness: float, level: float) -> Evaluation:
        """Return the smooth sum over all pairs: n^2 (3 k + 20) flops."""
        if self._inverse is None:
            raise MemoryError(f"{self.n_rows} rows are too many to keep all their distances")
        inverse = self._inverse
        k = Y.shape[1]
        images = self._padded(Y, k + 1)
        images[:, k] = 1.0
        norms = self._norms_of(images, k)
        groups = len(self._cuts) - 1
        if self._sums.shape[2] != k + 1:
            self._sums = np.empty((groups, images.shape[0], k + 1))
        statistics = np.empty((groups, kernel.STATISTICS, kernel.TILE))
        size = workspace_size(max(kernel.TILE, k + 1), max(kernel.TILE, k))

        def part(first: int, last: int) -> None:
            products, workspace = np.empty((kernel.TILE, kernel.TILE)), np.empty(size)
            for group in range(first, last):
                kernel.smooth_ratios(
                    *(self._cuts[group], self._cuts[group + 1]),
                    *(self._tile_rows, self._tile_columns, inverse, images, norms),
                    *(sharpness, level, statistics[group], self._sums[group], products, workspace),
                )

        flops = self.n_rows**2 * (3.0 * k + 20.0)
        n_threads = self.n_threads if flops > _FLOPS_WORTH_THREADS else 1
        map_ranges(part, groups, n_threads)
        gradient = np.empty((self.n_rows, k))
        map_ranges(
            lambda first, last: kernel.add_groups(first, last, self._sums, images, gradient),
            *(self.n_rows, n_threads if self._sums.size > _SUMS_WORTH_THREADS else 1),
        )
        return Evaluation(
            float(statistics[:, kernel.TOTAL].sum()),
            float(statistics[:, kernel.LOW].min()),
            float(statistics[:, kernel.HIGH].max()),
            gradient,
        )

    def pairs_outside(
        self, Y: FloatArray, low: float, high: float, margin: float, capacity: int
    ) -> tuple[IndexArray, int, float, float]:
        """Return pairs with r <= low or r >= high, their number, lowest and highest r.

        At most ``capacity`` pairs of each of the fixed groups of tiles are listed.
        """
        images = self._padded(Y, Y.shape[1])
        norms = self._norms_of(images, Y.shape[1])
        step = len(self._tile_rows) if self._inverse is not None else _TILES_AT_ONCE
        lists: list[IndexArray] = []
        count, lowest, highest = 0, np.inf, 0.0
        scratch = np.empty((min(step, self._tile_rows.size), kernel.TILE, kernel.TILE))
        for begin in range(0, self._tile_rows.size, step):
            end = min(begin + step, self._tile_rows.size)
            if self._inverse is None:
                inverse: NDArray[Any] = scratch[: end - begin]
                self._fill_inverse(begin, end, inverse)
            else:
                inverse = self._inverse
            found = self._outside_of_tiles(
                *(begin, end, inverse, images, norms, low, high, margin, capacity)
            )
            for pairs, here, statistics in found:
                lists.append(pairs[:here])
                count += here
                lowest = min(lowest, float(statistics[kernel.LOW].min()))
                highest = max(highest, float(statistics[kernel.HIGH].max()))
        return np.concatenate(lists), count, lowest, highest

    def _outside_of_tiles(
        self,
        begin: int,
        end: int,
        inverse: NDArray[Any],
        images: FloatArray,
        norms: FloatArray,
        low: float,
        high: float,
        margin: float,
        capacity: int,
    ) -> list[tuple[IndexArray, int, FloatArray]]:
        """Search tiles begin to end, group by group."""
        cuts = _cuts(end - begin, _TILES_PER_GROUP)
        size = workspace_size(kernel.TILE, images.shape[1])
        tiles = self._tile_rows[begin:end], self._tile_columns[begin:end]

        def part(first: int, last: int) -> list[tuple[IndexArray, int, FloatArray]]:
            products, workspace = np.empty((kernel.TILE, kernel.TILE)), np.empty(size)
            out = []
            for group in range(first, last):
                statistics = np.empty((kernel.STATISTICS, kernel.TILE))
                pairs = np.empty((capacity, 2), dtype=np.int64)
                here = kernel.pairs_outside(
                    *(cuts[group], cuts[group + 1], *tiles, self.n_rows, inverse, images, norms),
                    *(low, high, margin, pairs, statistics, products, workspace),
                )
                out.append((pairs, here, statistics))
            return out

        parts = map_ranges(part, len(cuts) - 1, self.n_threads)
        return [entry for part_ in parts for entry in part_]


class ListedPairs:
    """Pairs from a list (m, 2) of row numbers of ``points`` (n, r)."""

    def __init__(self, points: FloatArray, pairs: IndexArray, n_threads: int) -> None:
        self.n_rows = points.shape[0]
        self.pairs = np.ascontiguousarray(pairs, dtype=np.int64)
        self.n_threads = n_threads
        self._inverse = np.empty(self.pairs.shape[0])
        kernel.listed_inverse_squared_distances(self.pairs, points, self._inverse)
        self._cuts = _cuts(self.pairs.shape[0], _LISTED_PER_GROUP)
        self._gradients = np.empty((0, 0, 0))

    def evaluate(self, Y: FloatArray, sharpness: float, level: float) -> Evaluation:
        """Return the smooth sum over the listed pairs: m (9 k + 20) flops."""
        groups = len(self._cuts) - 1
        if self._gradients.shape[1:] != Y.shape:
            self._gradients = np.empty((groups, *Y.shape))
        ratios, weights = np.empty(self._inverse.size), np.empty(self._inverse.size)
        found = [(0.0, np.inf, 0.0)] * groups

        def part(first: int, last: int) -> None:
            for group in range(first, last):
                found[group] = kernel.listed_smooth_ratios(
                    *(self._cuts[group], self._cuts[group + 1], self.pairs, self._inverse, Y),
                    *(sharpness, level, ratios, weights, self._gradients[group]),
                )

        flops = self._inverse.size * (9.0 * Y.shape[1] + 20.0)
        map_ranges(part, groups, self.n_threads if flops > _FLOPS_WORTH_THREADS else 1)
        gradient = self._gradients[0].copy()
        for other in self._gradients[1:]:
            gradient += other
        return Evaluation(
            sum(entry[0] for entry in found),
            min(entry[1] for entry in found),
            max(entry[2] for entry in found),
            gradient,
        )

    def ratios(self, Y: FloatArray) -> FloatArray:
        """Return r of each pair, 1 where the two rows are equal."""
        out = np.empty(self._inverse.size)
        kernel.listed_ratios(0, out.size, self.pairs, self._inverse, Y, out)
        return out
