"""All pairs of rows at once: how much a linear image stretches each, and the gradient of that.

Rows x_i have the image y_i = A x_i, and a pair is stretched by

    r_ij = ||y_i - y_j||^2 / ||x_i - x_j||^2.

The distortion of A is settled by the largest and the smallest r. With g(r) = r + 1/r, which is even
in log r and least at r = 1, the pair furthest from 1 in either direction has the largest g, and

    F(Y) = sum_{i<j} exp(p (g(r_ij) - level)),    level + log(F) / p -> max g   as p grows,

is smooth. With c_ij = p (1 - 1/r_ij^2) exp(p (g(r_ij) - level)) / ||x_i - x_j||^2 its gradient is

    dF/dY = 2 (diag(C 1) - C) Y,

a graph Laplacian times Y. The kernels leave out the factor p, so that it never overflows.

Tiles
-----
The n rows are padded with zeros to a multiple of TILE and cut into blocks; the pairs of two blocks
make a tile. ``tile_rows`` and ``tile_columns`` (m,) name the blocks of each tile, rows <= columns.
``inverse`` (m, TILE, TILE) holds 1 / ||x_i - x_j||^2 for i < j, and 0 for pairs that do not count
(padding, i >= j, equal rows). It may be float32 to save memory; all else is float64. A pair that
does not count acts as r = 1: no force, and a constant in F.

Images come with a column of ones appended, (padded n, k + 1): the same product then yields C Y and
the row sums C 1. Work on tiles first <= tile < last is done in order; callers cut the tiles into
groups that do not depend on the number of threads, give each group an accumulator of its own and
add these up in order with ``add_groups``. Cost of a pass: n^2 (3 k + 20) flops.

Differences of squared norms lose digits where rows are much closer than they are long; such
distances are taken again from differences of entries.
"""

import numpy as np
import numpy.typing as npt

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.matmul import multiply
from derand_fast.kernels.special import exp

FloatArray = npt.NDArray[np.float64]
FloatStore = npt.NDArray[np.float64] | npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int64]

# Three buffers of TILE x TILE float64 fill a quarter of a one-megabyte second-level cache.
TILE = 64
# Rows of the statistics each lane keeps, and their count.
HIGH, LOW, TOTAL = range(3)
STATISTICS = 3
# Below this share of ||y_i||^2 + ||y_j||^2 a squared distance has lost six digits.
CANCELLATION = 1e-6
# Squared distances below this share are rounding errors of the entries (eps^2 = 5e-32, some slack).
NOISE = 1e-28
# Keeps 1/r^2 finite where a pair collapses.
LEAST_RATIO = 1e-60


@kernel(fastmath=True, inline=True, inner=True)
def dot(x: FloatArray, y: FloatArray) -> float:
    """Return x . y."""
    total = 0.0
    for q in range(x.size):
        total += x[q] * y[q]
    return total


@kernel(fastmath=True, inline=True)
def _squared_difference(X: FloatArray, i: int, j: int, size: int) -> float:
    """||x_i - x_j||^2 from the first ``size`` entries."""
    total = 0.0
    for q in range(size):
        difference = X[i, q] - X[j, q]
        total += difference * difference
    return total


@kernel(fastmath=False)
def squared_norms(X: FloatArray, size: int, out: FloatArray) -> None:
    """out_i = ||x_i||^2 from the first ``size`` entries of each row."""
    for i in range(X.shape[0]):
        total = 0.0
        for q in range(size):
            total += X[i, q] * X[i, q]
        out[i] = total


