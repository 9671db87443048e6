"""Objectives: derivatives of each other, closed forms, Stein's identity, equal bits, bad input."""

import copy
import doctest
import importlib
import math
import pickle
from types import SimpleNamespace

import naive
import networkx as nx
import numba
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

from derand_fast import as_graph
from derand_fast.generators import random_graph
from derand_fast.objectives import (
    Block,
    GaussianExpectation,
    GaussianFunction,
    JLObjective,
    MaxCutObjective,
    Objective,
    block_view,
    check_objective,
    gaussian,
    pack,
)
from derand_fast.objectives.cut import _PARALLEL_WORK

# Rounding of a few thousand terms of size 1.
ROUNDING = 1e-12


# ------------------------------------------------------------------------------------------------
# Functions g
# ------------------------------------------------------------------------------------------------


@numba.njit
def activation(kind, s):
    """Return phi, phi', phi'' at s: tanh, smooth ReLU (iota = 2), erf, s^2 / 2 + s^3 / 6."""
    if kind == 0:
        t = math.tanh(s)
        return t, 1.0 - t * t, -2.0 * t * (1.0 - t * t)
    if kind == 1:
        e = math.exp(-2.0 * abs(s))
        sigmoid = (1.0 if s >= 0.0 else e) / (1.0 + e)
        return max(s, 0.0) + 0.5 * math.log1p(e), sigmoid, 2.0 * sigmoid * (1.0 - sigmoid)
    if kind == 2:
        slope = 2.0 / math.sqrt(math.pi) * math.exp(-s * s)
        return math.erf(s), slope, -2.0 * s * slope
    return 0.5 * s * s + s**3 / 6.0, s + 0.5 * s * s, 1.0 + s


# theta = (kind, target, c_1, ..., c_m, rows of A): g = (sum_m c_m phi(A_m . z) - target)^2, a
# polynomial for the last kind, else the squared loss of a small network.
UNITS = 3


@numba.njit
def network_value(z, theta):
    """Return the squared loss."""
    return network_gradient(z, theta, np.zeros(z.size), np.zeros(theta.size))


@numba.njit
def network_gradient(z, theta, out_z, out_theta):
    """Write the gradient, return the value."""
    kind, h = int(theta[0]), z.size
    residual = -theta[1]
    for m in range(UNITS):
        s = 0.0
        for i in range(h):
            s += theta[2 + UNITS + m * h + i] * z[i]
        phi, slope, _ = activation(kind, s)
        residual += theta[2 + m] * phi
        out_theta[2 + m] += phi
        for i in range(h):
            out_z[i] += theta[2 + m] * slope * theta[2 + UNITS + m * h + i]
            out_theta[2 + UNITS + m * h + i] += theta[2 + m] * slope * z[i]
    out_theta[1] = -1.0
    for i in range(h):
        out_z[i] *= 2.0 * residual
    for t in range(theta.size):
        out_theta[t] *= 2.0 * residual
    return residual * residual


@numba.njit
def network_product(z, theta, direction_z, direction_theta, out_z, out_theta):
    """Write the Hessian product: differentiate what network_gradient does."""
    kind, h = int(theta[0]), z.size
    residual, residual_rate = -theta[1], -direction_theta[1]
    slope_z, slope_theta = np.zeros(h), np.zeros(theta.size)
    for m in range(UNITS):
        s = rate = 0.0
        for i in range(h):
            a = 2 + UNITS + m * h + i
            s += theta[a] * z[i]
            rate += direction_theta[a] * z[i] + theta[a] * direction_z[i]
        phi, slope, curve = activation(kind, s)
        c, dc = theta[2 + m], direction_theta[2 + m]
        residual += c * phi
        residual_rate += dc * phi + c * slope * rate
        slope_theta[2 + m] = phi
        out_theta[2 + m] = slope * rate
        for i in range(h):
            a = 2 + UNITS + m * h + i
            slope_z[i] += c * slope * theta[a]
            out_z[i] += (dc * slope + c * curve * rate) * theta[a] + c * slope * direction_theta[a]
            slope_theta[a] = c * slope * z[i]
            out_theta[a] = (dc * slope + c * curve * rate) * z[i] + c * slope * direction_z[i]
    slope_theta[1] = -1.0
    for i in range(h):
        out_z[i] = 2.0 * (residual * out_z[i] + residual_rate * slope_z[i])
    for t in range(theta.size):
        out_theta[t] = 2.0 * (residual * out_theta[t] + residual_rate * slope_theta[t])


NETWORK = GaussianFunction(network_value, network_gradient, network_product)
KINDS = {"tanh": 0, "smooth ReLU": 1, "erf": 2, "polynomial": 3}


def n_network(h):
    return 2 + UNITS + UNITS * h


