"""The exact population risk: against quadrature, closed forms, differences and identities."""

import functools
import itertools
import math
import threading

import naive
import numpy as np
import pytest
import scipy.special

from derand_fast.kernels import mehler
from derand_fast.kernels.activations import ACTIVATIONS
from derand_fast.kernels.quadrature import gauss_hermite
from derand_fast.kernels.vectors import LANES
from derand_fast.objectives import check_objective, hermite, mehler_forms
from derand_fast.objectives.mehler_risk import MehlerRisk

# Sums of some thousand terms of size 1.
ROUNDING = 1e-13


def smooth_relu(z, iota=1.0):
    return np.logaddexp(0.0, iota * z) / iota


ACTIVATION = {
    "smooth_relu": smooth_relu,
    "smooth_relu_squared": lambda z: smooth_relu(z) ** 2,
    "smooth_relu_cubed": lambda z: smooth_relu(z) ** 3,
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "quadratic": np.square,
    "linear": lambda z: z,
}
# Not symmetric in the coordinates, with terms of all degrees; entire, so that the twins' rules are
# exact to rounding.
LINKS = {
    1: lambda u: np.sin(u[:, 0]) + 0.3 * np.cos(u[:, 0]),
    2: lambda u: np.sin(u[:, 0]) * u[:, 1] + 0.5 * np.cos(u[:, 0] - 0.4 * u[:, 1]),
    3: lambda u: np.sin(u[:, 0]) * u[:, 1] + 0.5 * np.cos(u @ [0.3, -0.4, 0.7]) + u[:, 2],
}


def no_target(u):
    return np.zeros(len(u))


