"""Activations and their derivatives against mpmath, inside the compiled array loop."""

import math

import mpmath
import numba
import numpy as np
import pytest
from numba.core.registry import cpu_target

from derand_fast.kernels.activations import (
    ACTIVATIONS,
    HIGHEST_DERIVATIVE,
    activation_at,
    apply_activation,
)

CODES = list(ACTIVATIONS.items())
DTYPES = [np.float64, np.float32]
# exp(-t) is a normal number up to here; beyond, it counts as 0.
LAST_NORMAL = {np.float64: 708.0, np.float32: 87.0}
# Units of the last place, about twice the largest error of 10^5 random points, for the value and
# its four derivatives. Powers add one rounding for each factor.
ULPS = {
    "smooth_relu": (2, 2, 4, 5, 6),
    "smooth_relu_squared": (5, 4, 5, 8, 10),
    "smooth_relu_cubed": (7, 6, 6, 8, 10),
    "tanh": (2, 4, 5, 7, 8),
    "erf": (1, 3, 3, 5, 6),
    "quadratic": (1, 0, 0, 0, 0),
    "linear": (0, 0, 0, 0, 0),
}


def _all_derivatives(code, iota, z, first=0, last=HIGHEST_DERIVATIVE):
    outs = [np.full(z.shape, np.nan, z.dtype) for _ in range(HIGHEST_DERIVATIVE + 1)]
    apply_activation(code, iota, first, last, z, *outs)
    return outs


def _exact(name, iota, x):
    """Values and, for each, the sum of the absolute terms: what an error is relative to."""
    x, i = mpmath.mpf(float(x)), mpmath.mpf(float(iota))
    if name.startswith("smooth_relu"):
        s, rest = 1 / (1 + mpmath.exp(-i * x)), 1 / (1 + mpmath.exp(i * x))
        f = max(x, 0) + mpmath.log1p(mpmath.exp(-abs(i * x))) / i
        q = s * rest
        d = [f, s, i * q, i**2 * q * (rest - s), i**3 * q * (1 - 6 * q)]
        terms = [*map(abs, d[:4]), i**3 * q * (1 + 6 * q)]
        if name == "smooth_relu":
            return d, terms
        combine = _square if name == "smooth_relu_squared" else _cube
        return combine(*d), combine(*terms)
    if name == "tanh":
        t, s = mpmath.tanh(x), mpmath.sech(x) ** 2
        d = [t, s, -2 * t * s, -2 * s * (s - 2 * t * t), 8 * t * s * (3 * s - 1)]
        return d, [*map(abs, d[:3]), 2 * s * (s + 2 * t * t), 8 * abs(t) * s * (3 * s + 1)]
    if name == "erf":
        g, a = 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x), abs(x)
        d = [mpmath.erf(x), g, -2 * x * g, (4 * x * x - 2) * g, (12 * x - 8 * x**3) * g]
        return d, [*map(abs, d[:3]), (4 * x * x + 2) * g, (12 * a + 8 * a**3) * g]
    zero = mpmath.mpf(0)
    d = [x * x, 2 * x, zero + 2, zero, zero] if name == "quadratic" else [x, zero + 1] + 3 * [zero]
    return d, [abs(v) for v in d]


def _square(f, f1, f2, f3, f4):
    return (
        f * f,
        2 * f * f1,
        2 * (f1 * f1 + f * f2),
        6 * f1 * f2 + 2 * f * f3,
        6 * f2 * f2 + 8 * f1 * f3 + 2 * f * f4,
    )


def _cube(f, f1, f2, f3, f4):
    return (
        f**3,
        3 * f * f * f1,
        6 * f * f1**2 + 3 * f * f * f2,
        6 * f1**3 + 18 * f * f1 * f2 + 3 * f * f * f3,
        36 * f1**2 * f2 + 18 * f * f2**2 + 24 * f * f1 * f3 + 3 * f * f * f4,
    )


def _arguments(iota, dtype):
    """Around 0, the usual range, and both tails to where exp(-|t|) leaves the normal numbers."""
    rng = np.random.default_rng(7)
    end = LAST_NORMAL[dtype] / iota
    parts = (
        rng.normal(size=60) / iota,
        1e-4 * rng.normal(size=20) / iota,
        rng.uniform(-40, 40, 60) / iota,
        rng.uniform(-7, 7, 40),
        rng.uniform(-end, end, 60),
        [0.0, -0.0, 37.4 / iota, -37.4 / iota],
    )
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "code"), CODES)
def test_ulps_against_mpmath(name, code, dtype):
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    worst = np.zeros(HIGHEST_DERIVATIVE + 1)
    for iota in (0.3, 1.0, 2.0, 17.3) if name.startswith("smooth") else (1.0,):
        # Sharpness is rounded to the type of the arrays.
        sharpness = float(dtype(iota))
        z = _arguments(iota, dtype)
        with mpmath.workdps(40):
            for x, *found in zip(z, *_all_derivatives(code, iota, z), strict=True):
                if name == "erf" and float(x) ** 2 > LAST_NORMAL[dtype]:
                    continue
                for k, (exact, size) in enumerate(zip(*_exact(name, sharpness, x), strict=True)):
                    # Products below the normal numbers keep no relative accuracy.
                    if size > 1e6 * tiny:
                        error = abs(mpmath.mpf(float(found[k])) - exact) / (size * eps)
                        worst[k] = max(worst[k], float(error))
    assert (worst <= ULPS[name]).all(), worst


