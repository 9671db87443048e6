"""NetworkRisk: expectations by several rules, in coordinates that show the collapse."""

import copy
import itertools
import math
import pickle

import numba
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from derand_fast.networks import Network, random_network
from derand_fast.objectives import NetworkRisk, block_view
from derand_fast.teachers import Teacher

RULES = ("mehler", "tensor", "sparse", "spherical", "sobol")


def student_of(d, hidden, depth=2, activation="smooth_relu", seed=0):
    """Return a student with biases that are not 0."""
    network = random_network(d, hidden, depth=depth, activation=activation, iota=1.2, seed=seed)
    flat = network.flat()
    return network.with_parameters(
        flat + 0.3 * np.random.default_rng(seed).standard_normal(flat.size)
    )


def brute_force(student, teacher, loss, count=40):
    """E[loss] by tensor Gauss-Hermite quadrature in the user's own coordinates."""
    nodes, weights = hermegauss(count)
    weights = weights / math.sqrt(2.0 * math.pi)
    X = np.array(list(itertools.product(nodes, repeat=teacher.d)))
    w = np.array([math.prod(p) for p in itertools.product(weights, repeat=teacher.d)])
    return float(w @ loss(student.predict(X), teacher.predict(X)))


def squared(output, y):
    return (output - y) ** 2


TEACHERS = {
    "one": lambda d: Teacher("tanh", np.arange(1.0, d + 1.0) / (2.0 * d)),
    "two": lambda d: Teacher("product", np.eye(2, d) + 0.3),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("teacher", list(TEACHERS))
def test_value_is_that_of_brute_force(rule, teacher):
    student, teacher = student_of(3, 4), TEACHERS[teacher](3)
    f = NetworkRisk(student, teacher, lam=0.02, rule=rule, n_nodes=2**15, n_inside=24)
    exact = brute_force(student, teacher, squared) + 0.02 * np.sum(student.weights[0] ** 2)
    # Sobol points err by about 1e-3, rules of degree 3 and 15 by the next moments.
    tolerance = {"sobol": 5e-3, "spherical": 2e-2, "sparse": 2e-5}.get(rule, 1e-7)
    assert f.value(f.start) == pytest.approx(exact, rel=tolerance)
    assert f.rule == rule


def test_rules_outside_that_are_of_low_degree_are_right_where_weights_are_small():
    student, teacher = student_of(4, 5), TEACHERS["one"](4)
    exact = NetworkRisk(student, teacher, lam=0.0, rule="mehler")
    low = NetworkRisk(student, teacher, lam=0.0, rule="spherical", seed=1)
    errors = []
    for scale in (0.3, 0.15):
        x = exact.start
        x[exact.blocks["W"].slice] *= scale
        errors.append(abs(exact.value(x) - low.value(x)))
    # The first wrong moment is the fourth: halving the weights divides the error by 16.
    assert errors[1] < errors[0] / 10.0
    assert errors[1] < 1e-5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("train", ["first", "all", ("W1", "W2")])
def test_finite_differences(rule, depth, train):
    if rule == "mehler" and depth == 3:
        pytest.skip("two layers only")
    student, teacher = student_of(4, 3, depth, "tanh"), TEACHERS["two"](4)
    f = NetworkRisk(
        student, teacher, lam=0.1, rule=rule, train=train, n_nodes=512, n_inside=6, seed=3
    )
    random = np.random.default_rng(4)
    x, v, u = f.start, *random.standard_normal((2, f.n_params))
    step = 1e-5
    value, gradient = f.value_and_grad(x)
    assert value == f.value(x)
    slope = (f.value(x + step * v) - f.value(x - step * v)) / (2 * step)
    # Central differences: step^2 times third derivatives of size 10, rounding 1e-16 / step.
    assert gradient @ v == pytest.approx(slope, rel=1e-6, abs=1e-7)
    change = (f.value_and_grad(x + step * v)[1] - f.value_and_grad(x - step * v)[1]) / (2 * step)
    product = f.hvp(x, v)
    np.testing.assert_allclose(product, change, rtol=1e-5, atol=1e-6)
    assert u @ product == pytest.approx(v @ f.hvp(x, u), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("rule", "tolerance"), [("mehler", 1e-8), ("tensor", 1e-8)])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-8])
def test_the_identity_of_the_lemma(rule, tolerance, scale):
    """grad_{W_perp} f = (H_bb + 2 lam I) W_perp, down to small weights."""
    student, teacher = student_of(3, 5), TEACHERS["one"](3)
    f = NetworkRisk(student, teacher, lam=0.05, rule=rule, n_nodes=2**16, n_inside=40)
    x = f.start
    x[f.blocks["W"].slice] *= scale
    outside = block_view(f, x, "W")
    gradient = block_view(f, f.value_and_grad(x)[1], "W")
    expected = f.bias_hessian(x) @ outside + 2.0 * f.lam * outside
    assert np.linalg.norm(gradient - expected) <= tolerance * np.linalg.norm(expected)
    assert f.stein_violation(x) <= tolerance


