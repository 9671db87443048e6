"""Rules over the input: moments, above all those that make the collapse exact."""

import itertools
import math

import numpy as np
import pytest

from derand_fast.objectives.input_rules import (
    corrected_rule,
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


@pytest.mark.parametrize("powers", [(0, 0), (2, 2), (6, 0), (2, 4)])
def test_nodes_left_out_of_a_tensor_rule_are_not_missed(powers):
    rule = inside_rule(96, 2)
    assert len(rule.nodes) < 0.4 * 96**2
    # What is left out is 1e-16 of E (1 + |x|^2)^3 = 79; the rest is rounding.
    measured = rule.weights @ np.prod(rule.nodes**powers, axis=1)
    assert measured == pytest.approx(normal_moment(powers), rel=1e-13)


def test_corrected_rule_is_the_fine_one_inside_and_the_product_outside():
    rule = corrected_rule(spherical_rule(K, M, 4, 2, 0), inside_rule(4, K), inside_rule(12, K))
    (x, y), v = rule.nodes[:, :K].T, rule.nodes[:, K:]
    # Degree 20 in u is beyond four nodes on an axis, within twelve.
    assert rule.weights @ (x**16 * y**4) == pytest.approx(normal_moment((16, 4)), rel=1e-10)
    assert rule.weights @ (x**2 * v[:, 1] ** 2) == pytest.approx(1.0, rel=1e-12)
    assert rule.weights.sum() == pytest.approx(1.0, rel=1e-12)


def test_many_rotations_are_made_of_a_few():
    rule = spherical_rule(1, 6, 40, 3, seed=5)
    v = rule.nodes[:, 1:].reshape(-1, 12, 6)
    assert len(v) > 512 // 6
    # At each node a cross-polytope: columns of a rotation and their opposites.
    for frame in (v[0], v[90], v[-1]):
        np.testing.assert_allclose(frame[:6], -frame[6:])
        np.testing.assert_allclose(frame[:6] @ frame[:6].T, 6.0 * np.eye(6), atol=1e-13)
    assert not np.allclose(v[0], v[85])
    # The same rotation, with its rows in another order and of other signs.
    np.testing.assert_allclose(np.sort(abs(v[0]), axis=1), np.sort(abs(v[85]), axis=1))


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
    rule = sample_rule(X)
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
