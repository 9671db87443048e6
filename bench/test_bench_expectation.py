"""A small network's loss under Gaussian inputs: value, gradient, products, beside numpy.

Run with ``pytest bench/test_bench_expectation.py --benchmark-only --benchmark-group-by=group``, and
OPENBLAS_NUM_THREADS=1. g(z) = (c . tanh(z) - 1)^2, c being theta. Rows: "simd", with tanh from our
branch-free exp, which LLVM vectorises; "libm", with math.tanh; "numpy", the same sums on all nodes
at once (one matrix product, nodes x units stored, nodes written out beforehand); "python", the slow
path. All on one thread, but for the last group. ``extra_info`` has nanoseconds per node and the
largest deviation from numpy.
"""

import functools
import itertools
import math

import numba
import numpy as np
import pytest

from derand_fast.kernels.special import exp
from derand_fast.objectives import GaussianExpectation, GaussianFunction, block_view

LAM = 0.1
# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("simd",)
FAST = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})


@FAST
def simd_tanh(v):
    """Return tanh(v) without a branch or a library call."""
    e = exp(-2.0 * abs(v))
    return math.copysign((1.0 - e) / (1.0 + e), v)


def network(tanh):
    """Return g with this tanh; its gradient returns the value too."""

    @FAST
    def value(z, theta):
        total = -1.0
        for i in range(z.size):
            total += theta[i] * tanh(z[i])
        return total * total

    @FAST
    def gradient(z, theta, out_z, out_theta):
        total = -1.0
        for i in range(z.size):
            t = tanh(z[i])
            out_theta[i] = t
            out_z[i] = theta[i] * (1.0 - t * t)
            total += theta[i] * t
        for i in range(z.size):
            out_z[i] *= 2.0 * total
            out_theta[i] *= 2.0 * total
        return total * total

    @FAST
    def hessian_product(z, theta, direction_z, direction_theta, out_z, out_theta):
        total, rate = -1.0, 0.0
        for i in range(z.size):
            t = tanh(z[i])
            out_theta[i] = t
            total += theta[i] * t
            rate += direction_theta[i] * t + theta[i] * (1.0 - t * t) * direction_z[i]
        for i in range(z.size):
            t = out_theta[i]
            slope = 1.0 - t * t
            change = direction_theta[i] * slope - 2.0 * theta[i] * t * slope * direction_z[i]
            out_z[i] = 2.0 * (rate * theta[i] * slope + total * change)
            out_theta[i] = 2.0 * (rate * t + total * slope * direction_z[i])

    return GaussianFunction(value, gradient, hessian_product)


SIMD, LIBM = network(simd_tanh), network(FAST(lambda v: math.tanh(v)))
PYTHON = GaussianFunction(*(part.py_func for part in LIBM))
ROWS = {"simd": SIMD, "libm": LIBM, "simd, differences": GaussianFunction(*SIMD[:2])}
SHAPES = {
    "8 units, tensor grid, d = 2": (8, 2),
    "8 units, tensor grid, d = 4": (8, 4),
    "5 units, sparse grid, d = 8": (5, 8),
    "10 units, Sobol, d = 50": (10, 50),
}


def objective(g, shape, **options):
    """Return f, a point and a direction."""
    options = {"lam": LAM, "n_theta": shape[0], "n_threads": 1} | options
    f = GaussianExpectation(g, shape, **options)
    rng = np.random.default_rng(0)
    return f, 0.5 * rng.normal(size=f.n_params), rng.normal(size=f.n_params)


def written_out(rule):
    """Return nodes (count, d) and weights."""
    if not rule.tensor:
        return rule.nodes, rule.weights
    nodes = np.array(list(itertools.product(rule.nodes[:, 0], repeat=rule.dimension)))
    weights = functools.reduce(np.multiply.outer, [rule.weights] * rule.dimension)
    return nodes, weights.ravel()


def numpy_gradient(f, x, nodes, weights):
    """Value and gradient, all nodes at once."""
    W, b, theta = (block_view(f, x, name) for name in ("W", "b", "theta"))
    T = np.tanh(nodes @ W.T + b)
    residual = T @ theta - 1.0
    along = (2.0 * weights * residual)[:, None] * (theta * (1.0 - T * T))
    parts = (along.T @ nodes + 2.0 * LAM * W).ravel(), along.sum(0), T.T @ (2 * weights * residual)
    return weights @ residual**2 + LAM * np.sum(W * W), np.concatenate(parts)


def record(benchmark, f, **extra):
    """Time per node (no timing under --benchmark-disable)."""
    benchmark.extra_info.update(extra, nodes=f.n_nodes, rule=f.rule)
    if benchmark.stats is not None:
        nanoseconds = benchmark.stats["min"] / f.n_nodes * 1e9
        benchmark.extra_info["ns per node"] = round(nanoseconds, 1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("row", ["simd", "libm", "numpy"])
def test_value_and_gradient(benchmark, row, shape):
    benchmark.group = f"value and gradient, {shape}"
    f, x, _ = objective(ROWS.get(row, SIMD), shape)
    nodes, weights = written_out(f._nodes)
    expected = numpy_gradient(f, x, nodes, weights)
    call = f.value_and_grad
    if row == "numpy":
        call = functools.partial(numpy_gradient, f, nodes=nodes, weights=weights)
    value, gradient = call(x)
    error = max(abs(value - expected[0]), np.abs(gradient - expected[1]).max())
    # Sums of up to 16384 terms of size 1 in different orders; sparse weights add up to 30.
    assert error < 1e-12
    benchmark(call, x)
    record(benchmark, f, error=f"{error:.1g}")


@pytest.mark.parametrize("row", ROWS)
def test_hessian_product(benchmark, row):
    benchmark.group = "Hessian product, (8, 4)"
    f, x, v = objective(ROWS[row], (8, 4))
    exact = objective(LIBM, (8, 4))[0].hvp(x, v)
    error = np.abs(f.hvp(x, v) - exact).max() / np.abs(exact).max()
    benchmark(f.hvp, x, v)
    record(benchmark, f, error=f"{error:.1g}")


@pytest.mark.parametrize("method", ["value", "bias_hessian", "value_with_error"])
def test_others(benchmark, method):
    benchmark.group = f"{method}, (8, 4)"
    f, x, _ = objective(SIMD, (8, 4))
    call = getattr(f, method)
    call(x)
    benchmark(call, x)
    record(benchmark, f)


@pytest.mark.parametrize("row", ["simd", "python"])
def test_slow_path(benchmark, row):
    benchmark.group = "value and gradient, (2, 2), 64 nodes"
    f, x, _ = objective({"simd": SIMD, "python": PYTHON}[row], (2, 2), level=8)
    f.value_and_grad(x)
    benchmark(f.value_and_grad, x)
    record(benchmark, f)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark, threads):
    benchmark.group = "value and gradient, (8, 4), 160,000 nodes, threads"
    f, x, _ = objective(SIMD, (8, 4), level=20, n_threads=threads)
    f.value_and_grad(x)
    benchmark(f.value_and_grad, x)
    record(benchmark, f, threads=threads)
