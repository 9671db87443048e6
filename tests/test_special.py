"""Scalar functions against mpmath and against plain quadrature."""

import doctest
import math

import mpmath
import naive
import numba
import numpy as np
import pytest

from derand_fast.kernels import special
from derand_fast.kernels._jit import kernel

INF, NAN = math.inf, math.nan


@kernel(fastmath=True, cache=False)
def _map_exp(x, out):
    """A caller with every flag the house allows: exp must stay exact inside it."""
    for i in range(x.size):
        out[i] = special.exp(x[i])


@kernel(fastmath=True, cache=False)
def _softplus_and_sigmoid(x, values, slopes):
    """A fused kernel: the sums round exp may be reordered, exp itself may not."""
    for i in range(x.size):
        e = special.exp(-abs(x[i]))
        values[i] = max(x[i], 0.0) + math.log1p(e)
        slopes[i] = (1.0 if x[i] >= 0.0 else e) / (1.0 + e)


@numba.njit(parallel=True, fastmath=True)
def _map_exp_parallel(x, out):
    for i in numba.prange(x.size):
        out[i] = special.exp(x[i])


def _exp(x):
    x = np.asarray(x, dtype=np.float64)
    out = np.empty_like(x)
    _map_exp(x, out)
    return out


def _ulps(value, exact):
    return float(abs(mpmath.mpf(value) - exact) / mpmath.mpf(float(np.spacing(float(exact)))))


# --- exp ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [(-708.3, 709.78), (-40.0, 5.0), (-1.0, 1.0), (-1e-8, 1e-8)]
)
def test_exp_ulps(low, high):
    x = np.random.default_rng(1).uniform(low, high, 3000)
    with mpmath.workdps(40):
        worst = max(_ulps(y, mpmath.exp(mpmath.mpf(v))) for v, y in zip(x, _exp(x), strict=True))
    # 0.5 for the last rounding, 0.5 for 1 + (...), and the tail of the polynomial.
    assert worst <= 1.1


def test_exp_near_the_borders_of_its_reduction():
    """Arguments a rounding away from (n + 1/2) ln 2, where n jumps, and n ln 2, where r is 0."""
    halves = np.arange(-2000, 2001) * (0.5 * math.log(2))
    halves = halves[(halves > -708.0) & (halves < 709.0)]
    x = np.concatenate([np.nextafter(halves, -INF), halves, np.nextafter(halves, INF)])
    with mpmath.workdps(40):
        worst = max(_ulps(y, mpmath.exp(mpmath.mpf(v))) for v, y in zip(x, _exp(x), strict=True))
    assert worst <= 1.1


def test_exp_subnormal_results():
    """One rounding to the subnormal grid: within one spacing (5e-324) of the truth."""
    x = np.linspace(-745.1, -708.5, 400)
    with mpmath.workdps(40):
        for v, y in zip(x, _exp(x), strict=True):
            exact = mpmath.exp(mpmath.mpf(v))
            assert abs(mpmath.mpf(y) - exact) <= exact * 2.5e-16 + mpmath.mpf(5e-324)
    assert _exp([-745.2, -746.0, -1e4]).tolist() == [0.0, 0.0, 0.0]


def test_exp_special_values():
    largest = 709.782712893384
    assert _exp([largest]) == pytest.approx(math.exp(largest), rel=3e-16)
    x = [0.0, -0.0, np.nextafter(largest, INF), 710.0, 1e308, INF, -INF, -1e308]
    assert _exp(x).tolist() == [1.0, 1.0, INF, INF, INF, INF, 0.0, 0.0]
    assert np.isnan(_exp([NAN])).all()


def test_exp_does_not_depend_on_length_or_position():
    """Vector body and scalar tail of a loop give the same bits; so do threads."""
    x = np.random.default_rng(2).uniform(-50, 50, 203)
    whole = _exp(x)
    assert np.array_equal(whole, [special.exp(float(v)) for v in x])
    assert np.array_equal(whole[5:], _exp(x[5:]))
    parallel = np.empty_like(x)
    _map_exp_parallel(x, parallel)
    assert np.array_equal(whole, parallel)


def test_exp_inside_a_reassociating_kernel():
    """Trap: were reassociation inherited by exp, it would cancel the split of ln 2."""
    x = np.random.default_rng(3).uniform(-30, 30, 2000)
    values, slopes = np.empty_like(x), np.empty_like(x)
    _softplus_and_sigmoid(x, values, slopes)
    with mpmath.workdps(40):
        for v, value, slope in zip(x, values, slopes, strict=True):
            e = mpmath.exp(mpmath.mpf(v))
            # Four roundings of 1.1e-16 each.
            assert abs(value / mpmath.log1p(e) - 1) <= 6e-16
            assert abs(slope * (1 + e) / e - 1) <= 6e-16


