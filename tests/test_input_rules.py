"""Rules over the input: moments, above all those that make the collapse exact."""

import itertools
import math

import numpy as np
import pytest

from derand_fast.objectives.input_rules import (
    distribution_rule,
    inside_rule,
    sample_rule,
    sobol_rule,
    sparse_rule,
    spherical_rule,
    tensor_rule,
)

K, M = 2, 5
PRODUCTS = {
    "tensor": lambda: tensor_rule(K, M, 5, 2),
    "sparse": lambda: sparse_rule(K, M, 5, 2),
    "spherical": lambda: spherical_rule(K, M, 5, 2, 0),
}


def normal_moment(powers):
    """E[prod x_i^p_i] of independent standard normal numbers."""
    return math.prod(0 if p % 2 else math.prod(range(p - 1, 0, -2)) for p in powers)


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_first_three_moments_outside_at_each_node_inside(name):
    rule = PRODUCTS[name]()
    assert rule.product
    assert rule.gaussian
    assert rule.nodes.shape == (len(rule.weights), K + M)
    inside, group = np.unique(rule.nodes[:, :K], axis=0, return_inverse=True)
    for place in range(len(inside)):
        here = group.ravel() == place
        v, p = rule.nodes[here, K:], rule.weights[here]
        p = p / p.sum()
        # Rounding of sums of a few dozen terms of size up to m^(3/2).
        np.testing.assert_allclose(p @ v, 0.0, atol=1e-12)
        np.testing.assert_allclose(v.T @ (p[:, None] * v), np.eye(M), atol=1e-12)
        third = np.einsum("n,ni,nj,nk->ijk", p, v, v, v)
        np.testing.assert_allclose(third, 0.0, atol=1e-11)


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_moments_inside(name):
    rule = PRODUCTS[name]()
    for powers in itertools.product(range(10), repeat=K):
        # Five nodes on an axis are exact to degree 9.
        measured = rule.weights @ np.prod(rule.nodes[:, :K] ** powers, axis=1)
        size = rule.weights @ np.prod(np.abs(rule.nodes[:, :K]) ** powers, axis=1)
        assert measured == pytest.approx(normal_moment(powers), abs=1e-12 * size)


def test_inside_rule_integrates_a_smooth_function():
    rule = inside_rule(30, 2)
    # E cos(a x + b y) = exp(-(a^2 + b^2) / 2)
    measured = rule.weights @ np.cos(rule.nodes @ [1.0, -0.5])
    assert measured == pytest.approx(math.exp(-0.625), abs=1e-14)


def test_spherical_nodes_lie_on_a_sphere_and_rotate():
    rule = spherical_rule(1, 4, 3, 1, seed=1)
    v = rule.nodes[:, 1:]
    np.testing.assert_allclose((v**2).sum(axis=1), 4.0, rtol=1e-14)
    first, second = v[:8], v[8:16]
    assert not np.allclose(first, second)
    assert np.array_equal(rule.nodes, spherical_rule(1, 4, 3, 1, seed=1).nodes)


def test_sobol_rule_is_antithetic():
    rule = sobol_rule(3, 64, seed=2)
    assert not rule.product
    assert np.array_equal(rule.nodes[:32], -rule.nodes[32:])
    # The error of 1,024 Sobol points is well below the 1/32 of random ones.
    large = sobol_rule(3, 1024, seed=2)
    assert large.weights @ large.nodes[:, 0] ** 2 == pytest.approx(1.0, abs=0.01)


def test_sample_rule_is_the_mean_over_rows():
    X = np.arange(6.0).reshape(3, 2)
    rule = sample_rule(X, "rows")
    assert (rule.weights @ X).tolist() == pytest.approx([2.0, 3.0])
    assert not rule.gaussian
    assert not rule.product


# P(|x| <= 1/2): a length on [-sqrt 3, sqrt 3]; no corner; and for Student's t with 5 degrees of
# freedom and variance 5/3, 2 F(0.5 sqrt(5/3)) - 1 with the closed form of F at odd degrees.
_ANGLE = math.atan(0.5 * math.sqrt(5.0 / 3.0) / math.sqrt(5.0))
_STUDENT = (2.0 / math.pi) * (
    _ANGLE + math.sin(_ANGLE) * (math.cos(_ANGLE) + 2.0 / 3.0 * math.cos(_ANGLE) ** 3)
)


@pytest.mark.parametrize(
    ("name", "share"),
    [("uniform", 0.5 / math.sqrt(3.0)), ("rademacher", 0.0), ("student_t", _STUDENT)],
)
@pytest.mark.parametrize("d", [2, 14])
def test_other_distributions(name, share, d):
    X = distribution_rule(name, d, 4096, 0, 5.0)
    assert X.shape == (min(4096, 2**d) if name == "rademacher" else 4096, d)
    assert X[:, 0].mean() == pytest.approx(0.0, abs=1e-12)
    assert (X[:, 0] ** 2).mean() == pytest.approx(1.0, abs=0.05)
    # One coordinate of Sobol points is stratified: 4,096 of them miss a share by 2 / 4,096.
    assert (np.abs(X[:, 0]) <= 0.5).mean() == pytest.approx(share, abs=5e-4)


def test_all_corners_once():
    X = distribution_rule("rademacher", 3, 8, 0, 5.0)
    assert sorted(map(tuple, X.tolist())) == sorted(itertools.product([-1.0, 1.0], repeat=3))