@kernel(fastmath=False)
def inverse_squared_distances(
    first: int,
    last: int,
    tile_rows: IndexArray,
    tile_columns: IndexArray,
    n_rows: int,
    X: FloatArray,
    norms: FloatArray,
    inverse: FloatStore,
    products: FloatArray,
    workspace: FloatArray,
) -> None:
    """Fill inverse[tile] = 1 / ||x_i - x_j||^2 for i < j < n_rows, else 0; 0 for equal rows.

    Relative error about 1e-10, or that of float32. ``products`` (TILE, TILE) and ``workspace``
    (``matmul.workspace_size(TILE, X.shape[1])``) are scratch.
    """
    for tile in range(first, last):
        row, column = tile_rows[tile] * TILE, tile_columns[tile] * TILE
        multiply(X[row : row + TILE], X[column : column + TILE].T, products, False, workspace)
        for a in range(TILE):
            i = row + a
            for b in range(TILE):
                j = column + b
                value = 0.0
                if i < j < n_rows:
                    size = norms[i] + norms[j]
                    square = size - 2.0 * products[a, b]
                    if square < CANCELLATION * size:
                        square = _squared_difference(X, i, j, X.shape[1])
                    if square > NOISE * size:
                        value = 1.0 / square
                inverse[tile, a, b] = value


@kernel(fastmath="contract", inline=True)
def _ratio(norm_i: float, norm_j: float, product: float, inverse: float) -> float:
    """Ratio r of one pair, 1 if the pair does not count."""
    ratio = (norm_i + norm_j - 2.0 * product) * inverse
    ratio = ratio if ratio > LEAST_RATIO else LEAST_RATIO
    return ratio if inverse > 0.0 else 1.0


# The next two run over 64 columns without a branch, so that LLVM vectorises them: each column keeps
# its own statistics, and no sum is reordered.


@kernel(fastmath="contract", inline=True)
def _weigh_tile(
    products: FloatArray,
    norms_i: FloatArray,
    norms_j: FloatArray,
    inverse: FloatStore,
    sharpness: float,
    level: float,
    high: FloatArray,
    low: FloatArray,
    total: FloatArray,
) -> None:
    """Replace products by c_ij / p, and update the statistics of each column."""
    for a in range(TILE):
        for b in range(TILE):
            scale = np.float64(inverse[a, b])
            r = _ratio(norms_i[a], norms_j[b], products[a, b], scale)
            counts = scale > 0.0
            high[b] = r if counts and r > high[b] else high[b]
            low[b] = r if counts and r < low[b] else low[b]
            v = 1.0 / r
            e = exp(sharpness * ((r + v) - level))
            total[b] += e
            products[a, b] = e * (1.0 - v * v) * scale


@kernel(fastmath="contract", inline=True)
def _extremes_of_tile(
    products: FloatArray,
    norms_i: FloatArray,
    norms_j: FloatArray,
    inverse: FloatStore,
    high: FloatArray,
    low: FloatArray,
) -> None:
    """Replace products by r_ij, and update the extremes of each column."""
    for a in range(TILE):
        for b in range(TILE):
            scale = np.float64(inverse[a, b])
            r = _ratio(norms_i[a], norms_j[b], products[a, b], scale)
            counts = scale > 0.0
            high[b] = r if counts and r > high[b] else high[b]
            low[b] = r if counts and r < low[b] else low[b]
            products[a, b] = r


@kernel(fastmath=False)
def _start_statistics(statistics: FloatArray) -> None:
    statistics[HIGH] = 0.0
    statistics[LOW] = np.inf
    statistics[TOTAL] = 0.0


@kernel(fastmath=False)
def smooth_ratios(
    first: int,
    last: int,
    tile_rows: IndexArray,
    tile_columns: IndexArray,
    inverse: FloatStore,
    Y: FloatArray,
    norms: FloatArray,
    sharpness: float,
    level: float,
    statistics: FloatArray,
    sums: FloatArray,
    products: FloatArray,
    workspace: FloatArray,
) -> None:
    """Sum F and C (Y, 1) / p over some tiles, with the extremes of r.

    ``Y`` (padded n, k + 1) has ones last, ``norms`` (padded n,) its squared norms without them.
    ``statistics`` (STATISTICS, TILE): highest r, lowest r and sum of exp(p (g - level)), to be
    combined over the columns. ``sums`` (padded n, k + 1). ``workspace`` for (TILE, TILE or k + 1).
    """
    k = Y.shape[1] - 1
    _start_statistics(statistics)
    sums[:] = 0.0
    for tile in range(first, last):
        i, j = tile_rows[tile] * TILE, tile_columns[tile] * TILE
        own, other = Y[i : i + TILE], Y[j : j + TILE]
        multiply(own[:, :k], other[:, :k].T, products, False, workspace)
        _weigh_tile(
            *(products, norms[i : i + TILE], norms[j : j + TILE], inverse[tile], sharpness, level),
            *(statistics[HIGH], statistics[LOW], statistics[TOTAL]),
        )
        multiply(products, other, sums[i : i + TILE], True, workspace)
        multiply(products.T, own, sums[j : j + TILE], True, workspace)


