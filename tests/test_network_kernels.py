"""Risks of networks over nodes against a slow twin, closed forms, and each other.

The twin is plain numpy on whole arrays, and works for complex parameters as well. So its gradient
is checked by the complex step Im f(p + i s e) / s, which has no cancellation, and Hessian products
are Im grad f(p + i s v) / s, exact up to rounding.
"""

import copy
import doctest
import itertools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import scipy.special

from derand_fast.kernels.calls import c_function, call_at, pointer
from derand_fast.objectives import node_risk
from derand_fast.objectives.node_risk import NodeRisk

STEP = 1e-100
# Rounding of sums of up to some thousand terms of either sign, relative to the norm of the result.
ROUNDING = 1e-12
DEPTHS = [(3, 13, 1), (2, 9, 17, 1), (3, 8, 7, 5, 1)]
SMOOTH = ("smooth_relu", "smooth_relu_squared", "smooth_relu_cubed")


# --- the slow twin --------------------------------------------------------------------------------


def _activation(name, iota, z):
    """Value and slope, also for complex z."""
    if name in SMOOTH:
        power = 1 + SMOOTH.index(name)
        f, s = np.log1p(np.exp(iota * z)) / iota, 1 / (1 + np.exp(-iota * z))
        return f**power, power * f ** (power - 1) * s
    if name == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2
    if name == "erf":
        return scipy.special.erf(z), 2 / math.sqrt(math.pi) * np.exp(-z * z)
    return (z * z, 2 * z) if name == "quadratic" else (z, np.ones_like(z))


def _loss(name, delta, o, y):
    """Value and slope, also for complex o."""
    if name == "squared":
        return (o - y) ** 2, 2 * (o - y)
    if name == "logistic":
        return np.log1p(np.exp(-y * o)), -y / (1 + np.exp(y * o))
    root = np.sqrt(1 + ((o - y) / delta) ** 2)
    return delta**2 * (root - 1), (o - y) / root


class Twin:
    def __init__(
        self, widths, activation, X, weights, y, *, loss="squared", iota=1.0, delta=1.0, **_
    ):
        self.widths, self.activation, self.iota = widths, activation, iota
        self.X, self.weights, self.y, self.loss, self.delta = X, weights, y, loss, delta

    def layers(self, p):
        start, layers = 0, []
        for below, h in itertools.pairwise(self.widths):
            middle, end = start + h * below, start + h * (below + 1)
            layers.append((p[start:middle].reshape(h, below), p[middle:end]))
            start = end
        return layers

    def value_and_grad(self, p):
        layers, A, slopes = self.layers(p), [self.X], []
        for W, b in layers[:-1]:
            a, slope = _activation(self.activation, self.iota, A[-1] @ W.T + b)
            A.append(a)
            slopes.append(slope)
        W, b = layers[-1]
        o = (A[-1] @ W.T + b)[:, 0]
        losses, c = _loss(self.loss, self.delta, o, self.y)
        E, parts = (self.weights * c)[:, None], []
        for layer in range(len(layers) - 1, -1, -1):
            parts = [(E.T @ A[layer]).ravel(), E.sum(axis=0), *parts]
            if layer:
                E = (E @ layers[layer][0]) * slopes[layer - 1]
        return self.weights @ losses, np.concatenate(parts)

    def hvp(self, p, v):
        return self.value_and_grad(p + 1j * STEP * v)[1].imag / STEP


