"""Exact population risk by Hermite series, beside sums over nodes and over pairs in numpy.

Run with ``pytest bench/test_bench_mehler.py --benchmark-only --benchmark-group-by=group`` and
OPENBLAS_NUM_THREADS=1; on a busy machine add ``--benchmark-timer=time.thread_time``. A student of
smooth ReLUs (iota = 2, W of variance 1 / d) learns from tanh of one direction. Rows: the series,
with so many terms; "over_nodes", the same risk as a numpy average over 16,384 scrambled Sobol
points (64 x 64 Gauss-Hermite nodes for d = 2); "over_pairs", the value alone by a 16 x 16
Gauss-Hermite rule for each pair of units, in numpy. ``extra_info`` has the relative errors of value
and gradient (against 256 terms) beside the time, and `error_bound`. All on one thread, but for the
last group.
"""

import functools

import numpy as np
import pytest

from derand_fast.kernels.quadrature import gauss_hermite, sobol_normal, tensor_hermite
from derand_fast.objectives.mehler_risk import MehlerRisk

IOTA = 2.0
SHAPES = {
    "h = 256, d = 10": (256, 10),
    "h = 1000, d = 2": (1000, 2),
    "h = 1000, d = 10": (1000, 10),
}
TERMS = (32, 64)
NODES = {"h = 256, d = 10", "h = 1000, d = 2"}


def link(u):
    return np.tanh(u[:, 0])


@functools.cache
def risk(shape, terms, **options):
    """Return f, settled at a point, the point and a direction."""
    h, d = shape
    options = {"terms": terms, "n_threads": 1} | options
    f = MehlerRisk(d, h, "smooth_relu", U=np.eye(1, d), link=link, iota=IOTA, **options)
    rng = np.random.default_rng(0)
    W, b, a = rng.normal(size=(h, d)) / np.sqrt(d), rng.normal(size=h), rng.normal(size=h)
    p = np.concatenate([W.ravel(), b, a / np.sqrt(h), [0.1]])
    f.refine(p)
    return f, p, rng.normal(size=f.n_params)


@functools.cache
def exact(shape):
    """Value and gradient to far more digits than any row has."""
    f, p, _ = risk(shape, 256)
    return f.value_and_grad(p)


def nodes_of(d):
    """Nodes (N, d) and weights."""
    if d == 2:
        rule = tensor_hermite(64, 2)
        axis = rule.nodes[:, 0]
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        return points, np.multiply.outer(rule.weights, rule.weights).ravel()
    rule = sobol_normal(2**11, d, 8, 0)
    return rule.nodes, rule.weights


def over_nodes(p, h, d, x, weights, y):
    """Value and gradient of the average over nodes."""
    W, b, a, c = np.split(p, np.cumsum([h * d, h, h]))
    t = IOTA * (x @ W.reshape(h, d).T + b)
    decay = np.exp(-np.abs(t))
    units = (np.maximum(t, 0.0) + np.log1p(decay)) / IOTA
    slopes = np.where(t >= 0.0, 1.0, decay) / (1.0 + decay)
    residual = units @ a + c - y
    share = 2.0 * weights * residual
    along = share[:, None] * slopes * a
    parts = (along.T @ x).ravel(), along.sum(axis=0), units.T @ share, [share.sum()]
    return weights @ residual**2, np.concatenate(parts)


def over_pairs(p, h, d):
    """The student's part of the value by a rule for each pair, one row of pairs at a time."""
    W, b, a, _ = np.split(p, np.cumsum([h * d, h, h]))
    W = W.reshape(h, d)
    t, weights = gauss_hermite(16)
    scale = np.linalg.norm(W, axis=1)
    first = np.logaddexp(0.0, IOTA * (scale[:, None] * t + b[:, None])) / IOTA
    total = 0.0
    for j in range(h):
        r = W @ W[j] / (scale * scale[j])
        rest = scale * np.sqrt(np.maximum(1.0 - r * r, 0.0))
        inner = scale[:, None, None] * r[:, None, None] * t[:, None] + rest[:, None, None] * t
        second = np.logaddexp(0.0, IOTA * (inner + b[:, None, None])) / IOTA
        total += a[j] * (a @ (second @ weights @ (weights * first[j])))
    return total