def network(shape, kind="tanh", seed=0, g=NETWORK, size=0.4, points=0, **options):
    """An objective and a random point of it; theta's first entry is the kind."""
    rng = np.random.default_rng(seed)
    options = {"lam": 0.3, "n_theta": n_network(shape[0]), "n_threads": 1, "seed": points} | options
    f = GaussianExpectation(g, shape, **options)
    theta = 0.5 * rng.normal(size=f.n_theta)
    theta[0] = KINDS[kind]
    W = size * rng.normal(size=shape) / math.sqrt(shape[1])
    return f, pack(f, W=W, b=0.5 * rng.normal(size=shape[0]), theta=theta)


def direction_of(f, seed=1):
    """A random direction that leaves the kind of the network alone."""
    v = np.random.default_rng(seed).normal(size=f.n_params)
    if "theta" in f.blocks:
        block_view(f, v, "theta")[0] = 0.0
    return v


# theta = weights of the pairs (0, 1), (0, 2), (1, 2), ...: g = sum w_ij s(z_i) s(z_j) / 2.
TAU = 0.8


def cut_function(sign):
    """A smoothed cut of a complete graph; ``sign`` returns s and s'."""

    @numba.njit
    def value(z, theta):
        return gradient(z, theta, np.zeros(z.size), np.zeros(theta.size))

    @numba.njit
    def gradient(z, theta, out_z, out_theta):
        total, t = 0.0, 0
        for i in range(z.size):
            s, slope = sign(z[i])
            for j in range(i + 1, z.size):
                other, other_slope = sign(z[j])
                total += 0.5 * theta[t] * s * other
                out_theta[t] = 0.5 * s * other
                out_z[i] += 0.5 * theta[t] * slope * other
                out_z[j] += 0.5 * theta[t] * s * other_slope
                t += 1
        return total

    return GaussianFunction(value, gradient)


@numba.njit
def erf_side(z):
    """Return s and s' of the closed form."""
    u = z / (TAU * math.sqrt(2.0))
    return math.erf(u), math.exp(-u * u) * math.sqrt(2.0 / math.pi) / TAU


CUT = cut_function(erf_side)


def stein_residual(f, x):
    """Largest entry of grad_W f - (H_bb + 2 lam I) W."""
    _, gradient = f.value_and_grad(x)
    W = block_view(f, x, "W")
    expected = f.bias_hessian(x) @ W + 2.0 * f.lam * W
    return np.abs(block_view(f, gradient, "W") - expected).max()


def cut_problem(n=6, rank=3, seed=0, **options):
    graph = random_graph(n, 2 * n, seed=seed, weights="signs")
    f = MaxCutObjective(graph, rank, **({"tau": 0.4, "lam": 0.2, "n_threads": 1} | options))
    return f, np.random.default_rng(seed).normal(size=f.n_params)


# ------------------------------------------------------------------------------------------------
# What holds for every objective
# ------------------------------------------------------------------------------------------------

EVERY = {
    "cut": cut_problem,
    "network": lambda: network((3, 2), level=8),
    "network by differences": lambda: network((3, 2), level=8, g=NETWORK[:2]),
    "wide": lambda: network((1, 4), "smooth ReLU", level=4),
    "sparse": lambda: network((2, 5), "erf", level=4),
    "sobol": lambda: network((2, 3), "smooth ReLU", rule="sobol", n_nodes=256),
}