@kernel(fastmath=False)
def add_groups(first: int, last: int, sums: FloatArray, Y: FloatArray, out: FloatArray) -> None:
    """Gradient out = 2 (diag(C 1) - C) Y for some rows; ``sums`` (groups, padded n, k + 1)."""
    k = out.shape[1]
    for i in range(first, last):
        row = sums[0, i]
        for group in range(1, sums.shape[0]):
            for q in range(k + 1):
                row[q] += sums[group, i, q]
        for q in range(k):
            out[i, q] = 2.0 * (row[k] * Y[i, q] - row[q])


@kernel(fastmath=False)
def pairs_outside(
    first: int,
    last: int,
    tile_rows: IndexArray,
    tile_columns: IndexArray,
    n_rows: int,
    inverse: FloatStore,
    Y: FloatArray,
    norms: FloatArray,
    low: float,
    high: float,
    margin: float,
    pairs: IndexArray,
    statistics: FloatArray,
    products: FloatArray,
    workspace: FloatArray,
) -> int:
    """List the pairs with r <= low or r >= high, as far as ``pairs`` (capacity, 2) goes.

    Returns how many there are. Pairs of rows too close to have an inverse are listed too. Rounding
    is allowed for by ``margin`` (||y_i||^2 + ||y_j||^2) / ||x_i - x_j||^2 on either side. The
    extremes of r are left in ``statistics`` (STATISTICS, TILE); with low < 0 and high = inf that is
    all the call is for.
    """
    k = Y.shape[1]
    count = 0
    _start_statistics(statistics)
    for tile in range(first, last):
        i, j = tile_rows[tile] * TILE, tile_columns[tile] * TILE
        multiply(Y[i : i + TILE, :k], Y[j : j + TILE, :k].T, products, False, workspace)
        _extremes_of_tile(
            *(products, norms[i : i + TILE], norms[j : j + TILE], inverse[tile]),
            *(statistics[HIGH], statistics[LOW]),
        )
        if low < 0.0 and high == np.inf:
            continue
        for a in range(TILE):
            for b in range(TILE):
                if not i + a < j + b < n_rows:
                    continue
                scale = np.float64(inverse[tile, a, b])
                slack = margin * (norms[i + a] + norms[j + b]) * scale
                r = products[a, b]
                if scale == 0.0 or r - slack <= low or r + slack >= high:
                    if count < pairs.shape[0]:
                        pairs[count, 0] = i + a
                        pairs[count, 1] = j + b
                    count += 1
    return count


# ------------------------------------------------------------------------------------------------
# Pairs from a list
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def listed_inverse_squared_distances(pairs: IndexArray, X: FloatArray, inverse: FloatArray) -> None:
    """inverse_e = 1 / ||x_i - x_j||^2 for pairs (m, 2), 0 where the rows are equal."""
    for e in range(pairs.shape[0]):
        square = _squared_difference(X, pairs[e, 0], pairs[e, 1], X.shape[1])
        inverse[e] = 1.0 / square if square > 0.0 else 0.0


@kernel(fastmath=False, inline=True)
def listed_ratios(
    first: int,
    last: int,
    pairs: IndexArray,
    inverse: FloatArray,
    Y: FloatArray,
    ratios: FloatArray,
) -> None:
    """ratios_e = r of pair e, 1 if it does not count."""
    for e in range(first, last):
        square = _squared_difference(Y, pairs[e, 0], pairs[e, 1], Y.shape[1])
        ratio = max(square * inverse[e], LEAST_RATIO)
        ratios[e] = ratio if inverse[e] > 0.0 else 1.0