@pytest.mark.parametrize("rule", ["mehler", "tensor", "sparse", "spherical"])
@pytest.mark.parametrize("depth", [2, 3])
def test_at_the_collapse_everything_is_that_of_the_whole(rule, depth):
    if rule == "mehler" and depth == 3:
        pytest.skip("two layers only")
    student, teacher = student_of(5, 4, depth), TEACHERS["two"](5)
    f = NetworkRisk(student, teacher, lam=0.03, rule=rule, train="all", n_inside=20, n_nodes=4000)
    random = np.random.default_rng(0)
    x = f.start
    x[f.blocks["W"].slice] = 0.0
    near = x.copy()
    near[f.blocks["W"].slice] = 1e-9 * random.standard_normal(f.blocks["W"].slice.stop)
    v = random.standard_normal(f.n_params)
    value, gradient = f.value_and_grad(x)
    near_value, near_gradient = f.value_and_grad(near)
    # First order in 1e-9, and the errors of the rules for smooth functions.
    tolerance = 1e-7
    assert value == pytest.approx(near_value, rel=tolerance)
    assert not block_view(f, gradient, "W").any()
    np.testing.assert_allclose(gradient, near_gradient, atol=tolerance)
    np.testing.assert_allclose(f.hvp(x, v), f.hvp(near, v), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        f.bias_hessian(x), f.bias_hessian(near), rtol=tolerance, atol=tolerance
    )


def test_curvature_outside_is_that_of_the_biases():
    """At W_perp = 0 the Hessian in W_perp is I kron (H_bb + 2 lam I)."""
    f = NetworkRisk(student_of(4, 3), TEACHERS["one"](4), lam=0.2)
    x = f.start
    x[f.blocks["W"].slice] = 0.0
    V = np.random.default_rng(1).standard_normal((3, 3))
    v = np.zeros(f.n_params)
    v[f.blocks["W"].slice] = V.ravel()
    product = f.hvp(x, v)
    expected = (f.bias_hessian(x) + 0.4 * np.eye(3)) @ V
    np.testing.assert_allclose(block_view(f, product, "W"), expected, rtol=1e-12, atol=1e-13)
    assert not product[f.blocks["W"].slice.stop :].any()


def test_network_comes_back_in_the_coordinates_of_the_user():
    student, teacher = student_of(5, 4, 3), TEACHERS["two"](5)
    f = NetworkRisk(student, teacher, lam=0.1, train="all")
    np.testing.assert_allclose(f.network(f.start).flat(), student.flat(), rtol=1e-13, atol=1e-14)
    inside, outside = f.first_layer(f.start)
    projector = teacher.basis.T @ teacher.basis
    W = student.weights[0]
    assert np.linalg.norm(inside) == pytest.approx(np.linalg.norm(W @ projector), rel=1e-13)
    assert np.linalg.norm(outside) == pytest.approx(np.linalg.norm(W - W @ projector), rel=1e-13)


def test_parts_that_are_not_trained_stay():
    student = student_of(3, 4, 3)
    f = NetworkRisk(student, TEACHERS["one"](3), lam=0.1, train=("W1", "b2"))
    assert f.n_params == 12 + 4
    assert "b" not in f.blocks
    moved = f.network(f.start + 1.0)
    assert np.array_equal(moved.biases[0], student.biases[0])
    assert np.array_equal(moved.weights[1], student.weights[1])
    np.testing.assert_allclose(moved.biases[1], student.biases[1] + 1.0, rtol=1e-14)


def test_no_directions_outside():
    f = NetworkRisk(student_of(2, 3), Teacher("product", np.eye(2)), lam=0.1)
    assert "W" not in f.blocks
    assert f.blocks["b"].slice == slice(0, 3)
    assert math.isnan(f.stein_violation(f.start))


@pytest.mark.parametrize("rule", ["mehler", "tensor"])
def test_noise_adds_its_variance_to_the_squared_loss(rule):
    student = student_of(3, 4)
    clean, noisy = (
        NetworkRisk(student, Teacher("tanh", [1.0, 0, 0], noise=noise), lam=0.1, rule=rule)
        for noise in (0.0, 0.5)
    )
    x = clean.start
    assert noisy.value(x) == pytest.approx(clean.value(x) + 0.25, rel=1e-12)
    x[clean.blocks["W"].slice] = 0.0
    assert noisy.value(x) == pytest.approx(clean.value(x) + 0.25, rel=1e-12)