@pytest.mark.parametrize("name", EVERY)
def test_derivatives_of_each_other(name):
    f, x = EVERY[name]()
    assert isinstance(f, Objective)
    assert check_objective(f) == f.n_params == x.size
    v, u = direction_of(f), direction_of(f, seed=2)
    value, gradient = f.value_and_grad(x)
    assert value == f.value(x)
    # Step 1e-3: truncation 1e-12 / 30 times the fifth derivative along v (|v| = 4: up to 1e3),
    # rounding 1e-16 / 1e-3.
    slope = naive.central_difference(lambda t: f.value(x + t * v), 1e-3)
    assert gradient @ v == pytest.approx(slope, abs=1e-8, rel=1e-9)
    product = f.hvp(x, v)
    expected = naive.central_difference(lambda t: f.value_and_grad(x + t * v)[1], 1e-3)
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-8 * max(1, abs(expected).max()))
    # Symmetric and linear to rounding, which differences enlarge by 1 / step = 2e3.
    assert u @ product == pytest.approx(v @ f.hvp(x, u), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(f.hvp(x, 2.0 * v - u), 2.0 * product - f.hvp(x, u), atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_bias_hessian_is_the_block_of_the_hessian(name):
    f, x = EVERY[name]()
    H = f.bias_hessian(x)
    dense = H.toarray() if scipy.sparse.issparse(H) else H
    assert np.array_equal(dense, dense.T)
    n = f.blocks["b"].shape[0]
    for i in range(n):
        unit = np.zeros(n)
        unit[i] = 1.0
        column = block_view(f, f.hvp(x, pack(f, b=unit)), "b")
        np.testing.assert_allclose(dense[:, i], column, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_zero_rows_are_stationary(name):
    """At W = 0 the gradient in W vanishes: every rule is symmetric about 0."""
    f, x = EVERY[name]()
    block_view(f, x, "W")[...] = 0.0
    _, gradient = f.value_and_grad(x)
    assert np.abs(block_view(f, gradient, "W")).max() < 1e-15


@pytest.mark.parametrize("name", ["cut", "network"])
def test_inputs_are_left_alone_and_outputs_are_fresh(name):
    f, x = EVERY[name]()
    v = direction_of(f)
    x.flags.writeable = v.flags.writeable = False
    first = f.value_and_grad(x)[1], f.hvp(x, v)
    kept = [part.copy() for part in first]
    strided = np.repeat(x, 2)[::2]
    assert not strided.flags.c_contiguous
    second = f.value_and_grad(strided)[1], f.hvp(strided, list(v))
    for ours, before, theirs in zip(first, kept, second, strict=True):
        assert not np.shares_memory(ours, theirs)
        assert np.array_equal(ours, before)
        assert np.array_equal(ours, theirs)
        ours[...] = np.nan
    half = x.astype(np.float32)
    assert f.value(half) == f.value(half.astype(np.float64))


# ------------------------------------------------------------------------------------------------
# Stein's identity
# ------------------------------------------------------------------------------------------------

# Nodes on each axis such that the quadrature error is below 1e-8 for rows of length about 0.4.
STEIN_LEVEL = {1: 64, 2: 64, 3: 25}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_stein_networks(kind, seed):
    h, d = 1 + seed % 3, 1 + seed // 3 % 3
    f, x = network((h, d), kind, seed, level=STEIN_LEVEL[d])
    assert stein_residual(f, x) < 1e-8


@pytest.mark.parametrize("seed", range(6))
def test_stein_cuts_and_the_closed_form(seed):
    """Against an independent road to the same number: the closed form of the erf cut."""
    rng = np.random.default_rng(seed)
    n, rank = 3 + seed % 2, 1 + seed % 3
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    weights = rng.normal(size=len(pairs))
    closed = MaxCutObjective((n, pairs, weights), rank, tau=TAU, lam=0.3)
    f = GaussianExpectation(
        CUT, (n, rank), lam=0.3, n_theta=len(pairs), level=STEIN_LEVEL[rank], n_threads=1
    )
    W = 0.5 * rng.normal(size=(n, rank)) / math.sqrt(rank)
    b = rng.normal(size=n)
    x = pack(f, W=W, b=b, theta=weights)
    assert stein_residual(f, x) < 1e-8
    exact = pack(closed, W=W, b=b)
    assert stein_residual(closed, exact) < 1e-14
    # Quadrature error as above.
    value, gradient = f.value_and_grad(x)
    exact_value, exact_gradient = closed.value_and_grad(exact)
    assert value == pytest.approx(exact_value, abs=1e-8)
    np.testing.assert_allclose(gradient[: exact.size], exact_gradient, rtol=0, atol=1e-8)
    H = closed.bias_hessian(exact).toarray()
    np.testing.assert_allclose(f.bias_hessian(x), H, rtol=0, atol=1e-8)
    v = direction_of(closed)
    product = f.hvp(x, np.concatenate([v, np.zeros(len(pairs))]))
    np.testing.assert_allclose(product[: v.size], closed.hvp(exact, v), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "options", "bound"),
    [
        # Degree 11 in six variables, entire function, rows of length 0.4.
        ((2, 6), {"rule": "sparse", "level": 6}, 1e-6),
        # 2^14 quasi-random points: the error of each moment is a few 1e-3 of its size.
        ((2, 12), {"rule": "sobol"}, 1e-3),
    ],
)
def test_stein_in_many_dimensions(shape, options, bound):
    f, x = network(shape, "erf", **options)
    assert stein_residual(f, x) < bound


# ------------------------------------------------------------------------------------------------
# Gaussian expectations
# ------------------------------------------------------------------------------------------------


@numba.njit
def quadratic(z, theta):
    """Return z.A z / 2 + theta_last sum z, A symmetric and row by row in theta."""
    h = z.size
    total = 0.0
    for i in range(h):
        total += theta[h * h] * z[i]
        for j in range(h):
            total += 0.5 * theta[i * h + j] * z[i] * z[j]
    return total


@numba.njit
def quadratic_gradient(z, theta, out_z, out_theta):
    """Write the gradient of the quadratic, for symmetric A."""
    h = z.size
    for i in range(h):
        out_z[i] = theta[h * h]
        out_theta[h * h] += z[i]
        for j in range(h):
            out_z[i] += theta[i * h + j] * z[j]
            out_theta[i * h + j] = 0.5 * z[i] * z[j]


QUADRATIC = GaussianFunction(quadratic, quadratic_gradient)


@pytest.mark.parametrize(
    ("d", "options"),
    [(1, {"level": 2}), (3, {"level": 2}), (7, {"level": 2}), (3, {"rule": "sparse", "level": 4})],
)
def test_quadratics_are_exact(d, options):
    """E[z.A z / 2 + c sum z] = tr(A W W^T) / 2 + b.A b / 2 + c sum b."""
    rng = np.random.default_rng(d)
    h = 2
    A = rng.normal(size=(h, h))
    A += A.T
    W, b = rng.normal(size=(h, d)), rng.normal(size=h)
    f = GaussianExpectation(QUADRATIC, (h, d), lam=0.7, n_theta=h * h + 1, **options)
    x = pack(f, W=W, b=b, theta=np.append(A, 0.4))
    value, gradient = f.value_and_grad(x)
    expected = 0.5 * np.trace(A @ W @ W.T) + 0.5 * b @ A @ b + 0.4 * b.sum() + 0.7 * (W**2).sum()
    assert value == pytest.approx(expected, abs=ROUNDING)
    np.testing.assert_allclose(block_view(f, gradient, "W"), A @ W + 1.4 * W, atol=ROUNDING)
    np.testing.assert_allclose(block_view(f, gradient, "b"), A @ b + 0.4, atol=ROUNDING)
    second = 0.5 * (W @ W.T + np.outer(b, b))
    expected = np.append(second, b.sum())
    np.testing.assert_allclose(block_view(f, gradient, "theta"), expected, atol=ROUNDING)
    # Differences of gradients: the formula is exact, rounding is enlarged by 1 / step = 2e3.
    np.testing.assert_allclose(f.bias_hessian(x), A, atol=1e-11)
    v = direction_of(f)
    block_view(f, v, "theta")[...] = 0.0
    expected = (A + 1.4 * np.eye(h)) @ block_view(f, v, "W")
    np.testing.assert_allclose(block_view(f, f.hvp(x, v), "W"), expected, atol=1e-11)


def test_polynomials_against_finer_grids():
    """Degree 6 in x: exact from level 4 on, for tensor and sparse grids alike, not before."""
    values = []
    for options in ({"level": 4}, {"level": 9}, {"rule": "sparse", "level": 4}):
        f, x = network((2, 3), "polynomial", size=1.5, **options)
        values.append(f.value(x))
    assert values[1] == pytest.approx(values[0], rel=ROUNDING)
    assert values[2] == pytest.approx(values[0], rel=ROUNDING)
    f, x = network((2, 3), "polynomial", size=1.5, level=3)
    assert f.value(x) != pytest.approx(values[0], rel=1e-6)


def test_differences_against_exact_products():
    exact, x = network((3, 2), level=10)
    by_differences, _ = network((3, 2), level=10, hessian="differences")
    assert (exact.hessian, by_differences.hessian) == ("product", "differences")
    v = direction_of(exact)
    # eps^(4/5) = 3e-13 times fifth derivatives of g up to 1e2.
    np.testing.assert_allclose(by_differences.hvp(x, v), exact.hvp(x, v), rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        by_differences.bias_hessian(x), exact.bias_hessian(x), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("g", [NETWORK, NETWORK[:2]], ids=["product", "differences"])
def test_plain_python_gives_the_same(g):
    plain = tuple(part.py_func for part in g)
    fast, x = network((2, 2), "smooth ReLU", g=g, level=4)
    slow, _ = network((2, 2), "smooth ReLU", g=SimpleNamespace(**_named(plain)), level=4)
    assert fast.compiled
    assert not slow.compiled
    assert slow.n_threads == 1
    v = direction_of(fast)
    value, gradient = fast.value_and_grad(x)
    assert slow.value(x) == pytest.approx(value, abs=ROUNDING)
    assert slow.value_and_grad(x)[0] == pytest.approx(value, abs=ROUNDING)
    np.testing.assert_allclose(slow.value_and_grad(x)[1], gradient, atol=ROUNDING)
    tolerance = ROUNDING if len(g) == 3 else 1e-10
    np.testing.assert_allclose(slow.hvp(x, v), fast.hvp(x, v), atol=tolerance)
    np.testing.assert_allclose(slow.bias_hessian(x), fast.bias_hessian(x), atol=tolerance)
    assert slow.value_with_error(x) == pytest.approx(fast.value_with_error(x), abs=ROUNDING)


def _named(parts):
    return dict(zip(("value", "gradient", "hessian_product"), parts, strict=False))


def test_a_gradient_that_returns_the_value_saves_a_call():
    calls = []

    def value(z, _theta):
        calls.append("value")
        return z @ z

    def gradient(z, _theta, out_z, _out_theta):
        out_z[:] = 2.0 * z

    def both(z, _theta, out_z, _out_theta):
        out_z[:] = 2.0 * z
        return z @ z

    results = []
    for g in ((value, gradient), (value, both)):
        calls.clear()
        f = GaussianExpectation(g, (1, 1), lam=0.1, level=3)
        results.append(f.value_and_grad([1.0, 0.5])[0])
        assert len(calls) == (3 if g[1] is gradient else 0)
    assert results[0] == results[1] == pytest.approx(1.35, abs=ROUNDING)


@pytest.mark.parametrize(
    "options",
    [{"level": 11}, {"rule": "sparse", "n_nodes": 3000}, {"rule": "sobol", "n_nodes": 4096}],
)
def test_any_number_of_threads_gives_the_same_bits(options, monkeypatch):
    results = []
    for threads, seconds, memory in ((1, 1.0, 2**23), (2, 0.0, 2**23), (3, 0.0, 1)):
        monkeypatch.setattr(gaussian, "_THREAD_SECONDS", seconds)
        monkeypatch.setattr(gaussian, "_ROW_BYTES", memory)
        f, x = network((2, 3), n_threads=threads, **options)
        assert f.n_nodes > 4 * f._nodes.block
        v = direction_of(f)
        for _ in range(2):
            results.append(
                [
                    np.array(f.value_with_error(x)),
                    f.value_and_grad(x)[1],
                    f.hvp(x, v),
                    f.bias_hessian(x),
                ]
            )
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert np.array_equal(first, other)


def test_errors_in_threads_come_through(monkeypatch):
    monkeypatch.setattr(gaussian, "_THREAD_SECONDS", 0.0)

    def value(_z, _theta):
        raise ArithmeticError("no value here")

    f = GaussianExpectation((value, value), (1, 1), lam=0.0)
    with pytest.raises(ArithmeticError, match="no value here"):
        f.value([0.0, 0.0])


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "options", "rule", "level", "n_nodes"),
    [
        (1, {}, "hermite", 64, 64),
        (2, {}, "hermite", 64, 4096),
        (3, {}, "hermite", 25, 15625),
        (4, {}, "hermite", 11, 14641),
        (5, {}, "sparse", 10, 15003),
        (10, {}, "sparse", 5, 5661),
        (11, {}, "sobol", None, 16384),
        (2, {"n_nodes": 100}, "hermite", 10, 100),
        (2, {"n_nodes": 99}, "hermite", 9, 81),
        (3, {"rule": "sparse", "n_nodes": 50}, "sparse", 4, 45),
        (9, {"n_nodes": 1}, "sparse", 1, 1),
        (2, {"rule": "sobol", "n_nodes": 1}, "sobol", None, 16),
        (2, {"rule": "sobol", "n_nodes": 1023}, "sobol", None, 512),
        (40, {"rule": "hermite", "level": 1}, "hermite", 1, 1),
    ],
)
def test_choice_of_rule(d, options, rule, level, n_nodes):
    f = GaussianExpectation(QUADRATIC, (1, d), lam=0.1, n_theta=2, **options)
    assert (f.rule, f.level, f.n_nodes) == (rule, level, n_nodes)
    assert f"rule={rule!r}, level={level}, n_nodes={n_nodes}" in repr(f)


@pytest.mark.parametrize(
    ("shape", "options", "reference"),
    [
        ((2, 1), {"level": 9}, {"level": 64}),
        ((2, 2), {"level": 8}, {"level": 40}),
        ((2, 3), {"level": 6}, {"level": 24}),
        ((2, 3), {"rule": "sparse", "level": 4}, {"level": 24}),
        ((2, 4), {"rule": "sparse", "level": 6}, {"level": 14}),
        ((2, 3), {"rule": "sobol", "n_nodes": 1024}, {"level": 24}),
        # Past the last grid: rounding.
        ((2, 2), {"level": 30, "size": 0.1}, {"level": 40, "size": 0.1}),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_error_estimates_are_honest(shape, options, reference, kind):
    within = 0
    for seed in range(10):
        f, x = network(shape, kind, seed, **({"size": 1.0} | options))
        finer, _ = network(shape, kind, seed, **({"size": 1.0} | reference))
        value, error = f.value_with_error(x)
        assert value == f.value(x)
        assert error == f.error_estimate(x)
        # And it is no wild exaggeration: these functions are of size 1.
        assert 0.0 < error < 2.0 * max(1.0, value)
        within += abs(value - finer.value(x)) <= error
    # An estimate may fail now and then: of the intervals one in a hundred should.
    assert within >= 9


def test_no_estimate_from_one_node():
    for rule in ("hermite", "sparse"):
        f = GaussianExpectation(QUADRATIC, (1, 2), lam=0.1, n_theta=2, rule=rule, level=1)
        assert f.error_estimate(np.ones(f.n_params)) == math.inf


def test_seeds():
    x = network((2, 3), rule="sobol", n_nodes=128)[1]
    values = [
        network((2, 3), rule="sobol", n_nodes=128, points=seed)[0].value(x) for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"g": 3}, TypeError, "must have value and gradient; 3 lacks value, gradient"),
        ({"g": (quadratic,)}, TypeError, "got 1 entries"),
        ({"g": (quadratic, 5)}, TypeError, "g.gradient must be a function, not 5"),
        ({"g": (quadratic, quadratic_gradient, 5)}, TypeError, "g.hessian_product must be"),
        ({"shape_W": 3}, ValueError, r"shape_W must be two integers \(h, d\), got 3"),
        ({"shape_W": (2, 3, 4)}, ValueError, "shape_W must be two integers"),
        ({"shape_W": (0, 3)}, ValueError, "h must be at least 1, got 0"),
        ({"shape_W": (2, 1.5)}, TypeError, "d must be an integer, not 1.5"),
        ({"lam": -0.1}, ValueError, "lam must be finite, at least 0; got -0.1"),
        ({"lam": math.nan}, ValueError, "lam must be finite, at least 0; got nan"),
        ({"lam": "1"}, TypeError, "lam must be a real number"),
        ({"rule": "gauss"}, ValueError, "rule must be one of auto, hermite, sparse, sobol; got"),
        ({"level": 0}, ValueError, "level must be at least 1, got 0"),
        ({"level": 3, "n_nodes": 9}, ValueError, "n_nodes or level, not both: got 9 and 3"),
        ({"n_nodes": 0}, ValueError, "n_nodes must be at least 1, got 0"),
        ({"rule": "sobol", "level": 3}, ValueError, "has no level"),
        ({"rule": "sparse", "level": 27}, ValueError, "at most 26 for rule='sparse', got 27"),
        ({"rule": "hermite", "shape_W": (1, 50), "level": 2}, ValueError, "lower it"),
        ({"rule": "sobol", "shape_W": (1, 30000)}, ValueError, "at most 21201"),
        ({"n_theta": -1}, ValueError, "n_theta must be at least 0, got -1"),
        ({"hessian": "exact"}, ValueError, "hessian must be one of auto, product, differences"),
        ({"hessian": "product"}, ValueError, "needs a g with a hessian_product"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1, got 0"),
    ],
)
def test_bad_expectations(change, error, message):
    arguments = {"g": QUADRATIC, "shape_W": (2, 3), "lam": 0.1} | change
    g, shape = arguments.pop("g"), arguments.pop("shape_W")
    with pytest.raises(error, match=message):
        GaussianExpectation(g, shape, **arguments)


@pytest.mark.parametrize("name", ["cut", "network"])
@pytest.mark.parametrize(
    ("vector", "error", "message"),
    [
        (lambda n: np.zeros(n + 1), ValueError, r"must have shape \(\d+,\), got \(\d+,\)"),
        (lambda n: np.zeros((n, 1)), ValueError, "must have shape"),
        (lambda n: np.zeros(n, complex), TypeError, "must be real numbers, not complex128"),
        (lambda n: np.where(np.arange(n) == 2, np.nan, 1.0), ValueError, r"\[2\] is nan"),
        (lambda n: np.where(np.arange(n) == 1, -np.inf, 1.0), ValueError, r"\[1\] is -inf"),
    ],
)
def test_bad_points(name, vector, error, message):
    f, x = EVERY[name]()
    bad = vector(x.size)
    for call in (f.value, f.value_and_grad, f.bias_hessian, lambda y: f.hvp(y, x)):
        with pytest.raises(error, match="x " + message if message[0] != "\\" else message):
            call(bad)
    with pytest.raises(error, match="v " + message if message[0] != "\\" else message):
        f.hvp(x, bad)


def test_a_value_that_overflows_is_not_finite():
    f, x = network((2, 2), "polynomial", level=4)
    assert not math.isfinite(f.value(np.where(np.arange(x.size) < 6, 1e200, x)))


# ------------------------------------------------------------------------------------------------
# Maximum cut
# ------------------------------------------------------------------------------------------------


def test_cut_of_a_sharp_point():
    graph = nx.cycle_graph(6)
    f = MaxCutObjective(graph, 4, tau=1e-3, lam=0.5)
    x = pack(f, b=[1.0, -1.0, 1.0, -1.0, 1.0, 0.5])
    assert f.expected_cut(x) == pytest.approx(4.0, abs=ROUNDING)
    assert f.partition(x).tolist() == [1, -1, 1, -1, 1, 1]
    assert f.partition(x).dtype == np.int8
    assert f.partition(np.zeros(f.n_params)).tolist() == [1] * 6
    assert f.value(x) == pytest.approx(-1.0, abs=ROUNDING)
    assert "MaxCutObjective(CSRGraph(n_vertices=6" in repr(f)


def test_expected_cut_is_that_of_rounding():
    f, x = cut_problem(n=5, rank=2, tau=0.7)
    rng = np.random.default_rng(5)
    W, b = block_view(f, x, "W"), block_view(f, x, "b")
    count = 40_000
    z = rng.normal(size=(count, 2)) @ W.T + b + f.tau * rng.normal(size=(count, 5))
    tails, heads, weights = f.graph.edges()
    cuts = (np.sign(z[:, tails]) != np.sign(z[:, heads])) @ weights
    # Four standard errors.
    assert abs(cuts.mean() - f.expected_cut(x)) < 4.0 * cuts.std() / math.sqrt(count)
    assert f.expected_cut(x) == pytest.approx(
        0.5 * weights.sum() - f.value(x) + f.lam * (W**2).sum(), abs=ROUNDING
    )


def test_bias_hessian_has_the_pattern_of_the_graph():
    f, x = cut_problem(n=30, rank=4)
    H = f.bias_hessian(x)
    assert isinstance(H, scipy.sparse.csr_array)
    assert H.has_canonical_format
    expected = (f.graph.to_scipy() != 0.0).toarray() | np.eye(30, dtype=bool)
    assert np.array_equal((H != 0.0).toarray(), expected)
    again = f.bias_hessian(0.5 * x)
    assert np.shares_memory(H.indices, again.indices)
    assert not np.shares_memory(H.data, again.data)


def test_graphs_without_edges():
    f = MaxCutObjective((2, [], None), 1, tau=0.5, lam=0.25)
    x = np.array([1.0, 2.0, 3.0, 4.0])
    value, gradient = f.value_and_grad(x)
    assert (value, gradient.tolist()) == (1.25, [0.5, 1.0, 0.0, 0.0])
    assert f.hvp(x, x).tolist() == [0.5, 1.0, 0.0, 0.0]
    assert f.bias_hessian(x).toarray().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert f.expected_cut(x) == 0.0


def test_cut_in_parallel_gives_the_same_bits():
    """Rows are shared out by their entries: of very different numbers here, at both ends none."""
    core = scipy.sparse.tril(random_graph(1000, 40_000, seed=2, weights="signs").to_scipy()).tocoo()
    middle = [(0, v) for v in range(1, 700)]
    edges = np.concatenate([np.column_stack([core.row, core.col]), middle]) + 100
    graph = as_graph((1200, edges, np.concatenate([core.data, np.full(699, 0.7)])))
    results = []
    assert graph.n_edges * (1 + 3 / 32) > _PARALLEL_WORK
    for threads in (1, 2, 64):
        f = MaxCutObjective(graph, 3, tau=0.3, lam=0.1, n_threads=threads)
        rng = np.random.default_rng(0)
        x, v = rng.normal(size=f.n_params), rng.normal(size=f.n_params)
        value, gradient = f.value_and_grad(x)
        H = f.bias_hessian(x).data
        results.append([f.value(x), value, gradient, H, f.hvp(x, v), f.expected_cut(x)])
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((nx.path_graph(3), 0), {}, ValueError, "rank must be at least 1, got 0"),
        ((nx.path_graph(3), 1.5), {}, TypeError, "rank must be an integer, not 1.5"),
        ((nx.path_graph(3), 2), {"tau": 0.0}, ValueError, "tau must be finite, at least 1e-60"),
        ((nx.path_graph(3), 2), {"tau": -1.0}, ValueError, "tau must be finite"),
        ((nx.path_graph(3), 2), {"tau": math.inf}, ValueError, "got inf"),
        ((nx.path_graph(3), 2), {"lam": -1.0}, ValueError, "lam must be finite, at least 0; got"),
        ((nx.path_graph(3), 2), {"lam": True}, TypeError, "lam must be a real number, not True"),
        ((nx.path_graph(3), 2), {"n_threads": 0}, ValueError, "n_threads must be at least 1"),
        ((nx.Graph(), 2), {}, ValueError, "at least one vertex"),
        ((nx.DiGraph([(0, 1)]), 2), {}, TypeError, "directed"),
    ],
)
def test_bad_cuts(arguments, options, error, message):
    with pytest.raises(error, match=message):
        MaxCutObjective(*arguments, **({"tau": 0.5, "lam": 0.1} | options))


