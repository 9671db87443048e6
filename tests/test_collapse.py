"""Steps of newton_cg that take randomness out: taken where f falls, and only there."""

import math

import numpy as np
import pytest

from derand_fast.generators import random_graph
from derand_fast.objectives import GaussianExpectation, MaxCutObjective, block_view, pack
from derand_fast.optimize import newton_cg
from derand_fast.relaxation import Relaxation, ScaledGraph


class Wells:
    """E[(z^2 - 1)^2 / 4] + lam w^2 for z = w x + b, one weight and one bias, in closed form."""

    n_params = 2
    lam = 0.1

    def __init__(self, step=None):
        """Take the step to offer, by default the right one."""
        from derand_fast.objectives import Block

        self.blocks = {"W": Block(slice(0, 1), (1, 1)), "b": Block(slice(1, 2), (1,))}
        self.step = step
        self.asked = []

    def value_and_grad(self, x):
        """E z^2 = s + b^2 and E z^4 = 3 s^2 + 6 s b^2 + b^4 with s = w^2."""
        w, b = x
        s = w * w
        value = 0.25 * (3 * s**2 + 6 * s * b**2 + b**4 - 2 * (s + b**2) + 1) + self.lam * s
        slope = 0.25 * (6 * s + 6 * b**2 - 2)
        gradient = [2 * w * (slope + self.lam), 0.25 * (12 * s * b + 4 * b**3 - 4 * b)]
        return value, np.array(gradient)

    def value(self, x):
        """Return f alone."""
        return self.value_and_grad(x)[0]

    def hvp(self, x, v):
        """Hessian times v."""
        w, b = x
        s = w * w
        ww = 2 * (0.25 * (6 * s + 6 * b**2 - 2) + self.lam) + 6 * s
        bb = 0.25 * (12 * s + 12 * b**2 - 4)
        return np.array([ww * v[0] + 6 * w * b * v[1], 6 * w * b * v[0] + bb * v[1]])

    def collapse_step(self, x):
        """Set w to 0."""
        self.asked.append(x.copy())
        return np.array([-x[0], 0.0]) if self.step is None else self.step


def steps_of(result):
    """Names of the steps that were taken."""
    return [row.step for row in result.history[1:]]


def test_an_input_is_fixed_where_the_whole_step_is_refused():
    # At b = 0 and w^2 = (1 - 2 lam) / 3, stationary, taking w away alone raises f: 0.25 against
    # 0.25 - (1 - 2 lam)^2 / 12.
    w = math.sqrt((1.0 - 2.0 * Wells.lam) / 3.0)
    f = Wells()
    assert np.abs(f.value_and_grad(np.array([w, 0.0]))[1]).max() < 1e-15
    result = newton_cg(f, [w, 0.0], rho=1e-8)
    assert result.certified
    assert steps_of(result)[0] == "collapse"
    assert result.n_escapes >= 1
    # x fixed at 1 or -1: all of w has gone into b.
    assert result.history[1].W_norm == 0.0
    assert abs(result.x[1]) == pytest.approx(1.0, abs=1e-8)
    assert result.fun == pytest.approx(0.0, abs=1e-12)


def test_the_whole_step_is_taken_where_f_falls():
    f = Wells()
    start = np.array([0.3, 0.9])
    result = newton_cg(f, start, rho=1e-8)
    assert steps_of(result)[0] == "collapse"
    assert result.history[1].fun == pytest.approx(f.value(np.array([0.0, 0.9])), abs=1e-15)
    assert result.history[1].W_norm == 0.0


def test_a_step_that_leads_up_is_never_taken():
    f = Wells(step=np.array([5.0, 5.0]))
    f.lam = 1e3  # Nor can an input be fixed at that price: lam w^2 must be gained.
    result = newton_cg(f, [0.0, 0.3], rho=1e-8)
    assert result.certified
    assert "collapse" not in steps_of(result)


def test_refusals_come_ever_more_seldom():
    f = Wells(step=np.array([5.0, 5.0]))
    newton_cg(f, [0.0, 0.05], rho=1e-12)
    n_steps = newton_cg(Wells(), [0.0, 0.05], rho=1e-12).nit
    assert 1 <= len(f.asked) <= 2 + math.log2(n_steps + 1)


@pytest.mark.parametrize("step", [np.zeros(3), np.array([math.nan, 0.0])])
def test_steps_of_a_wrong_kind_are_refused(step):
    with pytest.raises(ValueError, match=r"Wells.collapse_step must return a finite vector of sh"):
        newton_cg(Wells(step=step), [0.3, 0.1], rho=1e-6)


def test_member_must_be_a_method():
    f = Wells()
    f.collapse_step = 3.0
    with pytest.raises(TypeError, match=r"Wells\.collapse_step must be a method, not 3\.0"):
        newton_cg(f, [0.3, 0.1], rho=1e-6)


def test_without_the_member_nothing_changes():
    class Plain(Wells):
        collapse_step = None

    result = newton_cg(Plain(), [0.3, 0.9], rho=1e-8)
    assert result.certified
    assert "collapse" not in steps_of(result)


def test_conditional_expectations_keep_the_mean():
    """E_t of f with one input fixed at t is f - lam ||W u||^2: the identity the step rests on."""
    graph = random_graph(12, 30, seed=1)
    f = MaxCutObjective(graph, 3, tau=0.7, lam=0.2, n_threads=1)
    random = np.random.default_rng(0)
    W, b = random.standard_normal((12, 3)), random.standard_normal(12)
    u = random.standard_normal(3)
    u /= np.linalg.norm(u)
    y = W @ u
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    mean = sum(
        weight * f.value(pack(f, W=W - np.outer(y, u), b=b + t * y))
        for t, weight in zip(nodes, weights / math.sqrt(2.0 * math.pi), strict=True)
    )
    expected = f.value(pack(f, W=W, b=b)) - 0.2 * y @ y
    # Gauss-Hermite error of erf with slopes |y| / tau up to 5.
    assert mean == pytest.approx(expected, abs=1e-5)


def test_objectives_of_the_package_offer_the_step():
    graph = random_graph(6, 9, seed=0)
    cut = MaxCutObjective(graph, 2, tau=0.5, lam=0.1)
    toy = GaussianExpectation(
        (lambda z, _: float(z @ z), lambda z, _, out, __: out.__setitem__(slice(None), 2 * z)),
        (3, 2),
        lam=0.1,
    )
    for f in (cut, toy):
        x = np.arange(1.0, f.n_params + 1.0)
        after = x + f.collapse_step(x)
        assert not block_view(f, after, "W").any()
        assert np.array_equal(block_view(f, after, "b"), block_view(f, x, "b"))


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_smoothed_cut_collapses_exactly(tau):
    graph = random_graph(40, 120, seed=2)
    relaxation = Relaxation(ScaledGraph.of(graph), 4, np.random.default_rng(0))
    f = MaxCutObjective(graph, 4, tau=tau, lam=0.3 * tau, n_threads=1)
    start = pack(f, W=relaxation.rows.astype(np.float64))
    result = newton_cg(f, start, rho=1e-6, curvature_tol=0.3 * tau)
    assert result.certified
    assert "collapse" in steps_of(result)
    assert result.W_norm <= result.collapse_bound
    assert result.fun < f.value(start)
