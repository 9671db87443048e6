"""Exact expectations of a squared length: against mpmath, scipy, closed forms and identities."""

import math

import mpmath as mp
import numpy as np
import pytest
from scipy.special import gammainc, gammaincc, ndtr
from scipy.stats import ncx2

from derand_fast.kernels import jl

# Largest relative error met in 25,000 random cases: 6e-13, at k = 5,000 and far out in a tail.
ACCURACY = 1e-12


def crossing(k, t, s, x):
    out = np.full(6, np.nan)
    jl.crossing(k, t, x - t, s, x, out)
    return out


def density(k, t, s, x, degrees_more):
    """Density of q with more degrees of freedom, by the Bessel function in 50 digits."""
    t, s, x = mp.mpf(t), mp.mpf(s), mp.mpf(x)
    v = mp.mpf(k + degrees_more) / 2 - 1
    if t == 0:
        return (x / (2 * s)) ** v * mp.exp(-x / (2 * s)) / mp.gamma(v + 1) / (2 * s)
    bessel = mp.besseli(v, mp.sqrt(x * t) / s)
    return (x / t) ** (v / 2) * mp.exp(-(x + t) / (2 * s)) * bessel / (2 * s)


def derivatives(k, t, s, x):
    """Derivatives 1 to 4 in t of P(q > x): differences of densities with k + 2, k + 4, ..."""
    p = [density(k, t, s, x, 2 * j) for j in range(1, 5)]
    s = mp.mpf(s)
    return (
        p[0],
        (p[1] - p[0]) / (2 * s),
        (p[2] - 2 * p[1] + p[0]) / (2 * s) ** 2,
        (p[3] - 3 * p[2] + 3 * p[1] - p[0]) / (2 * s) ** 3,
    )


def tail(k, t, s, x, upper):
    """P(q < x) or P(q > x), k > 1, by integration over the coordinate along the mean.

    The other k - 1 squares are central chi-square, an incomplete gamma function. Gauss-Legendre on
    intervals of half a standard deviation, and shorter ones towards the ends +-r, where that
    function changes within 1 / r: exact to rounding, and to that of scipy's functions.
    """
    m, r = math.sqrt(t / s), math.sqrt(x / s)
    lowest = max(-r, m - 38.0)
    from_end = np.geomspace(1e-3 / r, r, 60)
    cuts = np.r_[np.linspace(lowest, r, 20 + int(2 * (r - lowest))), r - from_end, from_end - r]
    cuts = np.unique(cuts[cuts >= lowest])
    nodes, weights = np.polynomial.legendre.leggauss(30)
    half = 0.5 * np.diff(cuts)[:, None]
    y = cuts[:-1, None] + half * (1.0 + nodes)
    rest = 0.5 * (r - y) * (r + y)
    probability = gammaincc(0.5 * (k - 1), rest) if upper else gammainc(0.5 * (k - 1), rest)
    total = float(np.sum(half * weights * np.exp(-0.5 * (y - m) ** 2) * probability))
    total /= math.sqrt(2.0 * math.pi)
    return total + (ndtr(m - r) + ndtr(-m - r) if upper else 0.0)