def test_exp_compiles_to_vector_code():
    """LLVM must see no branch and no call in the loop. x86-64 only: it reads the assembly."""
    x = np.zeros(4)
    _map_exp(x, x.copy())
    assembly = next(iter(_map_exp.inspect_asm().values()))
    if "xmm" not in assembly:
        pytest.skip("not an x86-64 machine")
    assert any(f"{operation}pd" in assembly for operation in ("mul", "fmadd213", "fmadd231"))


# --- normal density and distribution, sign mean -------------------------------------------------


def test_normal_pdf():
    with mpmath.workdps(40):
        for x in np.concatenate([np.linspace(-37.5, 37.5, 501), [0.0, 1e-200]]):
            # The rounding of x^2 (half an ulp of x^2/2 in the exponent) dominates.
            relative = (x * x / 2 + 3) * 1.12e-16
            exact = mpmath.npdf(mpmath.mpf(x))
            assert abs(special.normal_pdf(float(x)) / exact - 1) <= relative
    assert special.normal_pdf(INF) == special.normal_pdf(-INF) == 0.0
    assert math.isnan(special.normal_pdf(NAN))


def test_normal_cdf_keeps_relative_accuracy_in_the_tails():
    with mpmath.workdps(40):
        for x in np.concatenate([np.linspace(-37.4, 8.0, 400), [0.0, -1e-200]]):
            exact = mpmath.erfc(-mpmath.mpf(x) / mpmath.sqrt(2)) / 2
            # x / sqrt 2 rounds twice, and a relative change of x is x^2 as much in the tail.
            relative = (2 * x * x + 4) * 1.12e-16
            assert abs(special.normal_cdf(float(x)) / exact - 1) <= relative
    assert special.normal_cdf(INF) == 1.0
    assert special.normal_cdf(-INF) == 0.0
    assert math.isnan(special.normal_cdf(NAN))


def test_sign_mean():
    with mpmath.workdps(40):
        for h in np.linspace(-7, 7, 301):
            exact = mpmath.erf(mpmath.mpf(h) / mpmath.sqrt(2))
            assert abs(special.sign_mean(float(h)) - exact) <= 3 * 1.2e-16 * abs(exact)
    assert special.sign_mean(INF) == 1.0
    assert math.isnan(special.sign_mean(NAN))


# --- correlated signs ---------------------------------------------------------------------------

BIASES = [(0.0, 0.0), (0.7, 0.7), (0.7, -0.7), (2.0, 1.9), (-1.0, 0.98), (3.0, -0.2), (6.0, 6.1)]
SWITCHES = [special.FEW_NODES_BELOW, special.NODES_BELOW]
CORRELATIONS = [0.1, 0.6, 0.95, 0.99, 0.9999]
CORRELATIONS += [np.nextafter(x, side) for x in SWITCHES for side in (0.0, 1.0)]


@pytest.mark.parametrize("r", CORRELATIONS)
def test_sign_correlation_exact(r):
    """Forty digits of the defining formula, also on both sides of each change of method."""
    for index, (h, k) in enumerate(BIASES):
        signed = float(r) * (-1) ** index
        exact = naive.sign_correlation_exact(h, k, signed, digits=25)
        # Three terms of size at most 1, rounded once or twice each.
        assert abs(special.sign_correlation(h, k, signed) - exact) <= 1e-15


def test_sign_correlation_against_conditional_quadrature():
    """An oracle that shares no formula: the mean over x of E[sign(y + k) | x]."""
    rng = np.random.default_rng(4)
    for _ in range(150):
        scale = rng.choice([0.1, 1.0, 3.0, 8.0])
        h = float(scale * rng.normal())
        k = float(rng.choice([h, -h, h + 0.01 * rng.normal(), scale * rng.normal()]))
        r = float(rng.choice([-1, 1]) * rng.choice([rng.uniform(), 1 - 10.0 ** rng.uniform(-9, 0)]))
        # The quadrature adds some ten pieces, each good to a rounding.
        assert special.sign_correlation(h, k, r) == pytest.approx(
            naive.sign_correlation(h, k, r), abs=2e-15
        )