def test_cut_accepts_what_as_graph_accepts():
    graph = as_graph(nx.path_graph(4))
    for given in (graph, nx.path_graph(4), graph.to_scipy(), (4, [(0, 1), (1, 2), (2, 3)], None)):
        f = MaxCutObjective(given, 2, tau=0.5, lam=0.1, n_threads=1)
        assert f.value(np.ones(12)) == MaxCutObjective(graph, 2, tau=0.5, lam=0.1).value(
            np.ones(12)
        )


# ------------------------------------------------------------------------------------------------
# Protocol
# ------------------------------------------------------------------------------------------------


def bare(**changes):
    """The least that is an objective, with changes; None removes a member."""
    members = {
        "n_params": 3,
        "value": lambda x: 0.0,
        "value_and_grad": lambda x: (0.0, np.zeros(3)),
        "hvp": lambda x, v: np.zeros(3),
    } | changes
    return SimpleNamespace(**{name: part for name, part in members.items() if part is not None})


def test_bare_objectives():
    assert check_objective(bare()) == 3
    assert check_objective(bare(blocks={"b": (slice(0, 3), (3,))}, lam=1)) == 3
    with pytest.raises(ValueError, match=r"has no block 'W'; it has: none"):
        pack(bare(), W=1.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hvp": None}, TypeError, "lacks hvp"),
        ({"value": None, "n_params": None}, TypeError, "lacks n_params, value"),
        ({"value": 3.0}, TypeError, r"\.value must be a method, not 3.0"),
        ({"bias_hessian": 1}, TypeError, r"\.bias_hessian must be a method"),
        ({"n_params": 2.0}, TypeError, "n_params must be an integer, not 2.0"),
        ({"n_params": 0}, ValueError, "n_params must be at least 1, got 0"),
        ({"lam": -1.0}, ValueError, "lam must be finite and not negative, got -1.0"),
        ({"blocks": {"c": Block(slice(0, 1), (1,))}}, ValueError, "not 'c'"),
        ({"blocks": {"W": Block(slice(0, 3), (2, 2))}}, ValueError, "is not of shape"),
        (
            {"blocks": {"W": Block(slice(0, 2), (1, 2)), "b": Block(slice(1, 3), (2,))}},
            ValueError,
            "'W' and 'b' overlap",
        ),
    ],
)
def test_what_is_no_objective(changes, error, message):
    with pytest.raises(error, match=message):
        check_objective(bare(**changes))


