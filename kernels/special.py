"""Scalar functions the kernels share: exp, normal density and distribution, correlated signs.

All take and return float64 and are meant to be called inside loops of other kernels. ``exp`` has no
branch and no library call, so LLVM vectorises loops over it (Numba's own ``math.exp`` stays
scalar). None of them may be compiled with reassociation: it would cancel the split of ln 2.
"""

import math
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.quadrature import gauss_legendre

INVERSE_LN2 = 1.4426950408889634
# ln 2 in two parts; the first has 21 trailing zero bits, so its product with an exponent is exact.
LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10
# Adding 1.5 * 2**52 puts an integer into the lowest bits of a float64; 1023 is the exponent's bias.
EXPONENT_SHIFT = 1.5 * 2.0**52 + 1023.0
# Past these arguments exp is infinity or 0 in any case.
EXP_LOWEST = -746.0
EXP_HIGHEST = 710.0
# (e^r - 1 - r) / r^2 interpolated at the ten Chebyshev points of |r| <= ln(2)/2 in 60-digit
# arithmetic, lowest degree first. Relative error of 1 + r + r^2 q(r): 1.7e-17.
EXP_COEFFICIENTS = (
    0.5000000000000001,
    0.16666666666666669,
    0.041666666666623824,
    0.008333333333330039,
    0.0013888888917367081,
    0.00019841269863171557,
    2.4801521057868204e-05,
    2.7557268276905696e-06,
    2.7620201591031547e-07,
    2.5100472505694996e-08,
)

INVERSE_SQRT2 = math.sqrt(0.5)
INVERSE_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
SQRT_HALF_PI = math.sqrt(0.5 * math.pi)
FOUR_OVER_PI = 4.0 / math.pi

# Where sign_correlation changes method; test_special.py measures the error on both sides of each.
FEW_NODES_BELOW = 0.42
NODES_BELOW = 0.85
BLOCK = 8
ARC_NODES = np.concatenate([gauss_legendre(BLOCK)[0], gauss_legendre(2 * BLOCK)[0]])
ARC_WEIGHTS = np.concatenate([gauss_legendre(BLOCK)[1], gauss_legendre(2 * BLOCK)[1]])
# exp(-9^2/2) = 3e-18: a bias this large leaves nothing for the correlation to change.
CERTAIN_SIGN = 9.0
NEGLIGIBLE_EXPONENT = 40.0
NEGLIGIBLE_TERM = 1e-17
# 1/m and 1/(2m + 1): divisions would be the longest step of the series. 15 are the most used.
SERIES_TERMS = 20
INVERSE_ORDER = 1.0 / np.maximum(np.arange(SERIES_TERMS, dtype=np.float64), 1.0)
INVERSE_ODD = 1.0 / (2.0 * np.arange(SERIES_TERMS, dtype=np.float64) + 1.0)


@intrinsic
def float_bits(_typing_context: Any, _value: Any) -> Any:
    """Reinterpret a float64 as int64."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def float_from_bits(_typing_context: Any, _value: Any) -> Any:
    """Reinterpret an int64 as float64."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@kernel(fastmath="contract", inline=True)
def _power_of_two(exponent: float) -> float:
    """2**exponent for a whole float64 in [-1022, 1023]: the exponent bits, written directly."""
    # The left shift drops everything but the biased exponent, and the sign bit comes out 0.
    return float_from_bits(float_bits(exponent + EXPONENT_SHIFT) << 52)