def test_second_derivative_far_in_the_right_tail():
    """s(1 - s) from a rounded s would be 0 from 37 on."""
    second = activation_at(0, 1.0, 37.4)[2]
    assert second == pytest.approx(math.exp(-37.4), rel=1e-15)
    assert _all_derivatives(0, 2.0, np.array([350.0]))[2][0] == pytest.approx(
        2 * math.exp(-700), rel=1e-15
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "code"), CODES)
def test_any_finite_argument(name, code, dtype):
    """Where exp vanishes nothing overflows that does not overflow in truth, and nothing is NaN."""
    largest = np.finfo(dtype).max
    z = np.array([-largest, -1e30, 1e30, largest], dtype)
    outs = _all_derivatives(code, 2.0, z)
    power = {"smooth_relu_squared": 2, "smooth_relu_cubed": 3}.get(name, 1)
    with np.errstate(over="ignore"):
        if name.startswith("smooth_relu"):
            right = [z**power, power * z ** (power - 1)]
            right.append(power * (power - 1) * z ** max(power - 2, 0))
            right.append(np.full_like(z, 6.0 if power == 3 else 0.0))
            expected = [np.where(z > 0, part, 0) for part in right]
        elif name == "quadratic":
            expected = [z * z, 2 * z, np.full_like(z, 2), 0 * z]
        elif name == "linear":
            expected = [z, np.ones_like(z), 0 * z, 0 * z]
        else:
            expected = [np.sign(z), 0 * z, 0 * z, 0 * z]
    for out, values in zip(outs, expected, strict=False):
        # One rounding for each product of a power.
        np.testing.assert_allclose(out, values, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(outs[4], np.zeros_like(z))


@pytest.mark.parametrize(("name", "code"), CODES)
def test_nan_passes(name, code):
    assert np.isnan(_all_derivatives(code, 1.0, np.array([np.nan]))[0][0])
    assert math.isnan(activation_at(code, 1.0, math.nan)[0])


@pytest.mark.parametrize(("name", "parity"), [("tanh", -1), ("erf", -1), ("quadratic", 1)])
def test_symmetry_is_exact(name, parity):
    z = np.random.default_rng(2).normal(size=200) * 3
    right = _all_derivatives(ACTIVATIONS[name], 1.0, z)
    left = _all_derivatives(ACTIVATIONS[name], 1.0, -z)
    for k in range(HIGHEST_DERIVATIVE + 1):
        np.testing.assert_array_equal(left[k], parity * (-1) ** k * right[k])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "code"), CODES)
def test_one_number_has_the_bits_of_the_loop(name, code, dtype):
    z = _arguments(2.0, dtype)
    for x, *loop in zip(z, *_all_derivatives(code, 2.0, z), strict=True):
        np.testing.assert_array_equal(np.array(activation_at(code, 2.0, x), dtype), loop)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_and_what_lies_beyond(dtype):
    """Every length up to several vectors: the rest is computed alike, nothing behind is written."""
    z = np.random.default_rng(4).normal(size=70).astype(dtype)
    whole = _all_derivatives(0, 2.0, z)
    for length in range(len(z) + 1):
        outs = [np.full(len(z), 99.0, dtype) for _ in whole]
        apply_activation(0, 2.0, 0, 4, z[:length], *(out[:length] for out in outs))
        for out, expected in zip(outs, whole, strict=True):
            np.testing.assert_array_equal(out[:length], expected[:length])
            assert (out[length:] == 99.0).all()


@pytest.mark.parametrize(("name", "code"), CODES)
def test_only_the_orders_asked_for(name, code):
    z = np.random.default_rng(5).normal(size=21)
    every = _all_derivatives(code, 1.5, z)
    for first in range(HIGHEST_DERIVATIVE + 1):
        for last in range(HIGHEST_DERIVATIVE + 1):
            outs = _all_derivatives(code, 1.5, z, first, last)
            for k, out in enumerate(outs):
                if first <= k <= last:
                    np.testing.assert_array_equal(out, every[k])
                else:
                    assert np.isnan(out).all()


def test_in_place_and_read_only():
    z = np.random.default_rng(6).normal(size=37)
    value, slope, *_ = _all_derivatives(0, 2.0, z)
    frozen = z.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(_all_derivatives(0, 2.0, frozen)[0], value)
    in_place, own_slope = z.copy(), np.empty_like(z)
    apply_activation(0, 2.0, 0, 1, in_place, in_place, own_slope, own_slope, own_slope, own_slope)
    np.testing.assert_array_equal(in_place, value)
    np.testing.assert_array_equal(own_slope, slope)


def test_widest_registers_are_used():
    """512 bits although LLVM's own vectoriser prefers 256 on many processors."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" not in features:
        pytest.skip("Numba does not compile for AVX-512 here")
    fresh = numba.njit(apply_activation.py_func)
    z, out = np.ones(20), np.ones(20)
    fresh(0, 2.0, 0, 1, z, out, out, out, out, out)
    (assembly,) = fresh.inspect_asm().values()
    divisions = [line for line in assembly.splitlines() if "vdivpd" in line]
    assert divisions
    assert all("zmm" in line for line in divisions)
