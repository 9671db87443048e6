"""No certificate may be false: points whose spectrum is known, and what a report must say."""

import doctest
import math

import numpy as np
import pytest
from saddles import PlanarSaddle, Problem, SmoothedWells

from derand_fast.optimize import SOSPResult, Status, capped_cg, certificate, certify
from derand_fast.optimize.certificate import CurvatureOracle
from derand_fast.optimize.vectors import dot, norm

# Eigenvalues come back from Q diag Q' with an error of a few units in the last place.
SPECTRUM_NOISE = 1e-13


class Quadratic(Problem):
    """g'x + x'Hx/2."""

    def __init__(self, H, g):
        self.H, self.g, self.n_params = H, g, len(g)

    def value_and_grad(self, x):
        image = self.H @ x
        return float(self.g @ x + 0.5 * x @ image), self.g + image

    def hvp(self, x, v):
        return self.H @ v


class Quartic(Problem):
    """sum_i (d_i y_i^2/2 + c_i y_i^4/4), y = Q'x: Hessian Q diag(d + 3 c y^2) Q'."""

    def __init__(self, Q, d, c):
        self.Q, self.d, self.c, self.n_params = Q, d, c, len(d)

    def value_and_grad(self, x):
        y = self.Q.T @ x
        grad = self.Q @ (self.d * y + self.c * y**3)
        return float(np.sum(self.d * y**2 / 2 + self.c * y**4 / 4)), grad

    def hvp(self, x, v):
        y = self.Q.T @ x
        return self.Q @ ((self.d + 3.0 * self.c * y**2) * (self.Q.T @ v))


def random_rotation(n, generator):
    return np.linalg.qr(generator.standard_normal((n, n)))[0]