def test_blocks_are_views():
    f, x = network((2, 3))
    W = block_view(f, x, "W")
    W[1, 2] = 7.0
    assert x[5] == 7.0
    parts = {name: block_view(f, x, name) for name in f.blocks}
    assert np.array_equal(pack(f, **parts), x)
    assert pack(f, b=2.0)[6:8].tolist() == [2.0, 2.0]
    assert "theta" not in GaussianExpectation(QUADRATIC, (1, 1), lam=0.0).blocks
    with pytest.raises(ValueError, match=r"block 'b' must have shape \(2,\), got \(3,\)"):
        pack(f, b=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="x must have shape"):
        block_view(f, x[1:], "W")
    with pytest.raises(TypeError, match="does not support item assignment"):
        f.blocks["W"] = None


# ------------------------------------------------------------------------------------------------
# The paper's toy example
# ------------------------------------------------------------------------------------------------

IOTA = 2.0


@numba.njit
def cube_value(z, _theta):
    """Return (ReLU_iota(z)^3 - 1)^2."""
    relu = max(z[0], 0.0) + math.log1p(math.exp(-IOTA * abs(z[0]))) / IOTA
    return (relu**3 - 1.0) ** 2


@numba.njit
def cube_gradient(z, _theta, out_z, _out_theta):
    """Write its derivative."""
    e = math.exp(-IOTA * abs(z[0]))
    relu = max(z[0], 0.0) + math.log1p(e) / IOTA
    sigmoid = (1.0 if z[0] >= 0.0 else e) / (1.0 + e)
    out_z[0] = 6.0 * (relu**3 - 1.0) * relu**2 * sigmoid


