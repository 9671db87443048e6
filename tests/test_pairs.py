"""All-pairs kernels against loops over pairs, finite differences, and at any number of threads."""

import math

import numpy as np
import pytest

from derand_fast.embedding_pairs import AllPairs, ListedPairs, product
from derand_fast.kernels import pairs as kernel

# Sums of some thousand terms of one size: a few hundred roundings.
ROUNDING = 1e-12


def data(n, d, k, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d))
    return X, X @ generator.standard_normal((d, k)) / math.sqrt(k)


def ratios_by_loop(X, Y, pairs):
    """Return r of each pair from the differences of the rows."""
    return np.array([np.sum((Y[i] - Y[j]) ** 2) / np.sum((X[i] - X[j]) ** 2) for i, j in pairs])


def smooth_by_loop(X, Y, pairs, sharpness, level):
    """F, and its gradient divided by the sharpness, one pair at a time."""
    total, gradient = 0.0, np.zeros_like(Y)
    for (i, j), r in zip(pairs, ratios_by_loop(X, Y, pairs), strict=True):
        weight = math.exp(sharpness * (r + 1.0 / r - level))
        total += weight
        push = 2.0 * weight * (1.0 - 1.0 / r**2) / np.sum((X[i] - X[j]) ** 2)
        gradient[i] += push * (Y[i] - Y[j])
        gradient[j] -= push * (Y[i] - Y[j])
    return total, gradient


