"""JLEmbedding of row blocks that no single machine holds: dask arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.distortion_search import HistoryRow, Progress, search
from derand_fast.distributed import row_blocks
from derand_fast.distributed.ordered_sum import OrderedSum
from derand_fast.embedding import DistortionCertificate, JLEmbedding
from derand_fast.embedding_basis import distortion_bound
from derand_fast.embedding_pairs import Evaluation

__all__ = ["distortion_of_blocks", "fit_blocks", "is_blocked", "transform_blocks"]

FloatArray = NDArray[np.float64]

# Rows that are gathered here for the first search; with no more than these it is the only one.
_SAMPLE = 4096
# The search over all pairs begins at a map that is good on the sample.
_SHARPNESS = 8.0
# Flops that it may take, for each worker; but so many passes are made in any case.
_FLOPS = 1e12
_LEAST_PASSES = 30
# Directions in which the rows spread less than this share of the widest are rounding errors.
_CUTOFF = 1e-12
# Inverse squared distances are kept on the workers up to so many bytes in all for each of them.
_KEPT_BYTES = 2**30
# As in `JLEmbedding`: ratios from squared norms are good to this, and pairs this near an extreme
# are computed again from the rows' differences.
_MARGIN = 1e-11
_CAPACITY = 4096
# "auto": where the dimension found on the sample is too small for all rows, try so much more.
_GROWTH = 1.15


def is_blocked(X: Any) -> bool:
    """Whether X is a dask array; Dask is not imported to find out."""
    kind = type(X)
    return kind.__module__.startswith("dask.array") and kind.__name__ == "Array"


class _Here:
    """Calls made in this process, block by block."""

    width = 1

    def blocks_of(self, X: Any) -> list[Any]:
        """Return the blocks, computed."""
        return [block.compute(scheduler="synchronous") for block in X.to_delayed().ravel()]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result."""
        return function(*arguments)

    def gather(self, results: Iterable[Any]) -> list[Any]:
        """Return results as they are."""
        return list(results)


class _OnWorkers:
    """Calls made where the blocks are; Dask makes lost ones again."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.width = max(1, len(client.nthreads()))

    def blocks_of(self, X: Any) -> list[Any]:
        """Return futures of the blocks, which stay on the workers."""
        return list(self._client.compute(X.to_delayed().ravel().tolist()))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a future of the result."""
        return self._client.submit(function, *arguments, pure=False)

    def gather(self, results: Iterable[Any]) -> list[Any]:
        """Return what the futures stand for."""
        return list(self._client.gather(list(results)))


def _place_of(client: Any) -> _Here | _OnWorkers:
    """Return where to compute: with the client given, or the one that is open, or here."""
    if client is None:
        try:
            from distributed import default_client

            client = default_client()
        except (ImportError, ValueError):
            return _Here()
    return _OnWorkers(client)


