"""Sums over nodes: against plain loops, in parts, compiled and not."""

import itertools
import math
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from derand_fast.kernels import expectation
from derand_fast.kernels.quadrature import sparse_hermite, tensor_hermite

# A few dozen operations on numbers of size 1.
ROUNDING = 1e-13


@numba.njit
def value(z, theta):
    """Return sin(z_0 + 2 z_1) theta_0 + z_1 theta_1^2."""
    return math.sin(z[0] + 2.0 * z[1]) * theta[0] + z[1] * theta[1] ** 2


@numba.njit
def gradient(z, theta, out_z, out_theta):
    """Add, so that a driver that does not clear its scratch is found out."""
    slope = math.cos(z[0] + 2.0 * z[1]) * theta[0]
    out_z[0] += slope
    out_z[1] += 2.0 * slope + theta[1] ** 2
    out_theta[0] += math.sin(z[0] + 2.0 * z[1])
    out_theta[1] += 2.0 * z[1] * theta[1]


@numba.njit
def value_and_gradient(z, theta, out_z, out_theta):
    """Write the gradient and return the value."""
    gradient(z, theta, out_z, out_theta)
    return value(z, theta)


def exact_hessian(z, theta):
    """Return the Hessian of the function above in (z_0, z_1, theta_0, theta_1)."""
    s, c = math.sin(z[0] + 2.0 * z[1]), math.cos(z[0] + 2.0 * z[1])
    H = np.zeros((4, 4))
    H[:2, :2] = -s * theta[0] * np.array([[1.0, 2.0], [2.0, 4.0]])
    H[0, 2] = H[2, 0] = c
    H[1, 2] = H[2, 1] = 2.0 * c
    H[1, 3] = H[3, 1] = 2.0 * theta[1]
    H[3, 3] = 2.0 * z[1]
    return H


def kernels(compiled=True):
    """Drivers of the function above, Hessian products by differences."""
    parts = value, value_and_gradient, gradient
    if not compiled:
        parts = tuple(part.py_func for part in parts)
    product = expectation.hessian_product_by_differences(parts[2], compiled=compiled)
    products, curvatures = expectation.product_drivers(product, compiled=compiled)
    return SimpleNamespace(
        value=expectation.value_driver(parts[0], compiled=compiled),
        gradient=expectation.gradient_driver(parts[1], compiled=compiled),
        product=products,
        curvature=curvatures,
    )


def all_nodes(rule):
    """Nodes (count, d) and weights (count,) written out."""
    if not rule.tensor:
        return rule.nodes, rule.weights
    axes = [rule.nodes[:, 0]] * rule.dimension
    nodes = np.array(list(itertools.product(*axes)))
    weights = [math.prod(part) for part in itertools.product(rule.weights, repeat=rule.dimension)]
    return nodes, np.array(weights)


def point(d, seed=0):
    """W (2, d), b, theta, and a direction of the same shapes."""
    rng = np.random.default_rng(seed)
    shapes = [(2, d), (2,), (2,)] * 2
    return [0.5 * rng.normal(size=shape) for shape in shapes]