@kernel(fastmath="contract", inline=True)
def exp(x: float) -> float:
    """e**x for any float64, without a branch or a library call.

    x = n ln 2 + r with n = floor(x / ln 2 + 1/2), so |r| <= ln(2)/2; e^r is a polynomial of degree
    11; 2^n is two factors of half the exponent each. The last product rounds once, so subnormal
    results (x below -708.4) come out gradually, as in the C library, and 0 below -745.2. Infinity
    above 709.79; NaN stays NaN.

    Error at most 1.1 ulp where the result is normal (largest of 6 * 10^6 random arguments: 1.06).

    Examples
    --------
    >>> from derand_fast.kernels.special import exp
    >>> exp(0.0), exp(1000.0), exp(-1000.0)
    (1.0, inf, 0.0)
    """
    # Written so that a NaN fails both comparisons and passes through.
    x = EXP_LOWEST if x < EXP_LOWEST else x
    x = EXP_HIGHEST if x > EXP_HIGHEST else x
    n = np.floor(x * INVERSE_LN2 + 0.5)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    q = EXP_COEFFICIENTS[9]
    q = q * r + EXP_COEFFICIENTS[8]
    q = q * r + EXP_COEFFICIENTS[7]
    q = q * r + EXP_COEFFICIENTS[6]
    q = q * r + EXP_COEFFICIENTS[5]
    q = q * r + EXP_COEFFICIENTS[4]
    q = q * r + EXP_COEFFICIENTS[3]
    q = q * r + EXP_COEFFICIENTS[2]
    q = q * r + EXP_COEFFICIENTS[1]
    q = q * r + EXP_COEFFICIENTS[0]
    mantissa = 1.0 + (r + (r * r) * q)
    half = np.floor(0.5 * n)
    return mantissa * _power_of_two(half) * _power_of_two(n - half)


@kernel(fastmath="contract", inline=True)
def normal_pdf(x: float) -> float:
    """Density of N(0, 1): exp(-x^2 / 2) / sqrt(2 pi), any float64.

    Relative error at most (x^2 / 2 + 3) * 1.1e-16 (the rounding of x^2 grows in the exponential),
    while the result is normal (|x| < 37.6).
    """
    return INVERSE_SQRT_2PI * exp(-0.5 * (x * x))


@kernel(fastmath="contract", inline=True)
def normal_cdf(x: float) -> float:
    """Distribution function of N(0, 1): erfc(-x / sqrt 2) / 2, any float64.

    No cancellation in either tail: relative error at most (2 x^2 + 4) * 1.1e-16 while the result is
    normal (x > -37.5), for a C library whose erfc is good to 2 ulp.
    """
    return 0.5 * math.erfc(-INVERSE_SQRT2 * x)


@kernel(fastmath="contract", inline=True)
def sign_mean(h: float) -> float:
    """E[sign(x + h)] for x ~ N(0, 1): erf(h / sqrt 2), any float64, within 3 ulp."""
    return math.erf(INVERSE_SQRT2 * h)


@kernel(fastmath=True, inline=True)
def _arc_block(squares: float, product: float, end: float, first: int) -> float:
    """Add up eight nodes of the arc integral (see ``_arc_integral``), starting at ``first``."""
    total = 0.0
    for q in range(BLOCK):
        y = end * ARC_NODES[first + q]
        above = 1.0 + y * y
        below = (1.0 - y * y) * (1.0 - y * y)
        inverse = 1.0 / (above * below)
        exponent = (0.5 * squares * above - 2.0 * product * y) * (above * above) * inverse
        total += ARC_WEIGHTS[first + q] * exp(-exponent) * (below * inverse)
    return total


@kernel(fastmath="contract", inline=True)
def _arc_integral(h: float, k: float, r: float, complement: float) -> float:
    """(2/pi) int_0^{asin r} exp(-(h^2 + k^2 - 2 h k sin t) / (2 cos^2 t)) dt for |r| < 0.85.

    With y = tan(t/2) no sine is left: sin t = 2y / (1 + y^2), cos t = (1 - y^2) / (1 + y^2).
    """
    end = r / (1.0 + math.sqrt(complement))
    squares, product = h * h + k * k, h * k
    if abs(r) < FEW_NODES_BELOW:
        total = _arc_block(squares, product, end, 0)
    else:
        total = _arc_block(squares, product, end, BLOCK)
        total += _arc_block(squares, product, end, 2 * BLOCK)
    return FOUR_OVER_PI * end * total