def every_pair(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def phantoms(n, sharpness, level):
    """What pairs that do not count add to F: they act as r = 1."""
    blocks = -(-n // kernel.TILE)
    slots = blocks * (blocks + 1) // 2 * kernel.TILE**2
    return (slots - n * (n - 1) // 2) * math.exp(sharpness * (2.0 - level))


@pytest.mark.parametrize("n", [2, 63, 64, 65, 150])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_all_pairs_against_a_loop(n, k):
    X, Y = data(n, 9, k)
    ratios = ratios_by_loop(X, Y, every_pair(n))
    level = ratios.max() + 1.0 / ratios.min()
    sharpness = 10.0 / level
    found = AllPairs(X, 1).evaluate(Y, sharpness, level)
    total, gradient = smooth_by_loop(X, Y, every_pair(n), sharpness, level)
    # On a line the smallest ratios are 1e-7, and cancellation leaves nine digits of them.
    assert found.total == pytest.approx(total + phantoms(n, sharpness, level), rel=1e-7)
    assert found.low == pytest.approx(ratios.min(), rel=1e-7)
    assert found.high == pytest.approx(ratios.max(), rel=1e-10)
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-6 * np.abs(gradient).max())


def test_gradient_is_the_derivative_of_the_logarithm_of_the_sum():
    X, Y = data(90, 12, 6)
    all_pairs = AllPairs(X, 1)
    direction = np.random.default_rng(1).standard_normal(Y.shape)
    sharpness, level = 1.3, 4.0

    def value(t):
        return math.log(all_pairs.evaluate(Y + t * direction, sharpness, level).total) / sharpness

    found = all_pairs.evaluate(Y, sharpness, level)
    slope = np.sum(found.gradient * direction) / found.total
    # Central difference: h^2 times a third derivative of size 1e3, and 1e-16 / h of rounding.
    assert slope == pytest.approx((value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-5)


def test_gradient_ignores_translations_and_is_orthogonal_to_rotations():
    X, Y = data(70, 8, 6)
    gradient = AllPairs(X, 1).evaluate(Y, 0.1, 4.0).gradient
    scale = np.abs(gradient).max()
    assert np.abs(gradient.sum(axis=0)).max() < ROUNDING * 70 * scale
    moment = Y.T @ gradient
    assert np.abs(moment - moment.T).max() < ROUNDING * 70 * scale


def test_listed_pairs_agree_with_all_pairs():
    X, Y = data(80, 8, 5)
    listed = ListedPairs(X, np.array(every_pair(80)), 1)
    mine, theirs = listed.evaluate(Y, 0.9, 4.0), AllPairs(X, 1).evaluate(Y, 0.9, 4.0)
    assert mine.total == pytest.approx(theirs.total - phantoms(80, 0.9, 4.0), rel=1e-10)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-10)
    scale = np.abs(mine.gradient).max()
    np.testing.assert_allclose(mine.gradient, theirs.gradient, atol=1e-10 * scale)
    np.testing.assert_allclose(listed.ratios(Y), ratios_by_loop(X, Y, every_pair(80)), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_number_of_threads_gives_the_same_bits(dtype):
    X, Y = data(400, 15, 11)
    X = X.astype(dtype).astype(np.float64)
    pairs = np.random.default_rng(3).integers(0, 400, (40000, 2))
    results = []
    for threads in (1, 2, 3):
        found = AllPairs(X, threads).evaluate(Y, 1.0, 5.0)
        listed = ListedPairs(X, pairs, threads).evaluate(Y, 1.0, 5.0)
        results.append((*found, *listed, product(X.T, Y, threads)))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            assert np.array_equal(mine, theirs)


def test_float32_storage_and_no_storage_agree_with_float64(monkeypatch):
    X, Y = data(300, 10, 5)
    exact = AllPairs(X, 2)
    none = AllPairs(X, 2, keep=False)
    monkeypatch.setattr("derand_fast.embedding_pairs._FLOAT64_BYTES", 0)
    small = AllPairs(X, 2)
    assert exact.is_exact
    assert not small.is_exact
    expected = exact.pairs_outside(Y, 0.2, 2.5, 0.0, 10**5)
    assert expected[1] == len(expected[0]) > 100
    for other, tolerance in ((small, 1e-6), (none, 1e-15)):
        found = other.pairs_outside(Y, 0.2, 2.5, 0.0, 10**5)
        assert {tuple(p) for p in found[0]} == {tuple(p) for p in expected[0]}
        assert found[2:] == pytest.approx(expected[2:], rel=tolerance)
    # Each stored distance is off by up to 6e-8.
    mine, theirs = small.evaluate(Y, 1.0, 5.0), exact.evaluate(Y, 1.0, 5.0)
    assert mine.total == pytest.approx(theirs.total, rel=1e-5)
    with pytest.raises(MemoryError, match="300 rows"):
        none.evaluate(Y, 1.0, 5.0)


def test_pairs_outside_lists_exactly_the_pairs_wanted():
    X, Y = data(130, 7, 4)
    ratios = ratios_by_loop(X, Y, every_pair(130))
    low, high = np.quantile(ratios, [0.02, 0.97])
    pairs, count, lowest, highest = AllPairs(X, 2).pairs_outside(Y, low, high, 0.0, 10**4)
    expected = {p for p, r in zip(every_pair(130), ratios, strict=True) if r <= low or r >= high}
    assert {tuple(p) for p in pairs} == expected
    assert count == len(expected)
    assert (lowest, highest) == pytest.approx((ratios.min(), ratios.max()), rel=1e-10)
    # Too little room: the count still tells.
    few, count, _, _ = AllPairs(X, 2).pairs_outside(Y, low, high, 0.0, 3)
    assert count == len(expected) > len(few)


def test_near_rows_far_from_the_centre_keep_their_digits():
    """A distance of 1e-7 between rows of length 1: norms and products alone would leave none."""
    generator = np.random.default_rng(5)
    X = generator.standard_normal((3, 6))
    X = np.concatenate([X, X[:1] + 1e-7 * generator.standard_normal((1, 6))])
    Y = X @ generator.standard_normal((6, 2))
    exact = ratios_by_loop(X, Y, [(0, 3)])[0]
    # Images still go through norms and products: 1e-16 / 1e-14 of relative error.
    _, _, low, high = AllPairs(X, 1).pairs_outside(Y, -1.0, math.inf, 0.0, 0)
    assert low <= exact * 1.2
    assert high >= exact * 0.8
    pairs = np.array([(0, 3)])
    ratios = np.empty(1)
    A = np.linalg.lstsq(X, Y, rcond=None)[0].T.copy()
    kernel.exact_ratios(0, 1, pairs, X, A, np.empty(6), ratios)
    difference = X[0] - X[3]
    assert ratios[0] == pytest.approx(
        np.sum((A @ difference) ** 2) / np.sum(difference**2), rel=1e-14
    )


def test_equal_rows_and_rows_at_rounding_level_exert_no_force():
    X, Y = data(10, 4, 2)
    X[3] = X[7]
    Y[3] = Y[7] + 1.0
    others = [pair for pair in every_pair(10) if pair != (3, 7)]
    _, gradient = smooth_by_loop(X, Y, others, 1.0, 4.0)
    found = AllPairs(X, 1).evaluate(Y, 1.0, 4.0)
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-9 * np.abs(gradient).max())
    listed = ListedPairs(X, np.array([(3, 7)]), 1)
    assert listed.ratios(Y)[0] == 1.0
    assert not listed.evaluate(Y, 1.0, 4.0).gradient.any()


def test_exact_ratios_of_equal_rows_are_not_a_number():
    ratios = np.empty(1)
    kernel.exact_ratios(
        0, 1, np.array([[0, 1]]), np.ones((2, 3)), np.ones((1, 3)), np.empty(3), ratios
    )
    assert math.isnan(ratios[0])


def test_steps_that_go_too_far_give_infinity():
    X, Y = data(20, 4, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        assert AllPairs(X, 1).evaluate(1e6 * Y, 1e6, 2.0).total == math.inf


@pytest.mark.parametrize("count", [1, 3, 5])
def test_quasi_newton_direction_is_the_recursion(count):
    """H from the BFGS update written out as matrices."""
    size, memory = 6, 4
    generator = np.random.default_rng(7)
    steps = generator.standard_normal((count, size))
    changes = steps @ np.diag(generator.uniform(0.5, 2.0, size))
    kept = range(max(0, count - memory), count)
    last = kept[-1]
    H = np.eye(size) * (steps[last] @ changes[last]) / (changes[last] @ changes[last])
    for i in kept:
        rho = 1.0 / (steps[i] @ changes[i])
        V = np.eye(size) - rho * np.outer(changes[i], steps[i])
        H = V.T @ H @ V + rho * np.outer(steps[i], steps[i])
    ring_steps, ring_changes = np.empty((2, memory, size))
    curvatures = np.empty(memory)
    for i in kept:
        ring_steps[i % memory], ring_changes[i % memory] = steps[i], changes[i]
        curvatures[i % memory] = steps[i] @ changes[i]
    gradient, out = generator.standard_normal(size), np.empty(size)
    kernel.quasi_newton_direction(
        *(ring_steps, ring_changes, curvatures, last % memory, len(kept)),
        *(gradient, np.empty(memory), out),
    )
    np.testing.assert_allclose(out, -H @ gradient, rtol=1e-12)
