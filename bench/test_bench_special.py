"""Scalar functions in a loop over 8,192 numbers; divide by that for time per element.

Rows: exp here, libm through Numba, numpy; correlated signs by method against scipy's bivariate
normal. ``extra_info`` carries the error beside the time.
"""

import math

import mpmath
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from derand_fast.kernels import special
from derand_fast.kernels._jit import kernel

COUNT = 8192


@kernel(fastmath=False, cache=False)
def _ours(x, out):
    for i in range(x.size):
        out[i] = special.exp(x[i])


@kernel(fastmath=False, cache=False)
def _libm(x, out):
    for i in range(x.size):
        out[i] = math.exp(x[i])


def _numpy(x, out):
    np.exp(x, out=out)


def _record(benchmark, error, unit, count=COUNT):
    """Put error and time per element beside each other (no timing under --benchmark-disable)."""
    benchmark.extra_info[unit] = f"{error:.2g}"
    if benchmark.stats is not None:
        benchmark.extra_info["ns per element"] = round(benchmark.stats["min"] / count * 1e9, 2)


@pytest.mark.benchmark(group="exp, 8192 numbers in [-40, 5]")
@pytest.mark.parametrize("function", [_ours, _libm, _numpy], ids=["ours", "math.exp", "numpy"])
def test_exp(benchmark, function):
    x = np.random.default_rng(0).uniform(-40, 5, COUNT)
    out = np.empty_like(x)
    function(x, out)
    benchmark(function, x, out)
    with mpmath.workdps(30):
        exact = [mpmath.exp(mpmath.mpf(v)) for v in x[:1000]]
        ulps = [
            float(abs(y - e) / float(np.spacing(float(e))))
            for y, e in zip(out, exact, strict=False)
        ]
    _record(benchmark, max(ulps), "worst ulp")


@kernel(fastmath=False, cache=False)
def _correlations(h, k, r, out):
    for i in range(h.size):
        out[i] = special.sign_correlation(h[i], k[i], r[i])


def _scipy(h, k, r, out):
    """4 P(x < h, y < k) - 2 P(x < h) - 2 P(y < k) + 1, scipy's bivariate normal one by one."""
    for i in range(h.size):
        both = multivariate_normal.cdf([h[i], k[i]], cov=[[1.0, r[i]], [r[i], 1.0]])
        out[i] = 4 * both - 2 * special.normal_cdf(h[i]) - 2 * special.normal_cdf(k[i]) + 1


@pytest.mark.benchmark(group="correlated signs")
@pytest.mark.parametrize("name", ["ours", "scipy"])
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.42), (0.42, 0.85), (0.85, 0.95), (0.95, 0.999), (0.99999, 1.0)]
)
def test_sign_correlation(benchmark, name, low, high):
    count = COUNT if name == "ours" else 50
    function = _correlations if name == "ours" else _scipy
    rng = np.random.default_rng(1)
    r = rng.uniform(low, high, count) * rng.choice([-1.0, 1.0], count)
    h = rng.normal(size=count)
    # Neighbours on one line have nearly equal h: the costliest case of the series.
    k = np.where(rng.random(count) < 0.7, np.sign(r) * h + 0.02 * r, rng.normal(size=count))
    out = np.empty(count)
    function(h, k, r, out)
    benchmark(function, h, k, r, out)
    worst = 0.0
    for i in range(10):
        with mpmath.workdps(25):
            worst = max(worst, abs(float(out[i] - _exact(h[i], k[i], r[i]))))
    _record(benchmark, worst, "worst error", count)


def _exact(h, k, r):
    """The defining integral in 25 digits."""
    h, k, r = mpmath.mpf(h), mpmath.mpf(k), mpmath.mpf(r)

    def integrand(t):
        inner = h * h + k * k - 2 * h * k * mpmath.sin(t)
        return mpmath.exp(-inner / (2 * mpmath.cos(t) ** 2))

    root = mpmath.sqrt(2)
    integral = mpmath.quad(integrand, mpmath.linspace(0, mpmath.asin(r), 7))
    return mpmath.erf(h / root) * mpmath.erf(k / root) + 2 / mpmath.pi * integral
