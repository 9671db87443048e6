"""Activation functions and their first four derivatives, for whole arrays and for one number.

With t = iota x, e = exp(-|t|) and s = 1 / (1 + exp(-t)):

    smooth ReLU   a = log(1 + exp(t)) / iota = max(x, 0) + log1p(e) / iota
                  a' = s,  a'' = iota s(1-s),  a''' = iota^2 s(1-s)(1-2s),
                  a'''' = iota^3 s(1-s)(1 - 6 s(1-s)),   its square and cube by the chain rule
    tanh          T, T' = 1 - T^2, -2 T T', -2 T'(T' - 2 T^2), 8 T T'(3 T' - 1)
    erf           g = 2/sqrt(pi) exp(-x^2), -2 x g, (4 x^2 - 2) g, (12 x - 8 x^3) g
    quadratic     x^2,   linear  x

Nothing is formed by cancellation: s(1-s) = e / (1+e)^2 and 1-2s = -+(1-e) / (1+e) with
1-e = -expm1(-|t|) keep their relative accuracy for all x (s(1-s) from a rounded s is 0 from t = 37
on). Where exp(-|t|) is below the smallest normal number it counts as 0, so that no slow subnormal
arithmetic arises.

The formulas are written once on `Lanes` and compiled as vector loops and as scalar functions,
which return the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.lanes import Lanes, first_lanes, lane_count, load, store, vector_at
from derand_fast.kernels.special import EXP_COEFFICIENTS, INVERSE_LN2

FloatArray = npt.NDArray[np.floating[Any]]

ACTIVATIONS = {
    "smooth_relu": 0,
    "smooth_relu_squared": 1,
    "smooth_relu_cubed": 2,
    "tanh": 3,
    "erf": 4,
    "quadratic": 5,
    "linear": 6,
}
HIGHEST_DERIVATIVE = 4

TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
ERF_SPLIT = 1.0
ERF_CENTRE = 3.0


class _Precision(NamedTuple):
    """What the formulas need to know about a float type."""

    mantissa_bits: int
    # 1.5 * 2^mantissa_bits + bias: adding it puts a whole number's exponent into the lowest bits.
    exponent_shift: float
    # ln 2 in two parts; the first times an exponent is exact.
    ln2_high: float
    ln2_low: float
    # exp(-t) is a normal number up to here.
    largest_exponent: float
    # (e^r - 1 - r) / r^2 on |r| <= ln(2)/2, lowest degree first.
    exp: tuple[float, ...]
    # (2 atanh(u) / u - 2) / u^2 in u^2 on [0, 1/9].
    log: tuple[float, ...]
    # erf(x) / x - 1 in x^2 on [0, 1].
    erf_small: tuple[float, ...]
    # exp(x^2) erfc(x) in (x - 3) / (x + 3) for x >= 1.
    erf_large: tuple[float, ...]


# Fitted in 60-digit arithmetic. Relative error of the function each serves: exp 1.7e-17, log1p
# 3.9e-18, erf 1.6e-17 (small) and 1.1e-17 (large); in float32 9.7e-9, 5.8e-9, 3.3e-9 and 2.1e-9.
_PRECISIONS = {
    64: _Precision(
        52,
        1.5 * 2.0**52 + 1023.0,
        0.6931471803691238,
        1.9082149292705877e-10,
        708.39,
        EXP_COEFFICIENTS,
        (
            0.6666666666666652,
            0.40000000000090646,
            0.2857142855519822,
            0.2222222356025854,
            0.1818175709668255,
            0.15386300536459338,
            0.13304151120525035,
            0.12082461440938475,
            0.08437699710690544,
            0.1684669965548455,
        ),
        (
            0.12837916709551256,
            -0.37612638903183515,
            0.1128379167094405,
            -0.026866170643090832,
            0.005223977605955977,
            -0.0008548325921832884,
            0.00012055293361789941,
            -1.4924708324571507e-05,
            1.6447084274239356e-06,
            -1.6205964194101388e-07,
            1.3709519207384055e-08,
            -7.77682913736281e-10,
        ),
        (
            0.17900115118134052,
            -0.3262335600460394,
            0.2456038016776042,
            -0.15011593594667882,
            0.07166585519574946,
            -0.024392290684291842,
            0.004270526734382119,
            0.0007137026347918143,
            -0.0005800377530237352,
            7.772770497361358e-05,
            0.00010392078743531107,
            1.5511645052270795e-05,
        ),
    ),
    32: _Precision(
        23,
        1.5 * 2.0**23 + 127.0,
        0.693359375,
        -2.12194440e-4,
        87.33,
        (0.5, 0.16666578, 0.041666556, 0.008363173, 0.0013926176),
        (0.6666645, 0.40019932, 0.28024665, 0.2791047),
        (
            0.12837917,
            -0.37612626,
            0.112835824,
            -0.026853692,
            0.005188099,
            -0.0008008189,
            7.847259e-05,
        ),
        (0.17900017, -0.3262581, 0.24536303, -0.15133817, 0.06818215, -0.029918483),
    ),
}

Thunk = Callable[[], Lanes]
Derivatives = tuple[Thunk, Thunk, Thunk, Thunk, Thunk]


def _decay(t: Lanes, t_low: Lanes | None) -> tuple[Lanes, Lanes]:
    """Return exp(-t - t_low) and exp(-t - t_low) - 1 for 0 <= t <= largest_exponent.

    -t = n ln 2 + r, r from -ln(2)/2 to ln(2)/2; with p = e^r - 1 these are 2^n p + 2^n and
    2^n p + (2^n - 1).
    """
    precision = _PRECISIONS[t.bits]
    shifted = t.fma(-INVERSE_LN2, precision.exponent_shift)
    n = shifted - precision.exponent_shift
    r = n.fma(-precision.ln2_low, n.fma(-precision.ln2_high, -t))
    if t_low is not None:
        r = r - t_low
    p = (r * r).fma(r.polynomial(precision.exp), r)
    power = shifted.low_bits_as_power_of_two(precision.mantissa_bits)
    return p.fma(power, power), p.fma(power, power - 1.0)


def _product(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """Return x y in two parts (the second is 0 where the processor has no fused product)."""
    high = x * y
    return high, x.fma(y, -high)


class _SmoothStep:
    """exp(-|t|) for t = iota x, and the fractions made of it."""

    def __init__(self, x: Lanes, iota: Lanes) -> None:
        zero = x.constant(0.0)
        limit = x.constant(_PRECISIONS[x.bits].largest_exponent) / iota
        size = abs(x)
        t, t_low = _product(size.where(">", limit, limit, size), iota)
        decay, self.minus_one = _decay(t, t_low)
        self.decay = size.where(">", limit, zero, decay)
        self.above = self.decay + 1.0
        # One division serves 1/(1+e) here and e/(2+e) in the logarithm.
        self.above_two = self.decay + 2.0
        self.inverse = 1.0 / (self.above * self.above_two)
        rough = self.above_two * self.inverse
        # One Newton step takes back the rounding of the products.
        self.fraction = rough.fma((-self.above).fma(rough, 1.0), rough)

    def log1p(self) -> Lanes:
        """log(1+e) = 2 atanh(u), u = e/(2+e); 2u = e - e u, so only small terms are rounded."""
        u = self.decay * self.above * self.inverse
        v = u * u
        series = v * v.polynomial(_PRECISIONS[u.bits].log)
        return self.decay - u * (self.decay - series)


def _smooth_relu(x: Lanes, iota: Lanes) -> Derivatives:
    step = _SmoothStep(x, iota)
    zero = x.constant(0.0)
    inverse_iota = 1.0 / iota
    r = step.fraction
    bell = step.decay * r * r

    def value() -> Lanes:
        return x.where(">", 0.0, x, zero) + step.log1p() * inverse_iota

    def slope() -> Lanes:
        return x.where(">", 0.0, r, step.decay * r)

    def second() -> Lanes:
        return iota * bell

    def third() -> Lanes:
        return (iota * bell) * ((-iota) * (step.minus_one * r)).with_sign_of(-x)

    def fourth() -> Lanes:
        return (iota * bell) * (iota * iota) * bell.fma(-6.0, 1.0)

    return value, slope, second, third, fourth


def _smooth_relu_squared(x: Lanes, iota: Lanes) -> Derivatives:
    """Products start from the factor that decays, so none overflows for large x."""
    f, f1, f2, f3, f4 = (derivative() for derivative in _smooth_relu(x, iota))

    def fourth() -> Lanes:
        return 6.0 * f2 * f2 + 8.0 * f1 * f3 + 2.0 * (f * f4)

    return (
        lambda: f * f,
        lambda: 2.0 * f * f1,
        lambda: 2.0 * (f1 * f1 + f * f2),
        lambda: 6.0 * f1 * f2 + 2.0 * (f * f3),
        fourth,
    )


def _smooth_relu_cubed(x: Lanes, iota: Lanes) -> Derivatives:
    f, f1, f2, f3, f4 = (derivative() for derivative in _smooth_relu(x, iota))

    def third() -> Lanes:
        return 6.0 * f1 * f1 * f1 + 18.0 * (f * f2) * f1 + 3.0 * (f * f3) * f

    def fourth() -> Lanes:
        low = 36.0 * f1 * f1 * f2 + 18.0 * (f * f2) * f2
        return low + 24.0 * (f * f3) * f1 + 3.0 * (f * f4) * f

    return (
        lambda: f * f * f,
        lambda: 3.0 * f * f * f1,
        lambda: 6.0 * f * f1 * f1 + 3.0 * (f * f2) * f,
        third,
        fourth,
    )


def _tanh(x: Lanes, _iota: Lanes) -> Derivatives:
    limit = x.constant(0.5 * _PRECISIONS[x.bits].largest_exponent)
    size = abs(x)
    capped = size.where(">", limit, limit, size)
    decay, minus_one = _decay(capped + capped, None)
    decay = size.where(">", limit, x.constant(0.0), decay)
    r = 1.0 / (decay + 1.0)
    value = (minus_one * r).with_sign_of(x)
    slope = 4.0 * decay * r * r
    return (
        lambda: value,
        lambda: slope,
        lambda: -2.0 * value * slope,
        lambda: -2.0 * slope * (value * value).fma(-2.0, slope),
        lambda: 8.0 * value * slope * slope.fma(3.0, -1.0),
    )


def _erf(x: Lanes, _iota: Lanes) -> Derivatives:
    precision = _PRECISIONS[x.bits]
    limit = math.sqrt(precision.largest_exponent)
    size = abs(x)
    capped = size.where(">", limit, x.constant(limit), size)
    square, square_low = _product(capped, capped)
    decay = size.where(">", limit, x.constant(0.0), _decay(square, square_low)[0])
    bell = TWO_OVER_SQRT_PI * decay
    signed = capped.with_sign_of(x)

    def value() -> Lanes:
        small = size.fma(square.polynomial(precision.erf_small), size)
        place = (capped - ERF_CENTRE) / (capped + ERF_CENTRE)
        large = 1.0 - decay * place.polynomial(precision.erf_large)
        return size.where("<", ERF_SPLIT, small, large).with_sign_of(x)

    return (
        value,
        lambda: bell,
        lambda: -2.0 * signed * bell,
        lambda: square.fma(4.0, -2.0) * bell,
        lambda: 4.0 * signed * bell * square.fma(-2.0, 3.0),
    )


def _quadratic(x: Lanes, _iota: Lanes) -> Derivatives:
    zero = x.constant(0.0)
    return lambda: x * x, lambda: x + x, lambda: x.constant(2.0), lambda: zero, lambda: zero


def _linear(x: Lanes, _iota: Lanes) -> Derivatives:
    zero = x.constant(0.0)
    return lambda: x, lambda: x.constant(1.0), lambda: zero, lambda: zero, lambda: zero


Formula = Callable[[Lanes, Lanes], Derivatives]


def _array_loop(formula: Formula) -> Any:
    """Return an intrinsic that runs a formula over an array: whole vectors, then a masked rest."""

    @intrinsic
    def loop(
        typingctx: Any,
        iota: Any,
        first: Any,
        last: Any,
        z: Any,
        out0: Any,
        out1: Any,
        out2: Any,
        out3: Any,
        out4: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            iota, first, last, *arrays = args
            z, *outs = (
                context.make_array(kind)(context, builder, array)
                for kind, array in zip(signature.args[3:], arrays, strict=True)
            )
            element = context.get_value_type(signature.args[3].dtype)
            vector = ir.VectorType(element, lane_count(element))
            count = builder.extract_value(z.shape, 0)
            whole = builder.and_(count, count.type(-vector.count))
            wanted = [
                builder.and_(
                    builder.icmp_signed("<=", first, first.type(k)),
                    builder.icmp_signed("<=", first.type(k), last),
                )
                for k in range(HIGHEST_DERIVATIVE + 1)
            ]

            def one_vector(start: Any, mask: Any) -> None:
                x = Lanes(builder, load(builder, vector_at(builder, z.data, start, vector), mask))
                derivatives = formula(x, x.broadcast(iota))
                for flag, derivative, out in zip(wanted, derivatives, outs, strict=True):
                    with builder.if_then(flag):
                        place = vector_at(builder, out.data, start, vector)
                        store(builder, derivative().value, place, mask)

            begin, step = count.type(0), count.type(vector.count)
            with cgutils.for_range_slice(builder, begin, whole, step) as (start, _):
                one_vector(start, None)
            with builder.if_then(builder.icmp_signed("<", whole, count)):
                rest = builder.sub(count, whole)
                one_vector(whole, first_lanes(builder, rest, vector.count))
            return context.get_dummy_value()

        arrays = (z, out0, out1, out2, out3, out4)
        return types.void(types.float64, types.int64, types.int64, *arrays), generate

    return loop


def _at_one_number(formula: Formula) -> Any:
    """Return an intrinsic (iota, x) -> all derivatives at one number."""

    @intrinsic
    def evaluate(typingctx: Any, iota: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = Lanes(builder, args[1])
            derivatives = formula(number, number.broadcast(args[0]))
            values = [derivative().value for derivative in derivatives]
            return context.make_tuple(builder, signature.return_type, values)

        derivatives = types.containers.UniTuple(x, HIGHEST_DERIVATIVE + 1)
        return derivatives(types.float64, x), generate

    return evaluate


_smooth_relu_loop = _array_loop(_smooth_relu)
_smooth_relu_squared_loop = _array_loop(_smooth_relu_squared)
_smooth_relu_cubed_loop = _array_loop(_smooth_relu_cubed)
_tanh_loop = _array_loop(_tanh)
_erf_loop = _array_loop(_erf)
_quadratic_loop = _array_loop(_quadratic)
_linear_loop = _array_loop(_linear)


@kernel(fastmath=False)
def apply_activation(
    code: int,
    iota: float,
    first: int,
    last: int,
    z: FloatArray,
    out0: FloatArray,
    out1: FloatArray,
    out2: FloatArray,
    out3: FloatArray,
    out4: FloatArray,
) -> None:
    """Write derivatives ``first`` to ``last`` (0 = the value) of activation ``code`` at flat ``z``.

    out_k has z's length; those outside the range are not touched, so any array of the type will do.
    """
    if code == 0:
        _smooth_relu_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    elif code == 1:
        _smooth_relu_squared_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    elif code == 2:
        _smooth_relu_cubed_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    elif code == 3:
        _tanh_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    elif code == 4:
        _erf_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    elif code == 5:
        _quadratic_loop(iota, first, last, z, out0, out1, out2, out3, out4)
    else:
        _linear_loop(iota, first, last, z, out0, out1, out2, out3, out4)


_smooth_relu_at = _at_one_number(_smooth_relu)
_smooth_relu_squared_at = _at_one_number(_smooth_relu_squared)
_smooth_relu_cubed_at = _at_one_number(_smooth_relu_cubed)
_tanh_at = _at_one_number(_tanh)
_erf_at = _at_one_number(_erf)
_quadratic_at = _at_one_number(_quadratic)
_linear_at = _at_one_number(_linear)


@kernel(fastmath=False)
def activation_at(code: int, iota: float, x: float) -> tuple[float, float, float, float, float]:
    """Value and four derivatives of activation ``code`` at x: the bits of `apply_activation`."""
    if code == 0:
        return _smooth_relu_at(iota, x)
    if code == 1:
        return _smooth_relu_squared_at(iota, x)
    if code == 2:
        return _smooth_relu_cubed_at(iota, x)
    if code == 3:
        return _tanh_at(iota, x)
    if code == 4:
        return _erf_at(iota, x)
    if code == 5:
        return _quadratic_at(iota, x)
    return _linear_at(iota, x)