def rows(k, d, seed=7):
    """Orthonormal rows in no special position."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, k)))[0].T


def make(d, h, activation="smooth_relu", k=1, scale=0.5, seed=0, **options):
    """Return a risk, a point with |w_j| about ``scale``, and a direction."""
    options = {"U": rows(k, d), "link": LINKS[k], "n_threads": 1} | options
    f = MehlerRisk(d, h, activation, **options)
    rng = np.random.default_rng(seed)
    W = scale * rng.normal(size=(h, d)) / math.sqrt(d)
    b, a = 0.5 * rng.normal(size=h), rng.normal(size=h) / math.sqrt(h)
    return f, np.concatenate([W.ravel(), b, a, [0.3]]), rng.normal(size=f.n_params)


def split(f, p):
    """W, b, a and c."""
    W, b, a, c = np.split(p, np.cumsum([f.h * f.d, f.h, f.h]))
    return W.reshape(f.h, f.d), b, a, c[0]


def grid(dimension, count):
    """Tensor Gauss-Hermite nodes (N, dimension) and weights."""
    nodes, weights = gauss_hermite(count)
    points = np.array(list(itertools.product(nodes, repeat=dimension)))
    return points, functools.reduce(np.multiply.outer, [weights] * dimension).ravel()


def on_grid(f, p, activation, link, U, count):
    """The risk by a tensor rule on all of x."""
    x, weights = grid(f.d, count)
    W, b, a, c = split(f, p)
    residual = ACTIVATION[activation](x @ W.T + b) @ a + c - link(x @ np.asarray(U).T)
    return float(weights @ residual**2)


def by_pairs(f, p, activation, link, U, count):
    """The risk by two-dimensional rules for pairs, (k + 1)-dimensional ones for the target."""
    act, k = ACTIVATION[activation], len(U)
    W, b, a, c = split(f, p)
    flat, weights = grid(2, count)
    total = c * c
    for i in range(f.h):
        for j in range(f.h):
            L = np.linalg.cholesky(W[[i, j]] @ W[[i, j]].T + 1e-300 * np.eye(2)) if i != j else None
            z = flat @ L.T if L is not None else flat[:, :1] * np.linalg.norm(W[i]) * np.ones(2)
            total += a[i] * a[j] * (weights @ (act(z[:, 0] + b[i]) * act(z[:, 1] + b[j])))
    x, weights = grid(k + 1, count)
    y = link(x[:, :k])
    total += weights @ y**2 - 2 * c * (weights @ y)
    for j in range(f.h):
        inside = W[j] @ U.T
        rest = math.sqrt(max(W[j] @ W[j] - inside @ inside, 0.0))
        values = act(x[:, :k] @ inside + rest * x[:, k] + b[j])
        total += a[j] * (weights @ (values * (2 * c - 2 * y)))
    return float(total)


def hermite_polynomial(n, t):
    """He_n(t) by its recurrence."""
    before, current = np.zeros_like(t), np.ones_like(t)
    for m in range(n):
        before, current = current, t * current - m * before
    return current


def derivative(function, p, v, step=3e-4):
    return naive.central_difference(lambda t: function(p + t * v), step)


def check_derivatives(f, p, v, tolerance=1e-9):
    """Value -> gradient -> product; at step 3e-4 truncation and rounding are about 1e-10."""
    value, gradient = f.value_and_grad(p)
    assert value == f.value(p)
    size = np.linalg.norm(gradient) * np.linalg.norm(v)
    assert abs(derivative(f.value, p, v) - gradient @ v) <= tolerance * size
    product = f.hvp(p, v)
    expected = derivative(lambda q: f.value_and_grad(q)[1], p, v)
    assert np.abs(product - expected).max() <= tolerance * np.abs(product).max()


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_value_against_rules_for_pairs(activation):
    f, p, _ = make(6, 4, activation, terms=64)
    assert f.value(p) == pytest.approx(
        # 48 nodes: poles at distance pi / |w|, |w| about 1/2, leave less than this.
        by_pairs(f, p, activation, LINKS[1], rows(1, 6), 48),
        rel=1e-11,
    )


@pytest.mark.parametrize(
    ("d", "h", "k", "form"),
    [
        (1, 3, 1, "moments"),
        (2, 4, 1, "pairs"),
        (2, 80, 1, "moments"),
        (2, 4, 2, "pairs"),
        (2, 80, 2, "moments"),
        (3, 4, 2, "pairs"),
        (3, 4, 3, "pairs"),
        (3, 160, 2, "moments"),
        (3, 160, 3, "moments"),
    ],
)
def test_value_and_derivatives_in_few_dimensions(d, h, k, form):
    terms = 20 if (d, form) == (3, "moments") else 40
    f, p, v = make(d, h, k=k, terms=terms, scale=0.3)
    expected = on_grid(f, p, "smooth_relu", LINKS[k], rows(k, d), 40 if d < 3 else 26)
    # 20 terms leave 1e-10, 26 nodes as much.
    assert f.value(p) == pytest.approx(expected, abs=1e-9 if terms == 20 else 1e-12)
    assert f.form == form
    check_derivatives(f, p, v)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("h", [3, 60])
def test_derivatives(activation, h):
    f, p, v = make(2, h, activation, terms=32)
    f.value(p)
    assert f.form == (
        "pairs" if h == 3 or activation in ("quadratic", "linear") else "moments"
    ) or (activation in ("quadratic", "linear"))
    check_derivatives(f, p, v)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_derivatives_for_several_directions(k):
    f, p, v = make(5, 9, k=k, terms=32, noise_variance=0.2)
    check_derivatives(f, p, v)


@pytest.mark.parametrize("terms", [3, 4, 5, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("h", [3, 60])
def test_derivatives_are_those_of_the_truncated_series(terms, h):
    """However few terms there are: steep units, errors above the tolerance, exact derivatives."""
    f, p, v = make(2, h, "tanh", terms=terms, scale=2.0)
    check_derivatives(f, p, v)
    assert f.error_bound(p) > 1e-7


def test_forms_agree():
    """Units of amplitude zero turn pairs into moments and change nothing."""
    few, p, v = make(2, 5, k=2, terms=24)
    many, _, _ = make(2, 64, k=2, terms=24)
    W, b, a, c = split(few, p)
    rng = np.random.default_rng(1)
    others = rng.normal(size=(59, 2)), rng.normal(size=59), np.zeros(59)

    def widened(parts, others):
        blocks = [np.concatenate(pair) for pair in zip(parts[:3], others, strict=True)]
        return np.concatenate([*(block.ravel() for block in blocks), [parts[3]]])

    wide = widened((W, b, a, c), others)
    change = widened(split(few, v), tuple(np.zeros_like(other) for other in others))
    value, gradient = few.value_and_grad(p)
    wide_value, wide_gradient = many.value_and_grad(wide)
    assert (few.form, many.form) == ("pairs", "moments")
    assert wide_value == pytest.approx(value, rel=ROUNDING)
    for result, expected in (
        (wide_gradient, gradient),
        (many.hvp(wide, change), few.hvp(p, v)),
    ):
        for own, other in zip(split(many, result), split(few, expected), strict=True):
            own = own[:5] if np.ndim(own) else own
            np.testing.assert_allclose(own, other, atol=ROUNDING)
    np.testing.assert_allclose(many.bias_hessian(wide)[:5, :5], few.bias_hessian(p), atol=ROUNDING)


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [3, 20])
def test_quadratic_units_by_hand(h):
    """E z_j^2 z_k^2 = (|w_j|^2 + b_j^2)(|w_k|^2 + b_k^2) + 2 G^2 + 4 b_j b_k G, G = w_j . w_k."""
    U = np.array([[0.6, 0.8]])
    f, p, _ = make(2, h, "quadratic", U=U, link=lambda u: u[:, 0] ** 2 - u[:, 0], scale=1.0)
    W, b, a, c = split(f, p)
    G, inside, q = W @ W.T, (W @ U.T)[:, 0], (W * W).sum(axis=1) + b * b
    K = np.outer(q, q) + 2 * G**2 + 4 * np.outer(b, b) * G
    # y = u^2 - u: E y = 1, E y^2 = 4, E z^2 y = q + 2 v^2 - 2 b v with v the coefficient of u.
    cross = q + 2 * inside**2 - 2 * b * inside
    expected = a @ K @ a + 2 * c * (a @ q) + c * c - 2 * a @ cross - 2 * c + 4.0
    value, gradient = f.value_and_grad(p)
    assert f.terms == 3
    assert value == pytest.approx(expected, rel=ROUNDING)
    assert f.error_bound(p) < 1e-12
    gradient_W, gradient_b, gradient_a, gradient_c = split(f, gradient)
    residual = 2 * (a @ q + c - 1.0)
    expected_a = 2 * K @ a + 2 * c * q - 2 * cross
    expected_b = 2 * a * (b * residual + 4 * G @ (a * b) + 2 * inside)
    expected_W = 2 * a[:, None] * (residual * W)
    expected_W += 8 * a[:, None] * (((G + np.outer(b, b)) * a) @ W)
    expected_W -= 4 * a[:, None] * (2 * inside - b)[:, None] * U
    np.testing.assert_allclose(gradient_a, expected_a, atol=ROUNDING * h)
    np.testing.assert_allclose(gradient_b, expected_b, atol=ROUNDING * h)
    np.testing.assert_allclose(gradient_W, expected_W, atol=ROUNDING * h)
    assert gradient_c == pytest.approx(residual, rel=ROUNDING)


def test_linear_units_by_hand():
    f, p, _ = make(4, 3, "linear", link=lambda u: 2.0 * u[:, 0], scale=2.0)
    W, b, a, c = split(f, p)
    slope, level = a @ W - 2.0 * rows(1, 4)[0], a @ b + c
    value, gradient = f.value_and_grad(p)
    assert value == pytest.approx(slope @ slope + level**2, rel=ROUNDING)
    np.testing.assert_allclose(split(f, gradient)[0], 2 * np.outer(a, slope), atol=ROUNDING)


def test_erf_units_by_the_arcsine_law():
    """E erf(z_j) erf(z_k) = (2 / pi) asin(2 G_jk / sqrt((1 + 2 G_jj)(1 + 2 G_kk))) at b = 0."""
    f, p, _ = make(5, 4, "erf", link=no_target, terms=128)
    p[20:24], p[-1] = 0.0, 0.0
    W, _, a, _ = split(f, p)
    G = W @ W.T
    size = np.sqrt(1 + 2 * np.diag(G))
    K = 2 / math.pi * np.arcsin(2 * G / np.outer(size, size))
    value, gradient = f.value_and_grad(p)
    assert value == pytest.approx(a @ K @ a, rel=ROUNDING)
    np.testing.assert_allclose(split(f, gradient)[2], 2 * K @ a, atol=ROUNDING)


@pytest.mark.parametrize(("d", "h", "k"), [(4, 5, 1), (4, 5, 2), (2, 80, 1), (3, 200, 2)])
def test_collapsed_units_by_hand(d, h, k):
    """At W = 0 everything is known: value, gradient, Hessian, to rounding."""
    f, p, v = make(d, h, k=k, terms=16, noise_variance=0.25)
    p[: h * d] = 0.0
    _, b, a, c = split(f, p)
    U, (x, weights) = rows(k, d), grid(k, 60)
    y = LINKS[k](x)
    mean, slope = weights @ y, (weights * y) @ x @ U
    curvature = U.T @ (x.T * (weights * y)) @ x @ U - mean * U.T @ U
    s = 1 / (1 + np.exp(-b))
    act, first, second, third = smooth_relu(b), s, s * (1 - s), s * (1 - s) * (1 - 2 * s)
    residual = a @ act + c - mean
    value, gradient = f.value_and_grad(p)
    assert value == pytest.approx(residual**2 + weights @ y**2 - mean**2 + 0.25, rel=ROUNDING)
    expected = [
        *(-2 * np.outer(a * first, slope).ravel(), 2 * a * first * residual),
        *(2 * act * residual, [2 * residual]),
    ]
    np.testing.assert_allclose(gradient, np.concatenate(expected), atol=ROUNDING)
    dW, db, da, dc = split(f, v)
    change = (a * first) @ db + da @ act + dc
    along = (a * first) @ dW
    expected_W = 2 * np.outer(a * first, along) + 2 * residual * (a * second)[:, None] * dW
    expected_W -= 2 * (a * second)[:, None] * (dW @ curvature)
    expected_W -= 2 * np.outer(da * first + a * second * db, slope)
    new_b = 2 * (a * first) * change + 2 * residual * (da * first + a * second * db)
    new_b -= 2 * a * second * (dW @ slope)
    new_a = 2 * act * change + 2 * residual * first * db - 2 * first * (dW @ slope)
    product = np.concatenate([expected_W.ravel(), new_b, new_a, [2 * change]])
    np.testing.assert_allclose(f.hvp(p, v), product, atol=10 * ROUNDING)
    H = 2 * np.outer(a * first, a * first) + np.diag(2 * residual * a * second)
    np.testing.assert_allclose(f.bias_hessian(p), H, atol=ROUNDING)
    assert third.size == h
    assert f.error_bound(p) < 1e-13


@pytest.mark.parametrize(("d", "h"), [(4, 5), (2, 80)])
@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-150, 1e-300])
def test_nothing_is_lost_near_zero(d, h, scale):
    """Finite differences across W = 0, where directions turn round; smooth to second order."""
    f, p, v = make(d, h, k=2, terms=24)
    f.value(p)
    p[: h * d] *= scale
    check_derivatives(f, p, v)
    zero = p.copy()
    zero[: h * d] = 0.0
    value, gradient = f.value_and_grad(zero)
    moved = p - zero
    expected = value + gradient @ moved + 0.5 * moved @ f.hvp(zero, moved)
    assert f.value(p) == pytest.approx(expected, abs=scale**3 + ROUNDING)


# --- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["smooth_relu", "tanh", "erf", "smooth_relu_cubed"])
@pytest.mark.parametrize(("d", "h"), [(6, 9), (2, 140)])
def test_stein_identity(activation, d, h):
    """Without a target grad_W = H_bb W; 128 terms leave nothing of the truncation."""
    f, p, _ = make(d, h, activation, link=no_target, terms=128)
    W = split(f, p)[0]
    _, gradient = f.value_and_grad(p)
    assert f.form == ("pairs" if d == 6 else "moments")
    expected = f.bias_hessian(p) @ W
    assert np.abs(split(f, gradient)[0] - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("d", "h", "k", "terms"),
    [(6, 9, 1, 64), (6, 9, 2, 64), (6, 9, 3, 64), (2, 70, 1, 64), (3, 310, 2, 28)],
)
def test_stein_identity_across_the_teacher(d, h, k, terms):
    """grad_{W_perp} = H_bb W_perp, relative to itself, however small W_perp is."""
    scale = 0.5 if terms == 64 else 0.2
    f, start, _ = make(d, h, "tanh", k=k, U=np.eye(k, d), terms=terms, scale=scale)
    for outside in (1.0, 1e-8, 1e-16, 1e-250, 0.0):
        p = start.copy()
        W = p[: h * d].reshape(h, d)
        W[:, k:] *= outside
        _, gradient = f.value_and_grad(p)
        expected = f.bias_hessian(p) @ W[:, k:]
        actual = split(f, gradient)[0][:, k:]
        assert np.abs(actual - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize(("d", "h", "k"), [(5, 12, 1), (5, 12, 3), (2, 60, 2), (3, 150, 1)])
def test_product_is_symmetric_linear_and_agrees_with_h_bb(d, h, k):
    f, p, v = make(d, h, k=k, terms=20, scale=1.0)
    w = np.random.default_rng(3).normal(size=f.n_params)
    along_v, along_w = f.hvp(p, v), f.hvp(p, w)
    size = np.linalg.norm(along_v) * np.linalg.norm(w)
    assert abs(along_v @ w - along_w @ v) <= 1e-14 * size
    np.testing.assert_allclose(
        f.hvp(p, 2 * v - 3 * w), 2 * along_v - 3 * along_w, atol=1e-13 * np.abs(along_v).max() * 5
    )
    H = f.bias_hessian(p)
    assert np.array_equal(H, H.T)
    part = f.blocks["b"].slice
    only_b = np.zeros_like(v)
    only_b[part] = v[part]
    np.testing.assert_allclose(f.hvp(p, only_b)[part], H @ v[part], atol=1e-12)


def test_rotation_and_order_do_not_matter():
    """Rotated inputs and exchanged units give the same f."""
    f, p, _ = make(4, 11, k=2, terms=32)
    W, b, a, c = split(f, p)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0]
    other, _, _ = make(4, 11, k=2, U=rows(2, 4) @ rotation.T, terms=32)
    order = np.random.default_rng(6).permutation(11)
    moved = np.concatenate([(W @ rotation.T)[order].ravel(), b[order], a[order], [c]])
    assert other.value(moved) == pytest.approx(f.value(p), rel=ROUNDING)


# --- truncation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "d", "h", "k"),
    [
        ("smooth_relu", 5, 12, 1),
        ("tanh", 5, 12, 2),
        ("erf", 2, 130, 1),
        ("smooth_relu_squared", 2, 130, 2),
        ("smooth_relu_cubed", 4, 9, 1),
        ("tanh", 3, 9, 3),
    ],
)
def test_error_bound_is_one_and_not_absurd(activation, d, h, k):
    """Against many more terms; at most some thousand times the error, signs being random."""
    # The steeper point first: it settles the nodes.
    points = [make(d, h, activation, scale=scale)[1] for scale in (1.0, 0.3)]
    reference = make(d, h, activation, k=k, terms=128)[0]
    known = [(p, reference.value(p), reference.error_bound(p)) for p in points]
    for terms in (4, 8, 16, 24):
        f, _, _ = make(d, h, activation, k=k, terms=terms)
        for p, exact, rest in known:
            error, bound = abs(f.value(p) - exact), f.error_bound(p)
            assert error <= bound + rest + ROUNDING
            if error > 1e-8:
                assert bound <= 1e4 * error


def test_terms_are_chosen_once_and_only_grow():
    f, p, _ = make(4, 20, scale=0.3)
    assert f.terms is f.n_nodes is f.form is None
    before = f.value(p)
    first = f.terms, f.n_nodes
    assert f.error_bound(p) <= f.tol
    steep = p.copy()
    steep[:80] *= 8.0
    f.value(steep)
    assert (f.terms, f.n_nodes) == first
    assert f.error_bound(steep) > f.tol
    bound = f.refine(steep)
    assert bound == f.error_bound(steep)
    assert bound <= f.tol
    assert f.terms > first[0]
    assert f.n_nodes > first[1]
    grown = f.terms, f.n_nodes
    f.refine(p)
    assert (f.terms, f.n_nodes) == grown
    assert f.value(p) == pytest.approx(before, abs=f.tol)


def test_terms_too_few_are_admitted():
    f, p, _ = make(3, 4, scale=300.0)
    f.value(p)
    assert f.terms == 256
    assert f.error_bound(p) > 1e-3


@pytest.mark.parametrize(("terms", "nodes"), [(16, 96), (64, 128), (256, 224)])
def test_series_of_one_unit(terms, nodes):
    """Against adaptive quadrature, and for tiny |w| to full relative accuracy."""
    rule = hermite.series_rule(terms, nodes, False)
    _, inverse_roots = hermite.root_tables(LANES * (terms // LANES + 1))
    width = LANES * len(rule.table)
    scales = np.array([[0.0, 1e-12, 1e-9, 0.1, 0.5, 1.0, 1.5, 2.0]])
    biases = np.array([[0.3, -0.2, 0.1, 1.0, -1.0, 0.5, -2.0, 0.0]])
    series, energies = np.empty((1, 4, width, LANES)), np.empty((1, LANES))
    mehler.hermite_series(
        *(0, 1, ACTIVATIONS["tanh"], 1.0, scales, biases, rule.nodes, rule.table),
        *(inverse_roots, series, energies, np.empty((5, 2 * LANES * nodes))),
    )

    def derivatives(z):
        t, slope = np.tanh(z), 1 / np.cosh(z) ** 2
        return t, slope, -2 * t * slope, (4 * t * t - 2 * slope) * slope

    def mean(function):
        """E of a function of t: the trapezoidal rule, far finer than any that is tested."""
        t = np.linspace(-16, 16, 4001)
        return np.sum(function(t) * np.exp(-t * t / 2)) * 0.008 / math.sqrt(2 * math.pi)

    for lane, (scale, bias) in enumerate(zip(scales[0], biases[0], strict=True)):

        def unit(t, m, scale=scale, bias=bias):
            return derivatives(scale * t + bias)[m]

        for m, n in itertools.product(range(4), (0, 1, 2, 7, 15)):
            norm = math.sqrt(math.factorial(n))
            expected = mean(lambda t, m=m, n=n: unit(t, m) * hermite_polynomial(n, t)) / norm
            # Poles at distance pi / (2 |w|): the coarsest rule leaves this.
            tolerance = 1e-13 if scale <= 1 else 1e-7
            assert series[0, m, n, lane] == pytest.approx(expected, abs=tolerance)
            if scale < 1e-8 and m + n < 4:
                expected = derivatives(bias)[m + n] * scale**n / norm
                assert series[0, m, n, lane] == pytest.approx(expected, rel=1e-14)
        assert energies[0, lane] == pytest.approx(mean(lambda t: unit(t, 3) ** 2), rel=1e-7)


# --- tensors and targets --------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
def test_list_of_tensor_entries(k):
    tensor = hermite.symmetric_tensor(k, 6)
    alphas = [tuple(alpha) for alpha in tensor.exponents.T.tolist()]
    expected = [
        (n - c - b, b, c)
        for n in range(6)
        for c in range(n + 1 if k == 3 else 1)
        for b in range(n - c + 1 if k >= 2 else 1)
    ]
    assert alphas == expected
    for entry, alpha in enumerate(alphas):
        count = math.factorial(sum(alpha)) // math.prod(map(math.factorial, alpha))
        assert tensor.multiplicity[entry] == count
        if sum(alpha) < 5:
            for i in range(k):
                above = tuple(a + (i == j) for j, a in enumerate(alpha))
                assert alphas[tensor.up[i, entry]] == above


@pytest.mark.parametrize("k", [1, 2, 3])
def test_moments_and_polynomials_against_loops(k):
    """Both kernels entry by entry, with more units than one block in each part, lanes to spare."""
    h, terms = 8 * mehler.MOMENT_PARTS * mehler.MOMENT_GROUPS + 8 * 3 + 3, 7
    groups, parts = -(-h // LANES), mehler.MOMENT_PARTS
    rng = np.random.default_rng(k)
    v, dv = rng.normal(size=(2, h, k))
    series = rng.normal(size=(groups, 3, 8, LANES))
    factors = np.zeros((3, groups, LANES))
    factors.reshape(3, -1)[:, :h] = rng.normal(size=(3, h))
    inside, inside_change = (mehler_forms._columns_by_group(x) for x in (v, dv))
    roots, inverse_roots = hermite.root_tables(8)
    tensor = hermite.symmetric_tensor(k, terms)
    alphas, degrees = tensor.exponents[:k].T, tensor.exponents.sum(axis=0)
    X = series.transpose(1, 2, 0, 3).reshape(3, 8, -1)[:, :, :h]
    F = factors.reshape(3, -1)[:, :h]
    for with_change in (False, True):
        sums, work = np.empty((parts, len(alphas))), np.empty((9, 8 * mehler.MOMENT_GROUPS * terms))
        mehler.moments(
            *(0, parts, terms, with_change, inverse_roots, inside, inside_change, series, factors),
            *(sums, work),
        )
        for entry, (alpha, n) in enumerate(zip(alphas, degrees, strict=True)):
            power = np.prod(v**alpha, axis=1)
            expected = sum(F[m] * X[m, n] for m in range(2 if with_change else 3)) @ power
            if with_change and n > 0:
                for i in range(k):
                    lower = alpha - (np.arange(k) == i)
                    if lower[i] >= 0:
                        slope = alpha[i] * dv[:, i] * np.prod(v**lower, axis=1)
                        expected += (F[2] * X[1, n - 1] * inverse_roots[n]) @ slope
            assert sums[:, entry].sum() == pytest.approx(expected, abs=1e-9, rel=1e-11)

    entries = rng.normal(size=len(alphas))
    values, pulls = np.empty((groups, 8, LANES)), np.empty((groups, 2, 3, LANES))
    mehler.polynomial_sums(
        *(0, groups, terms - 1, entries[0], tensor.gradient(entries), roots, inside, series),
        *(values, pulls, work),
    )

    def polynomial(points, n):
        return sum(
            tensor.multiplicity[e] * entries[e] * np.prod(points ** alphas[e], axis=1)
            for e in np.flatnonzero(degrees == n)
        )

    by_unit = values.transpose(1, 0, 2).reshape(8, -1)[:, :h]
    for n in range(terms):
        np.testing.assert_allclose(by_unit[n], polynomial(v, n), rtol=1e-11, atol=1e-11)
    assert not by_unit[terms:].any()
    for order, i in itertools.product(range(2), range(3)):
        expected = np.zeros(h)
        if i < k:
            unit = 1.0 * (np.arange(k) == i)
            for n in range(1, terms):
                slope = derivative(functools.partial(polynomial, n=n), v, unit)
                expected += X[order + 1, n - 1] * slope / roots[n]
        actual = pulls[:, order, i].reshape(-1)[:h]
        np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_targets_by_hand():
    # u_0^2 u_1: h_2(u_0) h_1(u_1) sqrt 2 + h_1(u_1).
    target = hermite.Target.of(lambda u: u[:, 0] ** 2 * u[:, 1], 2)
    assert target.degree == 3
    # Entries 00 | 10 01 | 20 11 02 | 30 21 12 03, multiplicity 3 for (2, 1).
    expected = np.zeros(10)
    expected[2], expected[7] = 1.0, math.sqrt(2 / 3)
    np.testing.assert_allclose(target.entries[:10], expected, atol=1e-14)
    assert target.second_moment == pytest.approx(3.0, rel=1e-14)
    np.testing.assert_allclose(target.energies[:5], [0, 1, 0, 2, 0], atol=1e-13)
    assert target.error < 1e-13
    # u_0 u_1 u_2: entry (1, 1, 1) of multiplicity 6.
    target = hermite.Target.of(lambda u: np.prod(u, axis=1), 3)
    kept = hermite.symmetric_tensor(3, 4)
    place = kept.exponents.T.tolist().index([1, 1, 1])
    assert target.degree == 3
    assert target.entries[place] == pytest.approx(1 / math.sqrt(6), rel=1e-13)
    assert target.mean == pytest.approx(0.0, abs=1e-15)
    # exp(u / 2) = exp(1/8) sum_n h_n(u) / (2^n sqrt n!).
    target = hermite.Target.of(lambda u: np.exp(u[:, 0] / 2), 1)
    n = np.arange(12)
    expected = math.exp(0.125) / (2.0**n * np.sqrt(scipy.special.factorial(n)))
    np.testing.assert_allclose(target.entries[:12], expected, atol=1e-15)
    assert hermite.Target.of(no_target, 1).degree == 0


# --- contracts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "h", "k"), [(5, 45, 1), (2, 75, 2)])
def test_same_bits_for_any_number_of_threads(d, h, k, monkeypatch):
    monkeypatch.setattr(mehler_forms, "_THREAD_OPERATIONS", 0.0)
    results = []
    for n_threads in (1, 2, 3):
        f, p, v = make(d, h, k=k, terms=20, n_threads=n_threads)
        value, gradient = f.value_and_grad(p)
        products = [f.hvp(p, v), f.hvp(0.9 * p, v), f.hvp(p, v)]
        results.append(
            [np.array([value, f.error_bound(p)]), gradient, *products, f.bias_hessian(p)]
        )
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            assert np.array_equal(mine, theirs)
    assert np.array_equal(results[0][2], results[0][4])


def test_methods_from_several_threads():
    f, p, v = make(4, 30, terms=16)
    points = [p * (1.0 + 0.1 * i) for i in range(4)]
    expected = [(f.value_and_grad(q)[1], f.hvp(q, v)) for q in points]
    failures = []

    def work(i):
        for _ in range(5):
            if not np.array_equal(f.hvp(points[i], v), expected[i][1]) or not np.array_equal(
                f.value_and_grad(points[i])[1], expected[i][0]
            ):
                failures.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(("d", "h"), [(4, 6), (2, 60)])
@pytest.mark.parametrize(
    "active", [(True, True, False, False), (True, False, True, False), (False, False, False, True)]
)
def test_inactive_parts(d, h, active):
    whole, p, v = make(d, h, terms=16)
    f, _, _ = make(d, h, terms=16, active=active)
    mask = np.concatenate(
        [np.full(size, flag) for size, flag in zip((h * d, h, h, 1), active, strict=True)]
    )
    value, gradient = whole.value_and_grad(p)
    own_value, own_gradient = f.value_and_grad(p)
    assert own_value == value
    assert np.array_equal(own_gradient, np.where(mask, gradient, 0.0))
    expected = np.where(mask, whole.hvp(p, np.where(mask, v, 0.0)), 0.0)
    np.testing.assert_allclose(f.hvp(p, v), expected, atol=1e-15 * np.abs(expected).max() * 8)
    assert np.array_equal(f.bias_hessian(p), whole.bias_hessian(p))


def test_points_may_be_overwritten():
    f, p, v = make(4, 6, terms=16)
    first = f.hvp(p, v)
    kept = p.copy()
    p *= 2.0
    assert not np.array_equal(f.hvp(p, v), first)
    assert np.array_equal(f.hvp(kept, v), first)


def test_protocol():
    f, p, _ = make(3, 5, terms=16)
    assert check_objective(f) == f.n_params == p.size == 3 * 5 + 2 * 5 + 1
    assert f.blocks["theta"].shape == (6,)
    assert "terms=None" in repr(f)
    f.value(p)
    assert "terms=16, form='pairs'" in repr(f)


def test_noise_adds_its_variance():
    f, p, _ = make(3, 5, terms=16)
    noisy, _, _ = make(3, 5, terms=16, noise_variance=0.5)
    assert noisy.value(p) - f.value(p) == pytest.approx(0.5, rel=1e-14)


def test_one_unit_and_one_input():
    f, p, v = make(1, 1, "tanh", terms=40)
    assert f.value(p) == pytest.approx(on_grid(f, p, "tanh", LINKS[1], rows(1, 1), 60), rel=1e-12)
    check_derivatives(f, p, v)


def test_a_student_equal_to_its_teacher_has_no_risk():
    """Moments do not cancel: f is 0 to the square of rounding, not to rounding."""
    f, p, _ = make(
        2, 70, "tanh", U=np.eye(2), link=lambda u: np.tanh(u @ [0.3, 0.4]), k=2, terms=48
    )
    p[:] = 0.0
    p[:2], p[2 * 70 + 70] = (0.3, 0.4), 1.0
    value, gradient = f.value_and_grad(p)
    assert f.form == "moments"
    # What remains is the target's own remainder beyond 48 terms, which the student lacks too.
    assert 0.0 <= value < 1e-15
    assert np.abs(gradient).max() < 1e-13


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"d": 0}, ValueError, "d must be at least 1"),
        ({"h": 2.5}, TypeError, "h must be an integer"),
        ({"activation": "relu"}, ValueError, "activation must be one of"),
        ({"activation": None}, ValueError, "activation must be one of"),
        ({"iota": 0.0}, ValueError, "iota must be positive"),
        ({"iota": math.inf}, ValueError, "iota must be finite"),
        ({"noise_variance": -1.0}, ValueError, "noise_variance"),
        ({"tol": math.nan}, ValueError, "tol"),
        ({"terms": 2}, ValueError, "terms must be at least 3"),
        ({"terms": 257}, ValueError, "terms must be at most 256"),
        ({"terms": "many"}, ValueError, "terms must be 'auto'"),
        ({"terms": 8.0}, TypeError, "terms must be an integer"),
        ({"active": (True, True)}, ValueError, "active must hold one bool for each of W1, b1"),
        ({"active": (1, 1, 0, 0)}, TypeError, "active must hold bools"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"link": "tanh"}, TypeError, "link must be a function"),
        ({"link": lambda u: u}, ValueError, "link must return shape"),
        ({"link": lambda u: ["a"] * len(u)}, TypeError, "link must return real numbers"),
        ({"link": lambda u: np.full(len(u), np.nan)}, ValueError, "link must be finite"),
        ({"U": np.eye(3)}, ValueError, "U must have shape"),
        ({"U": np.eye(4)}, ValueError, "U must have shape"),
        ({"U": np.ones(4)}, ValueError, "U must have shape"),
        ({"U": 2 * np.eye(2, 4)}, ValueError, "rows of U must be orthonormal"),
        ({"U": np.full((1, 4), np.nan)}, ValueError, "rows of U must be orthonormal"),
        ({"U": [["a"] * 4]}, TypeError, "U must hold real numbers"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"d": 4, "h": 3, "activation": "tanh", "U": np.eye(1, 4), "link": LINKS[1]}
    with pytest.raises(error, match=message):
        MehlerRisk(**(arguments | change))


def test_bad_points():
    f, p, v = make(3, 2, terms=16)
    for method in (f.value, f.value_and_grad, f.bias_hessian, f.error_bound, f.refine):
        with pytest.raises(ValueError, match=r"p must have shape"):
            method(p[:-1])
        with pytest.raises(ValueError, match="p must be finite"):
            method(np.where(np.arange(p.size) == 3, np.inf, p))
        with pytest.raises(TypeError, match="p must be real numbers"):
            method(p.astype(complex))
    with pytest.raises(ValueError, match="v must have shape"):
        f.hvp(p, v[:-1])
    with pytest.raises(ValueError, match="v must be finite"):
        f.hvp(p, np.full_like(v, np.nan))
