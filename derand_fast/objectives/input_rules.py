"""Quadrature rules over the input of a network, aligned with the teacher's directions.

Coordinates are rotated: x = (u, v), u in the k directions of the teacher and v in the d - k others.
A rule for u stands alone (`inside`) and is multiplied by points for v. What matters: as the weights
on v vanish, an integrand even approximately smooth in v needs its second moments only,

    E F(u, w'v) = E F(u, 0) + |w|^2 / 2 E F''(u, 0) + O(|w|^4),

and every rule below that is called a product has the first three moments of v exactly right at
each u. So at W_perp = 0 its value, gradient and Hessian are those of the exact Gaussian risk, up to
the error of the rule for u, which converges geometrically for smooth functions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels.quadrature import gauss_hermite, sobol_normal, sparse_hermite

__all__ = [
    "InputRule",
    "distribution_rule",
    "inside_rule",
    "sample_rule",
    "sobol_rule",
    "sparse_rule",
    "spherical_rule",
    "tensor_rule",
]

FloatArray = NDArray[np.float64]


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
    description: str


def _tensor(per_axis: int, dimension: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = gauss_hermite(per_axis)
    axes = np.meshgrid(*([nodes] * dimension), indexing="ij")
    factors = np.meshgrid(*([weights] * dimension), indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    return points, np.prod([factor.ravel() for factor in factors], axis=0)


def _product(
    inside: tuple[FloatArray, FloatArray], outside: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    (u, p), (v, q) = inside, outside
    nodes = np.hstack([np.repeat(u, len(v), axis=0), np.tile(v, (len(u), 1))])
    return nodes, np.outer(p, q).ravel()


def inside_rule(per_axis: int, k: int) -> InputRule:
    """Tensor Gauss-Hermite rule of per_axis^k nodes in the teacher's directions alone."""
    nodes, weights = _tensor(per_axis, k)
    return InputRule("inside", nodes, weights, True, True, f"{per_axis}^{k} Gauss-Hermite nodes")


def tensor_rule(k: int, m: int, inside: int, outside: int) -> InputRule:
    """Tensor rule: ``inside`` nodes on each of the k axes of u, ``outside`` on the m axes of v."""
    nodes, weights = _product(_tensor(inside, k), _tensor(outside, m))
    text = f"{inside}^{k} x {outside}^{m} Gauss-Hermite nodes"
    return InputRule("tensor", nodes, weights, outside >= 2, True, text)


def sparse_rule(k: int, m: int, inside: int, level: int) -> InputRule:
    """Tensor rule in u times a sparse grid of degree 2 level - 1 in v; weights of both signs."""
    outside = sparse_hermite(level, m)
    nodes, weights = _product(_tensor(inside, k), (outside.nodes, outside.weights))
    text = f"{inside}^{k} Gauss-Hermite x {len(outside.nodes)} sparse-grid nodes"
    return InputRule("sparse", nodes, weights, level >= 2, True, text)


def spherical_rule(k: int, m: int, inside: int, copies: int, seed: int) -> InputRule:
    """Tensor rule in u; at each of its nodes v = +-sqrt(m) e for the columns e of random rotations.

    A rotated cross-polytope of radius sqrt(m) is exact for polynomials of degree 3 in v
    (Stroud 1957); each node of u has ``copies`` rotations of its own. N = inside^k 2 m copies.
    """
    u, p = _tensor(inside, k)
    random = np.random.default_rng(seed)
    each = 2 * m * copies
    nodes = np.empty((len(u), each, k + m))
    nodes[:, :, :k] = u[:, None, :]
    for place in range(len(u)):
        for copy in range(copies):
            q, r = np.linalg.qr(random.standard_normal((m, m)))
            rotation = math.sqrt(m) * (q * np.where(np.diag(r) < 0.0, -1.0, 1.0)).T
            start = 2 * m * copy
            nodes[place, start : start + m, k:] = rotation
            nodes[place, start + m : start + 2 * m, k:] = -rotation
    text = f"{inside}^{k} Gauss-Hermite x {each} spherical nodes"
    return InputRule(
        "spherical", nodes.reshape(-1, k + m), np.repeat(p / each, each), True, True, text
    )


def sobol_rule(d: int, count: int, seed: int) -> InputRule:
    """Scrambled Sobol points in antithetic pairs; count is a power of 2."""
    rule = sobol_normal(count, d, 1, seed)
    return InputRule(
        "sobol", rule.nodes, rule.weights, False, True, f"{count} scrambled Sobol nodes"
    )


def sample_rule(X: FloatArray, description: str) -> InputRule:
    """Equal weights on the rows of X, in rotated coordinates."""
    return InputRule(
        "samples", X, np.full(len(X), 1.0 / len(X)), False, False, f"{len(X)} {description}"
    )


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