@kernel(fastmath="contract", inline=True)
def _weigh_list(
    first: int,
    last: int,
    inverse: FloatArray,
    sharpness: float,
    level: float,
    ratios: FloatArray,
    weights: FloatArray,
) -> None:
    """Fill weights = exp(p (g - level)), then ratios = c / p."""
    for e in range(first, last):
        r = ratios[e]
        v = 1.0 / r
        weights[e] = exp(sharpness * ((r + v) - level))
        ratios[e] = weights[e] * (1.0 - v * v) * inverse[e]


@kernel(fastmath=False)
def listed_smooth_ratios(
    first: int,
    last: int,
    pairs: IndexArray,
    inverse: FloatArray,
    Y: FloatArray,
    sharpness: float,
    level: float,
    ratios: FloatArray,
    weights: FloatArray,
    gradient: FloatArray,
) -> tuple[float, float, float]:
    """Return F, lowest r, highest r of pairs first to last; gradient (n, k) = (dF/dY) / p.

    ``ratios`` and ``weights`` (m,) are scratch.
    """
    gradient[:] = 0.0
    listed_ratios(first, last, pairs, inverse, Y, ratios)
    low, high = np.inf, 0.0
    for e in range(first, last):
        if inverse[e] > 0.0:
            low = min(low, ratios[e])
            high = max(high, ratios[e])
    _weigh_list(first, last, inverse, sharpness, level, ratios, weights)
    total = 0.0
    for e in range(first, last):
        total += weights[e]
        i, j = pairs[e, 0], pairs[e, 1]
        factor = 2.0 * ratios[e]
        for q in range(Y.shape[1]):
            change = factor * (Y[i, q] - Y[j, q])
            gradient[i, q] += change
            gradient[j, q] -= change
    return total, low, high


@kernel(fastmath=False)
def exact_ratios(
    first: int,
    last: int,
    pairs: IndexArray,
    X: FloatArray,
    A: FloatArray,
    difference: FloatArray,
    ratios: FloatArray,
) -> None:
    """ratios_e = ||A (x_i - x_j)||^2 / ||x_i - x_j||^2 from the difference itself, NaN for 0/0.

    Relative error at most about (d + k) 1e-16 times ||A||^2 / r. ``difference`` (d,) is scratch.
    Cost 2 k d flops a pair.
    """
    for e in range(first, last):
        i, j = pairs[e, 0], pairs[e, 1]
        for q in range(X.shape[1]):
            difference[q] = X[i, q] - X[j, q]
        square = 0.0
        for row in range(A.shape[0]):
            entry = dot(A[row], difference)
            square += entry * entry
        ratios[e] = square / dot(difference, difference)


# ------------------------------------------------------------------------------------------------
# Limited-memory quasi-Newton directions
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def quasi_newton_direction(
    steps: FloatArray,
    changes: FloatArray,
    curvatures: FloatArray,
    newest: int,
    count: int,
    gradient: FloatArray,
    coefficients: FloatArray,
    out: FloatArray,
) -> None:
    """Direction out = -H gradient, H the inverse Hessian L-BFGS builds from (memory, size) pairs.

    ``curvatures`` (memory,) holds steps . changes; the last ``count`` pairs end at row ``newest``.
    Nocedal, "Updating quasi-Newton matrices with limited storage", Math. Comp. 35 (1980).
    """
    memory = steps.shape[0]
    for q in range(out.size):
        out[q] = -gradient[q]
    for age in range(count):
        row = (newest - age) % memory
        coefficients[row] = dot(steps[row], out) / curvatures[row]
        for q in range(out.size):
            out[q] -= coefficients[row] * changes[row, q]
    scale = curvatures[newest] / dot(changes[newest], changes[newest]) if count > 0 else 1.0
    for q in range(out.size):
        out[q] *= scale
    for age in range(count - 1, -1, -1):
        row = (newest - age) % memory
        factor = coefficients[row] - dot(changes[row], out) / curvatures[row]
        for q in range(out.size):
            out[q] += factor * steps[row, q]
