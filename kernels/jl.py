"""Exact expectations over a random linear map: what a Gaussian map does to one unit vector.

For A = M + sigma Z with Z (k, d) of independent N(0, 1) and a unit vector u, q = ||A u||^2 depends
on t = ||M u||^2 alone: q / s is noncentral chi-square with k degrees of freedom and noncentrality
t / s, where s = sigma^2. So every expectation h(t, s) of q is a function of two numbers, and the
heat equation in R^k gives its derivatives in s from those in t:

    h_s = 2 t h_tt + k h_t.

The functions here therefore fill rows: h, h_t, h_tt, h_ttt, h_tttt.

Crossing a bound x
------------------
With v = k/2, R = sqrt(v^2 + x t / s^2), y = s (v + R) and u = x / y the saddle point of the inverse
Laplace transform lies at w = 1/u, and on the path of steepest descent w = (rho / u) e^(i phi),

    f = phi / sin phi,  S = sqrt(R^2 + v^2 (f^2 - 1)),  rho = (v f + S) / (v + R),
    Delta = R - S cos phi + v log rho >= 0,             E = -(y D(u) + t D'(u)) / (2 s) <= 0,
    D(u) = u - 1 - log u,                               D'(u) = u log u - u + 1,

all probabilities and densities are integrals over phi in (-pi, pi) of exp(E - Delta(phi)), a real
positive factor that falls like exp(-R phi^2 / 2). Terms are written so that none cancels, however
small sigma. The midpoint rule converges faster than any power of its step; the pole at w = 1, which
comes near the path where x is near E[q], adds the residue 1 / (1 + exp(2 pi chi / step)) at the
distance chi [1]_ [2]_. So one formula holds for all k, from t = 0 to t / s = 1e12 and deep into
both tails. In 25,000 random cases (k from 1 to 5,000, sigma from 1e-6 to 2, results above 1e-250)
the relative error of the smaller probability and of the density was at most 6e-13, that of the n-th
derivative of the density 1.2e-12 of the larger of itself and density / (100 sigma^n).

References
----------
.. [1] A. Gil, J. Segura, N. M. Temme, "Computation of the Marcum Q-function", ACM TOMS 40(3), 2014.
.. [2] F. Matta, A. Reichel, "Uniform computation of the error function and other related
   functions", Math. Comp. 25 (1971).
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import zeta

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.kernels.pairs import TILE, dot
from derand_fast.kernels.simd import (
    LANES,
    add_scaled_row,
    clear_row,
    new_row,
    store_scaled_row,
)
from derand_fast.kernels.special import exp, float_bits, float_from_bits

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

# Rows of derivatives: the function, then its first to fourth derivative in t.
ROWS = 5
# Below this sigma^2 no float64 t but the bound itself lies within a transition.
LEAST_VARIANCE = 1e-32
# exp(-39) = 1e-17: where the integrand is cut off.
CUT_OFF = 39.0
# exp of less underflows.
UNDERFLOW = -745.0
# 1 / (2 n + 1): log(1 + a) = 2 z (1 + z^2 / 3 + z^4 / 5 + ...) with z = a / (2 + a).
LOG_SERIES = tuple(1.0 / (2 * n + 1) for n in range(1, 14))
# Below this |a| the terms fall like 0.0625^n.
LOG_SERIES_BELOW = 0.4
INVERSE_SQRT2_BITS = 0x3FE6A09E667F3BCD
LN2 = math.log(2.0)
NEWTON_STEPS = 12
# exp(-40) = 4e-18: a residue that is this small a part of the integral.
NEGLIGIBLE_EXPONENT = 40.0
# Tables of one crossing: Chebyshev interpolation in sqrt(t), DEGREE + 1 nodes on panels of width
# sigma, for as long as the smaller probability is above that of 12 standard deviations.
DEGREE = 15
REACH = 12.0
_ANGLES = math.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1)
TABLE_NODES = 0.5 + 0.5 * np.cos(_ANGLES)
TO_CHEBYSHEV = 2.0 / (DEGREE + 1) * np.cos(np.outer(np.arange(DEGREE + 1), _ANGLES))
TO_CHEBYSHEV[0] *= 0.5
# Column j: the coefficients of the j-th Chebyshev polynomial, whole numbers.
TO_POWERS = np.zeros((DEGREE + 1, DEGREE + 1))
for _j in range(DEGREE + 1):
    TO_POWERS[: _j + 1, _j] = np.polynomial.chebyshev.cheb2poly(np.eye(DEGREE + 1)[_j, : _j + 1])
_LANES = np.uint64(LANES)


class _Rule(NamedTuple):
    """Midpoint nodes phi in (0, phi_max): step, first node, number of nodes, a multiple of 8."""

    step: FloatArray
    start: IndexArray
    size: IndexArray
    # At the nodes: sin phi, 1 - cos phi, f - 1 and f' for f = phi / sin phi.
    sine: FloatArray
    versine: FloatArray
    excess: FloatArray
    slope: FloatArray


# From R = 25 on there is a rule for each doubling of R, up to where s = LEAST_VARIANCE.
WIDE_BELOW = 25.0
WIDE_RULES = 11
NARROW_NODES = 24
NARROW_RULES = 128


def _make_rules() -> _Rule:
    """Rules for (0, pi) with 32, 40, ... nodes, then 24 nodes for R >= 25 * 2^j, j = 0, 1, ...

    The integrand falls at least like exp(-2 R sin^2(phi / 2)); below R = 25 it reaches pi, where
    only (phi / sin phi)^-v cuts off.
    """
    counts = [8 * (4 + j) for j in range(WIDE_RULES)] + [NARROW_NODES] * NARROW_RULES
    ends = [math.pi] * WIDE_RULES
    ends += [
        2.0 * math.asin(math.sqrt(0.5 * CUT_OFF / (WIDE_BELOW * 2.0**j)))
        for j in range(NARROW_RULES)
    ]
    phi = np.concatenate(
        [end * (np.arange(n) + 0.5) / n for end, n in zip(ends, counts, strict=True)]
    )
    sine, cosine = np.sin(phi), np.cos(phi)
    # f = sum c_n phi^(2n), c_n = 2 (1 - 2^(1 - 2n)) zeta(2n) / pi^(2n): terms below 0.0253^n.
    n = np.arange(1, 12)
    series = 2.0 * (1.0 - 2.0 ** (1 - 2 * n)) * zeta(2 * n) / math.pi ** (2 * n)
    powers = np.minimum(phi, 0.5)[:, None] ** (2 * n)
    near = phi < 0.5
    return _Rule(
        step=np.array(ends) / counts,
        start=np.cumsum([0, *counts[:-1]]),
        size=np.array(counts),
        sine=sine,
        versine=2.0 * np.sin(0.5 * phi) ** 2,
        excess=np.where(near, powers @ series, (phi - sine) / sine),
        slope=np.where(near, powers @ (2 * n * series) / phi, (sine - phi * cosine) / sine**2),
    )


_RULES = _make_rules()
RULE_STEP, RULE_START, RULE_SIZE = _RULES.step, _RULES.start, _RULES.size
RULE_SINE, RULE_VERSINE, RULE_EXCESS, RULE_SLOPE = _RULES[3:]


@kernel(fastmath="contract", inline=True)
def _rule_of(v: float, R: float) -> int:
    """Choose a rule for a relative error of 1e-13."""
    if R < WIDE_BELOW:
        return min(int(5.0 / v), WIDE_RULES - 1)
    exponent = (float_bits(R * (1.0 / WIDE_BELOW)) >> 52) - 1023
    return WIDE_RULES + min(max(exponent, 0), NARROW_RULES - 1)


@kernel(fastmath="contract", inline=True)
def _log1p(a: float) -> float:
    """Natural logarithm of 1 + a for a >= 0, within 2 ulp and without a branch."""
    above = 1.0 + a
    # 1 + a = 2^n m with m in [1 / sqrt 2, sqrt 2); the constant is the bits of 1 / sqrt 2.
    n = (float_bits(above) - INVERSE_SQRT2_BITS) >> 52
    fraction = float_from_bits(float_bits(above) - (n << 52)) - 1.0
    fraction = a if n == 0 else fraction
    z = fraction / (2.0 + fraction)
    square = z * z
    tail = 0.0
    for j in range(10, -1, -1):
        tail = (tail + LOG_SERIES[j]) * square
    return n * LN2 + 2.0 * z * (1.0 + tail)


@kernel(fastmath="contract", inline=True)
def _log_remainders(u: float, a: float) -> tuple[float, float, float]:
    """Log u, u - 1 - log u and u log u - u + 1 for u > 0 and a = u - 1, accurate also near 1."""
    if abs(a) >= LOG_SERIES_BELOW:
        logarithm = math.log(u)
        remainder = a - logarithm
    else:
        z = a / (2.0 + a)
        square = z * z
        tail = 0.0
        for n in range(len(LOG_SERIES) - 1, -1, -1):
            tail = (tail + LOG_SERIES[n]) * square
        logarithm = 2.0 * z * (1.0 + tail)
        remainder = z * (a - 2.0 * tail)
    return logarithm, remainder, a * logarithm - remainder


@kernel(fastmath="contract", inline=True)
def _pole_distance(v: float, R: float, log_u: float) -> float:
    """The chi at which w(i chi) = 1: R sinh xi + v cosh xi = v chi / sinh chi, xi = chi + log u."""
    chi = -log_u - v / (6.0 * R) * (log_u * log_u)
    for _ in range(NEWTON_STEPS):
        if chi == 0.0:
            break
        xi = chi + log_u
        sinh_chi = math.sinh(chi)
        ratio = chi / sinh_chi
        excess = R * math.sinh(xi) + v * (math.cosh(xi) - ratio)
        slope = R * math.cosh(xi) + v * math.sinh(xi)
        slope -= v * (1.0 - ratio * math.cosh(chi)) / sinh_chi
        step = excess / slope
        chi -= step
        if abs(step) <= 1e-15 * abs(chi):
            break
    return chi


@kernel(fastmath=True, inline=True)
def _path_sums(
    rule: int, v: float, R: float, saddle: float, saddle_above: float
) -> tuple[float, float, float, float, float]:
    """Sum over the path: of the pole's factor, and of delta^n (1 - i drift), n = 0 ... 3.

    delta = (u w)^-1 - 1; of complex terms the real parts.
    """
    start, count = RULE_START[rule], RULE_SIZE[rule]
    sines, versines = RULE_SINE[start : start + count], RULE_VERSINE[start : start + count]
    excesses, slopes = RULE_EXCESS[start : start + count], RULE_SLOPE[start : start + count]
    scale = 1.0 / (v + R)
    crossed = mass = first = second = third = 0.0
    for j in range(count):
        sine, versine, excess = sines[j], versines[j], excesses[j]
        spread = v * v * (excess * (2.0 + excess))
        S = math.sqrt(R * R + spread)
        S_above = spread / (S + R)
        rho_above = (v * excess + S_above) * scale
        rho = 1.0 + rho_above
        weight = exp(S_above * (1.0 - versine) - R * versine - v * _log1p(rho_above))
        # d(log rho)/d phi: the path leaves the circle |w| = const.
        drift = v * slopes[j] / S
        # w - 1 = radial part, and |w - 1|^2.
        radial = saddle_above + saddle * rho_above
        distance = radial * radial + 2.0 * saddle * rho * versine
        crossed += weight * saddle * rho * (radial + versine - drift * sine) / distance
        inverse = 1.0 / rho
        real, imaginary = -(rho_above + versine) * inverse, -sine * inverse
        power_real, power_imaginary = real + imaginary * drift, imaginary - real * drift
        mass += weight
        first += weight * power_real
        square_real = power_real * real - power_imaginary * imaginary
        square_imaginary = power_real * imaginary + power_imaginary * real
        second += weight * square_real
        third += weight * (square_real * real - square_imaginary * imaginary)
    return crossed, mass, first, second, third


@kernel(fastmath="contract", inline=True)
def _residue(v: float, R: float, log_u: float, E: float, step: float) -> float:
    """What the pole adds to the midpoint rule; 0 where that is below rounding.

    The pole counts while it lies between the path and where the best shifted path would pass.
    """
    # chi is -log u to first order.
    exponent = 2.0 * math.pi / step * abs(log_u)
    if 0.75 * exponent < -E or exponent + E > NEGLIGIBLE_EXPONENT:
        return 0.0
    exponent = 2.0 * math.pi / step * abs(_pole_distance(v, R, log_u))
    return 1.0 / (1.0 + math.exp(exponent)) if exponent >= -2.0 * E else 0.0


@kernel(fastmath="contract", inline=True)
def crossing(k: int, t: float, gap: float, s: float, x: float, out: FloatArray) -> None:
    """Write P(q < x), P(q > x) and the derivatives 1 to 4 in t of the latter to ``out`` (6,).

    ``gap`` is x - t, for callers that know it better than that difference.

    With the density p_j of the same noncentral chi-square with k + 2 j degrees of freedom,

        h_t = p_1,   g = (p_2 / p_1 - 1) / s,   h_tt = p_1 g / 2,   and p_1' = p_1 g / 2 onwards,

    where p_(1 + j) / p_1 is the mean of w^-j along the path, g_t its variance and g_tt its third
    cumulant over 2 s^2 and 4 s^3. Any k >= 1, any x, t >= 0, s >= 0; s below 1e-32 counts as 0.
    """
    for row in range(out.size):
        out[row] = 0.0
    if x <= 0.0 or x == math.inf or s < LEAST_VARIANCE:
        if x > 0.0 and gap >= 0.0:
            out[0] = 0.5 if gap == 0.0 else 1.0
        out[1] = 1.0 - out[0]
        return
    v = 0.5 * k
    R = math.sqrt(v * v + (x / s) * (t / s))
    y = s * (v + R)
    above = (gap - k * s) / (y + t)
    u = x / y
    log_u, remainder, other_remainder = _log_remainders(u, above)
    E = -(y * remainder + t * other_remainder) / (2.0 * s)
    lower_is_small = above < 0.0
    if not E > UNDERFLOW:
        out[0], out[1] = (0.0, 1.0) if lower_is_small else (1.0, 0.0)
        # Also where t or s is NaN.
        if math.isnan(E):
            for row in range(out.size):
                out[row] = math.nan
        return
    rule = _rule_of(v, R)
    step = RULE_STEP[rule]
    crossed, mass, first, second, third = _path_sums(rule, v, R, 1.0 / u, -above / u)
    scale = math.exp(E) * step / math.pi
    small = (crossed if lower_is_small else -crossed) * scale + _residue(v, R, log_u, E, step)
    small = max(small, 0.0)
    out[0], out[1] = (small, 1.0 - small) if lower_is_small else (1.0 - small, small)

    density = mass * scale / (2.0 * s)
    first, second, third = first / mass, second / mass, third / mass
    g = (above + u * first) / s
    g_t = 0.5 * (u / s) * (u / s) * (second - first * first)
    g_tt = 0.25 * (u / s) ** 3 * (third - 3.0 * first * second + 2.0 * first * first * first)
    out[2] = density
    out[3] = 0.5 * density * g
    out[4] = 0.5 * density * (0.5 * g * g + g_t)
    out[5] = 0.5 * density * (0.25 * g * g * g + 1.5 * g * g_t + g_tt)


# ------------------------------------------------------------------------------------------------
# Losses of one pair as functions of t: rows of values and derivatives for many t at once
# ------------------------------------------------------------------------------------------------


@kernel(fastmath="contract", inline=True)
def moment_rows(
    order: int,
    k: int,
    s: float,
    eps: float,
    t: FloatArray,
    rows: FloatArray,
    state: FloatArray,
) -> None:
    """rows[:, p] = h(t_p) and its derivatives in t for h = E[((q - 1) / eps)^order].

    The generating function sum_n h_n x^n / n! = (1 - c x)^(-k/2) exp(t x / (1 - c x) / eps - x/eps)
    with c = 2 s / eps gives h_n a recurrence whose only negative term is that in t - 1, and is
    multiplied by x / (1 - c x) / eps for each derivative in t. ``state`` (6, t.size) is scratch.
    """
    c, shift, spread = 2.0 * s / eps, 1.0 / eps, k * s / eps
    for p in range(t.size):
        for row in range(ROWS + 1):
            state[row, p] = 1.0 if row == 0 else 0.0
    for n in range(1, order + 1):
        # Sums of (n - 1)! / (n - j)! c^(j - 1) h_(n - j), and the same with another factor j. The
        # former, times n, is the derivative in t.
        for p in range(t.size):
            moment = state[0, p]
            state[5, p] = n * (state[4, p] + c * state[5, p])
            state[4, p] = n * (state[3, p] + c * state[4, p])
            state[3, p] = n * (state[2, p] + c * state[3, p])
            rest, rest_of_second = c * state[2, p], c * state[1, p]
            state[2, p] = n * (moment + rest)
            state[1, p] = n * (moment + rest + rest_of_second)
            state[0, p] = (
                ((t[p] - 1.0) * shift) * moment
                + spread * (moment + rest)
                + (t[p] * shift) * (rest + rest_of_second)
            )
    factor = 1.0
    for row in range(ROWS):
        source = 0 if row == 0 else row + 1
        for p in range(t.size):
            rows[row, p] = factor * state[source, p]
        factor *= shift


@kernel(fastmath="contract")
def fill_table(
    k: int,
    s: float,
    below: float,
    above: float,
    origin: float,
    offset: float,
    width: float,
    table: FloatArray,
) -> None:
    """Tabulate P(q < below) + P(q > above), and its derivatives in t, over sqrt(t).

    ``table`` (panels, DEGREE + 1, 8): panel j begins at sqrt(t) = origin + offset + j width and is
    seen as [-1, 1], with coefficients of the powers of its variable for each row. ``origin`` is the
    square root of a bound, so that also the narrowest transitions have exact nodes. ``below`` <= 0
    and ``above`` = infinity are never crossed.
    """
    size = DEGREE + 1
    nodes, chebyshev, out = np.empty((size, ROWS)), np.empty((size, ROWS)), np.empty(6)
    for panel in range(table.shape[0]):
        for i in range(size):
            distance = offset + (panel + TABLE_NODES[i]) * width
            m = origin + distance
            for bound in (below, above):
                root = math.sqrt(max(bound, 0.0))
                gap = -(distance + (origin - root)) * (m + root)
                crossing(k, m * m, gap, s, bound, out)
                if bound == below:
                    nodes[i, 0] = out[0]
                    for row in range(1, ROWS):
                        nodes[i, row] = -out[1 + row]
                else:
                    for row in range(ROWS):
                        nodes[i, row] += out[1 + row]
        _multiply_small(TO_CHEBYSHEV, nodes, chebyshev)
        # In two steps: the powers' large coefficients are then those of small terms only.
        _multiply_small(TO_POWERS, chebyshev, table[panel])


@kernel(fastmath=False)
def _multiply_small(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """Write a @ b to ``out``, and zeros to columns of ``out`` that b lacks."""
    for i in range(a.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            if j < b.shape[1]:
                for q in range(a.shape[1]):
                    total += a[i, q] * b[q, j]
            out[i, j] = total


@kernel(fastmath="contract", inline=True)
def _look_up(total: Any, root: float, table: Any) -> float:
    """Put the rows at sqrt(t) into a register; returns what is certain beyond the table."""
    origin, offset, inverse_width, coefficients, before, after = table
    position = ((root - origin) - offset) * inverse_width
    clear_row(total, coefficients)
    if not 0.0 <= position < coefficients.size // (LANES * (DEGREE + 1)):
        return before if position < 0.0 else after
    panel = int(position)
    offset = np.uint64(panel) * np.uint64(DEGREE + 1) * _LANES
    x = 2.0 * (position - panel) - 1.0
    power = 1.0
    for _ in range(DEGREE + 1):
        add_scaled_row(total, power, coefficients, offset)
        offset += _LANES
        power *= x
    return 0.0


@kernel(fastmath="contract", inline=True)
def table_rows(
    split: float, first: Any, second: Any, t: FloatArray, rows: FloatArray, row: FloatArray
) -> None:
    """rows[:, p] = h(t_p) and derivatives from two tables that meet at sqrt(t) = split.

    A table is (origin, offset, 1 / width, flat coefficients, value before it, value after it), see
    ``fill_table``. ``row`` (8,) is scratch.
    """
    total = new_row(row)
    for p in range(t.size):
        root = math.sqrt(t[p])
        certain = _look_up(total, root, first) if root < split else _look_up(total, root, second)
        store_scaled_row(total, 1.0, row, np.uint64(0))
        rows[0, p] = certain + row[0]
        for j in range(1, ROWS):
            rows[j, p] = row[j]


# ------------------------------------------------------------------------------------------------
# Sums over all pairs of points, on the tiles of the pairs module. Work is cut into groups of tiles,
# or strips of a list, that do not depend on the number of threads; each writes sums of its own, to
# be added in order.
# ------------------------------------------------------------------------------------------------

# A squared distance below this share of ||y_i||^2 + ||y_j||^2 has lost three digits.
CANCELLATION = 1e-3
STRIPS = 16
BLOCK = 128


@kernel(fastmath=False, inline=True)
def _loss_rows(
    loss: Any, t: FloatArray, rows: FloatArray, state: FloatArray, row: FloatArray
) -> None:
    """rows[:, p] = h(t_p) and derivatives: a moment, or tables of the tail if order = 0.

    ``loss`` is (order, k, s, eps, split, first table, second table).
    """
    order, k, s, eps, split, first, second = loss
    if order > 0:
        moment_rows(order, k, s, eps, t, rows, state)
    else:
        table_rows(split, first, second, t, rows, row)


@kernel(fastmath=True, inline=True)
def _gradient_terms(
    k: int, t: FloatArray, inverse: FloatArray, rows: FloatArray, coefficients: FloatArray
) -> tuple[float, float]:
    """coefficients[p] = h_t / D; returns the sums of h and of h_s. Pairs without distance are 0."""
    value = slope = 0.0
    for p in range(t.size):
        present = 1.0 if inverse[p] > 0.0 else 0.0
        value += present * rows[0, p]
        slope += present * (2.0 * t[p] * rows[2, p] + k * rows[1, p])
    # Apart from the sums, see _jit.FASTMATH.
    for p in range(t.size):
        coefficients[p] = rows[1, p] * inverse[p]
    return value, slope


@kernel(fastmath=False)
def _product_coefficients(
    k: int,
    t: FloatArray,
    dt: FloatArray,
    ds: float,
    inverse: FloatArray,
    rows: FloatArray,
    coefficients: FloatArray,
    changes: FloatArray,
) -> None:
    """coefficients[p] = h_t / D, changes[p] = (h_tt dt + h_ts ds) / D.

    h_ts = (k + 2) h_tt + 2 t h_ttt.
    """
    for p in range(t.size):
        mixed = (k + 2.0) * rows[2, p] + 2.0 * t[p] * rows[3, p]
        coefficients[p] = rows[1, p] * inverse[p]
        changes[p] = (rows[2, p] * dt[p] + mixed * ds) * inverse[p]


@kernel(fastmath=True, inline=True)
def _product_sums(
    k: int, t: FloatArray, dt: FloatArray, ds: float, inverse: FloatArray, rows: FloatArray
) -> tuple[float, float]:
    """Sums of h_s and of its change, h_st dt + h_ss ds; pairs without distance are 0.

    h_ss = k (k + 2) h_tt + 4 (k + 2) t h_ttt + 4 t^2 h_tttt.
    """
    slope = change = 0.0
    for p in range(t.size):
        present = 1.0 if inverse[p] > 0.0 else 0.0
        twice = 2.0 * t[p]
        mixed = (k + 2.0) * rows[2, p] + twice * rows[3, p]
        pure = k * mixed + twice * ((k + 4.0) * rows[3, p] + twice * rows[4, p])
        slope += present * (twice * rows[2, p] + k * rows[1, p])
        change += present * (mixed * dt[p] + pure * ds)
    return slope, change


@kernel(fastmath=False)
def _squared_distances(
    Y: FloatArray, norms: FloatArray, i: int, first: int, products: FloatArray, out: FloatArray
) -> None:
    """out[p] = ||y_i - y_j||^2 for j = first + p from the products y_i . y_j.

    Y (n, k + 1) has a last column that does not count.
    """
    others = norms[first : first + out.size]
    cancelled = 0
    for p in range(out.size):
        out[p] = norms[i] + others[p] - 2.0 * products[p]
        cancelled += out[p] < CANCELLATION * (norms[i] + others[p])
    if cancelled == 0:
        return
    for p in range(out.size):
        if out[p] < CANCELLATION * (norms[i] + others[p]):
            total = 0.0
            for r in range(Y.shape[1] - 1):
                difference = Y[first + p, r] - Y[i, r]
                total += difference * difference
            out[p] = total


@kernel(fastmath=False)
def _clear(array: FloatArray) -> None:
    """Set a two-dimensional array to 0."""
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            array[i, j] = 0.0


@kernel(fastmath=False)
def _clear_outside(line: FloatArray, first: int, last: int) -> None:
    """Set line[p] to 0 but for first <= p < last."""
    for p in range(line.size):
        if p < first or p >= last:
            line[p] = 0.0


@kernel(fastmath=False, inline=True)
def _group_start(group: int, groups: int, tiles: int) -> int:
    return group * tiles // groups


@kernel(fastmath=False)
def all_pairs_gradient(
    first_group: int,
    last_group: int,
    tile_rows: IndexArray,
    tile_columns: IndexArray,
    n: int,
    inverse: FloatArray,
    Y: FloatArray,
    norms: FloatArray,
    loss: Any,
    with_gradient: bool,
    totals: FloatArray,
    sums: FloatArray,
) -> None:
    """Sums over all pairs of h and of h_s, and C (Y, 1) for c_ij = h_t / ||x_i - x_j||^2.

    Tiles, ``inverse``, Y (padded n, k + 1) and ``norms`` as in ``pairs.smooth_ratios``; groups of
    tiles have rows of ``totals`` (groups, 2) and ``sums`` (groups, padded n, k + 1), the latter
    left alone without ``with_gradient``. Cost n^2 (3 k + 5) flops and n^2 / 2 values of h.
    """
    k, groups = Y.shape[1] - 1, totals.shape[0]
    t, row = np.empty(TILE), np.empty(LANES)
    rows, state = np.empty((ROWS, TILE)), np.empty((ROWS + 1, TILE))
    products = np.empty((TILE, TILE))
    workspace = np.empty(workspace_size(max(TILE, k + 1), max(TILE, k)))
    for group in range(first_group, last_group):
        out = sums[group if with_gradient else 0]
        if with_gradient:
            _clear(out)
        value = slope = 0.0
        last = _group_start(group + 1, groups, tile_rows.size)
        for tile in range(_group_start(group, groups, tile_rows.size), last):
            i, j = tile_rows[tile] * TILE, tile_columns[tile] * TILE
            own, other = Y[i : i + TILE], Y[j : j + TILE]
            multiply(own[:, :k], other[:, :k].T, products, False, workspace)
            width = min(TILE, n - j)
            for a in range(TILE):
                # Pairs i < j only.
                skipped = min(a + 1, width) if i == j else 0
                ratios, weights = t[: width - skipped], inverse[tile, a, skipped:width]
                line = products[a, skipped:width]
                _squared_distances(Y, norms, i + a, j + skipped, line, ratios)
                for p in range(ratios.size):
                    ratios[p] *= weights[p]
                _loss_rows(loss, ratios, rows, state, row)
                terms = _gradient_terms(k, ratios, weights, rows, line)
                value += terms[0]
                slope += terms[1]
                _clear_outside(products[a], skipped, width)
            if with_gradient:
                multiply(products, other, out[i : i + TILE], True, workspace)
                multiply(products.T, own, out[j : j + TILE], True, workspace)
        totals[group, 0] = value
        totals[group, 1] = slope


@kernel(fastmath=False)
def all_pairs_product(
    first_group: int,
    last_group: int,
    tile_rows: IndexArray,
    tile_columns: IndexArray,
    n: int,
    inverse: FloatArray,
    Y: FloatArray,
    norms: FloatArray,
    dY: FloatArray,
    dnorms: FloatArray,
    ds: float,
    loss: Any,
    totals: FloatArray,
    sums: FloatArray,
    changes: FloatArray,
) -> None:
    """Sums over all pairs of h_s and of its change; C (dY, 1) and dC (Y, 1) for the change dC of C.

    ``dnorms`` (padded n,) holds y_i . dy_i; ``sums`` and ``changes`` (groups, padded n, k + 1).
    Cost n^2 (7 k + 10) flops and n^2 / 2 derivatives of h.
    """
    k, groups = Y.shape[1] - 1, totals.shape[0]
    t, dt, row = np.empty(TILE), np.empty(TILE), np.empty(LANES)
    rows, state = np.empty((ROWS, TILE)), np.empty((ROWS + 1, TILE))
    products, dproducts = np.empty((TILE, TILE)), np.empty((TILE, TILE))
    workspace = np.empty(workspace_size(max(TILE, k + 1), max(TILE, k)))
    for group in range(first_group, last_group):
        _clear(sums[group])
        _clear(changes[group])
        slope = change = 0.0
        last = _group_start(group + 1, groups, tile_rows.size)
        for tile in range(_group_start(group, groups, tile_rows.size), last):
            i, j = tile_rows[tile] * TILE, tile_columns[tile] * TILE
            own, other = Y[i : i + TILE], Y[j : j + TILE]
            down, dother = dY[i : i + TILE], dY[j : j + TILE]
            multiply(own[:, :k], other[:, :k].T, products, False, workspace)
            multiply(down[:, :k], other[:, :k].T, dproducts, False, workspace)
            multiply(own[:, :k], dother[:, :k].T, dproducts, True, workspace)
            width = min(TILE, n - j)
            for a in range(TILE):
                skipped = min(a + 1, width) if i == j else 0
                first, size = j + skipped, width - skipped
                ratios, drift, weights = t[:size], dt[:size], inverse[tile, a, skipped:width]
                line, dline = products[a, skipped:width], dproducts[a, skipped:width]
                _squared_distances(Y, norms, i + a, first, line, ratios)
                for p in range(size):
                    ratios[p] *= weights[p]
                    moved = dnorms[i + a] + dnorms[first + p] - dline[p]
                    drift[p] = 2.0 * moved * weights[p]
                _loss_rows(loss, ratios, rows, state, row)
                terms = _product_sums(k, ratios, drift, ds, weights, rows)
                _product_coefficients(k, ratios, drift, ds, weights, rows, line, dline)
                slope += terms[0]
                change += terms[1]
                _clear_outside(products[a], skipped, width)
                _clear_outside(dproducts[a], skipped, width)
            multiply(products, dother, sums[group, i : i + TILE], True, workspace)
            multiply(products.T, down, sums[group, j : j + TILE], True, workspace)
            multiply(dproducts, other, changes[group, i : i + TILE], True, workspace)
            multiply(dproducts.T, own, changes[group, j : j + TILE], True, workspace)
        totals[group, 0] = slope
        totals[group, 1] = change


# ------------------------------------------------------------------------------------------------
# The same over a list of pairs
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def listed_pairs_strips(count: int) -> int:
    """Strips of a list of pairs: at least 16 blocks each."""
    return min(STRIPS, count // (16 * BLOCK) + 1)


@kernel(fastmath=False, inline=True)
def _strip_start(strip: int, count: int) -> int:
    return strip * count // listed_pairs_strips(count)


@kernel(fastmath=False, inline=True)
def _pair_differences(Y: FloatArray, i: int, j: int, out: FloatArray) -> float:
    """Write y_j - y_i to ``out``; returns the squared length."""
    left, right = Y[i], Y[j]
    for r in range(out.size):
        out[r] = right[r] - left[r]
    return dot(out, out)


@kernel(fastmath=False)
def _add_pair(coefficient: float, difference: FloatArray, i: int, j: int, out: FloatArray) -> None:
    """Add c (y_j - y_i) to row j of ``out`` and take it from row i."""
    left, right = out[i], out[j]
    for r in range(difference.size):
        term = coefficient * difference[r]
        left[r] -= term
        right[r] += term


@kernel(fastmath=False)
def listed_pairs_weights(
    first_strip: int,
    last_strip: int,
    X: FloatArray,
    left: IndexArray,
    right: IndexArray,
    inverse: FloatArray,
    zeros: IndexArray,
) -> None:
    """inverse[e] = 1 / ||x_i - x_j||^2 for the pair e = (i, j), 0 where not finite; X (n, d)."""
    difference = np.empty(X.shape[1])
    for strip in range(first_strip, last_strip):
        count = 0
        for e in range(_strip_start(strip, left.size), _strip_start(strip + 1, left.size)):
            inverse[e] = 1.0 / _pair_differences(X, left[e], right[e], difference)
            if not math.isfinite(inverse[e]):
                inverse[e] = 0.0
                count += 1
        zeros[strip] = count


@kernel(fastmath=False)
def listed_pairs_gradient(
    first_strip: int,
    last_strip: int,
    Y: FloatArray,
    left: IndexArray,
    right: IndexArray,
    inverse: FloatArray,
    loss: Any,
    with_gradient: bool,
    sums: FloatArray,
    partial: FloatArray,
) -> None:
    """As ``all_pairs_gradient``; Y and partial[strip] are (n, k)."""
    k = Y.shape[1]
    t, coefficients, row = np.empty(BLOCK), np.empty(BLOCK), np.empty(LANES)
    rows, state, differences = (
        np.empty((ROWS, BLOCK)),
        np.empty((ROWS + 1, BLOCK)),
        np.empty((BLOCK, k)),
    )
    for strip in range(first_strip, last_strip):
        out = partial[strip if with_gradient else 0]
        if with_gradient:
            _clear(out)
        value = slope = 0.0
        end = _strip_start(strip + 1, left.size)
        for first in range(_strip_start(strip, left.size), end, BLOCK):
            width = min(BLOCK, end - first)
            weights, ratios = inverse[first : first + width], t[:width]
            for p in range(width):
                e = first + p
                ratios[p] = weights[p] * _pair_differences(Y, left[e], right[e], differences[p])
            _loss_rows(loss, ratios, rows, state, row)
            terms = _gradient_terms(k, ratios, weights, rows, coefficients)
            value += terms[0]
            slope += terms[1]
            for p in range(width if with_gradient else 0):
                _add_pair(coefficients[p], differences[p], left[first + p], right[first + p], out)
        sums[strip, 0] = value
        sums[strip, 1] = slope


@kernel(fastmath=False)
def listed_pairs_product(
    first_strip: int,
    last_strip: int,
    Y: FloatArray,
    dY: FloatArray,
    ds: float,
    left: IndexArray,
    right: IndexArray,
    inverse: FloatArray,
    loss: Any,
    sums: FloatArray,
    partial: FloatArray,
) -> None:
    """As ``all_pairs_product``; Y, dY and partial[strip] are (n, k)."""
    k = Y.shape[1]
    t, dt, row = np.empty(BLOCK), np.empty(BLOCK), np.empty(LANES)
    coefficients, changes = np.empty(BLOCK), np.empty(BLOCK)
    rows, state = np.empty((ROWS, BLOCK)), np.empty((ROWS + 1, BLOCK))
    differences, drifts = np.empty((BLOCK, k)), np.empty((BLOCK, k))
    for strip in range(first_strip, last_strip):
        out = partial[strip]
        _clear(out)
        slope = change = 0.0
        end = _strip_start(strip + 1, left.size)
        for first in range(_strip_start(strip, left.size), end, BLOCK):
            width = min(BLOCK, end - first)
            weights, ratios, drift = inverse[first : first + width], t[:width], dt[:width]
            for p in range(width):
                e = first + p
                ratios[p] = weights[p] * _pair_differences(Y, left[e], right[e], differences[p])
                _pair_differences(dY, left[e], right[e], drifts[p])
                drift[p] = 2.0 * weights[p] * dot(differences[p], drifts[p])
            _loss_rows(loss, ratios, rows, state, row)
            terms = _product_sums(k, ratios, drift, ds, weights, rows)
            _product_coefficients(k, ratios, drift, ds, weights, rows, coefficients, changes)
            slope += terms[0]
            change += terms[1]
            for p in range(width):
                i, j = left[first + p], right[first + p]
                _add_pair(coefficients[p], drifts[p], i, j, out)
                _add_pair(changes[p], differences[p], i, j, out)
        sums[strip, 0] = slope
        sums[strip, 1] = change


# ------------------------------------------------------------------------------------------------
# Noise of a variance of its own in each row: A_r = M_r + sigma_r z. Moments only
# ------------------------------------------------------------------------------------------------


@kernel(fastmath="contract", inline=True)
def _row_noise_moments(
    difference: FloatArray,
    weight: float,
    s: FloatArray,
    eps: float,
    powers: FloatArray,
    moments: FloatArray,
) -> None:
    """moments[n] = E[((q - 1) / eps)^n] / n!, n = 0 ... order, for q = sum_r (m_r + sigma_r z_r)^2.

    n h_n = sum_j a_j h_(n - j) - h_(n - 1) / eps, a_j = sum_r c_r^(j - 1) (s_r + j t_r) / eps, with
    t_r = difference_r^2 weight and c_r = 2 s_r / eps.
    """
    order = moments.size - 1
    for j in range(order + 1):
        powers[j] = 0.0
    for r in range(s.size):
        c, spread = 2.0 * s[r] / eps, s[r] / eps
        t = difference[r] * difference[r] * weight / eps
        power = 1.0
        for j in range(1, order + 1):
            powers[j] += power * (spread + j * t)
            power *= c
    moments[0] = 1.0
    for n in range(1, order + 1):
        total = -moments[n - 1] / eps
        for j in range(1, n + 1):
            total += powers[j] * moments[n - j]
        moments[n] = total / n


@kernel(fastmath="contract", inline=True)
def _polynomial(c: float, moments: FloatArray) -> tuple[float, float, float]:
    """P(c) = sum_j c^(j - 1) h_(order - j) over j = 1 ... order, P'(c) and P''(c) / 2."""
    value = slope = curvature = 0.0
    for n in range(moments.size - 1):
        curvature = curvature * c + slope
        slope = slope * c + value
        value = value * c + moments[n]
    return value, slope, curvature


