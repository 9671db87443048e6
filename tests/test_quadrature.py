"""Gauss rules: exact for the degrees they promise, frozen, cached."""

import doctest

import numpy as np
import pytest

from derand_fast.kernels import quadrature

RULES = [quadrature.gauss_hermite, quadrature.gauss_legendre]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 64, 150])
def test_gauss_hermite_moments(count):
    nodes, weights = quadrature.gauss_hermite(count)
    # Rounding of a moment grows with the sum of its own positive terms, here the moment itself.
    for degree in range(0, min(2 * count, 24), 2):
        moment = np.prod(np.arange(1.0, degree, 2.0))
        assert weights @ nodes**degree == pytest.approx(moment, rel=1e-12)
    assert weights @ nodes**3 == pytest.approx(0.0, abs=1e-13)
    assert weights.sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("count", [1, 2, 5, 16, 64])
def test_gauss_legendre_moments(count):
    nodes, weights = quadrature.gauss_legendre(count)
    for degree in range(2 * count):
        assert weights @ nodes**degree == pytest.approx(1.0 / (degree + 1), rel=1e-13)
    assert nodes.min() > 0
    assert nodes.max() < 1


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_frozen_and_cached(rule):
    nodes, weights = rule(6)
    assert rule(6)[0] is nodes
    assert nodes.dtype == weights.dtype == np.float64
    assert nodes.flags.c_contiguous
    assert weights.flags.c_contiguous
    assert not nodes.flags.writeable
    assert not weights.flags.writeable
    assert np.all(np.diff(nodes) > 0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [0, -3])
def test_bad_count(rule, count):
    with pytest.raises(ValueError, match=f"at least 1, got {count}"):
        rule(count)


# --- the standard normal in d dimensions ----------------------------------------------------------


def _moment(exponents):
    """E prod x_i^e_i: a product of double factorials, 0 if any exponent is odd."""
    if any(e % 2 for e in exponents):
        return 0.0
    return float(np.prod([np.prod(np.arange(1.0, e, 2.0)) for e in exponents]))


def _monomials(dimension, degree, count=60, seed=0):
    """Random exponents of total degree at most ``degree``, half of them even."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        exponents = rng.multinomial(rng.integers(0, degree + 1), np.ones(dimension) / dimension)
        yield exponents // 2 * 2 if rng.random() < 0.5 else exponents


@pytest.mark.parametrize("stage", range(5))
def test_nested_rules_reach_their_degree(stage):
    degree = quadrature.NESTED_DEGREES[stage]
    half = np.concatenate([np.array(row) for row in quadrature.NESTED_NODES[: stage + 1]])
    weights = np.array(quadrature.NESTED_WEIGHTS[stage]) * np.where(half == 0.0, 1.0, 2.0)
    for even in range(0, degree + 2, 2):
        # Nodes and weights are rounded to 17 digits; the power multiplies the former by its degree.
        error = abs(weights @ half**even / _moment([even]) - 1.0)
        assert error < 1e-14 if even <= degree else error > 1e-13


@pytest.mark.parametrize(
    ("dimension", "level"), [(1, 1), (1, 26), (2, 9), (3, 6), (5, 4), (10, 3), (10, 1)]
)
def test_sparse_grid_is_exact_to_its_degree(dimension, level):
    rule = quadrature.sparse_hermite(level, dimension)
    assert rule.n_nodes == len(rule.weights) == quadrature.sparse_count(level, dimension)
    assert len(np.unique(rule.nodes, axis=0)) == rule.n_nodes
    assert np.array_equal(np.unique(rule.nodes, axis=0), np.unique(-rule.nodes, axis=0))
    for exponents in _monomials(dimension, 2 * level - 1):
        powers = np.prod(rule.nodes**exponents, axis=1)
        # Weights of both signs: rounding grows with the sum of absolute terms.
        scale = np.abs(rule.weights * powers).sum() + 1e-300
        assert abs(rule.weights @ powers - _moment(exponents)) < 1e-13 * scale


def test_sparse_grid_is_no_better_than_its_degree():
    rule = quadrature.sparse_hermite(3, 4)
    powers = np.prod(rule.nodes ** np.array([2, 2, 2, 0]), axis=1)
    assert abs(rule.weights @ powers - 1.0) > 0.1


def test_lower_weights_are_those_of_the_levels_below():
    rule = quadrature.sparse_hermite(5, 3)
    assert rule.lower.shape == (2, rule.n_nodes)
    for lower, level in zip(rule.lower, (4, 3), strict=True):
        below = quadrature.sparse_hermite(level, 3)
        known = {tuple(x): weight for x, weight in zip(below.nodes, below.weights, strict=True)}
        for node, weight in zip(rule.nodes, lower, strict=True):
            assert weight == pytest.approx(known.pop(tuple(node), 0.0), abs=1e-14)
        assert not known
    assert quadrature.sparse_hermite(2, 3).lower.shape[0] == 1
    assert quadrature.sparse_hermite(1, 3).lower.shape == (0, 0)


def test_tensor_grid():
    rule = quadrature.tensor_hermite(9, 4)
    assert rule.n_nodes == 6561
    assert rule.nodes.shape == (9, 1)
    assert rule.tensor
    assert (len(rule.lower), rule.replicates, rule.block) == (0, 1, 256)
    assert quadrature.tensor_hermite(20, 4).block == 5000


def test_sobol_points():
    rule = quadrature.sobol_normal(512, 30, replicates=8, seed=3)
    assert rule.nodes.shape == (4096, 30)
    assert rule.block == 256
    groups = rule.nodes.reshape(8, 512, 30)
    assert np.array_equal(groups[:, :256], -groups[:, 256:])
    # Second moments of 4096 points: a plain random sample would be off by 0.02.
    covariance = (rule.nodes * rule.weights[:, None]).T @ rule.nodes
    assert np.abs(np.diag(covariance) - 1.0).max() < 0.01
    again = quadrature.sobol_normal(512, 30, replicates=8, seed=3)
    assert np.array_equal(rule.nodes, again.nodes)
    assert not np.array_equal(groups[0], groups[1])
    other = quadrature.sobol_normal(512, 30, replicates=8, seed=4)
    assert not np.array_equal(rule.nodes, other.nodes)


def test_blocks_divide_replicates():
    for count in (2, 64, 256, 1024, 4096):
        rule = quadrature.sobol_normal(count, 2, replicates=8, seed=0)
        assert count % rule.block == 0
        assert rule.n_nodes // rule.block <= max(quadrature.MAX_BLOCKS, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quadrature.tensor_hermite(0, 1), "level must be at least 1, got 0"),
        (lambda: quadrature.tensor_hermite(1, 0), "dimension must be at least 1, got 0"),
        (lambda: quadrature.sparse_hermite(0, 2), "level must be at least 1, got 0"),
        (lambda: quadrature.sparse_hermite(27, 2), "level must be at most 26, got 27"),
        (lambda: quadrature.sparse_count(3, 0), "dimension must be at least 1, got 0"),
        (lambda: quadrature.sobol_normal(12, 2, 8, 0), r"power of two .* got 12"),
        (lambda: quadrature.sobol_normal(1, 2, 8, 0), r"power of two .* got 1"),
        (lambda: quadrature.sobol_normal(8, 30000, 8, 0), "at most 21201, got 30000"),
        (lambda: quadrature.sobol_normal(8, 2, 0, 0), "replicates must be at least 1, got 0"),
    ],
)
def test_bad_rules(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_examples():
    assert doctest.testmod(quadrature).failed == 0