def test_noise_under_another_loss_is_averaged():
    student, teacher = student_of(2, 3), Teacher("tanh", [1.0, 0.0], noise=0.7)
    f = NetworkRisk(student, teacher, loss="pseudo_huber", lam=0.0, n_nodes=2**14)
    nodes, weights = hermegauss(30)
    expected = sum(
        share
        * brute_force(
            student, teacher, lambda o, y, s=shift: np.sqrt(1.0 + (o - y - 0.7 * s) ** 2) - 1.0
        )
        for shift, share in zip(nodes, weights / math.sqrt(2.0 * math.pi), strict=True)
    )
    assert f.value(f.start) == pytest.approx(expected, rel=1e-6)


def test_logistic_labels():
    student, teacher = student_of(2, 3), Teacher("linear", [2.0, 1.0])
    f = NetworkRisk(student, teacher, loss="logistic", lam=0.0, n_nodes=2**14)

    def loss(output, logit):
        p = 1.0 / (1.0 + np.exp(-logit))
        return p * np.log1p(np.exp(-output)) + (1.0 - p) * np.log1p(np.exp(output))

    assert f.value(f.start) == pytest.approx(brute_force(student, teacher, loss), rel=1e-7)


@numba.njit
def quartic(output, y):
    """(output - y)^4 / 4."""
    return 0.25 * (output - y) ** 4


@numba.njit
def quartic_slope(output, y):
    """First derivative in the output."""
    return (output - y) ** 3


@numba.njit
def quartic_curvature(output, y):
    """Second derivative in the output."""
    return 3.0 * (output - y) ** 2


def test_own_loss():
    student, teacher = student_of(2, 3), TEACHERS["one"](2)
    loss = (quartic, quartic_slope, quartic_curvature)
    f = NetworkRisk(student, teacher, loss=loss, lam=0.0, n_nodes=2**14)
    exact = brute_force(student, teacher, lambda o, y: 0.25 * (o - y) ** 4)
    assert f.value(f.start) == pytest.approx(exact, rel=1e-8)


def test_steep_links_get_more_nodes():
    counts = [
        NetworkRisk(student_of(2, 2), Teacher("tanh", [slope, 0.0]), lam=0.0).n_inside
        for slope in (0.5, 2.0, 20.0)
    ]
    assert counts[0] == 64
    assert counts[0] < counts[1] <= counts[2] == 192


def test_rule_error_is_about_the_error():
    student, teacher = student_of(2, 4), TEACHERS["one"](2)
    exact = NetworkRisk(student, teacher, lam=0.0, rule="mehler")
    coarse = NetworkRisk(student, teacher, lam=0.0, rule="tensor", n_nodes=64, n_inside=8)
    error = abs(coarse.value(coarse.start) - exact.value(exact.start))
    estimate = coarse.rule_error(coarse.start)
    assert 0.3 * error <= estimate.value <= 3.0 * error
    assert estimate.gradient > 0.0
    finer = coarse.refined()
    assert finer.n_inside == 12
    assert finer.rule_error(finer.start).value < estimate.value


def test_no_nodes_are_made_that_nobody_asks_for():
    f = NetworkRisk(student_of(40, 4, 3), TEACHERS["one"](40), lam=0.0)
    x = f.start
    x[f.blocks["W"].slice] = 0.0
    finer = f.refined()
    assert f.rule_error(x).gradient >= 0.0
    # 64 and 96 nodes on the axis.
    assert finer.value(x) == pytest.approx(f.value(x), rel=1e-7)
    assert f._engine_made is finer._engine_made is None
    assert "Gauss-Hermite x" in finer.description