def test_sign_correlation_closed_forms():
    rng = np.random.default_rng(5)
    for h, k in 3 * rng.normal(size=(50, 2)):
        h, k = float(h), float(k)
        mean_h, mean_k = special.sign_mean(h), special.sign_mean(k)
        # Signs agree unless x lies between -h and -k.
        limit = 1.0 - abs(mean_h - mean_k)
        assert special.sign_correlation(h, k, 1.0) == pytest.approx(limit, abs=4e-16)
        limit = abs(mean_h + mean_k) - 1.0
        assert special.sign_correlation(h, k, -1.0) == pytest.approx(limit, abs=4e-16)
        assert special.sign_correlation(h, k, 0.0) == pytest.approx(mean_h * mean_k, abs=4e-16)
    for r in np.concatenate([rng.uniform(-1, 1, 50), [1.0, -1.0, 0.0, 1 - 1e-16]]):
        arcsine = 2 / math.pi * math.asin(r)
        assert special.sign_correlation(0.0, 0.0, float(r)) == pytest.approx(arcsine, abs=5e-16)


def test_sign_correlation_symmetries():
    rng = np.random.default_rng(6)
    for h, k in 2 * rng.normal(size=(60, 2)):
        h, k = float(h), float(k)
        r = float(rng.uniform(-1, 1))
        value = special.sign_correlation(h, k, r)
        assert special.sign_correlation(k, h, r) == pytest.approx(value, abs=4e-16)
        assert special.sign_correlation(-h, -k, r) == pytest.approx(value, abs=4e-16)
        assert special.sign_correlation(-h, k, -r) == pytest.approx(-value, abs=4e-16)
        assert abs(value) <= 1 + 4e-16


def test_sign_correlation_large_biases():
    """Past CERTAIN_SIGN the correlation is dropped; what is lost is below exp(-9^2/2)."""
    edge = special.CERTAIN_SIGN
    for k in (0.0, 1.0, -edge, edge):
        for r in (0.3, 0.7, -0.97, 0.97, 1.0):
            below = special.sign_correlation(float(np.nextafter(edge, 0)), k, r)
            assert special.sign_correlation(edge, k, r) == pytest.approx(below, abs=4e-16)
    for r in (-1.0, -0.9, 0.0, 0.9, 1.0):
        assert special.sign_correlation(1e300, 1e300, r) == 1.0
        assert special.sign_correlation(1e300, -1e300, r) == -1.0
        assert special.sign_correlation(INF, 0.5, r) == special.sign_mean(0.5)
        assert special.sign_correlation(0.5, -INF, r) == -special.sign_mean(0.5)


@pytest.mark.parametrize(
    ("h", "k", "r"),
    [
        (NAN, 1.0, 0.5),
        (1.0, NAN, 0.95),
        (1.0, 1.0, NAN),
        (INF, NAN, 0.5),
        (INF, 1.0, NAN),
        (1.0, 1.0, 1.0000001),
        (0.0, 0.0, -2.0),
        (1.0, 1.0, INF),
    ],
)
def test_sign_correlation_nan(h, k, r):
    assert math.isnan(special.sign_correlation(h, k, r))


def test_sign_correlation_with_a_sharper_complement():
    """1 - r^2 = 1e-20 cannot be formed from r; given directly it is used."""
    h, k, complement = 0.3, 0.3 + 2e-10, 1e-20
    mean_h, mean_k = special.sign_mean(h), special.sign_mean(k)
    value = special.sign_correlation_from_means(h, k, mean_h, mean_k, 1.0, complement)
    with mpmath.workdps(60):
        r = mpmath.sqrt(1 - mpmath.mpf(complement))
        jump = mpmath.quad(
            lambda v: mpmath.exp(-((mpmath.mpf(h) - k) ** 2) / (2 * mpmath.sin(v) ** 2)),
            [0, mpmath.acos(r)],
        )
        density = mpmath.exp(-(mpmath.mpf(h) ** 2) / 2)
        limit = 1 - abs(mpmath.erf(h / mpmath.sqrt(2)) - mpmath.erf(k / mpmath.sqrt(2)))
        assert abs(value - (limit - 2 / mpmath.pi * density * jump)) <= 1e-15


def test_examples():
    """Numba's dispatchers keep the docstring, but doctest does not find them by itself."""
    runner = doctest.DocTestRunner()
    for function in (special.exp, special.sign_correlation):
        example = doctest.DocTestParser().get_doctest(function.__doc__, {}, "example", None, 0)
        assert runner.run(example).failed == 0
