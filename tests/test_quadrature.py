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


def test_examples():
    assert doctest.testmod(quadrature).failed == 0