def spectra(n, generator):
    """A spectrum whose lowest value is just below the target, just above it, or anywhere.

    Half have a single low value, the hardest to see; half a crowd.
    """
    target = 10.0 ** generator.uniform(-4, 0)
    scale = 10.0 ** generator.uniform(-1, 2)
    values = generator.uniform(0.0, scale, n)
    nearness = generator.choice([1e-12, 1e-6, 1e-3, 0.1, 10.0])
    lowest = -target * (1.0 + generator.choice([-1.0, 1.0]) * nearness)
    values[0] = lowest
    if generator.random() < 0.5:
        values[: n // 2 + 1] = lowest + generator.random(n // 2 + 1) * abs(lowest) * 1e-3
        values[0] = lowest
    return values, target


@pytest.mark.parametrize("kind", ["quadratic", "quartic"])
def test_no_certificate_is_false_at_5000_points(kind):
    generator = np.random.default_rng(20251122)
    certified = refused = 0
    rotations = {n: random_rotation(n, generator) for n in range(2, 41)}
    for trial in range(5000):
        n = int(generator.integers(2, 41))
        Q = rotations[n]
        values, target = spectra(n, generator)
        if kind == "quadratic":
            gradient = generator.standard_normal(n)
            gradient *= generator.choice([0.5, 1.5]) * 1e-3 / norm(gradient)
            point = np.zeros(n)
            objective = Quadratic((Q * values) @ Q.T, gradient)
        else:
            y = generator.standard_normal(n)
            c = generator.uniform(0.0, 1.0, n)
            objective = Quartic(Q, values - 3.0 * c * y**2, c)
            point = Q @ y
            gradient = objective.value_and_grad(point)[1]
        rho = 1e-3 if kind == "quadratic" else norm(gradient) * generator.choice([0.99, 1.01])
        result = certify(objective, point, rho=rho, curvature_tol=target, seed=trial)
        noise = SPECTRUM_NOISE * np.abs(values).max() * (1.0 if kind == "quadratic" else 50.0)
        truth = values.min()
        assert result.lambda_min >= truth - noise - 1e-12
        assert result.lambda_min_lower <= truth + noise
        if result.success:
            assert norm(gradient) <= rho
            assert truth >= -target - noise
            certified += 1
        elif truth < -target - noise - 1e-9 * np.abs(values).max():
            v = result.negative_curvature_direction
            assert v is not None
            assert dot(v, objective.hvp(point, v)) < -target + noise
            refused += 1
    # Neither answer is given all the time.
    assert certified > 500
    assert refused > 1000


def test_report_at_a_saddle_and_at_a_minimum():
    saddle = certify(PlanarSaddle(), np.zeros(2), rho=1e-6)
    assert not saddle.success
    assert saddle.status == Status.NEGATIVE_CURVATURE
    assert saddle.lambda_min == pytest.approx(-2.0)
    np.testing.assert_allclose(np.abs(saddle.negative_curvature_direction), [0.0, 1.0], atol=1e-12)
    assert "curvature -2" in saddle.message
    minimum = certify(PlanarSaddle(), [0.0, math.sqrt(2.0)], rho=1e-6)
    assert minimum.success
    assert minimum.certified
    assert minimum.status == 0
    assert minimum.negative_curvature_direction is None
    assert minimum.lambda_min_lower == pytest.approx(2.0)
    assert (minimum.nit, minimum.nfev, minimum.njev) == (0, 1, 1)
    assert "yes, except with probability 1e-06" in str(minimum)
    slope = certify(PlanarSaddle(), [0.1, math.sqrt(2.0)], rho=1e-6)
    assert slope.status == Status.GRADIENT_TOO_LARGE
    assert not slope.success


def test_curvature_target():
    p, x = PlanarSaddle(), np.zeros(2)
    assert certify(p, x, rho=1e-4).curvature_tol == 1e-2
    assert certify(p, x, rho=1e-4, hess_lipschitz=4.0).curvature_tol == 2e-2
    assert certify(p, x, rho=1e-4, curvature_tol=2.1).success
    assert not certify(p, x, rho=1e-4, curvature_tol=1.9).success


def test_same_seed_same_bits_other_seed_other_vectors():
    generator = np.random.default_rng(0)
    H = generator.standard_normal((300, 300))
    p = Quadratic(H @ H.T / 300, np.zeros(300))
    one, two, three = (certify(p, np.zeros(300), rho=1e-3, seed=s) for s in (5, 5, 6))
    assert one.lambda_min == two.lambda_min
    assert one.lambda_min_lower == two.lambda_min_lower
    assert one.lambda_min_lower != three.lambda_min_lower


def test_failure_probabilities_add_up_to_delta(monkeypatch):
    spent = []

    def fake(operator, n, *, delta, **arguments):
        spent.append(delta)

    monkeypatch.setattr(certificate, "leftmost_eigenpair", fake)
    evaluator = type("E", (), {"n": 3})()
    oracle = CurvatureOracle(evaluator, 1e-3, np.random.SeedSequence(0))
    for _ in range(2000):
        oracle(np.zeros(3), threshold=1.0, eps=1.0)
    assert sum(spent) < 1e-3
    assert sum(spent) > 0.999e-3
    assert spent[0] == pytest.approx(6e-3 / math.pi**2)


def test_collapse_bound_holds_and_is_the_formula():
    p = SmoothedWells(lam=0.7)
    generator = np.random.default_rng(1)
    for trial in range(200):
        x = np.concatenate([generator.standard_normal(12), generator.choice([-1.0, 1.0], 4)])
        x *= np.concatenate([np.full(12, 10.0 ** -generator.integers(0, 12)), np.ones(4)])
        result = certify(p, x, rho=1.0, seed=trial)
        assert result.W_norm == pytest.approx(np.linalg.norm(x[:12]), rel=1e-14)
        assert result.W_norm <= result.collapse_bound
        lowest = np.diag(p.bias_hessian(x)).min()
        gradient = np.linalg.norm(p.value_and_grad(x)[1][:12])
        # The certified bound of H_bb lies between -lam/4, which was asked for, and the truth.
        assert gradient / (1.4 + lowest) <= result.collapse_bound * (1.0 + 1e-12)
        assert result.collapse_bound <= gradient / (1.4 - 0.175) * (1.0 + 1e-9)
        assert result.stein_residual <= 1e-12


def test_collapse_bound_with_negative_curvature_below_lam():
    # H_bb = -1 at the origin; 2 lam = 1.4 still leaves a bound, found by the second run.
    p = SmoothedWells(lam=0.7)
    x = np.concatenate([np.full(12, 1e-3), np.zeros(4)])
    result = certify(p, x, rho=0.5)
    assert result.status == Status.NEGATIVE_CURVATURE
    assert result.W_norm <= result.collapse_bound <= 4.0 * result.W_norm
    assert certify(SmoothedWells(lam=0.4), x, rho=1.0).collapse_bound is None


def test_collapse_bound_without_bias_hessian_cuts_the_block_out():
    class Plain(SmoothedWells):
        bias_hessian = None

    x = np.concatenate([np.full(12, 1e-3), np.ones(4)])
    full, cut = certify(SmoothedWells(), x, rho=1.0), certify(Plain(), x, rho=1.0)
    assert cut.collapse_bound == pytest.approx(full.collapse_bound, rel=0.2)
    assert cut.W_norm <= cut.collapse_bound
    assert cut.nhev > full.nhev


def test_collapse_bound_holds_where_the_lemma_does_not():
    class Other(SmoothedWells):
        def value_and_grad(self, x):
            fun, grad = super().value_and_grad(x)
            grad = grad.copy()
            grad[:12] = 0.0
            return fun, grad

    x = np.concatenate([np.full(12, 0.1), np.ones(4)])
    result = certify(Other(), x, rho=1.0)
    assert result.stein_residual > 0.1
    assert result.W_norm <= result.collapse_bound


def test_apriori_bound():
    x = np.concatenate([np.zeros(12), np.ones(4)])
    result = certify(SmoothedWells(lam=0.7), x, rho=1e-4, hess_lipschitz=9.0)
    assert result.collapse_bound_apriori == pytest.approx(1e-4 / (1.4 - 3e-2))
    assert certify(SmoothedWells(lam=0.01), x, rho=1e-4, hess_lipschitz=9.0).success
    weak = certify(SmoothedWells(lam=0.01), x, rho=1e-4, hess_lipschitz=9.0)
    assert weak.collapse_bound_apriori is None
    assert certify(PlanarSaddle(), np.zeros(2), rho=1e-4).W_norm is None


def test_asymmetric_products_are_refused():
    class Wrong(PlanarSaddle):
        def hvp(self, x, v):
            return super().hvp(x, v) + np.array([0.01 * v[1], 0.0])

    with pytest.raises(ValueError, match="hvp is not symmetric"):
        certify(Wrong(), [0.3, 0.2], rho=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rho": 0.0}, ValueError, "rho must be positive"),
        ({"rho": -1.0}, ValueError, "rho must be positive"),
        ({"rho": math.nan}, ValueError, "rho must be positive"),
        ({"rho": "1"}, TypeError, "rho must be a real number"),
        ({"rho": 1.0, "delta": 0.0}, ValueError, r"delta must be in \(0, 1\), got 0.0"),
        ({"rho": 1.0, "delta": 1.0}, ValueError, r"delta must be in \(0, 1\)"),
        ({"rho": 1.0, "curvature_tol": 0.0}, ValueError, "curvature_tol must be positive"),
        ({"rho": 1.0, "hess_lipschitz": -2.0}, ValueError, "hess_lipschitz must be positive"),
        ({"rho": 1.0, "seed": -1}, ValueError, "seed must be at least 0"),
        ({"rho": 1.0, "seed": 1.5}, TypeError, "seed must be an integer"),
        ({"rho": 1.0, "x": [0.0]}, ValueError, r"x must have shape \(2,\).*got \(1,\)"),
        ({"rho": 1.0, "x": [0.0, math.nan]}, ValueError, r"x\[1\] is nan"),
        ({"rho": 1.0, "x": ["a", "b"]}, TypeError, "x must hold real numbers"),
        ({"rho": 1.0, "bounds": [(0, 1)]}, ValueError, "bounds must be None"),
        ({"rho": 1.0, "colour": 3}, TypeError, "unknown keyword arguments: colour"),
    ],
)
def test_bad_input(changes, error, words):
    arguments = {"x": [0.0, 0.0]} | changes
    with pytest.raises(error, match=words):
        certify(PlanarSaddle(), arguments.pop("x"), **arguments)


def test_objects_that_are_no_objectives():
    with pytest.raises(TypeError, match="object lacks n_params, value_and_grad, hvp"):
        certify(object(), [0.0], rho=1.0)
    bad = SmoothedWells(lam=-1.0)
    with pytest.raises(ValueError, match=r"lam must be finite and at least 0, got -1"):
        certify(bad, np.zeros(bad.n_params), rho=1.0)


def test_result_is_a_scipy_result():
    result = certify(PlanarSaddle(), np.zeros(2), rho=1e-6)
    assert isinstance(result, SOSPResult)
    assert result["fun"] == result.fun == 0.0
    assert "lambda_min_lower" in result
    assert "lambda_min_lower" in repr(result)
    with pytest.raises(ValueError, match="no history"):
        result.plot()


@pytest.mark.parametrize("module", [certificate, capped_cg])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