@pytest.mark.parametrize("rule", ["tensor", "sparse", "spherical"])
def test_few_nodes_inside_are_corrected(rule):
    """With fewer nodes inside where W_perp is not 0, value and gradient stay continuous at 0."""
    f = NetworkRisk(
        student_of(6, 4, 3), TEACHERS["two"](6), lam=0.1, rule=rule, n_nodes=900, n_inside=40
    )
    assert "corrected" in f.description
    x = f.start
    x[f.blocks["W"].slice] = 0.0
    near = x.copy()
    near[f.blocks["W"].slice] = 1e-8
    (value, gradient), (near_value, near_gradient) = f.value_and_grad(x), f.value_and_grad(near)
    # The rules alone, of few nodes, would differ by more than 1e-4. First order in 1e-8.
    assert near_value == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose(near_gradient, gradient, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_risks_can_be_pickled_and_copied(rule):
    teacher = Teacher("tanh", d=6, seed=1)
    f = NetworkRisk(student_of(6, 3), teacher, lam=0.1, rule=rule, n_nodes=300, n_inside=60)
    x = f.start + 0.1
    direction = np.linspace(-1.0, 1.0, f.n_params)
    for other in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        assert other.value(x) == f.value(x)
        np.testing.assert_array_equal(other.hvp(x, direction), f.hvp(x, direction))
        assert other.rule_error(x) == f.rule_error(x)


@pytest.mark.parametrize("inputs", ["uniform", "rademacher", "student_t"])
def test_other_inputs(inputs):
    student, teacher = student_of(2, 3), TEACHERS["one"](2)
    f = NetworkRisk(student, teacher, lam=0.0, inputs=inputs, n_nodes=2**12)
    assert not f.gaussian
    assert f.rule == "samples"
    assert f.stein_violation(f.start) > 1e-3
    if inputs == "rademacher":
        X = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
        expected = np.mean((student.predict(X) - teacher.predict(X)) ** 2)
        assert f.value(f.start) == pytest.approx(expected, rel=1e-13)


def test_own_samples():
    student, teacher = student_of(3, 4), TEACHERS["one"](3)
    X = np.random.default_rng(0).exponential(size=(50, 3))
    f = NetworkRisk(student, teacher, lam=0.0, inputs=X)
    expected = np.mean((student.predict(X) - teacher.predict(X)) ** 2)
    assert f.value(f.start) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(f.rule_error(f.start).value)


@pytest.mark.parametrize("rule", ["mehler", "spherical"])
def test_same_bits_for_any_number_of_threads(rule):
    student, teacher = student_of(6, 40), TEACHERS["one"](6)
    results = []
    for n_threads in (1, 2, 3):
        f = NetworkRisk(student, teacher, lam=0.1, rule=rule, n_threads=n_threads)
        x = f.start
        value, gradient = f.value_and_grad(x)
        results.append((value, gradient.tobytes(), f.hvp(x, gradient).tobytes()))
    assert results[0] == results[1] == results[2]


BAD = [
    ({"lam": -1.0}, ValueError, "lam must be finite, at least 0"),
    ({"rule": "exact"}, ValueError, "rule must be one of auto, mehler"),
    ({"rule": "mehler", "loss": "logistic"}, ValueError, "needs two layers, the squared loss"),
    ({"rule": "mehler", "inputs": "uniform"}, ValueError, "for Gaussian inputs only"),
    ({"train": "last"}, ValueError, "train must be 'first', 'all'"),
    ({"train": ("W1", "b7")}, ValueError, "train may name W1, b1, W2, b2; got 'b7'"),
    ({"train": ("b1",)}, ValueError, "train must contain 'W1'"),
    ({"loss": "hinge"}, ValueError, "loss"),
    ({"inputs": "cauchy"}, ValueError, "inputs must be one of gaussian, uniform"),
    ({"inputs": np.zeros((4, 2))}, ValueError, r"inputs must have shape \(N, 3\)"),
    ({"inputs": np.full((4, 3), np.nan)}, ValueError, "inputs must be finite; row 0 is not"),
    ({"inputs": np.full((4, 3), "a")}, TypeError, "inputs must hold real numbers"),
    ({"n_nodes": 0}, ValueError, "n_nodes must be at least 1, got 0"),
    ({"n_inside": 0}, ValueError, "n_inside must be at least 1, got 0"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
    ({"n_threads": 0}, ValueError, "n_threads must be at least 1"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        NetworkRisk(student_of(3, 2), TEACHERS["one"](3), **{"lam": 0.1, **options})


def test_student_and_teacher_must_fit():
    with pytest.raises(ValueError, match="one dimension; got 3 and 4"):
        NetworkRisk(student_of(3, 2), TEACHERS["one"](4), lam=0.1)
    with pytest.raises(TypeError, match="student must be a Network, not str"):
        NetworkRisk("student", TEACHERS["one"](4), lam=0.1)
    with pytest.raises(TypeError, match="teacher must be a Teacher, not str"):
        NetworkRisk(student_of(3, 2), "teacher", lam=0.1)


def test_too_many_nodes_are_refused_before_they_are_made():
    network = Network((np.ones((1, 60)), [[1.0]]), ([0.0], [0.0]))
    teacher = Teacher("product", np.eye(5, 60))
    with pytest.raises(ValueError, match=r"would take [\d,]+ nodes of dimension 60, .* GiB"):
        NetworkRisk(network, teacher, lam=0.1, rule="tensor", n_inside=20)


def test_points_are_checked():
    f = NetworkRisk(student_of(3, 2), TEACHERS["one"](3), lam=0.1)
    with pytest.raises(ValueError, match=r"x must have shape \(8,\), got \(3,\)"):
        f.value(np.zeros(3))
    with pytest.raises(ValueError, match=r"x must be finite; x\[2\] is nan"):
        f.value_and_grad(np.where(np.arange(8) == 2, np.nan, 0.0))
    with pytest.raises(ValueError, match=r"v must have shape \(8,\)"):
        f.hvp(f.start, np.zeros(2))