@kernel(fastmath="contract")
def row_noise_gradient(
    first_strip: int,
    last_strip: int,
    Y: FloatArray,
    left: IndexArray,
    right: IndexArray,
    inverse: FloatArray,
    order: int,
    s: FloatArray,
    eps: float,
    sums: FloatArray,
    partial: FloatArray,
) -> None:
    """Sums of h, and of its derivative in each s_r, and sum_j c_ijr (y_i - y_j)_r, of each strip.

    sums (strips, 1 + k); partial[strip] (n, k). h_(t_r) = order! P(c_r) / eps and
    h_(s_r) = order! (P(c_r) + 2 t_r P'(c_r)) / eps. About 8 k order flops for each pair.
    """
    k = s.size
    difference, term = np.empty(k), np.empty(k)
    powers, moments = np.empty(order + 1), np.empty(order + 1)
    factorial = math.gamma(order + 1.0)
    for strip in range(first_strip, last_strip):
        out, slopes = partial[strip], sums[strip]
        _clear(out)
        for r in range(slopes.size):
            slopes[r] = 0.0
        for e in range(_strip_start(strip, left.size), _strip_start(strip + 1, left.size)):
            if inverse[e] == 0.0:
                continue
            _pair_differences(Y, left[e], right[e], difference)
            _row_noise_moments(difference, inverse[e], s, eps, powers, moments)
            slopes[0] += factorial * moments[order]
            for r in range(k):
                t = difference[r] * difference[r] * inverse[e] / eps
                value, slope, _ = _polynomial(2.0 * s[r] / eps, moments)
                slopes[1 + r] += factorial / eps * (value + 2.0 * t * slope)
                term[r] = factorial / eps * value * difference[r]
            _add_pair(inverse[e], term, left[e], right[e], out)


