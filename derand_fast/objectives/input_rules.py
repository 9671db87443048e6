"""Quadrature rules over the input of a network, aligned with the teacher's directions.

Coordinates are rotated: x = (u, v), u in the k directions of the teacher and v in the d - k others.
A rule for u stands alone (`inside`) and is multiplied by points for v. What matters: as the weights
on v vanish, an integrand even approximately smooth in v needs its second moments only,

    E F(u, w'v) = E F(u, 0) + |w|^2 / 2 E F''(u, 0) + O(|w|^4),

and every rule below that is called a product has the first three moments of v exactly right at
each u. So at W_perp = 0 its value, gradient and Hessian are those of the exact Gaussian risk, up to
the error of the rule for u, which converges geometrically for smooth functions.

The outer nodes of a tensor rule weigh next to nothing; those that no double can notice are left out
(two thirds of 96^2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels.quadrature import gauss_hermite, sobol_normal, sparse_hermite

__all__ = [
    "InputRule",
    "corrected_rule",
    "distribution_rule",
    "inside_rule",
    "sample_rule",
    "sobol_rule",
    "sparse_rule",
    "spherical_rule",
    "tensor_rule",
]

FloatArray = NDArray[np.float64]

# Nodes are left out that hold together less than this share of E (1 + |x|^2)^3: of a squared loss
# whose student and teacher grow like a cube.
_NEGLIGIBLE = 1e-16
# Of so many random rotations, divided by the dimension but at least 4, all others are made, by
# random signs and orders of coordinates: a QR factorisation for each would take longer than the
# risk itself.
_ROTATIONS = 512


class InputRule(NamedTuple):
    """Nodes (N, d) in rotated coordinates, weights (N,), and what is known of them.

    ``product`` says that, given u, the first three moments of v are exact. ``gaussian`` says that
    the rule approximates N(0, I).
    """

    name: str
    nodes: FloatArray
    weights: FloatArray
    product: bool
    gaussian: bool


def _tensor(per_axis: int, dimension: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = gauss_hermite(per_axis)
    axes = np.meshgrid(*([nodes] * dimension), indexing="ij")
    factors = np.meshgrid(*([weights] * dimension), indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    return _noticeable(points, np.prod([factor.ravel() for factor in factors], axis=0))


def _noticeable(points: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Leave out nodes of negligible weight, in their order."""
    shares = weights * (1.0 + np.square(points).sum(axis=1)) ** 3
    order = np.argsort(shares, kind="stable")
    sums = np.cumsum(shares[order])
    kept = np.sort(order[sums > _NEGLIGIBLE * sums[-1]])
    return points[kept], weights[kept]