def errors(shape, value, gradient):
    """Relative errors of value and gradient."""
    right_value, right_gradient = exact(shape)
    error = np.linalg.norm(gradient - right_gradient) / np.linalg.norm(right_gradient)
    return abs(value - right_value) / right_value, error


def record(benchmark, shape, result):
    value_error, gradient_error = errors(shape, *result)
    benchmark.extra_info["value error"] = f"{value_error:.1g}"
    benchmark.extra_info["gradient error"] = f"{gradient_error:.1g}"
    return value_error, gradient_error


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("terms", TERMS)
def test_value_and_gradient(benchmark, name, terms):
    benchmark.group = f"value and gradient, {name}"
    f, p, _ = risk(SHAPES[name], terms)
    bound = f.error_bound(p)
    value_error, gradient_error = record(benchmark, SHAPES[name], f.value_and_grad(p))
    assert value_error * exact(SHAPES[name])[0] <= bound + 1e-12
    # Steep units in the plane: |w| up to 3.7, poles at distance pi / (2 |w|).
    assert gradient_error < (1e-3 if terms == 32 else 1e-5)
    benchmark(f.value_and_grad, p)
    benchmark.extra_info.update(bound=f"{bound:.1g}", form=f.form, nodes=f.n_nodes)


@pytest.mark.parametrize("name", sorted(NODES))
def test_value_and_gradient_over_nodes(benchmark, name):
    benchmark.group = f"value and gradient, {name}"
    h, d = SHAPES[name]
    _, p, _ = risk((h, d), TERMS[0])
    x, weights = nodes_of(d)
    call = functools.partial(over_nodes, p, h, d, x, weights, link(x))
    value_error, _ = record(benchmark, (h, d), call())
    assert value_error < 0.1
    benchmark(call)


def test_hundred_units_over_pairs(benchmark):
    benchmark.group = "value and gradient, h = 100, d = 10"
    h, d = 100, 10
    f = MehlerRisk(
        *(d, h, "smooth_relu"), U=np.eye(1, d), link=lambda u: 0.0 * u[:, 0], iota=IOTA, terms=128
    )
    p = risk((h, d), 64)[1].copy()
    p[-1] = 0.0
    expected = f.value(p)
    error = abs(over_pairs(p, h, d) - expected) / expected
    # 16 x 16 nodes for kinks of width 1 / 2.
    assert error < 1e-3
    benchmark(over_pairs, p, h, d)
    benchmark.extra_info["value error"] = f"{error:.1g}"


@pytest.mark.parametrize("method", ["value", "value_and_grad"])
def test_hundred_units(benchmark, method):
    benchmark.group = "value and gradient, h = 100, d = 10"
    f, p, _ = risk((100, 10), 64)
    call = getattr(f, method)
    record(benchmark, (100, 10), f.value_and_grad(p))
    benchmark(call, p)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("active", ["all", "W and b"])
def test_hessian_product(benchmark, name, active):
    """One of many products at a point."""
    benchmark.group = f"Hessian product, {name}, 64 terms"
    flags = None if active == "all" else (True, True, False, False)
    f, p, v = risk(SHAPES[name], 64, active=flags)
    product = f.hvp(p, v)
    w = np.where(product != 0.0, np.random.default_rng(1).normal(size=v.size), 0.0)
    gap = abs(product @ w - f.hvp(p, w) @ v) / (np.linalg.norm(product) * np.linalg.norm(w))
    assert gap < 1e-13
    benchmark(f.hvp, p, v)
    benchmark.extra_info["asymmetry"] = f"{gap:.1g}"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("what", ["first product", "value", "bias_hessian", "error_bound"])
def test_others(benchmark, name, what):
    benchmark.group = f"{what}, {name}, 64 terms"
    f, p, v = risk(SHAPES[name], 64)
    moved = p.copy()

    def first_product():
        moved[0] += 1e-9
        f.hvp(moved, v)

    call = first_product if what == "first product" else lambda: getattr(f, what)(p)
    call()
    benchmark.pedantic(call, rounds=1 if benchmark.disabled else 5)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark, threads):
    benchmark.group = "value and gradient, h = 1000, d = 10, 64 terms, threads"
    f, p, _ = risk(SHAPES["h = 1000, d = 10"], 64, n_threads=threads)
    f.value_and_grad(p)
    benchmark(f.value_and_grad, p)