class _Rows:
    """The distinct rows of an array as blocks, centred and in their own space.

    Attributes
    ----------
    spreads, right : (r,) and (r, d) arrays
        Centred rows = U diag(spreads) right.
    left : list
        U block by block, where it was made.
    sizes, kept : list
        Distinct rows of each block: their number, and their places in the array.
    n_pairs, n_equal : int
        Pairs of rows; those of equal rows.
    exponent : int
        Rows were divided by 2^exponent: their squares neither overflow nor vanish.
    """

    def __init__(self, X: Any, place: _Here | _OnWorkers) -> None:
        self._place = place
        self.dtype = np.dtype(np.float32 if X.dtype == np.float32 else np.float64)
        raw = place.blocks_of(X)
        counts = [int(count) for count in X.chunks[0]]
        self._drop_equal_rows(raw, counts)
        largest = max(place.gather(place.call(row_blocks.largest_entry, block) for block in raw))
        if not math.isfinite(largest):
            raise ValueError("X must be finite; it holds infinity or NaN")
        self.exponent = math.frexp(largest)[1]
        chosen = [block for block, places in enumerate(self._local) if places.size]
        self.rows = [
            place.call(row_blocks.working_rows, raw[block], self._local[block], self.exponent)
            for block in chosen
        ]
        starts = np.concatenate(([0], np.cumsum(counts)))
        self.kept = [self._local[block] + starts[block] for block in chosen]
        self.sizes = [places.size for places in self.kept]
        sums = place.gather(place.call(row_blocks.row_sums, block) for block in self.rows)
        self.centre = _summed(sums) / sum(self.sizes)

    def reduce(self) -> None:
        """Find the space of the centred rows: one QR factorisation a block, merged in a tree."""
        place = self._place
        factors = [place.call(row_blocks.triangle, block, self.centre) for block in self.rows]
        while len(factors) > 1:
            merged = [
                place.call(row_blocks.merge_triangles, *factors[i : i + 2])
                for i in range(0, len(factors) - 1, 2)
            ]
            factors = merged + factors[2 * len(merged) :]
        (factor,) = place.gather(factors)
        spreads, right = row_blocks.singular_directions(factor)
        wide = spreads > _CUTOFF * spreads.max(initial=0.0)
        self.spreads, self.right = spreads[wide], right[wide]
        to_left = np.ascontiguousarray((self.right / self.spreads[:, None]).T)
        self.left = [
            place.call(row_blocks.reduced, block, self.centre, to_left) for block in self.rows
        ]

    def _drop_equal_rows(self, raw: list[Any], counts: list[int]) -> None:
        """Keep the first of equal rows, told by a 128-bit digest."""
        digests = self._place.gather(self._place.call(row_blocks.row_digests, b) for b in raw)
        seen: dict[bytes, int] = {}
        self._local = []
        for block in digests:
            places = []
            for place, digest in enumerate(block):
                if digest not in seen:
                    places.append(place)
                seen[digest] = seen.get(digest, 0) + 1
            self._local.append(np.array(places, dtype=np.intp))
        n = sum(counts)
        self.n_pairs = n * (n - 1) // 2
        self.n_equal = sum(count * (count - 1) // 2 for count in seen.values())


def _summed(terms: list[Any]) -> Any:
    """Return the sum along a tree that depends on their number alone."""
    total = OrderedSum(len(terms))
    for number, term in enumerate(terms):
        total.add(number, term)
    return total.total


class _AllBlockPairs:
    """All pairs of rows, by pairs of blocks: what `distortion_search.search` asks for.

    Its "images" are the coordinates (r, k) of the map: blocks find the images of their own rows.
    """

    def __init__(self, rows: _Rows, place: _Here | _OnWorkers) -> None:
        self._rows, self._place = rows, place
        self.n_rows = rows.spreads.size
        self.n_points = sum(rows.sizes)
        keep = 4 * self.n_points**2 <= _KEPT_BYTES * place.width
        blocks = range(len(rows.sizes))
        self._ends = [(i, j) for i in blocks for j in blocks[i:]]
        self._pairs = [
            place.call(
                *(row_blocks.BlockPair, rows.left[i], rows.left[j] if i != j else None),
                *(rows.spreads, keep),
            )
            for i, j in self._ends
        ]

    def evaluate(self, coordinates: FloatArray, sharpness: float, level: float) -> Evaluation:
        """Return the smooth sum over all pairs and its gradient in the coordinates."""
        place = self._place
        found = place.gather(
            place.call(row_blocks.smooth_pass, pair, coordinates, sharpness, level)
            for pair in self._pairs
        )
        with np.errstate(over="ignore", invalid="ignore"):
            return Evaluation(
                _summed([part.total for part in found]),
                min(part.low for part in found),
                max(part.high for part in found),
                _summed([part.gradient for part in found]),
            )

    def certify(self, components: NDArray[Any]) -> DistortionCertificate:
        """Return the exact extremes over all pairs, as `JLEmbedding` finds them."""
        rows, place = self._rows, self._place
        A = np.ascontiguousarray(components, dtype=np.float64)
        down = np.ascontiguousarray(A.T)
        images = [place.call(row_blocks.reduced, block, rows.centre, down) for block in rows.rows]
        sides = [place.call(_both, images[i], images[j] if i != j else None) for i, j in self._ends]

        def search_pairs(low: float, high: float, margin: float, capacity: int) -> list[Any]:
            return place.gather(
                place.call(row_blocks.extremes, pair, side, low, high, margin, capacity)
                for pair, side in zip(self._pairs, sides, strict=True)
            )

        found = search_pairs(-1.0, math.inf, 0.0, 0)
        low, high = min(part.low for part in found), max(part.high for part in found)
        capacity = _CAPACITY
        while True:
            found = search_pairs(low * (1.0 + _MARGIN), high * (1.0 - _MARGIN), _MARGIN, capacity)
            if all(part.n_found <= capacity for part in found):
                break
            capacity *= 8
        return self._recomputed([part.pairs for part in found], A)

    def _recomputed(self, listed: list[Any], A: FloatArray) -> DistortionCertificate:
        """Compute ratios of some pairs from the rows' own differences; return their extremes."""
        rows, place = self._rows, self._place
        calls: list[Any] = []
        ends: list[tuple[int, int]] = []
        for (i, j), pairs in zip(self._ends, listed, strict=True):
            for (one, other), within in _by_blocks(pairs).items():
                first, second = ((i, j)[one], (i, j)[other])
                local = np.array(within, dtype=np.int64)
                calls.append(
                    place.call(
                        *(row_blocks.exact_ratios_of, rows.rows[first], rows.rows[second]),
                        *(local, A),
                    )
                )
                ends += [(int(rows.kept[first][a]), int(rows.kept[second][b])) for a, b in within]
        ratios = np.concatenate(place.gather(calls))
        lowest, highest = int(np.argmin(ratios)), int(np.argmax(ratios))
        low, high = float(ratios[lowest]), float(ratios[highest])
        return DistortionCertificate(
            distortion=max(high - 1.0, 1.0 - low),
            lowest_ratio=low,
            highest_ratio=high,
            lowest_pair=ends[lowest],
            highest_pair=ends[highest],
            n_pairs=rows.n_pairs - rows.n_equal,
            n_equal_pairs=rows.n_equal,
            n_recomputed=len(ratios),
        )


def _both(first: FloatArray, second: FloatArray | None) -> list[FloatArray]:
    return [first] if second is None else [first, second]


def _by_blocks(pairs: list[Any]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Sort ((block, row), (block, row)) by the blocks."""
    out: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (one, row), (other, column) in pairs:
        out.setdefault((one, other), []).append((row, column))
    return out


# --------------------------------------------------------------------------------------------------
# The estimator's methods
# --------------------------------------------------------------------------------------------------


def _checked(X: Any) -> Any:
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape (n, d) with n, d >= 1, got {X.shape}")
    if not all(math.isfinite(size) for size in X.shape):
        raise ValueError("the sizes of X's blocks must be known: call X.compute_chunk_sizes()")
    if X.dtype.kind not in "biuf":
        raise TypeError(f"X must be real numbers, not {X.dtype}")
    if X.shape[0] < 2:
        raise ValueError("a pair needs two rows; X has n_samples = 1")
    return X.rechunk({1: -1})


def fit_blocks(embedding: JLEmbedding, X: Any, client: Any = None) -> JLEmbedding:
    """Fit an embedding to the rows of a dask array, whose blocks stay on the workers.

    The rows are reduced to their own space by a tree of QR factorisations (d^2 numbers from each
    block); the estimator searches on 4,096 of them here; then the search goes on over all pairs,
    by pairs of blocks, with gradients (r, k) summed in a fixed order; the result is certified over
    all pairs, recomputed near the extremes, as by ``JLEmbedding.fit``.

    Parameters
    ----------
    embedding : JLEmbedding
        With ``pairs="all"``.
    X : (n, d) dask array
        At least two rows; blocks of whole rows are best.
    client : distributed.Client, optional
        By default the open client; without one the blocks are computed here, one after the other,
        with the same bits.

    Returns
    -------
    JLEmbedding
        The embedding, fitted.

    Raises
    ------
    ValueError, TypeError
        As ``JLEmbedding.fit``, for block sizes that are not known, and for other ``pairs``.

    Notes
    -----
    A pass takes n^2 (3 k + 20) flops, and n^2 r more where 4 n^2 bytes are over 1 GiB for each
    worker, so that distances are not kept. A worker holds its rows, and the reduced rows (r numbers
    each) of every block that its pairs of blocks need: with b blocks on w workers about
    b sqrt(2 / w) of them at best, all at worst. Here: a (d, d) matrix, the sample, 16 bytes a row.
    d is at most some thousands; there is no randomized range finder.
    """
    X = _checked(X)
    if not (isinstance(embedding.pairs, str) and embedding.pairs == "all"):
        raise ValueError(f'pairs must be "all" for a dask array, got {embedding.pairs!r}')
    seconds = embedding._check_parameters(X.shape[1])
    progress = Progress(1, seconds)
    place = _place_of(client)
    rows = _Rows(X, place)
    embedding.n_features_in_ = X.shape[1]
    embedding.interrupted_, embedding.stationary_point_ = False, None
    if sum(rows.sizes) < 2:
        embedding._set_trivial(X, rows.n_pairs)
        return embedding
    rows.reduce()
    pairs = _AllBlockPairs(rows, place)
    square_norms = np.concatenate(
        place.gather(place.call(_square_norms, left, rows.spreads) for left in rows.left)
    )

    def bound(k: int) -> float:
        return distortion_bound(rows.spreads, square_norms, k)

    history: list[HistoryRow] = []
    coordinates, passes = _searched(embedding, rows, pairs, progress, history)
    found = pairs.evaluate(coordinates, 0.0, 0.0)
    scale = 2.0 / (found.low + found.high) if embedding.scale == "optimal" else 1.0 / found.high
    components = math.sqrt(scale) * row_blocks.product(
        np.ascontiguousarray((coordinates / rows.spreads[:, None]).T), rows.right
    )
    embedding.components_ = components.astype(rows.dtype, copy=False)
    embedding.n_components_ = embedding._n_features_out = components.shape[0]
    embedding.lower_bound_ = bound(components.shape[0])
    certificate = pairs.certify(embedding.components_)
    embedding.certificate_ = certificate
    embedding.max_distortion_ = certificate.distortion
    worse_high = certificate.highest_ratio - 1.0 >= 1.0 - certificate.lowest_ratio
    embedding.worst_pair_ = certificate.highest_pair if worse_high else certificate.lowest_pair
    embedding.history_, embedding.n_iter_ = history, max(1, passes)
    if embedding.compute_inverse_components:
        embedding.inverse_components_ = np.linalg.pinv(embedding.components_)
    return embedding


def _square_norms(left: FloatArray, spreads: FloatArray) -> FloatArray:
    points = left * spreads
    return np.add.reduce(points * points, axis=1)


def _searched(
    embedding: JLEmbedding,
    rows: _Rows,
    pairs: _AllBlockPairs,
    progress: Progress,
    history: list[HistoryRow],
) -> tuple[FloatArray, int]:
    """Return the coordinates (r, k) of a good map, and the passes made."""
    rank = rows.spreads.size
    wanted = embedding.n_components
    if wanted != "auto" and wanted >= rank:
        return _principal(rows.spreads, int(wanted)), 0
    coordinates, passes = _on_sample(embedding, rows, wanted, history)
    if sum(rows.sizes) <= _SAMPLE:
        return coordinates, passes
    while True:
        k = coordinates.shape[1]
        goal = float(embedding.eps) if wanted == "auto" else 0.0
        most = _FLOPS * pairs._place.width / (float(pairs.n_points) ** 2 * (3.0 * k + 20.0))
        work = Progress(
            min(embedding.max_iter, max(_LEAST_PASSES, int(most))), progress.remaining(), goal
        )
        best = search(
            *(pairs, None, {"sample": coordinates}),
            progress=work,
            sharpness=(_SHARPNESS, math.inf),
            report=history.append,
        )
        passes += work.passes
        embedding.interrupted_ |= work.interrupted
        if (
            embedding.interrupted_
            or wanted != "auto"
            or best.distortion <= goal
            or progress.remaining() <= 0.0
        ):
            return best.coordinates, passes
        k = min(rank, math.ceil(_GROWTH * k))
        if k == rank:
            return _principal(rows.spreads, k), passes
        coordinates, more = _on_sample(embedding, rows, k, history)
        passes += more


def _principal(spreads: FloatArray, k: int) -> FloatArray:
    """Return principal components as coordinates (r, k)."""
    out = np.zeros((spreads.size, k))
    np.fill_diagonal(out, spreads[:k])
    return out


def _on_sample(
    embedding: JLEmbedding, rows: _Rows, wanted: Any, history: list[HistoryRow]
) -> tuple[FloatArray, int]:
    """Search on a sample of the rows in their own space, here; all of them if they are few."""
    n = sum(rows.sizes)
    seed = embedding.random_state if isinstance(embedding.random_state, int) else 0
    chosen = np.arange(n)
    if n > _SAMPLE:
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[:_SAMPLE])
    starts = np.concatenate(([0], np.cumsum(rows.sizes)))
    place = rows._place
    parts = place.gather(
        place.call(np.take, left, chosen[(chosen >= start) & (chosen < end)] - start, 0)
        for left, start, end in zip(rows.left, starts[:-1], starts[1:], strict=True)
    )
    points = np.concatenate(parts) * rows.spreads
    settings = embedding.get_params() | {"n_components": wanted, "scale": "optimal"}
    local = JLEmbedding(**settings).fit(points)
    history.extend(local.history_)
    embedding.interrupted_ |= local.interrupted_
    return np.ascontiguousarray(rows.spreads[:, None] * local.components_.T), local.n_iter_


def distortion_of_blocks(embedding: JLEmbedding, X: Any, client: Any = None) -> float:
    """Return the exact largest |r - 1| over all pairs of rows of a dask array."""
    X = _checked(X)
    place = _place_of(client)
    rows = _Rows(X, place)
    if sum(rows.sizes) < 2:
        return 0.0
    rows.reduce()
    return _AllBlockPairs(rows, place).certify(embedding.components_).distortion


def transform_blocks(embedding: JLEmbedding, X: Any) -> Any:
    """Return X A' as a dask array, nothing computed."""
    components = embedding.components_
    return _checked_columns(X, components).map_blocks(
        np.matmul, components.T, dtype=components.dtype, chunks=(X.chunks[0], len(components))
    )


def _checked_columns(X: Any, components: NDArray[Any]) -> Any:
    if X.ndim != 2 or X.shape[1] != components.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}, but JLEmbedding is expecting {components.shape[1]} features"
        )
    return X.rechunk({1: -1})