def _product(
    inside: tuple[FloatArray, FloatArray], outside: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    (u, p), (v, q) = inside, outside
    nodes = np.hstack([np.repeat(u, len(v), axis=0), np.tile(v, (len(u), 1))])
    return nodes, np.outer(p, q).ravel()


def inside_rule(per_axis: int, k: int) -> InputRule:
    """Tensor Gauss-Hermite rule, per_axis nodes on each axis, in the teacher's directions alone."""
    nodes, weights = _tensor(per_axis, k)
    return InputRule("inside", nodes, weights, True, True)


def tensor_rule(k: int, m: int, inside: int, outside: int) -> InputRule:
    """Tensor rule: ``inside`` nodes on each of the k axes of u, ``outside`` on the m axes of v."""
    nodes, weights = _noticeable(*_product(_tensor(inside, k), _tensor(outside, m)))
    return InputRule("tensor", nodes, weights, outside >= 2, True)


def sparse_rule(k: int, m: int, inside: int, level: int) -> InputRule:
    """Tensor rule in u times a sparse grid of degree 2 level - 1 in v; weights of both signs."""
    outside = sparse_hermite(level, m)
    nodes, weights = _product(_tensor(inside, k), (outside.nodes, outside.weights))
    return InputRule("sparse", nodes, weights, level >= 2, True)


def spherical_rule(k: int, m: int, inside: int, copies: int, seed: int) -> InputRule:
    """Tensor rule in u; at each of its nodes v = +-sqrt(m) e for the columns e of random rotations.

    A rotated cross-polytope of radius sqrt(m) is exact for polynomials of degree 3 in v
    (Stroud 1957); each node of u has ``copies`` rotations of its own. Of many rotations only
    512 / m, at least 4, are independent; the others are these with their rows in random order and
    of random sign. 2 m copies nodes for each of u.
    """
    u, p = _tensor(inside, k)
    random = np.random.default_rng(seed)
    count = len(u) * copies
    independent = min(count, max(_ROTATIONS // m, 4))
    q, r = np.linalg.qr(random.standard_normal((independent, m, m)))
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    rotations = math.sqrt(m) * q * np.where(diagonal < 0.0, -1.0, 1.0)[:, None, :]
    each = 2 * m * copies
    nodes = np.empty((len(u), copies, 2, m, k + m))
    nodes[..., :k] = u[:, None, None, None, :]
    by_rotation = nodes.reshape(count, 2, m, k + m)
    for number in range(count):
        rotation = rotations[number % len(rotations)]
        if number >= len(rotations):
            signs = random.integers(0, 2, m) * 2.0 - 1.0
            rotation = rotation[random.permutation(m)] * signs[:, None]
        by_rotation[number, 0, :, k:] = rotation.T
        by_rotation[number, 1, :, k:] = -rotation.T
    return InputRule("spherical", nodes.reshape(-1, k + m), np.repeat(p / each, each), True, True)


def corrected_rule(rule: InputRule, coarse: InputRule, fine: InputRule) -> InputRule:
    """Take the rule for what v adds, and a finer one for the rest.

    E F(u, v) ~ rule[F(u, v) - F(u, 0)] + fine[F(u, 0)]; ``rule`` is a product with ``coarse``, the
    others are rules for u alone. At W_perp = 0 the sum is the fine rule, exactly.
    """
    m = rule.nodes.shape[1] - coarse.nodes.shape[1]
    inside = np.vstack([coarse.nodes, fine.nodes])
    nodes = np.vstack([rule.nodes, np.hstack([inside, np.zeros((len(inside), m))])])
    weights = np.concatenate([rule.weights, -coarse.weights, fine.weights])
    return rule._replace(nodes=nodes, weights=weights)


def sobol_rule(d: int, count: int, seed: int) -> InputRule:
    """Scrambled Sobol points in antithetic pairs; count is a power of 2."""
    rule = sobol_normal(count, d, 1, seed)
    return InputRule("sobol", rule.nodes, rule.weights, False, True)


def sample_rule(X: FloatArray) -> InputRule:
    """Equal weights on the rows of X, in rotated coordinates."""
    return InputRule("samples", X, np.full(len(X), 1.0 / len(X)), False, False)


def distribution_rule(name: str, d: int, count: int, seed: int, degrees: float) -> FloatArray:
    """Return nodes (N, d) of unrotated inputs with independent coordinates of variance 1.

    "rademacher": all 2^d corners where 2^d <= count. Else scrambled Sobol points through the
    inverse distribution: "uniform" on [-sqrt 3, sqrt 3]; "student_t" with ``degrees`` > 2.
    """
    # Not above: scipy.stats is slow to import.
    from scipy.stats import norm, t

    if name == "rademacher" and d <= math.log2(count):
        corners = np.indices((2,) * d).reshape(d, -1).T
        return np.ascontiguousarray(2.0 * corners - 1.0)
    uniform = norm.cdf(sobol_normal(count, d, 1, seed).nodes)
    if name == "rademacher":
        return np.where(uniform < 0.5, -1.0, 1.0)
    if name == "uniform":
        return np.asarray(math.sqrt(3.0) * (2.0 * uniform - 1.0))
    return np.asarray(t.ppf(uniform, degrees) * math.sqrt((degrees - 2.0) / degrees))
