"""What runs where the row blocks are: reducing them, mapping them, comparing two of them."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from derand_fast.kernels import pairs as kernel
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.threads import one_blas_thread

__all__ = [
    "BlockPair",
    "Pass",
    "exact_ratios_of",
    "extremes",
    "largest_entry",
    "merge_triangles",
    "product",
    "reduced",
    "row_digests",
    "row_sums",
    "singular_directions",
    "smooth_pass",
    "triangle",
    "working_rows",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

# Tiles whose distances are computed together where they are not kept.
_TILES_AT_ONCE = 128


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b; the bits of a row do not depend on the other rows."""
    out = np.empty((a.shape[0], b.shape[1]))
    multiply(a, b, out, False, np.empty(workspace_size(b.shape[1], a.shape[1])))
    return out


# --------------------------------------------------------------------------------------------------
# One block
# --------------------------------------------------------------------------------------------------


def largest_entry(block: Any) -> float:
    """Return max |x|, NaN or infinity if an entry is."""
    array = np.asarray(block, dtype=np.float64)
    return float(np.abs(array).max()) if array.size else 0.0


def row_digests(block: Any) -> list[bytes]:
    """Return 16 bytes for each row, the same for equal rows."""
    # Adding zero makes -0.0 equal to 0.0.
    rows = np.asarray(block, dtype=np.float64, order="C") + 0.0
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def working_rows(block: Any, kept: NDArray[np.intp], exponent: int) -> FloatArray:
    """Return the distinct rows in float64, divided by 2^exponent."""
    rows = np.array(np.asarray(block)[kept], dtype=np.float64, order="C")
    return np.ldexp(rows, -exponent)


def row_sums(rows: FloatArray) -> FloatArray:
    """Return the sum of the rows."""
    return np.add.reduce(rows, axis=0)


@one_blas_thread()
def triangle(rows: FloatArray, centre: FloatArray) -> FloatArray:
    """Return R of rows - centre = Q R, at most (d, d)."""
    return _triangle_of(rows - centre)