def test_toy_example_collapses_only_with_a_trained_bias():
    """E[(ReLU(w x + b)^3 - 1)^2] + lam w^2 from w = 1: b takes over from w wherever it may."""
    for lam in (0.001, 0.01, 0.1):
        f = GaussianExpectation((cube_value, cube_gradient), (1, 1), lam=lam, n_threads=1)
        trained = minimize(f.value_and_grad, [1.0, 0.0], jac=True, method="BFGS", tol=1e-9)

        def frozen(w, f=f):
            value, gradient = f.value_and_grad([w[0], 0.0])
            return value, gradient[:1]

        alone = minimize(frozen, [1.0], jac=True, method="BFGS", tol=1e-9)
        assert alone.jac[0] == pytest.approx(0.0, abs=1e-6)
        w, b = trained.x
        # The curvature in w is at least that of b, about 18 at the solution.
        assert abs(w) < 1e-8
        assert b == pytest.approx(math.log(math.expm1(IOTA)) / IOTA, abs=1e-8)
        assert trained.fun == pytest.approx(0.0, abs=1e-14)
        assert abs(alone.x[0]) > 0.3
        assert alone.fun > 0.3


@pytest.mark.parametrize("module", ["protocol", "cut", "gaussian"])
def test_examples(module):
    path = f"derand_fast.objectives.{module}"
    assert doctest.testmod(importlib.import_module(path)).failed == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxCutObjective((3, [(0, 1), (1, 2)], None), 2, tau=0.1, lam=0.1),
        lambda: JLObjective(np.eye(4), 2, eps=0.5, lam=0.1),
    ],
)
def test_objectives_can_be_pickled_and_copied(make):
    f = make()
    x = np.linspace(-1.0, 1.0, f.n_params)
    for other in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        assert other.value(x) == f.value(x)
        assert dict(other.blocks) == dict(f.blocks)
        with pytest.raises(TypeError):
            other.blocks["W"] = None