def _problem(widths, activation="smooth_relu", n_nodes=61, seed=0, **options):
    """Arguments of NodeRisk, a point and a direction."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_nodes, widths[0]))
    y = np.sin(2 * X[:, 0]) + 0.1
    if options.get("loss") == "logistic":
        y = np.where(y > 0, 1.0, -1.0)
    # Some weights are negative, as those of sparse grids.
    weights = (rng.random(n_nodes) - 0.1) / n_nodes
    n_params = sum(h * (below + 1) for below, h in itertools.pairwise(widths))
    p = 0.6 * rng.normal(size=n_params)
    return (
        (widths, activation, X, weights, y),
        {"iota": 2.0, **options},
        p,
        rng.normal(size=n_params),
    )


def _assert_near(actual, expected, tolerance=ROUNDING):
    size = np.linalg.norm(expected)
    assert np.linalg.norm(np.asarray(actual) - expected) <= tolerance * size


def _assert_like_twin(arguments, options, p, v):
    risk, twin = NodeRisk(*arguments, **options), Twin(*arguments, **options)
    value, gradient = risk.value_and_grad(p)
    expected = twin.value_and_grad(p)
    assert value == pytest.approx(expected[0], rel=ROUNDING)
    _assert_near(gradient, expected[1])
    _assert_near(risk.hvp(p, v), twin.hvp(p, v))


def test_twin_by_complex_steps():
    for widths in DEPTHS:
        arguments, options, p, _ = _problem(widths, n_nodes=5)
        twin = Twin(*arguments, **options)
        gradient = twin.value_and_grad(p)[1]
        steps = [twin.value_and_grad(p + 1j * STEP * e)[0].imag / STEP for e in np.eye(p.size)]
        _assert_near(gradient, np.array(steps))


@pytest.mark.parametrize("widths", DEPTHS)
@pytest.mark.parametrize("loss", ["squared", "logistic", "pseudo_huber"])
def test_losses_and_depths(widths, loss):
    _assert_like_twin(*_problem(widths, loss=loss, delta=0.7))


@pytest.mark.parametrize("widths", DEPTHS)
@pytest.mark.parametrize("activation", [*SMOOTH[1:], "tanh", "erf", "quadratic", "linear"])
def test_activations_and_depths(widths, activation):
    arguments, options, p, v = _problem(widths, activation)
    # Powers of powers grow fast; small weights keep the sums from cancelling.
    _assert_like_twin(arguments, options, 0.5 * p, v)


@pytest.mark.parametrize("n_nodes", [1, 7, 64, 129, 1000])
@pytest.mark.parametrize(
    "widths", [(1, 1, 1), (1, 33, 1), (12, 7, 1), (25, 70, 1), (1, 1, 1, 1), (5, 40, 3, 1)]
)
def test_sizes(widths, n_nodes):
    """Below, at and above vectors, tiles and blocks."""
    _assert_like_twin(*_problem(widths, "tanh", n_nodes))


@pytest.mark.parametrize("widths", DEPTHS)
def test_finite_differences(widths):
    arguments, options, p, v = _problem(widths)
    risk = NodeRisk(*arguments, **options)
    step = 1e-5
    gradient, product = risk.value_and_grad(p)[1], risk.hvp(p, v)
    up, down = risk.value_and_grad(p + step * v), risk.value_and_grad(p - step * v)
    # step^2 times third derivatives, and 1e-16 / step.
    assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient @ v, rel=1e-7)
    _assert_near((up[1] - down[1]) / (2 * step), product, 1e-7)


@pytest.mark.parametrize("widths", DEPTHS)
def test_product_is_symmetric_and_linear(widths):
    arguments, options, p, v = _problem(widths)
    risk = NodeRisk(*arguments, **options)
    u = np.random.default_rng(9).normal(size=p.size)
    Hu, Hv = risk.hvp(p, u), risk.hvp(p, v)
    size = np.linalg.norm(u) * np.linalg.norm(Hv)
    assert u @ Hv == pytest.approx(v @ Hu, abs=1e-14 * size)
    _assert_near(risk.hvp(p, 2 * u - 3 * v), 2 * Hu - 3 * Hv)


# --- closed forms ---------------------------------------------------------------------------------


def test_quadratic_unit_by_hand():
    """The risk (a (w x + b)^2 + c - y)^2 at one node, all derivatives written out."""
    x, y, (w, b, a, c) = 1.5, -0.5, (0.8, -0.3, 1.7, 0.2)
    risk = NodeRisk((1, 1, 1), "quadratic", [[x]], [1.0], [y])
    z = w * x + b
    r = a * z**2 + c - y
    # Derivatives of the output in (w, b, a, c), first and second.
    J = np.array([2 * a * z * x, 2 * a * z, z**2, 1.0])
    second = np.zeros((4, 4))
    second[:2, :2] = 2 * a * np.outer([x, 1], [x, 1])
    second[:2, 2] = second[2, :2] = 2 * z * x, 2 * z
    value, gradient = risk.value_and_grad([w, b, a, c])
    assert value == pytest.approx(r * r, rel=1e-14)
    np.testing.assert_allclose(gradient, 2 * r * J, rtol=1e-14)
    H = np.array([risk.hvp([w, b, a, c], e) for e in np.eye(4)])
    np.testing.assert_allclose(H, 2 * np.outer(J, J) + 2 * r * second, rtol=1e-13, atol=1e-14)
    assert risk.bias_hessian([w, b, a, c])[0, 0] == pytest.approx(H[1, 1], rel=1e-14)


def test_linear_network_over_gaussian_inputs():
    """E[(w_2 . (W x + b) + c - u . x)^2] = ||W^T w_2 - u||^2 + (w_2 . b + c)^2."""
    rng = np.random.default_rng(3)
    W, b, w2, c, u = (
        rng.normal(size=(5, 2)),
        rng.normal(size=5),
        rng.normal(size=5),
        0.3,
        [1.0, 2.0],
    )
    X, weights = _gauss_hermite(4, 2)
    risk = NodeRisk((2, 5, 1), "linear", X, weights, X @ u)
    p = np.concatenate([W.ravel(), b, w2, [c]])
    exact = np.sum((W.T @ w2 - u) ** 2) + (w2 @ b + c) ** 2
    value, gradient = risk.value_and_grad(p)
    assert value == pytest.approx(exact, rel=1e-13)
    np.testing.assert_allclose(
        gradient[:10].reshape(5, 2), 2 * np.outer(w2, W.T @ w2 - u), rtol=1e-12
    )
    np.testing.assert_allclose(risk.bias_hessian(p), 2 * np.outer(w2, w2), rtol=1e-13)


def _gauss_hermite(n, d):
    x, w = np.polynomial.hermite_e.hermegauss(n)
    X = np.stack(np.meshgrid(*[x] * d, indexing="ij"), axis=-1).reshape(-1, d)
    W = np.ones(1)
    for _ in range(d):
        W = np.outer(W, w / w.sum()).ravel()
    return X, W


@numba.njit
def _the_output(output, target):
    return output


@numba.njit
def _one(output, target):
    return 1.0


@numba.njit
def _nothing(output, target):
    return 0.0


@pytest.mark.parametrize("widths", [(2, 12, 1), (2, 8, 6, 1)])
def test_stein_identity(widths):
    """grad_{W_1} f = H_bb W_1 for y = 0, and - 2 E[do/db_1] u^T more for the teacher y = u . x."""
    X, weights = _gauss_hermite(40, 2)
    _, _, p, _ = _problem(widths, seed=5)
    h, u = widths[1], np.array([1.0, -0.5])
    W = p[: 2 * h].reshape(h, 2)
    risk = NodeRisk(widths, "smooth_relu", X, weights, np.zeros(len(X)))
    H = risk.bias_hessian(p)
    # 40 nodes on an axis leave an error of 1e-9 for units of slope about 1.
    _assert_near(risk.value_and_grad(p)[1][: 2 * h].reshape(h, 2), H @ W, 1e-8)
    taught = NodeRisk(widths, "smooth_relu", X, weights, X @ u)
    mean = NodeRisk(
        widths, "smooth_relu", X, weights, np.zeros(len(X)), loss=(_the_output, _one, _nothing)
    )
    slopes = mean.value_and_grad(p)[1][2 * h : 3 * h]
    expected = taught.bias_hessian(p) @ W - 2 * np.outer(slopes, u)
    _assert_near(taught.value_and_grad(p)[1][: 2 * h].reshape(h, 2), expected, 1e-8)


@pytest.mark.parametrize(
    ("widths", "n_nodes"), [((2, 130, 1), 1100), ((3, 9, 1), 40), ((2, 6, 5, 1), 70)]
)
def test_bias_hessian_by_products(widths, n_nodes):
    """More than one panel of rows and one batch of nodes; and whatever parts are active."""
    arguments, options, p, _ = _problem(widths, n_nodes=n_nodes)
    risk = NodeRisk(*arguments, **options)
    d, h = widths[:2]
    biases = slice(d * h, (d + 1) * h)
    columns = [risk.hvp(p, e)[biases] for e in np.eye(p.size)[biases]]
    H = risk.bias_hessian(p)
    np.testing.assert_array_equal(H, H.T)
    _assert_near(H, np.array(columns))
    only_last = (False,) * (2 * len(widths) - 3) + (True,)
    np.testing.assert_array_equal(
        NodeRisk(*arguments, **options, active=only_last).bias_hessian(p), H
    )


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", DEPTHS)
def test_active_parts_are_slices(widths):
    arguments, options, p, v = _problem(widths, n_nodes=30)
    risk = NodeRisk(*arguments, **options)
    gradient = risk.value_and_grad(p)[1]
    n_parts = 2 * len(widths) - 2
    for bits in range(2**n_parts):
        active = tuple(bool(bits >> k & 1) for k in range(n_parts))
        part = NodeRisk(*arguments, **options, active=active)
        flags = iter(active)
        pairs = itertools.pairwise(widths)
        inside = np.concatenate(
            [np.full(size, next(flags)) for below, h in pairs for size in (h * below, h)]
        )
        assert part.value(p) == risk.value(p)
        own = part.value_and_grad(p)[1], part.hvp(p, v)
        full = gradient * inside, risk.hvp(p, v * inside) * inside
        for actual, expected in zip(own, full, strict=True):
            assert not actual[~inside].any()
            _assert_near(actual, expected)


@pytest.mark.parametrize("widths", DEPTHS)
def test_single_precision(widths):
    arguments, options, p, v = _problem(widths, n_nodes=200)
    double, single = (NodeRisk(*arguments, **options, dtype=t) for t in (np.float64, np.float32))
    # Some ten roundings of 6e-8 from layer to layer, and sums of some hundred terms.
    assert single.value(p) == pytest.approx(double.value(p), rel=1e-5)
    gradient = single.value_and_grad(p)[1]
    assert gradient.dtype == np.float64
    _assert_near(gradient, double.value_and_grad(p)[1], 1e-5)
    _assert_near(single.hvp(p, v), double.hvp(p, v), 1e-5)
    _assert_near(single.bias_hessian(p), double.bias_hessian(p), 1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("widths", [(3, 100, 1), (3, 40, 30, 1)])
def test_threads_do_not_change_bits(widths, dtype):
    arguments, options, p, v = _problem(widths, n_nodes=2500)
    results = []
    for n_threads in (1, 2, 3):
        risk = NodeRisk(*arguments, **options, n_threads=n_threads, dtype=dtype)
        assert risk._threads_for(1.0, 2500) == n_threads
        value, gradient = risk.value_and_grad(p)
        outputs = risk.outputs(p, arguments[2])
        results.append((value, gradient, risk.hvp(p, v), risk.bias_hessian(p), outputs))
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("active", [None, "first layer"])
@pytest.mark.parametrize("widths", DEPTHS)
def test_same_point_same_bits(widths, active):
    """Whether or not derivatives of the loss are known from the call before."""
    flags = None if active is None else (True, True) + (False,) * (2 * len(widths) - 4)
    arguments, options, p, v = _problem(widths)
    risk = NodeRisk(*arguments, **options, active=flags)
    fresh = risk.hvp(p, v)
    np.testing.assert_array_equal(risk.hvp(p, v), fresh)
    value, gradient = risk.value_and_grad(p)
    np.testing.assert_array_equal(risk.hvp(p, v), fresh)
    assert risk.value(p) == value
    risk.value(p + 1.0)
    np.testing.assert_array_equal(risk.hvp(p, v), fresh)
    np.testing.assert_array_equal(risk.value_and_grad(p)[1], gradient)


@pytest.mark.parametrize("active", [None, (True, True) + 6 * (False,), 4 * (False,) + 4 * (True,)])
def test_kept_products_change_no_bits(active):
    """First and later products at a point, with other parts between, and with nothing kept."""
    arguments, options, p, v = _problem(DEPTHS[2], n_nodes=300)
    risk = NodeRisk(*arguments, **options, active=active)
    sparing = NodeRisk(*arguments, **options, active=active, keep_bytes=0)
    # Layers 2 and 3 have values to keep, layers 1 and 2 what comes back: 7 + 5 + 8 + 7 of a node.
    assert risk._kept_size == 300 * 27
    expected = sparing.hvp(p, v)
    for _ in range(2):
        np.testing.assert_array_equal(risk.hvp(p, v), expected)
        np.testing.assert_array_equal(risk.bias_hessian(p), sparing.bias_hessian(p))
    np.testing.assert_array_equal(risk.hvp(p, 2 * v), 2 * expected)
    other = risk.hvp(2 * p, v)
    np.testing.assert_array_equal(other, sparing.hvp(2 * p, v))
    np.testing.assert_array_equal(risk.hvp(p, v), expected)
    tight = NodeRisk(*arguments, **options, active=active, keep_bytes=8 * 300 * 27 - 1)
    tight.hvp(p, v)
    assert not tight._kept


def test_kept_products_from_several_threads():
    """Passes at two points side by side must not share the array of one of them."""
    arguments, options, p, v = _problem(DEPTHS[2], n_nodes=300)
    risk = NodeRisk(*arguments, **options, n_threads=1)
    points = [p, 2 * p] * 20
    expected = [NodeRisk(*arguments, **options, keep_bytes=0).hvp(x, v) for x in points[:2]]
    with ThreadPoolExecutor(4) as pool:
        products = list(pool.map(lambda x: risk.hvp(x, v), points))
    for number, product in enumerate(products):
        np.testing.assert_array_equal(product, expected[number % 2])
    array = risk._kept[0].array
    risk.value(3 * p)
    risk.hvp(4 * p, v)
    assert risk._kept[0].array is array


@pytest.mark.parametrize("loss", ["pseudo_huber", "own"])
def test_pickle_and_copies(loss):
    own = (_the_output, _one, _nothing)
    arguments, options, p, v = _problem((3, 6, 5, 1), loss=own if loss == "own" else loss)
    risk = NodeRisk(*arguments, **options)
    expected = risk.hvp(p, v)
    for twin in (pickle.loads(pickle.dumps(risk)), copy.deepcopy(risk)):
        np.testing.assert_array_equal(twin.hvp(p, v), expected)
        assert twin.value(p) == risk.value(p)


def test_several_targets_of_a_node():
    arguments, options, p, v = _problem((2, 9, 1), n_nodes=20)
    widths, activation, X, _, _ = arguments
    rng = np.random.default_rng(8)
    weights, y = rng.random((20, 3)), rng.normal(size=(20, 3))
    together = NodeRisk(widths, activation, X, weights, y, **options)
    repeated = NodeRisk(
        widths, activation, np.repeat(X, 3, axis=0), weights.ravel(), y.ravel(), **options
    )
    value, gradient = repeated.value_and_grad(p)
    assert together.value(p) == pytest.approx(value, rel=ROUNDING)
    _assert_near(together.value_and_grad(p)[1], gradient)
    _assert_near(together.hvp(p, v), repeated.hvp(p, v))
    _assert_near(together.bias_hessian(p), repeated.bias_hessian(p))


@numba.njit
def _cosh_loss(output, target):
    return np.cosh(output - target)


@numba.njit
def _sinh_loss(output, target):
    return np.sinh(output - target)


def test_loss_of_ones_own():
    arguments, options, p, v = _problem((3, 6, 1))
    risk = NodeRisk(*arguments, **options, loss=(_cosh_loss, _sinh_loss, _cosh_loss))
    weights, y = arguments[3:]
    o = risk.outputs(p, arguments[2])
    assert risk.value(p) == pytest.approx(weights @ np.cosh(o - y), rel=ROUNDING)
    step = 1e-5
    up, down = risk.value_and_grad(p + step * v), risk.value_and_grad(p - step * v)
    # As in test_finite_differences.
    assert (up[0] - down[0]) / (2 * step) == pytest.approx(risk.value_and_grad(p)[1] @ v, rel=1e-7)
    _assert_near((up[1] - down[1]) / (2 * step), risk.hvp(p, v), 1e-7)


def test_losses_where_plain_formulas_fail():
    """Tiny residuals of the pseudo-Huber loss, large margins of the logistic loss."""
    X, p = [[0.0]], [0.0, 0.0, 0.0, 1e-9]
    huber = NodeRisk((1, 1, 1), "linear", X, [1.0], [0.0], loss="pseudo_huber", delta=2.0)
    assert huber.value(p) == pytest.approx(0.5e-18, rel=1e-14)
    p[3] = 800.0
    logistic = NodeRisk((1, 1, 1), "linear", X, [1.0], [-1.0], loss="logistic")
    assert logistic.value_and_grad(p)[0] == 800.0
    assert logistic.value_and_grad(p)[1][3] == 1.0
    p[3] = -600.0
    assert logistic.value_and_grad(p)[1][3] == pytest.approx(math.exp(-600), rel=1e-14)


@pytest.mark.parametrize("widths", DEPTHS)
def test_outputs(widths):
    arguments, options, p, _ = _problem(widths)
    risk, twin = NodeRisk(*arguments, **options), Twin(*arguments, **options)
    X = np.random.default_rng(1).normal(size=(150, widths[0]))
    a, layers = X, twin.layers(p)
    for W, b in layers[:-1]:
        a = _activation("smooth_relu", 2.0, a @ W.T + b)[0]
    _assert_near(risk.outputs(p, X), a @ layers[-1][0][0] + layers[-1][1])
    assert risk.outputs(p, X[:0]).shape == (0,)


def test_any_kind_of_array_and_nothing_is_changed():
    arguments, options, p, v = _problem((3, 6, 1), n_nodes=12)
    risk = NodeRisk(*arguments, **options)
    expected = risk.value_and_grad(p)[1], risk.hvp(p, v)
    before = [array.copy() for array in (*arguments[2:], p, v)]
    for array in (*arguments[2:], p, v):
        array.setflags(write=False)
    X, weights, y = np.asfortranarray(arguments[2]), arguments[3][::1], list(arguments[4])
    other = NodeRisk(
        list(arguments[0]), "smooth_relu", X, weights, y, **options, active=[1 == 1] * 4
    )
    np.testing.assert_array_equal(other.value_and_grad(p)[1], expected[0])
    np.testing.assert_array_equal(other.hvp(np.repeat(p, 2)[::2], list(v)), expected[1])
    for array, former in zip((*arguments[2:], p, v), before, strict=True):
        np.testing.assert_array_equal(array, former)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_overflow_is_no_error(dtype):
    arguments, options, p, v = _problem((3, 6, 1))
    risk = NodeRisk(*arguments, **options, dtype=dtype)
    large = 1e200 * p
    assert not math.isfinite(risk.value(large))
    assert not np.isfinite(risk.value_and_grad(large)[1]).all()
    assert not np.isfinite(risk.hvp(large, v)).all()
    risk.bias_hessian(large)


BAD = {
    "short widths": (ValueError, "hidden layer", {"widths": (2, 1)}),
    "last width": (ValueError, "last of widths", {"widths": (2, 3, 2)}),
    "zero width": (ValueError, "widths\\[1\\] must be at least 1", {"widths": (2, 0, 1)}),
    "real width": (TypeError, "widths\\[1\\] must be an integer", {"widths": (2, 2.5, 1)}),
    "no widths": (TypeError, "widths must be a sequence", {"widths": 3}),
    "activation": (ValueError, "activation must be one of smooth_relu", {"activation": "relu"}),
    "columns of X": (ValueError, "X must have shape \\(N, 2\\)", {"X": np.ones((4, 3))}),
    "no nodes": (ValueError, "at least one row", {"X": np.ones((0, 2))}),
    "nan in X": (ValueError, "X\\[0, 1\\] is nan", {"X": [[0.0, np.nan]] * 4}),
    "complex X": (TypeError, "X must be real", {"X": 1j * np.ones((4, 2))}),
    "length of weights": (ValueError, "weights must have shape \\(4,\\)", {"weights": np.ones(3)}),
    "empty weights": (ValueError, "weights must have shape", {"weights": np.ones((4, 0))}),
    "infinite weight": (ValueError, "weights\\[0\\] is inf", {"weights": [np.inf, 1, 1, 1]}),
    "shape of y": (ValueError, "y must have the shape of weights", {"y": np.ones((4, 2))}),
    "loss": (ValueError, "loss must be one of squared", {"loss": "hinge"}),
    "two functions": (TypeError, "three njit functions", {"loss": (_one, _one)}),
    "no functions": (TypeError, "three njit functions", {"loss": 3}),
    "plain functions": (TypeError, "numba.njit functions", {"loss": (max, max, max)}),
    "other functions": (
        TypeError,
        "two floats",
        {"loss": (numba.njit(lambda a: a), _one, _one)},
    ),
    "iota": (ValueError, "iota must be positive", {"iota": 0.0}),
    "negative iota": (ValueError, "iota must be finite", {"iota": -1.0}),
    "delta": (ValueError, "delta must be positive", {"delta": 0.0}),
    "length of active": (ValueError, "active must have 4 entries", {"active": (True,) * 3}),
    "kind of active": (TypeError, "active must hold True or False", {"active": (1, 0, 1, 0)}),
    "threads": (ValueError, "n_threads must be at least 1", {"n_threads": 0}),
    "keep_bytes": (ValueError, "keep_bytes must be at least 0", {"keep_bytes": -1}),
    "dtype": (ValueError, "dtype must be float64 or float32", {"dtype": np.int64}),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_arguments(case):
    error, message, change = BAD[case]
    given = {
        "widths": (2, 3, 1),
        "activation": "tanh",
        "X": np.ones((4, 2)),
        "weights": np.ones(4),
        "y": np.ones(4),
        **change,
    }
    with pytest.raises(error, match=message):
        NodeRisk(**given)


def test_bad_points():
    arguments, options, p, v = _problem((2, 3, 1))
    risk = NodeRisk(*arguments, **options)
    with pytest.raises(ValueError, match="p must have shape"):
        risk.value(p[1:])
    with pytest.raises(ValueError, match="v must be finite"):
        risk.hvp(p, np.full_like(v, np.inf))
    with pytest.raises(ValueError, match="X must have shape"):
        risk.outputs(p, np.ones(2))


def test_examples():
    assert doctest.testmod(node_risk).failed == 0


# --- calls by address -----------------------------------------------------------------------------


def _scale(factor, count, values):
    for j in range(count):
        values[j] *= factor


@numba.njit
def _scale_part(address, factor, values, start):
    call_at(address, (factor, values.size - start, pointer(values, start)))


def test_call_at():
    kinds = numba.types.float64, numba.types.int64, numba.types.CPointer(numba.types.float64)
    compiled = c_function(numba.types.void(*kinds), _scale, cache=False)
    values = np.arange(5.0)
    _scale_part(compiled.address, 10.0, values, 2)
    np.testing.assert_array_equal(values, [0, 1, 20, 30, 40])


# --- other packages, where they are installed -----------------------------------------------------


@pytest.mark.parametrize("widths", [(2, 30, 1), (3, 12, 9, 1)])
def test_like_jax(widths):
    jax = pytest.importorskip("jax")
    arguments, options, p, v = _problem(widths, n_nodes=200)
    twin = Twin(*arguments, **options)
    _, _, X, weights, y = arguments

    def value(p):
        a, layers = X, twin.layers(p)
        for W, b in layers[:-1]:
            a = jax.nn.softplus(2.0 * (a @ W.T + b)) / 2.0
        W, b = layers[-1]
        return weights @ ((a @ W.T + b)[:, 0] - y) ** 2

    risk = NodeRisk(*arguments, **options)
    with jax.enable_x64(True):
        expected, gradient = jax.value_and_grad(value)(p)
        product = jax.jvp(jax.grad(value), (p,), (v,))[1]
    assert risk.value(p) == pytest.approx(float(expected), rel=1e-13)
    _assert_near(risk.value_and_grad(p)[1], np.asarray(gradient), 1e-13)
    _assert_near(risk.hvp(p, v), np.asarray(product), 1e-13)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("widths", [(2, 30, 1), (3, 12, 9, 1)])
def test_like_torch(widths):
    torch = pytest.importorskip("torch")
    arguments, options, p, v = _problem(widths, n_nodes=200)
    twin = Twin(*arguments, **options)
    X, weights, y = (torch.as_tensor(array) for array in arguments[2:])

    def value(p):
        a, layers = X, twin.layers(p)
        for W, b in layers[:-1]:
            a = torch.nn.functional.softplus(a @ W.T + b, beta=2.0, threshold=1e9)
        W, b = layers[-1]
        return weights @ ((a @ W.T + b)[:, 0] - y) ** 2

    risk = NodeRisk(*arguments, **options)
    point, direction = torch.as_tensor(p), torch.as_tensor(v)
    gradient, expected = torch.func.grad_and_value(value)(point)
    product = torch.func.jvp(torch.func.grad(value), (point,), (direction,))[1]
    assert risk.value(p) == pytest.approx(float(expected), rel=1e-13)
    _assert_near(risk.value_and_grad(p)[1], gradient.numpy(), 1e-13)
    _assert_near(risk.hvp(p, v), product.numpy(), 1e-13)
