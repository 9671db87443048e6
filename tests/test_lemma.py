"""The derandomization lemma on random functions: Stein's identity, certified points, collapse.

For f = E[g(Wx + b)] + lam ||W||_F^2 the gradient in W is (H_bb + 2 lam I) W, and at a certified
second-order stationary point ||W||_F is at most the bound that is reported beside it.
"""

import numpy as np
import pytest

from derand_fast.generators import random_graph
from derand_fast.objectives import (
    GaussianExpectation,
    GaussianFunction,
    MaxCutObjective,
    block_view,
    pack,
)
from derand_fast.optimize import newton_cg

UNITS, INPUTS = 3, 2


def random_network(seed):
    """Sum of sine units and a small quartic bowl that keeps b bounded; plain Python functions."""
    rng = np.random.default_rng(seed)
    inner = rng.standard_normal((4, UNITS))
    outer = rng.standard_normal(4)
    shift = rng.standard_normal(4)

    def value(z, theta):
        return float(outer @ np.sin(inner @ z + shift) + 0.05 * np.sum(z**4))

    def gradient(z, theta, out_z, out_theta):
        out_z += inner.T @ (outer * np.cos(inner @ z + shift)) + 0.2 * z**3

    def hessian_product(z, theta, dz, dtheta, out_z, out_theta):
        out_z += inner.T @ (-outer * np.sin(inner @ z + shift) * (inner @ dz)) + 0.6 * z * z * dz

    return GaussianFunction(value, gradient, hessian_product)


def network_problem(seed):
    objective = GaussianExpectation(
        random_network(seed), (UNITS, INPUTS), lam=0.6, rule="hermite", n_nodes=400, n_threads=1
    )
    start = 0.4 * np.random.default_rng(1000 + seed).standard_normal(objective.n_params)
    # 20 nodes for each input integrate these entire functions to far below 1e-8.
    return objective, start, 1e-8


def cut_problem(seed):
    graph = random_graph(20, 45, seed=seed, weights="signs" if seed % 2 else "unit")
    objective = MaxCutObjective(graph, 4, tau=0.3, lam=0.1, n_threads=1)
    rows = np.random.default_rng(2000 + seed).standard_normal((20, 4))
    start = pack(objective, W=rows / np.linalg.norm(rows, axis=1, keepdims=True), b=np.zeros(20))
    # In closed form: only rounding is left.
    return objective, start, 1e-10


PROBLEMS = [(network_problem, seed) for seed in range(30)]
PROBLEMS += [(cut_problem, seed) for seed in range(30)]


def stein_residual(objective, x):
    """||grad_W f - (H_bb + 2 lam I) W||, relative to the size of its parts."""
    _, gradient = objective.value_and_grad(x)
    W = block_view(objective, x, "W")
    product = objective.bias_hessian(x) @ W + 2.0 * objective.lam * W
    difference = block_view(objective, gradient, "W") - product
    return np.linalg.norm(difference) / (1.0 + np.linalg.norm(product))


@pytest.mark.parametrize(("make", "seed"), PROBLEMS)
def test_certified_points_have_collapsed(make, seed):
    objective, start, quadrature = make(seed)
    assert stein_residual(objective, start) <= quadrature
    before = np.linalg.norm(block_view(objective, start, "W"))
    result = newton_cg(objective, start, rho=1e-5, curvature_tol=0.05, max_iter=3000)
    assert result.success, result.message
    assert stein_residual(objective, result.x) <= quadrature
    # The bound is certified from H_bb at the point, and close to zero where the start was not.
    assert result.collapse_bound is not None
    assert result.W_norm <= result.collapse_bound < 1e-2 * before
    assert result.W_norm <= result.collapse_bound_apriori