def random_cases(count, seed, ks=(1, 2, 3, 4, 5, 8, 12, 30, 100, 1000, 5000)):
    """Cases around the mean and up to ten standard deviations away, sigma from 1e-6 to 2."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        k = int(rng.choice(ks))
        s = float(rng.choice([10.0 ** rng.uniform(-12.0, 0.5), rng.uniform(0.3, 1.5) / k]))
        x = float(rng.choice([0.05, 0.5, 0.9, 1.1, 1.5, 3.0]))
        m = math.sqrt(max(x - k * s, 0.0)) + math.sqrt(s) * rng.uniform(-10.0, 10.0)
        yield k, 0.0 if rng.random() < 0.1 else m * m, s, x


# --- the tail probabilities ---------------------------------------------------------------------


def test_tails_against_integration():
    compared = 0
    for k, t, s, x in random_cases(300, seed=3, ks=(3, 4, 5, 30, 100)):
        ours = crossing(k, t, s, x)
        if min(ours[:2]) < 1e-200 or x / s > 1e6:
            continue
        upper = ours[1] < ours[0]
        assert ours[int(upper)] == pytest.approx(tail(k, t, s, x, upper), rel=2e-11)
        compared += 1
    assert compared > 60


def test_tails_in_closed_form():
    """Two central degrees of freedom are exponential, one degree is a normal variable squared."""
    for s in (1e-3, 0.1, 1.0):
        for x in (0.3, 1.0, 2.0):
            lower, upper = crossing(2, 0.0, s, x)[:2]
            if x / s < 1000.0:
                assert upper == pytest.approx(math.exp(-x / (2 * s)), rel=ACCURACY)
            assert lower == pytest.approx(-math.expm1(-x / (2 * s)), rel=ACCURACY)
    for sigma in (1e-6, 1e-3, 0.5):
        for z in (-20.0, -3.0, 0.0, 4.0, 25.0):
            m, root = 1.0, 1.0 + z * sigma
            if root <= 0.0:
                continue
            # Given x as a float64, the distance in standard deviations is not exactly z.
            with mp.workdps(40):
                exact = (mp.sqrt(mp.mpf(root * root)) - m) / sigma
                far = -(mp.sqrt(mp.mpf(root * root)) + m) / sigma
                upper = float(mp.ncdf(-exact) + mp.ncdf(far))
                lower = float(mp.ncdf(exact) - mp.ncdf(far))
            # Rounding of sigma^2 moves the exponent z^2 / 2 by 1e-16 of itself.
            tolerance = ACCURACY + 1e-15 * z * z
            ours = crossing(1, m, sigma * sigma, root * root)
            assert ours[1] == pytest.approx(upper, rel=tolerance)
            assert ours[0] == pytest.approx(lower, rel=tolerance)


def test_tails_against_scipy():
    """scipy.stats.ncx2 where it is right: moderate noncentrality, not too far out."""
    for k, t, s, x in random_cases(300, seed=1, ks=(1, 2, 3, 5, 30, 100)):
        if s < 1e-3 or t / s > 1e4:
            continue
        ours = crossing(k, t, s, x)
        theirs = ncx2.cdf(x / s, k, t / s), ncx2.sf(x / s, k, t / s)
        if t == 0.0 or min(theirs) < 1e-8:
            continue
        np.testing.assert_allclose(ours[:2], theirs, rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_two_more_degrees_of_freedom(seed):
    """P_k(q < x) - P_(k+2)(q < x) = 2 s p_(k+2)(x), and h_tt = (p_(k+4) - p_(k+2)) / (2 s)."""
    for k, t, s, x in random_cases(250, seed=seed):
        ours, more = crossing(k, t, s, x), crossing(k + 2, t, s, x)
        assert ours[0] + ours[1] == 1.0
        step = 2.0 * s * ours[2]
        scale = max(min(ours[0], more[0]), min(ours[1], more[1]), 1e-280)
        if ours[0] < 0.5:
            assert abs(ours[0] - more[0] - step) <= ACCURACY * max(ours[0], 1e-280)
        else:
            assert abs(more[1] - ours[1] - step) <= ACCURACY * max(more[1], 1e-280)
        assert scale > 0.0
        # Of two nearly equal densities the difference keeps 1e-12 of them.
        difference = (more[2] - ours[2]) / (2.0 * s)
        allowed = 4.0 * ACCURACY * max(ours[2], more[2], 1e-280) / (2.0 * s)
        assert abs(ours[3] - difference) <= allowed


def test_derivatives_against_mpmath():
    worst = np.zeros(4)
    with mp.workdps(60):
        for k, t, s, x in random_cases(150, seed=7):
            exact = [float(value) for value in derivatives(k, t, s, x)]
            if exact[0] < 1e-250:
                continue
            # The n-th derivative is of the order p / sigma^n, and passes through 0.
            scale = exact[0] * np.sqrt(s) ** -np.arange(4.0)
            error = np.abs(crossing(k, t, s, x)[2:] - exact)
            worst = np.maximum(worst, error / np.maximum(np.abs(exact), 1e-2 * scale))
    assert np.all(worst < 2 * ACCURACY), worst


def test_heat_equation():
    """h_s = 2 t h_tt + k h_t, by differences of the probability in s."""
    for k, t, s, x in [(1, 0.5, 0.2, 1.1), (30, 0.9, 0.01, 1.2), (3, 0.0, 0.4, 0.8)]:
        step = 1e-4 * s
        difference = (crossing(k, t, s + step, x)[1] - crossing(k, t, s - step, x)[1]) / (2 * step)
        ours = crossing(k, t, s, x)
        # The error of the difference is about (step / s)^2.
        assert 2.0 * t * ours[3] + k * ours[2] == pytest.approx(difference, rel=1e-7)


def test_sampled():
    """A rough look at the definition: 200,000 draws, within five standard errors."""
    rng = np.random.default_rng(0)
    k, sigma, x = 7, 0.2, 1.2
    mean = rng.normal(size=k)
    mean *= math.sqrt(0.8) / np.linalg.norm(mean)
    q = np.sum((mean + sigma * rng.normal(size=(200_000, k))) ** 2, axis=1)
    ours = crossing(k, 0.8, sigma * sigma, x)
    assert abs(np.mean(q > x) - ours[1]) <= 5.0 * math.sqrt(ours[0] * ours[1] / q.size)


def test_limits():
    assert crossing(3, 0.5, 0.1, 0.0).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert crossing(3, 0.5, 0.1, -1.0)[:2].tolist() == [0.0, 1.0]
    assert crossing(3, 0.5, 0.1, math.inf).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    for t, lower in ((0.5, 1.0), (0.7, 0.5), (0.9, 0.0)):
        assert crossing(3, t, 0.0, 0.7).tolist() == [lower, 1.0 - lower, 0.0, 0.0, 0.0, 0.0]
    assert crossing(3, 0.5, 1e-9, 0.7).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert crossing(3, 0.9, 1e-9, 0.7)[:2].tolist() == [0.0, 1.0]
    assert np.isnan(crossing(3, math.nan, 0.1, 0.7)).all()


# --- losses: rows of values and derivatives -----------------------------------------------------


@pytest.mark.parametrize(
    ("k", "sigma", "below", "above"),
    [
        (30, 0.18, 0.85, 1.15),
        (30, 1e-3, 0.85, math.inf),
        (1, 0.5, 0.5, 1.5),
        (1000, 3e-3, 0.0, 1.2),
    ],
)
def test_table(k, sigma, below, above):
    """Between and beyond the nodes: 1e-13 of the largest value for every row."""
    low = math.sqrt(below if below > 0.0 else above)
    high = math.sqrt(above if above < math.inf else below)
    offset = max(-low, -sigma * (math.sqrt(k) + jl.REACH))
    width = high - low + jl.REACH * sigma - offset
    panels = math.ceil(width / sigma)
    table = np.empty((panels, jl.DEGREE + 1, 8))
    jl.fill_table(k, sigma * sigma, below, above, low, offset, width / panels, table)
    before, after = float(below > 0.0), float(above < math.inf)
    loss = (low, offset, panels / width, table.ravel(), before, after)
    start = low + offset
    root = np.random.default_rng(0).uniform(max(0.0, start - sigma), start + width + sigma, 500)
    t, rows = root * root, np.empty((jl.ROWS, 500))
    nothing = (0.0, 0.0, 1.0, np.empty(0), np.nan, np.nan)
    jl.table_rows(math.inf, loss, nothing, t, rows, np.empty(8))
    again = np.empty_like(rows)
    jl.table_rows(0.0, nothing, loss, t, again, np.empty(8))
    np.testing.assert_array_equal(rows, again)
    exact = np.array(
        [
            np.r_[lower[0] + upper[1], upper[2:] - lower[2:]]
            for lower, upper in (
                (crossing(k, value, sigma * sigma, below), crossing(k, value, sigma * sigma, above))
                for value in t
            )
        ]
    ).T
    error = np.max(np.abs(rows - exact), axis=1) / np.max(np.abs(exact), axis=1)
    # k = 1: the fourth derivative of the exact values has errors of 6e-13 itself. The rounding of
    # sqrt(t) is 1e-16 / sigma standard deviations.
    assert np.all(error < (1e-12 if k == 1 else 1e-13) + 4e-16 / sigma), error


def test_tables_without_panels_read_no_coefficients():
    """Sigma = 0 is a step; what lies in memory behind an empty array must not matter."""
    memory = np.full(64, np.nan)
    step = (1.0, 0.0, 1.0, memory[:0], 0.25, 0.75)
    rows = np.empty((jl.ROWS, 2))
    jl.table_rows(math.inf, step, step, np.array([0.25, 4.0]), rows, np.empty(8))
    np.testing.assert_array_equal(rows[0], [0.25, 0.75])
    assert not rows[1:].any()


def moments(order, k, t, s, eps):
    """E[((q - 1) / eps)^order] and four derivatives in t, from raw moments.

    E[q^n] = n! (2 s)^n L_n(-t / (2 s)), a Laguerre polynomial of parameter a = k/2 - 1 whose
    derivative is -L_(n - 1) with parameter a + 1.
    """
    t, s, a = mp.mpf(t), mp.mpf(s), mp.mpf(k) / 2 - 1
    z = -t / (2 * s)
    for row in range(jl.ROWS):
        # Three-term recurrence: all L_n of one parameter at once, all terms positive.
        laguerre = [mp.mpf(1), 1 + a + row - z]
        for n in range(1, order):
            term = (2 * n + 1 + a + row - z) * laguerre[n] - (n + a + row) * laguerre[n - 1]
            laguerre.append(term / (n + 1))
        total = mp.mpf(0)
        for n in range(row, order + 1):
            raw = mp.factorial(n) * (2 * s) ** (n - row) * laguerre[n - row]
            total += mp.binomial(order, n) * (-1) ** (order - n) * raw
        yield total / mp.mpf(eps) ** order


def moment_rows(order, k, s, eps, t):
    rows, state = np.empty((jl.ROWS, t.size)), np.full((jl.ROWS + 1, t.size), np.nan)
    jl.moment_rows(order, k, s, eps, t, rows, state)
    return rows


@pytest.mark.parametrize("order", [2, 4, 8, 30, 128])
@pytest.mark.parametrize(("k", "s"), [(1, 0.3), (3, 1e-4), (30, 1.0 / 30.0), (1000, 1e-10)])
def test_moments_against_raw_moments(order, k, s):
    t, eps = np.array([0.0, 0.3, 0.9, 1.0, 1.4]), 0.25
    rows = moment_rows(order, k, s, eps, t)
    # Raw moments alternate: 2^order and (1 / sqrt(s))^order are lost.
    with mp.workdps(60 + int(order * (1.0 - 0.5 * math.log10(s)))):
        for p, value in enumerate(t):
            exact = list(moments(order, k, value, s, eps))
            for row in range(jl.ROWS):
                # The size of E[(q - 1)^(order - row)], which an odd power may cancel.
                size = (
                    mp.power(exact[0], mp.mpf(max(order - row, 0)) / order) * (order / eps) ** row
                )
                allowed = 1e-10 * max(abs(exact[row]), size) + mp.mpf(10) ** -280
                assert abs(rows[row, p] - exact[row]) <= allowed


def test_second_moment_in_closed_form():
    """E[(q - 1)^2] = (t + k s - 1)^2 + 2 k s^2 + 4 s t."""
    k, s, t = 6, 0.07, np.linspace(0.0, 2.0, 9)
    rows = moment_rows(2, k, s, 1.0, t)
    np.testing.assert_allclose(
        rows[0], (t + k * s - 1.0) ** 2 + 2 * k * s * s + 4 * s * t, rtol=1e-14
    )
    np.testing.assert_allclose(rows[1], 2.0 * (t + k * s - 1.0) + 4.0 * s, rtol=1e-14, atol=1e-15)
    assert rows[2:].tolist() == [[2.0] * 9, [0.0] * 9, [0.0] * 9]


def test_rows_accept_read_only_arrays():
    t = np.array([0.5, 1.5])
    t.flags.writeable = False
    assert np.isfinite(moment_rows(4, 3, 0.1, 0.5, t)).all()