@one_blas_thread()
def merge_triangles(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return R of two such factors, one upon the other."""
    return _triangle_of(np.concatenate((first, second)))


def _triangle_of(rows: FloatArray) -> FloatArray:
    (factor,) = scipy.linalg.qr(rows, mode="r")
    return np.ascontiguousarray(factor[: rows.shape[1]])


@one_blas_thread()
def singular_directions(factor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return singular values, descending, and right singular vectors (r, d)."""
    _, spreads, right = scipy.linalg.svd(factor, full_matrices=False)
    return spreads, right


def reduced(rows: FloatArray, centre: FloatArray, to_left: FloatArray) -> FloatArray:
    """Return the rows' part of U in centred rows = U diag(s) V', (n, r); to_left = V / s."""
    return product(rows - centre, to_left)


# --------------------------------------------------------------------------------------------------
# Two blocks
# --------------------------------------------------------------------------------------------------


class Pass(NamedTuple):
    """Sum of exp(p (g - level)), lowest and highest ratio, gradient in the coordinates / p."""

    total: float
    low: float
    high: float
    gradient: FloatArray


class BlockPair:
    """All pairs of a row of one block and a row of another, or of two rows of one.

    Parameters
    ----------
    first, second : (n, r) and (m, r) arrays, or (n, r) array and None
        Rows of U; None stands for pairs within the first block.
    spreads : (r,) array
        The rows in their own space are U diag(spreads).
    keep : bool
        Whether to keep the inverse squared distances, 8 bytes a pair, or to compute them again in
        each pass, at 2 r flops a pair.
    """

    def __init__(
        self, first: FloatArray, second: FloatArray | None, spreads: FloatArray, keep: bool
    ) -> None:
        self.blocks = [first] if second is None else [first, second]
        self._starts = [0, -(-len(first) // kernel.TILE) * kernel.TILE]
        self._points = self.stacked([block * spreads for block in self.blocks])
        tiles = [-(-len(block) // kernel.TILE) for block in self.blocks]
        if second is None:
            rows, columns = np.triu_indices(tiles[0])
        else:
            rows, columns = np.divmod(np.arange(tiles[0] * tiles[1]), tiles[1])
            columns = columns + tiles[0]
        self.tiles = rows.astype(np.int64), columns.astype(np.int64)
        self.n_rows = self._starts[len(self.blocks) - 1] + len(self.blocks[-1])
        self._inverse = self._inverse_of(0, rows.size) if keep else None

    def stacked(self, parts: list[FloatArray]) -> FloatArray:
        """Lay the rows of the blocks out, each padded with zeros to whole tiles."""
        count = sum(-(-len(part) // kernel.TILE) for part in parts) * kernel.TILE
        out = np.zeros((count, parts[0].shape[1]))
        for start, part in zip(self._starts, parts, strict=False):
            out[start : start + len(part)] = part
        return out

    def spans(self) -> list[tuple[int, int, Any]]:
        """Return tiles that are worked on at once, with their inverse squared distances."""
        count = self.tiles[0].size
        if self._inverse is not None:
            return [(0, count, self._inverse)]
        cuts = [*range(0, count, _TILES_AT_ONCE), count]
        return [(i, j, None) for i, j in pairwise(cuts)]

    def inverse(self, first: int, last: int, kept: Any) -> FloatArray:
        """Return the inverse squared distances of a span."""
        return self._inverse_of(first, last) if kept is None else kept

    def _inverse_of(self, first: int, last: int) -> FloatArray:
        points, size = self._points, self._points.shape[1]
        inverse = np.empty((last - first, kernel.TILE, kernel.TILE))
        tiles = [side[first:last] for side in self.tiles]
        kernel.inverse_squared_distances(
            *(0, last - first, *tiles, self.n_rows, points, _norms(points), inverse),
            *(np.empty((kernel.TILE, kernel.TILE)), np.empty(workspace_size(kernel.TILE, size))),
        )
        if len(self.blocks) == 2:
            # What pads the first block lies between the two. Below 0 a pair does not count, and
            # unlike that of equal rows, at 0, it is not listed for a closer look.
            padding = self._starts[1] - len(self.blocks[0])
            at_end = tiles[0] == self._starts[1] // kernel.TILE - 1
            inverse[at_end, kernel.TILE - padding :] = -1.0
        return inverse

    def split(self, rows: FloatArray) -> list[FloatArray]:
        """Return the rows of each block without padding."""
        return [
            rows[start : start + len(block)]
            for start, block in zip(self._starts, self.blocks, strict=False)
        ]

    def number(self, row: int) -> tuple[int, int]:
        """Return the block and the row within it of a row as laid out."""
        if len(self.blocks) == 2 and row >= self._starts[1]:
            return 1, row - self._starts[1]
        return 0, row


def _norms(rows: FloatArray) -> FloatArray:
    out = np.empty(len(rows))
    kernel.squared_norms(rows, rows.shape[1], out)
    return out


def smooth_pass(pair: BlockPair, coordinates: FloatArray, sharpness: float, level: float) -> Pass:
    """Return the smooth sum over the pairs for images U coordinates: formulas in kernels.pairs."""
    k = coordinates.shape[1]
    images = pair.stacked(
        [
            np.column_stack((product(block, coordinates), np.ones(len(block))))
            for block in pair.blocks
        ]
    )
    norms = _norms(np.ascontiguousarray(images[:, :k]))
    sums, part = np.zeros((1, *images.shape)), np.empty(images.shape)
    statistics = np.empty((kernel.STATISTICS, kernel.TILE))
    products = np.empty((kernel.TILE, kernel.TILE))
    workspace = np.empty(workspace_size(max(kernel.TILE, k + 1), max(kernel.TILE, k)))
    total, low, high = 0.0, math.inf, 0.0
    for first, last, kept in pair.spans():
        tiles = [side[first:last] for side in pair.tiles]
        kernel.smooth_ratios(
            *(0, last - first, *tiles, pair.inverse(first, last, kept), images, norms),
            *(sharpness, level, statistics, part, products, workspace),
        )
        sums[0] += part
        total += float(statistics[kernel.TOTAL].sum())
        low = min(low, float(statistics[kernel.LOW].min()))
        high = max(high, float(statistics[kernel.HIGH].max()))
    forces = np.empty((len(images), k))
    kernel.add_groups(0, len(images), sums, images, forces)
    gradient = np.zeros(coordinates.shape)
    for block, force in zip(pair.blocks, pair.split(forces), strict=True):
        gradient += product(block.T, force)
    return Pass(total, low, high, gradient)


class Extremes(NamedTuple):
    """Lowest and highest ratio; pairs near them as (block, row, block, row), and their number."""

    low: float
    high: float
    pairs: list[tuple[tuple[int, int], tuple[int, int]]]
    n_found: int


def extremes(
    pair: BlockPair,
    images: list[FloatArray],
    low: float,
    high: float,
    margin: float,
    capacity: int,
) -> Extremes:
    """Return the extreme ratios, and the pairs with ratios up to ``low`` or from ``high`` on.

    ``images`` are those of the rows of each block. At most ``capacity`` pairs of a span are listed.
    """
    stacked = pair.stacked(images)
    norms, k = _norms(stacked), stacked.shape[1]
    statistics = np.empty((kernel.STATISTICS, kernel.TILE))
    products = np.empty((kernel.TILE, kernel.TILE))
    workspace = np.empty(workspace_size(kernel.TILE, k))
    lowest, highest, count = math.inf, 0.0, 0
    listed: list[tuple[tuple[int, int], tuple[int, int]]] = []
    pairs = np.empty((capacity, 2), dtype=np.int64)
    for first, last, kept in pair.spans():
        tiles = [side[first:last] for side in pair.tiles]
        here = kernel.pairs_outside(
            *(0, last - first, *tiles, pair.n_rows, pair.inverse(first, last, kept), stacked),
            *(norms, low, high, margin, pairs, statistics, products, workspace),
        )
        rows = pairs[: min(here, capacity)].tolist()
        named = [(pair.number(i), pair.number(j)) for i, j in rows]
        # Padding may be listed where all ratios are on one side of 1.
        listed += [ends for ends in named if ends[0][1] < len(pair.blocks[ends[0][0]])]
        count += here
        lowest = min(lowest, float(statistics[kernel.LOW].min()))
        highest = max(highest, float(statistics[kernel.HIGH].max()))
    return Extremes(lowest, highest, listed, count)


def exact_ratios_of(
    first: FloatArray, second: FloatArray, pairs: IndexArray, components: FloatArray
) -> FloatArray:
    """Return the ratios of pairs (row of first, row of second) from their own differences."""
    rows = np.concatenate((first[pairs[:, 0]], second[pairs[:, 1]]))
    places = np.arange(len(pairs), dtype=np.int64)
    out = np.empty(len(pairs))
    kernel.exact_ratios(
        *(0, len(pairs), np.column_stack((places, places + len(pairs))), rows, components),
        *(np.empty(rows.shape[1]), out),
    )
    return out