@kernel(fastmath="contract")
def row_noise_product(
    first_strip: int,
    last_strip: int,
    Y: FloatArray,
    dY: FloatArray,
    left: IndexArray,
    right: IndexArray,
    inverse: FloatArray,
    order: int,
    s: FloatArray,
    ds: FloatArray,
    eps: float,
    sums: FloatArray,
    partial: FloatArray,
) -> None:
    """Sums of each h_(s_r) and of its change, and the change of sum_j c_ijr (y_i - y_j)_r.

    sums (strips, 2 k): first the derivatives, then their changes.
    """
    k = s.size
    difference, drift, term = np.empty(k), np.empty(k), np.empty(k)
    powers, moments, rates = np.empty(order + 1), np.empty(order + 1), np.empty(order + 1)
    factorial = math.gamma(order + 1.0)
    for strip in range(first_strip, last_strip):
        out, slopes = partial[strip], sums[strip]
        _clear(out)
        for r in range(slopes.size):
            slopes[r] = 0.0
        for e in range(_strip_start(strip, left.size), _strip_start(strip + 1, left.size)):
            weight = inverse[e]
            if weight == 0.0:
                continue
            _pair_differences(Y, left[e], right[e], difference)
            _pair_differences(dY, left[e], right[e], drift)
            _row_noise_moments(difference, weight, s, eps, powers, moments)
            # K_j with h'_n = sum_j K_j h_(n - j).
            for j in range(order + 1):
                powers[j] = 0.0
            for r in range(k):
                c, dc = 2.0 * s[r] / eps, 2.0 * ds[r] / eps
                t = difference[r] * difference[r] * weight / eps
                along = 2.0 * difference[r] * drift[r] * weight / eps + 0.5 * dc
                power, lower = 1.0, 0.0
                for j in range(1, order + 1):
                    powers[j] += power * along + (j - 1) * lower * t * dc
                    lower, power = power, power * c
            for n in range(order + 1):
                total = 0.0
                for j in range(1, n + 1):
                    total += powers[j] * moments[n - j]
                rates[n] = total
            for r in range(k):
                c, dc = 2.0 * s[r] / eps, 2.0 * ds[r] / eps
                t = difference[r] * difference[r] * weight / eps
                dt = 2.0 * difference[r] * drift[r] * weight / eps
                value, slope, half_curvature = _polynomial(c, moments)
                rate, rate_slope, _ = _polynomial(c, rates)
                rate += slope * dc
                rate_slope += 2.0 * half_curvature * dc
                slopes[r] += factorial / eps * (value + 2.0 * t * slope)
                slopes[k + r] += factorial / eps * (rate + 2.0 * (dt * slope + t * rate_slope))
                term[r] = factorial / eps * (value * drift[r] + rate * difference[r])
            _add_pair(weight, term, left[e], right[e], out)