def run(driver, rule, arguments, width, by_column=True, cuts=None, extra=()):
    """Rows of all blocks; ``cuts`` are block numbers where the work is split into calls."""
    W, b, theta, *direction = arguments
    layout = (lambda M: np.ascontiguousarray(M.T)) if by_column else (lambda M: M)
    n_blocks = -(-rule.n_nodes // rule.block)
    rows = np.full((n_blocks, width), np.nan)
    along = (layout(direction[0]), *direction[1:]) if direction else ()
    cuts = [0, n_blocks] if cuts is None else cuts
    for first, last in itertools.pairwise(cuts):
        driver(
            *(first, last, rule.block, rule.n_nodes, rule.tensor, rule.nodes, rule.weights),
            *(*extra, by_column, layout(W), b, theta, *along, rows[first:last]),
        )
    return rows


RULES = {"tensor": tensor_hermite(7, 3), "sparse": sparse_hermite(4, 3)}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("by_column", [True, False])
def test_sums_against_loops(name, by_column):
    rule = RULES[name]
    W, b, theta, dW, db, dtheta = point(3)
    nodes, weights = all_nodes(rule)
    expected = {"value": 0.0, "size": 0.0, "lower": 0.0, "H": np.zeros((2, 2))}
    sums = {"gradient": np.zeros(10), "product": np.zeros(10)}
    for q, (x, weight) in enumerate(zip(nodes, weights, strict=True)):
        z = W @ x + b
        g = value.py_func(z, theta)
        expected["value"] += weight * g
        expected["size"] += abs(weight * g)
        expected["lower"] = expected["lower"] + rule.lower.T[q] * g if rule.lower.size else []
        H = exact_hessian(z, theta)
        expected["H"] += weight * H[:2, :2]
        slope = np.zeros(4)
        gradient.py_func(z, theta, slope[:2], slope[2:])
        for key, along in (
            ("gradient", slope),
            ("product", H @ np.concatenate([dW @ x + db, dtheta])),
        ):
            M = np.outer(along[:2], x)
            M = M.T if by_column else M
            sums[key] += weight * np.concatenate([M.ravel(), along])

    drivers = kernels()
    here = {"by_column": by_column}
    width = 2 + len(rule.lower)
    total = run(drivers.value, rule, (W, b, theta), width, extra=(rule.lower,), **here).sum(axis=0)
    values = [expected["value"], expected["size"], *expected["lower"]]
    np.testing.assert_allclose(total, values, rtol=0, atol=ROUNDING)
    total = run(drivers.gradient, rule, (W, b, theta), 11, **here).sum(axis=0)
    assert total[0] == pytest.approx(expected["value"], abs=ROUNDING)
    np.testing.assert_allclose(total[1:], sums["gradient"], rtol=0, atol=ROUNDING)
    # Differences: eps^(4/5) = 3e-13, times 2^5 (slope 2 in z_1, fifth derivative), times sum |w|.
    size = np.abs(weights).sum()
    total = run(drivers.product, rule, (W, b, theta, dW, db, dtheta), 10, **here).sum(axis=0)
    np.testing.assert_allclose(total, sums["product"], rtol=0, atol=2e-11 * size)
    total = run(drivers.curvature, rule, (W, b, theta), 4, **here).sum(axis=0)
    np.testing.assert_allclose(total.reshape(2, 2), expected["H"], rtol=0, atol=2e-11 * size)


def test_blocks_do_not_depend_on_who_computes_them():
    rule = tensor_hermite(12, 3)
    assert rule.block == 256
    n_blocks = -(-rule.n_nodes // rule.block)
    assert n_blocks == 7
    arguments = point(3)
    drivers = kernels()
    for driver, width, extra in (
        (drivers.value, 2, (rule.lower,)),
        (drivers.gradient, 11, ()),
        (drivers.product, 10, ()),
        (drivers.curvature, 4, ()),
    ):
        used = arguments if driver is drivers.product else arguments[:3]
        whole = run(driver, rule, used, width, extra=extra)
        parts = run(driver, rule, used, width, extra=extra, cuts=[0, 1, 4, 7])
        assert np.array_equal(whole, parts)


def test_without_compilation():
    rule = sparse_hermite(3, 2)
    arguments = point(2)
    fast, slow = kernels(), kernels(compiled=False)
    for name, width, extra in (
        ("value", 4, (rule.lower,)),
        ("gradient", 9, ()),
        ("product", 8, ()),
        ("curvature", 4, ()),
    ):
        used = arguments if name == "product" else arguments[:3]
        ours = run(getattr(fast, name), rule, used, width, extra=extra)
        theirs = run(getattr(slow, name), rule, used, width, extra=extra)
        # Differences of gradients amplify the last bit by 1 / step = 2e3.
        tolerance = ROUNDING if name in ("value", "gradient") else 1e-11
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_nodes_are_callable_from_njit_and_run_through_the_grid():
    rule = tensor_hermite(3, 4)

    @numba.njit
    def walk(first, count, nodes, weights, out):
        digits, x = np.empty(4, np.int64), np.empty(4)
        expectation.first_digits(first, weights.size, digits)
        for q in range(count):
            out[q, 4] = expectation.next_node(first + q, True, nodes, weights, digits, x)
            out[q, :4] = x

    nodes, weights = all_nodes(rule)
    for first, count in ((0, 81), (17, 64), (80, 1)):
        out = np.empty((count, 5))
        walk(first, count, rule.nodes, rule.weights, out)
        assert np.array_equal(out[:, :4], nodes[first : first + count])
        np.testing.assert_allclose(out[:, 4], weights[first : first + count], rtol=1e-15)


def test_difference_step():
    z, nothing = np.array([1.0, -3.0]), np.empty(0)
    step = expectation.difference_step(z, nothing, np.array([0.0, -4.0]), nothing)
    assert 4.0 * step == pytest.approx((3.0 * np.finfo(float).eps) ** 0.2, rel=1e-14)
    assert expectation.difference_step(z, nothing, np.zeros(2), nothing) == 0.0
    product = expectation.hessian_product_by_differences(gradient)
    out_z, out_theta = np.full(2, np.nan), np.full(2, np.nan)
    product(z, np.ones(2), np.zeros(2), np.zeros(2), out_z, out_theta)
    assert np.array_equal(out_z, np.zeros(2))
    assert np.array_equal(out_theta, np.zeros(2))


def test_add_rows_in_order():
    rows = np.array([[1e16, 1.0], [1.0, 2.0], [-1e16, 3.0]])
    total = np.zeros(2)
    expectation.add_rows(rows, total)
    assert total.tolist() == [0.0, 6.0]
