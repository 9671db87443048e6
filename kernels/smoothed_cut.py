"""The smoothed maximum-cut objective: value, gradient, Hessian in b, Hessian-vector product.

The objective
-------------
Vertex i carries a row W_i of W (n, p) and a bias b_i; z = W x + b with x ~ N(0, I_p). A smooth sign
s turns z into soft sides, and

    f(W, b) = (1/2) sum_{i<j} w_ij E[s(z_i) s(z_j)] + lam ||W||_F^2,

each undirected edge counted once. So the expected cut of the rounding is sum_{i<j} w_ij / 2 minus
the edge part. For s(z) = erf(z / (tau sqrt 2)) everything is in closed form. With a_i = ||W_i||^2,
c = W_i . W_j, A_i = a_i + tau^2, h = b_i / sqrt(A_i), k = b_j / sqrt(A_j), r = c / sqrt(A_i A_j),
Psi = E[s(z_i) s(z_j)] is ``special.sign_correlation(h, k, r)`` and

    dPsi/dh       = 2 phi(h) erf((k - r h) / sqrt(2 (1 - r^2)))
    d2Psi/dh dk   = 4 F,   F = exp(-(h^2 - 2 r h k + k^2) / (2 (1 - r^2))) / (2 pi sqrt(1 - r^2))
    d2Psi/dh^2    = -h dPsi/dh - r d2Psi/dh dk,

each derivative in b_i being 1 / sqrt(A_i) times that in h. Stein's identity gives the gradient in W
from the Hessian H_bb in b, which has the graph's sparsity: grad_W f = (H_bb + 2 lam I) W.

Conventions
-----------
The graph is a symmetric CSR pattern: ``indptr`` (n + 1,) and ``indices`` (nnz,) int32, ``weights``
(nnz,) float64, every edge stored from both ends, no loops. Weights may have any sign. ``W`` (n, p),
``b`` (n,) float64, C-contiguous; ``tau`` > 0, ``lam`` >= 0. tau^2 and squared row norms must be
normal float64 numbers far from overflow: tau >= 1e-60, entries below 1e60 and their ratio below
1e60 are safe. ``vertex`` (n, VERTEX_COLUMNS), ``rates`` (n, RATE_COLUMNS), ``row_values`` (n,) are
float64 scratch, their former contents ignored. Other arguments named in a docstring are outputs,
overwritten in full.

Each row adds up its own neighbours in the order stored, and values are added in fixed blocks, so
the bits do not depend on how rows are shared out among threads. H_bb comes out exactly symmetric
when the weights are.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.special import (
    exp,
    normal_pdf,
    sign_correlation_from_means,
    sign_mean,
)

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int32]

# Columns of the per-vertex scratch: ||W_i||^2, 1 / sqrt(A_i), h_i, erf(h_i / sqrt 2).
VERTEX_COLUMNS = 4
NORM, INVERSE_SCALE, BIAS, MEAN = range(VERTEX_COLUMNS)
# Columns of the per-vertex direction: W_i . dW_i / A_i and db_i / sqrt(A_i).
RATE_COLUMNS = 2
NORM_RATE, BIAS_RATE = range(RATE_COLUMNS)

INVERSE_2PI = 0.5 / math.pi
SUM_BLOCK = 128
# Recompute a determinant when the difference that forms it has lost more than six bits.
CANCELLATION = 64.0
SMALLEST_NORM = 1e-280


# ------------------------------------------------------------------------------------------------
# Small pieces
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def sum_in_blocks(values: FloatArray) -> float:
    """Sum of a float64 vector, block by block: the same bits however the entries were computed."""
    total = 0.0
    for start in range(0, values.size, SUM_BLOCK):
        part = 0.0
        for i in range(start, min(start + SUM_BLOCK, values.size)):
            part += values[i]
        total += part
    return total


# The three sums over p below may be reordered.


@kernel(fastmath=True, inline=True)
def _dot_rows(X: FloatArray, i: int, Y: FloatArray, j: int) -> float:
    """X_i . Y_j."""
    total = 0.0
    for q in range(X.shape[1]):
        total += X[i, q] * Y[j, q]
    return total


@kernel(fastmath=True, inline=True)
def _squared_residual(W: FloatArray, i: int, j: int, ratio: float) -> float:
    """||W_j - ratio W_i||^2."""
    total = 0.0
    for q in range(W.shape[1]):
        part = W[j, q] - ratio * W[i, q]
        total += part * part
    return total


@kernel(fastmath=True, inline=True)
def _difference_product(
    i: int, j: int, W: FloatArray, direction_W: FloatArray, scale_i: float, scale_j: float
) -> float:
    """(scale_i W_i - scale_j W_j) . (scale_i dW_i - scale_j dW_j)."""
    total = 0.0
    for q in range(W.shape[1]):
        difference = scale_i * W[i, q] - scale_j * W[j, q]
        total += difference * (scale_i * direction_W[i, q] - scale_j * direction_W[j, q])
    return total


@kernel(fastmath="contract", inline=True)
def _prepare_vertex(i: int, W: FloatArray, b: FloatArray, tau: float, vertex: FloatArray) -> None:
    """Fill row i of the per-vertex scratch."""
    norm = _dot_rows(W, i, W, i)
    inverse_scale = 1.0 / math.sqrt(norm + tau * tau)
    vertex[i, NORM] = norm
    vertex[i, INVERSE_SCALE] = inverse_scale
    vertex[i, BIAS] = b[i] * inverse_scale
    vertex[i, MEAN] = sign_mean(b[i] * inverse_scale)


@kernel(fastmath="contract", inline=True)
def _correlation(
    i: int, j: int, W: FloatArray, tau: float, vertex: FloatArray
) -> tuple[float, float]:
    """Correlation r and 1 - r^2 of one edge, both to a few ulp, also where the rows are parallel.

    A_i A_j (1 - r^2) = (a_i a_j - c^2) + tau^2 (a_i + a_j + tau^2). Where the bracket cancels it is
    taken as a_i ||W_j - (c / a_i) W_i||^2, with the longer row as W_i.
    """
    norm_i, norm_j = vertex[i, NORM], vertex[j, NORM]
    inverse = vertex[i, INVERSE_SCALE] * vertex[j, INVERSE_SCALE]
    c = _dot_rows(W, i, W, j)
    smoothing = (tau * tau) * ((norm_i + norm_j) + tau * tau)
    determinant = (norm_i * norm_j - c * c) + smoothing
    if norm_i * norm_j > CANCELLATION * determinant:
        # The lower index settles ties, so both ends of the edge get the same bits.
        if norm_i > norm_j or (norm_i == norm_j and i < j):
            gram = norm_i * _squared_residual(W, i, j, c / norm_i)
        else:
            gram = norm_j * _squared_residual(W, j, i, c / norm_j)
        determinant = gram + smoothing
    r = min(max(c * inverse, -1.0), 1.0)
    return r, min((determinant * inverse) * inverse, 1.0)


@kernel(fastmath="contract", inline=True)
def _edge_value(i: int, j: int, W: FloatArray, tau: float, vertex: FloatArray) -> float:
    """Psi of one edge."""
    r, complement = _correlation(i, j, W, tau, vertex)
    return sign_correlation_from_means(
        vertex[i, BIAS], vertex[j, BIAS], vertex[i, MEAN], vertex[j, MEAN], r, complement
    )


@kernel(fastmath="contract", inline=True, inner=True)
def edge_density(h: float, k: float, r: float, complement: float) -> tuple[float, float]:
    """F and erf((k - r h) / sqrt(2 (1 - r^2))), without cancellation as |r| -> 1.

    With sigma = sign r, m = 1 + |r| and s^2 = 1 - r^2:
    (h^2 - 2 r h k + k^2) / s^2 = (h - sigma k)^2 / s^2 + 2 sigma h k / m  and
    (k - r h) / s = sigma (h s / m - (h - sigma k) / s).
    """
    sigma = 1.0 if r >= 0.0 else -1.0
    side = 1.0 + abs(r)
    root = math.sqrt(complement)
    gap = (h - sigma * k) / root
    density = exp(-0.5 * (gap * gap) - sigma * (h * k) / side) * INVERSE_2PI / root
    return density, sigma * sign_mean(h * root / side - gap)


# ------------------------------------------------------------------------------------------------
# One row
# ------------------------------------------------------------------------------------------------


@kernel(fastmath="contract", inline=True)
def _value_row(
    i: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    vertex: FloatArray,
) -> float:
    """Add up lam a_i + (1/2) sum over neighbours j > i of w_ij Psi_ij."""
    total = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        j = indices[e]
        if j > i:
            total += weights[e] * _edge_value(i, j, W, tau, vertex)
    return lam * vertex[i, NORM] + 0.5 * total


@kernel(fastmath="contract", inline=True)
def _shifted_product_row(
    i: int,
    indptr: IndexArray,
    indices: IndexArray,
    offdiagonal: FloatArray,
    diagonal: FloatArray,
    shift: float,
    X: FloatArray,
    out: FloatArray,
) -> None:
    """Row i of (H + shift I) X."""
    p = X.shape[1]
    own = diagonal[i] + shift
    for q in range(p):
        out[i, q] = own * X[i, q]
    for e in range(indptr[i], indptr[i + 1]):
        j = indices[e]
        entry = offdiagonal[e]
        for q in range(p):
            out[i, q] += entry * X[j, q]


@kernel(fastmath="contract", inline=True)
def _gradient_row(
    i: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    vertex: FloatArray,
    gradient_W: FloatArray,
    gradient_b: FloatArray,
    offdiagonal: FloatArray,
    diagonal: FloatArray,
) -> None:
    """Row i of H_bb and of both gradients."""
    h, inverse_i = vertex[i, BIAS], vertex[i, INVERSE_SCALE]
    slopes = 0.0
    curvatures = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        j = indices[e]
        r, complement = _correlation(i, j, W, tau, vertex)
        density, slope = edge_density(h, vertex[j, BIAS], r, complement)
        slopes += weights[e] * slope
        curvatures += weights[e] * r * density
        offdiagonal[e] = (2.0 * weights[e] * density) * (inverse_i * vertex[j, INVERSE_SCALE])
    slopes *= normal_pdf(h)
    gradient_b[i] = slopes * inverse_i
    diagonal[i] = -(h * slopes + 2.0 * curvatures) * inverse_i * inverse_i
    _shifted_product_row(i, indptr, indices, offdiagonal, diagonal, 2.0 * lam, W, gradient_W)


@kernel(fastmath="contract", inline=True)
def _prepare_rates(
    i: int,
    W: FloatArray,
    direction_W: FloatArray,
    direction_b: FloatArray,
    vertex: FloatArray,
    rates: FloatArray,
) -> None:
    """Fill row i of the per-vertex direction."""
    inverse = vertex[i, INVERSE_SCALE]
    rates[i, NORM_RATE] = _dot_rows(W, i, direction_W, i) * inverse * inverse
    rates[i, BIAS_RATE] = direction_b[i] * inverse


@kernel(fastmath="contract", inline=True)
def _edge_rates(
    h: float,
    k: float,
    r: float,
    complement: float,
    alpha_i: float,
    alpha_j: float,
    beta_i: float,
    beta_j: float,
    rho: float,
) -> tuple[float, float, float, float, float]:
    """Directional derivatives of one edge: F, e, gamma, dF and the part of d(Psi_h) / 4 with F.

    F and e = erf(...) are as in ``edge_density``; Psi_h = 2 phi(h) e. Along the direction h and k
    move at beta_i and beta_j, A_i at 2 alpha_i A_i, c at gamma sqrt(A_i A_j). The heat equation
    d/da_i = (1/2) d2/db_i^2, d/dc = d2/db_i db_j turns these into derivatives in h and k:

        dG = G_h beta_i + G_k beta_j + G_hh alpha_i + G_kk alpha_j + G_hk gamma

    for G = F and G = Psi_h (the scale in front, 1 / sqrt(A_i) or 1 / sqrt(A_i A_j), included).
    With Q = (h - sigma k) / s^2, F_h = -(Q + u) F and F_k = -(-sigma Q + v) F, where
    u = sigma k / m, v = sigma h / m (names as in ``edge_density``). Near |r| = 1 the terms in Q^2
    and 1 / s^2 nearly cancel; rho = alpha_i + alpha_j - sigma gamma, which the caller forms from
    the difference of the two rows, gathers them before they can.
    """
    sigma = 1.0 if r >= 0.0 else -1.0
    side = 1.0 + abs(r)
    density, slope = edge_density(h, k, r, complement)

    gamma = sigma * (alpha_i + alpha_j - rho)
    difference = h - sigma * k
    steep = difference / complement
    u, v = sigma * k / side, sigma * h / side
    first = steep * (beta_i - sigma * beta_j) + u * beta_i + v * beta_j
    second = (steep * steep - 1.0 / complement) * rho - sigma * gamma / side
    second += steep * (u * (alpha_i - alpha_j + rho) - sigma * v * (alpha_j - alpha_i + rho))
    second += u * u * alpha_i + v * v * alpha_j + u * v * gamma
    density_rate = density * (second - first)

    # Psi_hh and Psi_hhh contain Psi_h, which the caller adds for the whole row; this is the rest.
    mixed = sigma * (difference * alpha_i / side - steep * rho)
    mixed += v * alpha_j + u * (gamma - r * alpha_i)
    slope_rate = density * (beta_j - r * beta_i + r * h * alpha_i - mixed)
    return density, slope, gamma, density_rate, slope_rate


@kernel(fastmath="contract", inline=True)
def _hessian_product_row(
    i: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    direction_W: FloatArray,
    vertex: FloatArray,
    rates: FloatArray,
    product_W: FloatArray,
    product_b: FloatArray,
) -> None:
    """Row i of the Hessian-vector product.

    With H = H_bb the product is d(grad_b) and d(grad_W) = (H + 2 lam I) dW + dH W. The diagonal
    needs no fourth derivative: Psi_hh = -h Psi_h - r Psi_hk is differentiated as it stands.
    """
    p = W.shape[1]
    h, inverse_i = vertex[i, BIAS], vertex[i, INVERSE_SCALE]
    alpha_i, beta_i = rates[i, NORM_RATE], rates[i, BIAS_RATE]
    slopes = slope_rates = curvatures = curvature_rates = 0.0
    for q in range(p):
        product_W[i, q] = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        j = indices[e]
        inverse_j = vertex[j, INVERSE_SCALE]
        r, complement = _correlation(i, j, W, tau, vertex)
        signed_j = inverse_j if r >= 0.0 else -inverse_j
        rho = _difference_product(i, j, W, direction_W, inverse_i, signed_j)
        density, slope, gamma, density_rate, slope_rate = _edge_rates(
            h,
            vertex[j, BIAS],
            r,
            complement,
            alpha_i,
            rates[j, NORM_RATE],
            beta_i,
            rates[j, BIAS_RATE],
            rho,
        )
        slopes += weights[e] * slope
        slope_rates += weights[e] * slope_rate
        curvatures += weights[e] * r * density
        curvature_rates += weights[e] * (gamma * density + r * density_rate)
        factor = 2.0 * weights[e] * (inverse_i * inverse_j)
        entry, entry_rate = factor * density, factor * density_rate
        for q in range(p):
            product_W[i, q] += entry * direction_W[j, q] + entry_rate * W[j, q]

    # Half of sum_j w_ij Psi_h, and of its rate, in units of h.
    slopes *= normal_pdf(h)
    rate = slopes * ((h * h - 1.0) * alpha_i - h * beta_i) + 2.0 * slope_rates
    product_b[i] = rate * inverse_i
    own = -(h * slopes + 2.0 * curvatures)
    own_rate = -(beta_i * slopes + h * rate + 2.0 * curvature_rates + 2.0 * alpha_i * own)
    square = inverse_i * inverse_i
    for q in range(p):
        product_W[i, q] += (own * square + 2.0 * lam) * direction_W[i, q]
        product_W[i, q] += (own_rate * square) * W[i, q]


# ------------------------------------------------------------------------------------------------
# Passes over rows first to last. Rows may be shared out in any way among threads
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def prepare_vertices(
    first: int, last: int, W: FloatArray, b: FloatArray, tau: float, vertex: FloatArray
) -> None:
    """Fill rows of ``vertex``, which the passes below read at both ends of every edge."""
    for i in range(first, last):
        _prepare_vertex(i, W, b, tau, vertex)


@kernel(fastmath=False)
def value_rows(
    first: int,
    last: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    vertex: FloatArray,
    row_values: FloatArray,
) -> None:
    """Parts of f(W, b), to be added by ``sum_in_blocks``; formula: see the module.

    About 45 ns and p multiply-adds per undirected edge. Absolute error of the sum about 1e-15
    times the sum of the absolute weights.
    """
    for i in range(first, last):
        row_values[i] = _value_row(i, indptr, indices, weights, W, tau, lam, vertex)


@kernel(fastmath=False)
def gradient_rows(
    first: int,
    last: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    vertex: FloatArray,
    gradient_W: FloatArray,
    gradient_b: FloatArray,
    offdiagonal: FloatArray,
    diagonal: FloatArray,
) -> None:
    """Rows of the gradient of f and of H_bb, in one pass over the edges.

    Outputs: ``gradient_W`` (n, p), ``gradient_b`` (n,), and H_bb as ``offdiagonal`` (nnz,) aligned
    with ``indices`` and ``diagonal`` (n,). About 40 ns and 2 p multiply-adds per stored edge.
    """
    for i in range(first, last):
        _gradient_row(
            *(i, indptr, indices, weights, W, tau, lam, vertex),
            *(gradient_W, gradient_b, offdiagonal, diagonal),
        )


@kernel(fastmath=False)
def prepare_rates(
    first: int,
    last: int,
    W: FloatArray,
    direction_W: FloatArray,
    direction_b: FloatArray,
    vertex: FloatArray,
    rates: FloatArray,
) -> None:
    """Fill rows of ``rates`` from those of ``vertex``, for ``product_rows``."""
    for i in range(first, last):
        _prepare_rates(i, W, direction_W, direction_b, vertex, rates)


@kernel(fastmath=False)
def product_rows(
    first: int,
    last: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    W: FloatArray,
    tau: float,
    lam: float,
    direction_W: FloatArray,
    vertex: FloatArray,
    rates: FloatArray,
    product_W: FloatArray,
    product_b: FloatArray,
) -> None:
    """Rows of the Hessian of f in (W, b) times a direction, exact up to rounding.

    Outputs: ``product_W`` (n, p), ``product_b`` (n,). About 50 ns and 4 p multiply-adds per
    stored edge.
    """
    for i in range(first, last):
        _hessian_product_row(
            *(i, indptr, indices, weights, W, tau, lam),
            *(direction_W, vertex, rates, product_W, product_b),
        )


@kernel(fastmath=False)
def shifted_hessian_bb_product(
    indptr: IndexArray,
    indices: IndexArray,
    offdiagonal: FloatArray,
    diagonal: FloatArray,
    shift: float,
    X: FloatArray,
    out: FloatArray,
) -> None:
    """``out`` = (H_bb + shift I) X for a stored H_bb; X and out (n, p), different arrays.

    With shift = 2 lam and X = W this is the gradient in W. nnz p multiply-adds.
    """
    for i in range(diagonal.size):
        _shifted_product_row(i, indptr, indices, offdiagonal, diagonal, shift, X, out)


# ------------------------------------------------------------------------------------------------
# Expected cut of hyperplane rounding
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=True, inner=True, inline=True)
def inverse_norm(rows: npt.NDArray[Any], i: int) -> float:
    """1 / ||row i|| in float64, 0 for a zero row."""
    total = 0.0
    for q in range(rows.shape[1]):
        entry = np.float64(rows[i, q])
        total += entry * entry
    return 1.0 / math.sqrt(total) if total > 0.0 else 0.0


@kernel(fastmath=True, inline=True)
def _angle(rows: npt.NDArray[Any], i: int, j: int, scale_i: float, scale_j: float) -> float:
    """Angle of two rows from their scaled difference and sum: accurate near 0 and pi, never NaN."""
    minus = plus = 0.0
    for q in range(rows.shape[1]):
        entry_i = scale_i * np.float64(rows[i, q])
        entry_j = scale_j * np.float64(rows[j, q])
        minus += (entry_i - entry_j) * (entry_i - entry_j)
        plus += (entry_i + entry_j) * (entry_i + entry_j)
    return 2.0 * math.atan2(math.sqrt(minus), math.sqrt(plus))


@kernel(fastmath="contract", inline=True)
def _hyperplane_row(
    i: int,
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    rows: npt.NDArray[Any],
    inverse_norms: FloatArray,
) -> float:
    """Sum over neighbours j > i of w_ij angle_ij / pi."""
    total = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        j = indices[e]
        if j > i:
            angle = _angle(rows, i, j, inverse_norms[i], inverse_norms[j])
            total += weights[e] * angle
    return total / math.pi


@kernel(fastmath=False)
def expected_hyperplane_cut(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    rows: npt.NDArray[Any],
    inverse_norms: FloatArray,
    row_values: FloatArray,
) -> float:
    """Expected cut when a random hyperplane rounds the rows: sum_{i<j} w_ij arccos(r_ij) / pi.

    r_ij is the cosine of rows i and j of ``rows`` (n, p), float32 or float64, which need not have
    unit length; all arithmetic is in float64. A zero row always falls on the positive side: its
    edges count w/2, and an edge between two zero rows counts 0. ``inverse_norms`` and
    ``row_values`` (n,) are float64 scratch. Squared norms must not over- or underflow.
    """
    for i in range(row_values.size):
        inverse_norms[i] = inverse_norm(rows, i)
    for i in range(row_values.size):
        row_values[i] = _hyperplane_row(i, indptr, indices, weights, rows, inverse_norms)
    return sum_in_blocks(row_values)


# ------------------------------------------------------------------------------------------------
# Any other smooth sign, by two-dimensional Gauss-Hermite
# ------------------------------------------------------------------------------------------------


@kernel(fastmath="contract", inline=True)
def erf_sign(u: float) -> tuple[float, float, float, float]:
    """erf(u / sqrt 2) and its first three derivatives: the sign of the closed form."""
    slope = 2.0 * normal_pdf(u)
    return sign_mean(u), slope, -u * slope, (u * u - 1.0) * slope


@kernel(fastmath="contract", inline=True)
def tanh_sign(u: float) -> tuple[float, float, float, float]:
    """tanh(u) and its first three derivatives: 1 - t^2, -2 t t', -2 t' (1 - 3 t^2).

    1 - t^2 comes from exp(-2 |u|) and keeps its relative accuracy in both tails.
    """
    e = exp(-2.0 * abs(u))
    inverse = 1.0 / (1.0 + e)
    t = math.copysign((1.0 - e) * inverse, u)
    slope = 4.0 * e * inverse * inverse
    return t, slope, -2.0 * t * slope, -2.0 * slope * (1.0 - 3.0 * t * t)


class GaussHermiteCut(NamedTuple):
    """Serial kernels of the smoothed cut for one smooth sign; see ``gauss_hermite_cut``."""

    value: Callable[..., float]
    gradient: Callable[..., None]
    hessian_product: Callable[..., None]


@kernel(fastmath="contract", inline=True)
def _plane_of(
    i: int, j: int, W: FloatArray, tau: float
) -> tuple[float, float, float, float, float]:
    """Rows i and j in the plane they span, divided by tau.

    z_i / tau = . + length x1 and z_j / tau = . + along x1 + across x2. Also returned: 1 / (tau
    ||W_i||) (0 for a zero row) and c / a_i, which project directions onto the plane.
    """
    norm = _dot_rows(W, i, W, i)
    if norm < SMALLEST_NORM:
        return 0.0, 0.0, math.sqrt(_dot_rows(W, j, W, j)) / tau, 0.0, 0.0
    length = math.sqrt(norm)
    ratio = _dot_rows(W, i, W, j) / norm
    across = math.sqrt(_squared_residual(W, i, j, ratio))
    return length / tau, ratio * length / tau, across / tau, 1.0 / length, ratio


@functools.cache
def gauss_hermite_cut(smooth_sign: Callable[[float], tuple[float, ...]]) -> GaussHermiteCut:
    """Kernels of the smoothed cut for any smooth sign s(z) = S(z / tau).

    ``smooth_sign(u)`` is an njit function that returns (S, S', S'', S''') at u. Expectations are
    tensor Gauss-Hermite sums with ``nodes`` and ``weights_1d`` (``quadrature.gauss_hermite``) in
    the plane spanned by the two rows of an edge, so the cost is nodes^2 evaluations of S per edge:
    some 100 times the closed form. ``gradient_b`` and H_bb are the exact derivatives of the
    quadrature's value; the gradient in W is Stein's (H_bb + 2 lam I) W, equal to the derivative of
    the value up to the quadrature's error.

    Parameters
    ----------
    smooth_sign : njit function
        ``tanh_sign``, ``erf_sign`` or your own.

    Returns
    -------
    GaussHermiteCut
        ``value(indptr, indices, weights, W, b, tau, lam, nodes, weights_1d) -> float``,
        ``gradient(..., nodes, weights_1d, gradient_W, gradient_b, offdiagonal, diagonal)``,
        ``hessian_product(..., nodes, weights_1d, direction_W, direction_b, product_W, product_b)``.
        Compiled on first use in each process and not kept on disk.
    """

    @kernel(fastmath="contract", cache=False, inline=True)
    def edge_expectations(
        mean_i: float,
        mean_j: float,
        length: float,
        along: float,
        across: float,
        nodes: FloatArray,
        weights_1d: FloatArray,
    ) -> tuple[float, float, float, float, float, float]:
        """E[S_i S_j], E[S_i' S_j], E[S_i S_j'], E[S_i' S_j'], E[S_i'' S_j], E[S_i S_j'']."""
        e00 = e10 = e01 = e11 = e20 = e02 = 0.0
        for q1 in range(nodes.size):
            i0, i1, i2, _ = smooth_sign(mean_i + length * nodes[q1])
            centre = mean_j + along * nodes[q1]
            j0 = j1 = j2 = 0.0
            for q2 in range(nodes.size):
                s0, s1, s2, _ = smooth_sign(centre + across * nodes[q2])
                j0 += weights_1d[q2] * s0
                j1 += weights_1d[q2] * s1
                j2 += weights_1d[q2] * s2
            weight = weights_1d[q1]
            e00 += weight * i0 * j0
            e10 += weight * i1 * j0
            e01 += weight * i0 * j1
            e11 += weight * i1 * j1
            e20 += weight * i2 * j0
            e02 += weight * i0 * j2
        return e00, e10, e01, e11, e20, e02

    @kernel(fastmath="contract", cache=False, inline=True)
    def edge_rates(
        mean_i: float,
        mean_j: float,
        length: float,
        along: float,
        across: float,
        moves_i: tuple[float, float, float],
        moves_j: tuple[float, float, float],
        nodes: FloatArray,
        weights_1d: FloatArray,
    ) -> tuple[float, float, float, float, float]:
        """Rates of E[S_i' S_j], E[S_i S_j'], E[S_i' S_j'], E[S_i'' S_j], E[S_i S_j''].

        z_i moves at moves_i[0] + moves_i[1] x1 + moves_i[2] x2, z_j likewise; what moves out of the
        plane has mean 0 and does not count.
        """
        d10 = d01 = d11 = d20 = d02 = 0.0
        for q1 in range(nodes.size):
            x1 = nodes[q1]
            i0, i1, i2, i3 = smooth_sign(mean_i + length * x1)
            centre = mean_j + along * x1
            for q2 in range(nodes.size):
                x2 = nodes[q2]
                j0, j1, j2, j3 = smooth_sign(centre + across * x2)
                weight = weights_1d[q1] * weights_1d[q2]
                move_i = weight * (moves_i[0] + moves_i[1] * x1 + moves_i[2] * x2)
                move_j = weight * (moves_j[0] + moves_j[1] * x1 + moves_j[2] * x2)
                d10 += i2 * j0 * move_i + i1 * j1 * move_j
                d01 += i1 * j1 * move_i + i0 * j2 * move_j
                d11 += i2 * j1 * move_i + i1 * j2 * move_j
                d20 += i3 * j0 * move_i + i2 * j1 * move_j
                d02 += i1 * j2 * move_i + i0 * j3 * move_j
        return d10, d01, d11, d20, d02

    @kernel(fastmath="contract", cache=False, inline=True)
    def moves_in_plane(
        vertex: int,
        i: int,
        j: int,
        W: FloatArray,
        direction_W: FloatArray,
        direction_b: FloatArray,
        tau: float,
        across: float,
        inverse_length: float,
        ratio: float,
    ) -> tuple[float, float, float]:
        """db, dW . e1 and dW . e2 of one end, over tau; e1, e2 orthonormal in the plane of i, j."""
        first = _dot_rows(direction_W, vertex, W, i)
        second = 0.0
        if across > 0.0:
            second = (_dot_rows(direction_W, vertex, W, j) - ratio * first) / (across * tau)
        return direction_b[vertex] / tau, first * inverse_length / tau, second / tau

    @kernel(fastmath="contract", cache=False)
    def value(
        indptr: IndexArray,
        indices: IndexArray,
        weights: FloatArray,
        W: FloatArray,
        b: FloatArray,
        tau: float,
        lam: float,
        nodes: FloatArray,
        weights_1d: FloatArray,
    ) -> float:
        total = 0.0
        for i in range(b.size):
            row = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if j > i:
                    length, along, across, _, _ = _plane_of(i, j, W, tau)
                    row += (
                        weights[e]
                        * edge_expectations(
                            b[i] / tau, b[j] / tau, length, along, across, nodes, weights_1d
                        )[0]
                    )
            total += 0.5 * row + lam * _dot_rows(W, i, W, i)
        return total

    @kernel(fastmath="contract", cache=False)
    def gradient(
        indptr: IndexArray,
        indices: IndexArray,
        weights: FloatArray,
        W: FloatArray,
        b: FloatArray,
        tau: float,
        lam: float,
        nodes: FloatArray,
        weights_1d: FloatArray,
        gradient_W: FloatArray,
        gradient_b: FloatArray,
        offdiagonal: FloatArray,
        diagonal: FloatArray,
    ) -> None:
        for i in range(b.size):
            slope = curvature = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                # The lower index spans the plane first, so both ends see the same sums.
                low, high = min(i, indices[e]), max(i, indices[e])
                length, along, across, _, _ = _plane_of(low, high, W, tau)
                _, e10, e01, e11, e20, e02 = edge_expectations(
                    b[low] / tau, b[high] / tau, length, along, across, nodes, weights_1d
                )
                slope += weights[e] * (e10 if i == low else e01)
                curvature += weights[e] * (e20 if i == low else e02)
                offdiagonal[e] = 0.5 * weights[e] * e11 / (tau * tau)
            gradient_b[i] = 0.5 * slope / tau
            diagonal[i] = 0.5 * curvature / (tau * tau)
            _shifted_product_row(
                i, indptr, indices, offdiagonal, diagonal, 2.0 * lam, W, gradient_W
            )

    @kernel(fastmath="contract", cache=False)
    def hessian_product(
        indptr: IndexArray,
        indices: IndexArray,
        weights: FloatArray,
        W: FloatArray,
        b: FloatArray,
        tau: float,
        lam: float,
        nodes: FloatArray,
        weights_1d: FloatArray,
        direction_W: FloatArray,
        direction_b: FloatArray,
        product_W: FloatArray,
        product_b: FloatArray,
    ) -> None:
        p = W.shape[1]
        for i in range(b.size):
            slope_rate = curvature = curvature_rate = 0.0
            for q in range(p):
                product_W[i, q] = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                low, high = min(i, j), max(i, j)
                length, along, across, inverse_length, ratio = _plane_of(low, high, W, tau)
                mean_low, mean_high = b[low] / tau, b[high] / tau
                moves_low = moves_in_plane(
                    low, low, high, W, direction_W, direction_b, tau, across, inverse_length, ratio
                )
                moves_high = moves_in_plane(
                    high, low, high, W, direction_W, direction_b, tau, across, inverse_length, ratio
                )
                _, _, _, e11, e20, e02 = edge_expectations(
                    mean_low, mean_high, length, along, across, nodes, weights_1d
                )
                d10, d01, d11, d20, d02 = edge_rates(
                    mean_low,
                    mean_high,
                    length,
                    along,
                    across,
                    moves_low,
                    moves_high,
                    nodes,
                    weights_1d,
                )
                factor = 0.5 * weights[e]
                slope_rate += factor * (d10 if i == low else d01)
                curvature += factor * (e20 if i == low else e02)
                curvature_rate += factor * (d20 if i == low else d02)
                factor /= tau * tau
                for q in range(p):
                    product_W[i, q] += factor * (e11 * direction_W[j, q] + d11 * W[j, q])
            product_b[i] = slope_rate / tau
            for q in range(p):
                product_W[i, q] += (curvature / (tau * tau) + 2.0 * lam) * direction_W[i, q]
                product_W[i, q] += curvature_rate / (tau * tau) * W[i, q]

    return GaussHermiteCut(value, gradient, hessian_product)