@kernel(fastmath="contract", inline=True)
def _gap_integral(h: float, k: float, v_squared: float) -> float:
    """(2/pi) int_{asin r}^{pi/2} of the same integrand for r >= 0.85: what is missing at r = 1.

    With v = tan((pi/2 - t)/2), V^2 = (1 - r)/(1 + r), D = (h - k)^2 / 8 and E = (h + k)^2 / 8 it is

        (4/pi) int_0^V exp(-D (1 + 1/v^2) - E (1 + v^2)) / (1 + v^2) dv
            = (4/pi) sum_m (-1)^m Q_m J_m,      Q_m = exp(-E) sum_{j<=m} E^j / j!  <= 1,
        J_m = exp(-D) int_0^V v^{2m} exp(-D/v^2) dv  <=  V^{2m+1} / (2m + 1),
        (2m + 1) J_m = V^{2m+1} exp(-D - D/V^2) - 2 D J_{m-1}.

    The terms fall like V^{2m} (V^2 <= 0.0811: 15 at most, 10 at r = 0.95) and, with the
    exponentials inside, rounding errors stay of the order of 1e-16 for all h and k.
    """
    difference = abs(h - k)
    d = 0.125 * (difference * difference)
    e = 0.125 * ((h + k) * (h + k))
    # Also settles V = 0: the integral is empty (for d = 0, 0/0 compares false, as wanted below).
    if v_squared == 0.0 or d + d / v_squared + e > NEGLIGIBLE_EXPONENT:
        return 0.0
    v = math.sqrt(v_squared)
    boundary = exp(-(d + d / v_squared))
    moment = v * boundary
    moment -= SQRT_HALF_PI * difference * normal_cdf(-0.5 * difference / v) * exp(-d)
    poisson = exp(-e)
    cumulated = poisson
    power = v
    total = cumulated * moment
    sign = -1.0
    for m in range(1, SERIES_TERMS):
        power *= v_squared
        if power < NEGLIGIBLE_TERM:
            break
        moment = (power * boundary - 2.0 * d * moment) * INVERSE_ODD[m]
        poisson *= e * INVERSE_ORDER[m]
        cumulated += poisson
        total += sign * cumulated * moment
        sign = -sign
    return FOUR_OVER_PI * total


@kernel(fastmath="contract", inline=True)
def sign_correlation_from_means(
    h: float, k: float, mean_h: float, mean_k: float, r: float, complement: float
) -> float:
    """``sign_correlation(h, k, r)`` for callers that know more.

    They hold mean_h = sign_mean(h) and mean_k = sign_mean(k) already, and complement = 1 - r^2
    without the cancellation that forming it from r would bring.
    """
    if not abs(r) <= 1.0:
        return math.nan
    if not (abs(h) < CERTAIN_SIGN and abs(k) < CERTAIN_SIGN):
        return mean_h * mean_k
    if abs(r) < NODES_BELOW:
        return mean_h * mean_k + _arc_integral(h, k, r, complement)
    side = 1.0 + abs(r)
    v_squared = complement / (side * side)
    if r > 0.0:
        return 1.0 - abs(mean_h - mean_k) - _gap_integral(h, k, v_squared)
    return abs(mean_h + mean_k) - 1.0 + _gap_integral(h, -k, v_squared)


@kernel(fastmath="contract")
def sign_correlation(h: float, k: float, r: float) -> float:
    """E[sign(x + h) sign(y + k)] for standard normals x, y with correlation r.

    Psi = erf(h/sqrt2) erf(k/sqrt2)
          + (2/pi) int_0^{asin r} exp(-(h^2 + k^2 - 2 h k sin t) / (2 cos^2 t)) dt.

    Gauss-Legendre with 8 nodes for |r| < 0.42 and 16 for |r| < 0.85; beyond, the distance to the
    limit Psi(h, k, 1) = 1 - |erf(h/sqrt2) - erf(k/sqrt2)| as a series about r = 1, and
    Psi(h, k, r) = -Psi(h, -k, -r) for r < 0. At h = k = 0 it is (2/pi) asin r.

    Any real h, k, also infinite; |r| <= 1, else NaN. NaN in, NaN out. Absolute error at most 1e-15.

    Examples
    --------
    >>> from derand_fast.kernels.special import sign_correlation
    >>> round(sign_correlation(0.0, 0.0, 0.5), 15)  # asin(1/2) = pi/6
    0.333333333333333
    """
    complement = (1.0 - r) * (1.0 + r)
    return sign_correlation_from_means(h, k, sign_mean(h), sign_mean(k), r, complement)
