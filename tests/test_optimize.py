"""Escapes from exact saddles, guarantees step by step, and every way a run can end."""

import doctest
import importlib
import itertools
import math

import numpy as np
import pytest
from saddles import (
    PROBLEMS,
    DeadNetwork,
    MatrixFactorization,
    Octopus,
    PhaseRetrieval,
    PlanarSaddle,
    Problem,
    SmoothedWells,
)

from derand_fast.optimize import (
    Status,
    certify,
    hessian_descent,
    jin2017_parameters,
    jin2021_parameters,
    newton_cg,
    pgd,
)
from derand_fast.optimize.capped_cg import _Cap, _slow_direction, capped_cg
from derand_fast.optimize.perturbed_gradient import _kicked
from derand_fast.optimize.vectors import dot, norm, random_unit
from derand_fast.plot import plot_optimization

METHODS = (pgd, hessian_descent, newton_cg)
all_methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


# --- escapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_derivatives_of_the_problems(name):
    problem = PROBLEMS[name]()
    generator = np.random.default_rng(5)
    for _ in range(5):
        x, v = generator.standard_normal((2, problem.n_params)) * 0.8
        h = 1e-5
        forward, backward = (problem.value_and_grad(x + s * h * v) for s in (1.0, -1.0))
        fun, grad = problem.value_and_grad(x)
        # Central differences: h^2 and u/h, times the size of what is differenced.
        slope = (forward[0] - backward[0]) / (2.0 * h)
        assert slope == pytest.approx(grad @ v, rel=1e-7, abs=1e-7 * (1.0 + abs(fun)))
        product = problem.hvp(x, v)
        difference = (forward[1] - backward[1]) / (2.0 * h)
        np.testing.assert_allclose(difference, product, rtol=1e-7, atol=1e-7 * norm(product))
    fun, grad = problem.value_and_grad(problem.saddle)
    assert not grad.any()
    assert np.linalg.eigvalsh(problem.hessian(problem.saddle))[0] == pytest.approx(
        problem.curvature
    )


@all_methods
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "network"])
def test_escapes_from_exactly_the_saddle(name, method):
    problem = PROBLEMS[name]()
    for seed in range(20):
        result = method(problem, problem.saddle, rho=1e-5, seed=seed)
        assert result.success, (seed, result.message)
        assert result.fun == pytest.approx(problem.minimum, abs=1e-6)
        assert result.n_escapes >= 1
        spectrum = np.linalg.eigvalsh(problem.hessian(result.x))
        noise = 1e-13 * np.abs(spectrum).max()
        assert -result.curvature_tol <= result.lambda_min_lower <= spectrum[0] + noise
        assert result.grad_norm <= 1e-5


@pytest.mark.parametrize(("method", "seeds"), [(pgd, 2), (hessian_descent, 2), (newton_cg, 20)])
def test_escapes_from_a_dead_network(method, seeds):
    problem = DeadNetwork()
    for seed in range(seeds):
        result = method(problem, problem.saddle, rho=1e-3, seed=seed)
        assert result.success, (seed, result.message)
        assert result.fun < 0.2 * problem.value(problem.saddle)


@all_methods
def test_escapes_from_the_stable_manifold(method):
    # Gradient descent from here ends at the saddle: no component along the way out.
    for problem, start in (
        (PlanarSaddle(), np.array([1.0, 0.0])),
        (Octopus(), np.array([0.0, 0.4, 0.4, 0.4, 0.4])),
    ):
        result = method(problem, start, rho=1e-6)
        assert result.success
        assert result.fun == pytest.approx(problem.minimum, abs=1e-9)


def test_newton_cg_needs_ten_times_fewer_gradients_than_pgd():
    problem = DeadNetwork()
    fast, slow = (method(problem, problem.saddle, rho=1e-4) for method in (newton_cg, pgd))
    assert fast.success
    assert slow.success
    assert 10 * fast.n_gradient_equivalents < slow.n_gradient_equivalents


@all_methods
def test_weights_collapse_within_their_bounds(method):
    problem = SmoothedWells(rows=6, columns=4, lam=0.3)
    generator = np.random.default_rng(3)
    for seed in range(5):
        start = generator.standard_normal(problem.n_params)
        result = method(problem, start, rho=1e-4, seed=seed)
        assert result.success
        assert result.W_norm <= result.collapse_bound <= result.collapse_bound_apriori
        assert result.collapse_bound_apriori == pytest.approx(1e-4 / (0.6 - 1e-2))
        assert result.history[-1].W_norm == result.W_norm


# --- guarantees -----------------------------------------------------------------------------------


def test_hessian_descent_keeps_its_guarantees_step_by_step():
    # On |x_1| <= sqrt 2 + 1/2 and |y| <= 2: L = max(2, 3 y^2 - 2) = 10, K = 6 |y| = 12.
    L, K, rho = 10.0, 12.0, 1e-4
    rows = []
    result = hessian_descent(
        PlanarSaddle(),
        np.array([0.5, 0.0]),
        rho=rho,
        grad_lipschitz=L,
        hess_lipschitz=K,
        parameters="theory",
        fun_lower=-1.0,
        callback=lambda intermediate_result: rows.append(intermediate_result),
    )
    assert result.success
    assert result.curvature_tol == pytest.approx(math.sqrt(K * rho))
    history = result.history
    assert [row.step for row in history[1:]] == [row.step for row in rows]
    curvature_steps = 0
    for before, after in itertools.pairwise(history):
        if after.step == "gradient":
            promised = before.grad_norm**2 / (2.0 * L)
            assert before.grad_norm > rho
        else:
            curvature_steps += 1
            promised = 2.0 * (-before.lambda_min) ** 3 / (3.0 * K**2)
            assert promised >= rho**1.5 / (12.0 * math.sqrt(K)) * (1.0 - 1e-12)
        assert before.fun - after.fun >= promised * (1.0 - 1e-9) - 1e-15
    # At c = 2 the step 2c/K = 1/3 lowers y^4/4 - y^2 by 1/9 - 1/324; promised 16/432 = 1/27.
    assert curvature_steps == 1
    first = next(i for i, row in enumerate(history) if row.step == "negative curvature")
    assert history[first - 1].lambda_min == pytest.approx(-2.0)
    assert history[first - 1].fun - history[first].fun == pytest.approx(1 / 9 - 1 / 324, rel=1e-6)
    assert result.nit <= 2 * L * 2.0 / rho**2 + 12 * math.sqrt(K) * 2.0 / rho**1.5


def test_hessian_descent_disproves_wrong_constants():
    arguments = {"rho": 1e-4, "parameters": "theory"}
    start = np.array([0.5, 0.5])
    low = hessian_descent(
        PlanarSaddle(), start, grad_lipschitz=1.0, hess_lipschitz=12.0, **arguments
    )
    assert low.status == Status.WRONG_CONSTANTS
    assert "gradient step" in low.message
    low = hessian_descent(
        PlanarSaddle(), np.zeros(2), grad_lipschitz=10.0, hess_lipschitz=0.1, **arguments
    )
    assert low.status == Status.WRONG_CONSTANTS
    assert "curvature step" in low.message
    assert not low.success


def test_hessian_descent_counts_its_lanczos_runs():
    # The octopus has five saddles; with f* claimed at -1e-6 not even one step fits.
    result = hessian_descent(
        Octopus(),
        np.zeros(5),
        rho=1e-2,
        grad_lipschitz=40.0,
        hess_lipschitz=1e-3,
        fun_lower=0.0,
        parameters="theory",
    )
    assert result.status == Status.WRONG_CONSTANTS


def test_line_searches_without_constants_keep_the_cubic_decrease():
    for problem, K in ((PlanarSaddle(), 12.0), (PhaseRetrieval(), None)):
        result = hessian_descent(problem, problem.saddle, rho=1e-6)
        before, after = result.history[:2]
        assert after.step == "negative curvature"
        decrease = before.fun - after.fun
        if K is not None:
            # Halving from above ends beyond half of 2c/K: at least c (c/K)^2 / 6.
            assert decrease >= (-before.lambda_min) ** 3 / (6.0 * K**2)
        assert decrease > 0.0


def test_theory_constants_of_2017_by_hand():
    # chi = 3 ln(10 * 8 * 1 / (0.25 * 1e-4 * 0.1)) = 3 ln(3.2e7) = 51.84374
    p = jin2017_parameters(10, 8.0, 2.0, 1e-2, 0.1, 1.0, c=0.25)
    assert p.log_factor == pytest.approx(51.84374, rel=1e-5)
    assert p.step == 0.03125
    assert p.radius == pytest.approx(0.5 / 51.84374**2 * 1e-2 / 8.0, rel=1e-5)
    assert p.grad_threshold == pytest.approx(1.86027e-6, rel=1e-5)
    assert p.decrease_threshold == pytest.approx(0.25 / 51.84374**3 * 7.07107e-4, rel=1e-5)
    assert p.wait == pytest.approx(51.84374 * 16.0 * 8.0 / 0.1414214, rel=1e-5)
    # The logarithm is 4 at least.
    assert jin2017_parameters(1, 1.0, 1.0, 1.0, 0.5, 1.0, c=1.0).log_factor == 12.0


def test_theory_constants_of_2021_by_hand():
    # iota = 0.5 ln(10 * 8 * 1 / (2 * 0.01 * 0.1)) = 0.5 ln 40000 = 5.29832
    p = jin2021_parameters(10, 8.0, 2.0, 1e-2, 0.1, 1.0, c=0.5)
    assert p.log_factor == pytest.approx(5.29832, rel=1e-5)
    assert p.step == 0.125
    assert p.radius == pytest.approx(1e-2 / (400.0 * 148.734) / 8.0, rel=1e-4)
    assert p.grad_threshold == 1e-2
    assert p.decrease_threshold == pytest.approx(7.07107e-4 / (50.0 * 148.734), rel=1e-4)
    assert p.wait == pytest.approx(5.29832 * 8.0 / 0.1414214, rel=1e-5)


@pytest.mark.parametrize("parameters", ["theory", "theory-2021"])
def test_pgd_by_theory(parameters):
    result = pgd(
        PlanarSaddle(),
        np.zeros(2),
        rho=1e-2,
        grad_lipschitz=10.0,
        hess_lipschitz=12.0,
        fun_lower=-1.0,
        parameters=parameters,
        c=1.0 if parameters == "theory" else 0.2,
    )
    assert result.success
    assert result.fun == pytest.approx(-1.0, abs=1e-4)
    steps = [row.step for row in result.history]
    # The first kick leads away, the last one, at the minimum, does not.
    kicks = steps.count("perturbation")
    assert steps[1] == "perturbation"
    assert steps[-1] == "return"
    assert 1 <= result.n_escapes == kicks - 1


def test_kicks_are_uniform_in_the_ball():
    class Run:
        n = 3
        generator = np.random.default_rng(0)
        point = type("P", (), {"x": np.ones(3)})
        evaluator = type("E", (), {"point": staticmethod(lambda x: x)})

    kicks = np.array([_kicked(Run, 2.0) - 1.0 for _ in range(4000)])
    radii = np.linalg.norm(kicks, axis=1)
    assert radii.max() <= 2.0
    # (r/R)^3 is uniform: mean 1/2 within four standard errors, each octant an eighth.
    assert np.mean((radii / 2.0) ** 3) == pytest.approx(0.5, abs=4 * 0.29 / 4000**0.5)
    octants = np.bincount((kicks > 0.0) @ [1, 2, 4], minlength=8) / 4000
    np.testing.assert_allclose(octants, 0.125, atol=4 * (0.11 / 4000) ** 0.5)


# --- capped conjugate gradients -------------------------------------------------------------------


def test_capped_cg_keeps_the_promises_of_its_two_answers():
    generator = np.random.default_rng(8)
    kinds = {True: 0, False: 0}
    for _ in range(400):
        n = int(generator.integers(1, 40))
        Q = np.linalg.qr(generator.standard_normal((n, n)))[0]
        eps = 10.0 ** generator.uniform(-4, 0)
        values = generator.uniform(-3.0 * eps, 10.0 ** generator.uniform(-2, 2), n)
        H = (Q * values) @ Q.T
        g = generator.standard_normal(n)
        step = capped_cg(lambda v, H=H: H @ v, g, eps)
        d = step.direction
        newton = math.isnan(step.curvature)
        kinds[newton] += 1
        damped = H @ d + 2.0 * eps * d
        if newton:
            assert norm(damped + g) <= 0.25 * eps * norm(d) + 1e-9 * norm(g)
            assert d @ damped >= eps * (d @ d) * (1.0 - 1e-9)
            assert g @ d == pytest.approx(-d @ damped, rel=1e-6)
            assert norm(d) <= 1.1 * norm(g) / eps
        else:
            assert d @ H @ d < -eps * (d @ d) * (1.0 - 1e-9)
            assert step.curvature == pytest.approx(d @ H @ d / (d @ d), rel=1e-6, abs=1e-9)
        assert step.norm_bound <= np.abs(values).max() * (1.0 + 1e-9)
    assert min(kinds.values()) > 50


def test_capped_cg_parameters_by_hand():
    # M = 7 eps: kappa = 9, tau = 3/4, zeta_hat = zeta/27, T = 4 * 9^4 / (1 - sqrt(3)/2)^2.
    cap = _Cap(0.7, 0.1, 0.5)
    assert cap.zeta_hat == pytest.approx(0.5 / 27.0)
    T = 4.0 * 9.0**4 / (1.0 - math.sqrt(0.75)) ** 2
    assert cap.log_allowed(6) == pytest.approx(math.log(math.sqrt(T) * 0.75**3))


def test_slow_convergence_is_explained_by_a_direction():
    # All curvature that the iterates show is above -eps, their difference has less.
    generator = np.random.default_rng(2)
    eps, found = 0.05, 0
    for _ in range(200):
        values = np.concatenate([[-0.06], generator.uniform(0.5, 1.0, 9)])
        g = np.concatenate([[1e-4], generator.standard_normal(9)])
        step = _slow_direction(lambda v, values=values: values * v, g, eps, 6, 1.0)
        if not math.isnan(step.curvature):
            found += 1
            assert dot(step.direction, values * step.direction) < -eps * dot(
                step.direction, step.direction
            )
    assert found > 0


# --- determinism, history, counts -----------------------------------------------------------------


@all_methods
def test_same_seed_same_bits(method):
    problem = MatrixFactorization(n=12)
    one, two, three = (method(problem, problem.saddle, rho=1e-4, seed=s) for s in (3, 3, 4))
    assert one.x.tobytes() == two.x.tobytes()
    rows, others = ([row._replace(seconds=0.0) for row in r.history] for r in (one, two))
    assert repr(rows) == repr(others)
    assert one.x.tobytes() != three.x.tobytes()


@all_methods
def test_counts_are_those_of_the_objective(method):
    class Counting(PlanarSaddle):
        gradients = products = 0

        def value_and_grad(self, x):
            self.gradients += 1
            return super().value_and_grad(x)

        def hvp(self, x, v):
            self.products += 1
            return super().hvp(x, v)

    problem = Counting()
    result = method(problem, problem.saddle, rho=1e-5)
    assert (result.nfev, result.njev) == (problem.gradients, problem.gradients)
    assert result.nhev == problem.products
    assert result.n_gradient_equivalents == problem.gradients + problem.products


@all_methods
def test_history_and_report(method):
    result = method(Octopus(), np.zeros(5), rho=1e-6)
    history = result.history
    assert [row.iteration for row in history] == list(range(result.nit + 1))
    assert history[0].step == "start"
    assert history[0].lambda_min == pytest.approx(-1.0, rel=0.3)
    assert history[-1].lambda_min == result.lambda_min
    assert history[-1].fun == result.fun
    assert np.isnan(history[0].W_norm)
    assert np.all(np.diff([row.seconds for row in history]) >= 0.0)
    kinds = {row.step for row in history[1:]}
    assert kinds & {"perturbation", "negative curvature"}
    text = str(result)
    assert "certified  yes" in text
    assert method.__name__ in text


def test_long_histories_are_thinned(monkeypatch):
    from derand_fast.optimize import run as run_module

    monkeypatch.setattr(run_module, "_HISTORY_ROWS", 50)
    problem = DeadNetwork()
    result = pgd(problem, problem.saddle, rho=1e-3)
    assert len(result.history) <= 60 < result.nit
    assert result.history[0].step == "start"
    assert result.history[-1].iteration == result.nit
    assert "perturbation" in {row.step for row in result.history}


# --- ways to end ----------------------------------------------------------------------------------


@all_methods
def test_max_iter(method):
    problem = MatrixFactorization()
    for most in (0, 1, 5):
        result = method(problem, problem.saddle, rho=1e-9, max_iter=most)
        assert (result.nit, result.status) == (most, Status.MAX_ITERATIONS)
        assert not result.success
        assert f"max_iter = {most}" in result.message
        assert math.isfinite(result.lambda_min)
    # A start that is already what is asked for is certified even so.
    assert method(PlanarSaddle(), [0.0, math.sqrt(2.0)], rho=1e-6, max_iter=0).success


@all_methods
def test_time_limit(method):
    class Slow(PhaseRetrieval):
        def hvp(self, x, v):
            import time

            time.sleep(0.01)
            return super().hvp(x, v)

    problem = Slow()
    result = method(problem, problem.saddle, rho=1e-9, time_limit=0.1)
    assert result.status == Status.TIME_LIMIT
    assert not result.success
    assert result.seconds < 0.5


@all_methods
def test_callback_forms(method):
    points, states = [], []
    method(PlanarSaddle(), [0.3, 0.2], rho=1e-6, callback=points.append)
    result = method(
        PlanarSaddle(),
        [0.3, 0.2],
        rho=1e-6,
        callback=lambda intermediate_result: states.append(intermediate_result),
    )
    assert len(points) == len(states) == result.nit
    assert points[-1].tolist() == states[-1].x.tolist() == result.x.tolist()
    assert states[-1].fun == result.fun


@all_methods
@pytest.mark.parametrize("how", ["true", "StopIteration"])
def test_callback_stops(method, how):
    def callback(x):
        if how == "StopIteration":
            raise StopIteration
        return True

    result = method(PlanarSaddle(), [0.3, 0.2], rho=1e-6, callback=callback)
    assert (result.nit, result.status) == (1, Status.CALLBACK)
    assert not result.success


class Failing(Problem):
    """A planar saddle whose calls go wrong from some call on."""

    n_params = 2

    def __init__(self, after, effect, where="value_and_grad"):
        self.after, self.effect, self.where, self.calls = after, effect, where, 0

    def _maybe(self, name, value):
        if name == self.where:
            self.calls += 1
            if self.calls > self.after:
                return self.effect(value)
        return value

    def value_and_grad(self, x):
        return self._maybe("value_and_grad", PlanarSaddle().value_and_grad(x))

    def hvp(self, x, v):
        return self._maybe("hvp", PlanarSaddle().hvp(x, v))


def raising(error):
    def effect(value):
        raise error

    return effect


@all_methods
@pytest.mark.parametrize("where", ["value_and_grad", "hvp"])
def test_nothing_is_lost_when_the_objective_raises(method, where):
    after = {"value_and_grad": 4, "hvp": 7 if method is newton_cg else 11}[where]
    objective = Failing(after, raising(ZeroDivisionError("seven")), where)
    start = np.array([0.3, 0.2]) if where == "value_and_grad" else np.zeros(2)
    with pytest.raises(ZeroDivisionError, match="seven") as caught:
        method(objective, start, rho=1e-12)
    notes = " ".join(caught.value.__notes__)
    assert f"raised by {where}, call {after + 1}" in notes
    assert f"in {method.__name__} after" in notes
    partial = caught.value.partial_result
    assert partial.status == Status.OBJECTIVE_RAISED
    assert not partial.success
    assert partial.fun <= PlanarSaddle().value(start)
    assert partial.fun == PlanarSaddle().value(partial.x)


@all_methods
def test_interrupt_returns_the_best_so_far(method):
    result = method(Failing(4, raising(KeyboardInterrupt())), np.array([0.3, 0.2]), rho=1e-9)
    assert result.status == Status.INTERRUPTED
    assert result.fun < PlanarSaddle().value(np.array([0.3, 0.2]))
    assert not result.success


@all_methods
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_at_the_start(method, bad):
    with pytest.raises(ValueError, match=f"the objective is {bad} at x0"):
        method(Failing(0, lambda value: (bad, value[1])), np.zeros(2), rho=1e-3)
    spoiled = Failing(0, lambda value: (value[0], np.array([0.0, bad])))
    with pytest.raises(ValueError, match=f"entry 1 of the gradient is {bad} at x0"):
        method(spoiled, np.zeros(2), rho=1e-3)
    with pytest.raises(ValueError, match="hvp is not finite at the start"):
        method(Failing(0, lambda value: bad * value, "hvp"), np.zeros(2), rho=1e-3)


@all_methods
def test_not_finite_later(method):
    start = np.array([0.3, 0.2])
    for effect in (
        lambda value: (math.nan, value[1]),
        lambda value: (value[0], np.full(2, math.nan)),
    ):
        result = method(Failing(4, effect), start, rho=1e-9)
        assert result.status == Status.NOT_FINITE
        assert not result.success
        assert "last good point" in result.message
        assert result.fun < PlanarSaddle().value(start)
        assert np.isfinite(result.jac).all()
    after = 7 if method is newton_cg else 11
    result = method(Failing(after, lambda value: math.nan * value, "hvp"), np.zeros(2), rho=1e-12)
    assert result.status == Status.NOT_FINITE
    assert f"hvp call {after + 1}" in result.message


@pytest.mark.parametrize("method", [pgd, hessian_descent])
def test_theory_steps_stop_where_they_leave_the_domain(method):
    result = method(
        Failing(4, lambda value: (math.nan, value[1])),
        np.array([0.3, 0.2]),
        rho=1e-4,
        grad_lipschitz=10.0,
        hess_lipschitz=12.0,
        fun_lower=-1.0,
        parameters="theory",
    )
    assert result.status == Status.NOT_FINITE
    assert "after step 4" in result.message


@all_methods
def test_a_barrier_is_backed_away_from(method):
    class Barrier(Problem):
        """x - log x: infinite for x <= 0, minimum at 1."""

        n_params = 1

        def value_and_grad(self, x):
            if x[0] <= 0.0:
                return math.inf, np.array([math.nan])
            return float(x[0] - math.log(x[0])), 1.0 - 1.0 / x

        def hvp(self, x, v):
            return v / x**2

    result = method(Barrier(), [5.0], rho=1e-6)
    assert result.success
    assert result.x[0] == pytest.approx(1.0, abs=1e-6)


@all_methods
def test_unbounded_below_ends_and_is_no_success(method):
    class Unbounded(Problem):
        n_params = 2

        def value_and_grad(self, x):
            return float(x[0] ** 2 - x[1] ** 2), np.array([2.0 * x[0], -2.0 * x[1]])

        def hvp(self, x, v):
            return np.array([2.0 * v[0], -2.0 * v[1]])

    with np.errstate(over="ignore", invalid="ignore"):
        result = method(Unbounded(), np.zeros(2), rho=1e-3, max_iter=5000)
    assert not result.success
    assert np.isfinite(result.x).all()
    assert result.fun < -1e10


@all_methods
def test_targets_below_rounding_end_without_a_claim(method):
    class Shifted(PlanarSaddle):
        def value_and_grad(self, x):
            fun, grad = super().value_and_grad(x)
            return fun + 1e8, np.round(grad, 8) + 3e-9

    result = method(Shifted(), [0.3, 0.2], rho=1e-13, max_iter=2000)
    assert not result.success
    assert result.status in (Status.NO_DECREASE, Status.MAX_ITERATIONS)


@all_methods
def test_large_constant_does_not_hide_the_escape(method):
    class Shifted(PlanarSaddle):
        def value_and_grad(self, x):
            fun, grad = super().value_and_grad(x)
            return fun + 1e8, grad

    result = method(Shifted(), np.zeros(2), rho=1e-6)
    assert result.success
    assert abs(result.x[1]) == pytest.approx(math.sqrt(2.0), abs=1e-6)


# --- bad input ------------------------------------------------------------------------------------


@all_methods
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rho": None}, TypeError, "rho must be given"),
        ({"rho": 0.0}, ValueError, "rho must be positive and finite, got 0.0"),
        ({"delta": 1.0}, ValueError, r"delta must be in \(0, 1\), got 1.0"),
        ({"grad_lipschitz": 0.0}, ValueError, "grad_lipschitz must be positive"),
        ({"hess_lipschitz": math.inf}, ValueError, "hess_lipschitz must be positive and finite"),
        ({"max_iter": -1}, ValueError, "max_iter must be at least 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer"),
        ({"time_limit": 0.0}, ValueError, "time_limit must be positive"),
        ({"callback": 3}, TypeError, "callback must be callable"),
        ({"x0": np.zeros(3)}, ValueError, r"x0 must have shape \(2,\)"),
        ({"x0": np.zeros((2, 1))}, ValueError, r"x0 must have shape \(2,\)"),
        ({"x0": [0.0, math.inf]}, ValueError, r"x0\[1\] is inf"),
        ({"x0": [0.0, 1j]}, TypeError, "x0 must hold real numbers"),
        ({"jac": lambda x: x}, TypeError, "an objective brings its own derivatives"),
        ({"constraints": [1]}, ValueError, "constraints must be empty"),
        ({"parameters": "magic"}, (ValueError, TypeError), "magic|parameters"),
    ],
)
def test_bad_arguments(method, changes, error, words):
    arguments = {"x0": np.zeros(2), "rho": 1e-3} | changes
    with pytest.raises(error, match=words):
        method(PlanarSaddle(), **arguments)


@pytest.mark.parametrize("method", [pgd, hessian_descent])
def test_theory_needs_its_constants(method):
    with pytest.raises(ValueError, match="needs grad_lipschitz"):
        method(PlanarSaddle(), np.zeros(2), rho=1e-3, parameters="theory")
    with pytest.raises(ValueError, match="needs hess_lipschitz"):
        method(PlanarSaddle(), np.zeros(2), rho=1e-3, parameters="theory", grad_lipschitz=1.0)


def test_theory_bounds_must_be_below_the_start():
    known = {"grad_lipschitz": 10.0, "hess_lipschitz": 12.0, "parameters": "theory"}
    with pytest.raises(ValueError, match="needs fun_lower"):
        pgd(PlanarSaddle(), np.zeros(2), rho=1e-3, **known)
    for method in (pgd, hessian_descent):
        with pytest.raises(ValueError, match="fun_lower must be"):
            method(PlanarSaddle(), np.zeros(2), rho=1e-3, fun_lower=1.0, **known)


@all_methods
def test_wrong_shapes_of_results(method):
    class Short(PlanarSaddle):
        def value_and_grad(self, x):
            return 0.0, np.zeros(1)

    with pytest.raises(ValueError, match=r"value_and_grad must return .*\(2,\), got shape \(1,\)"):
        method(Short(), np.zeros(2), rho=1e-3)

    class Long(PlanarSaddle):
        def hvp(self, x, v):
            return np.zeros(3)

    with pytest.raises(ValueError, match=r"hvp must return an array of shape \(2,\)"):
        method(Long(), np.zeros(2), rho=1e-3)


@all_methods
def test_asymmetric_products_are_refused(method):
    class Wrong(PlanarSaddle):
        def hvp(self, x, v):
            return np.array([2.0 * v[0] + v[1], -2.0 * v[1]])

    with pytest.raises(ValueError, match="hvp is not symmetric"):
        method(Wrong(), np.zeros(2), rho=1e-3)


def test_options_of_newton_cg():
    for bad in ({"zeta": 0.0}, {"zeta": 1.0}, {"forcing": -0.1}, {"forcing": 1.0}):
        with pytest.raises(ValueError, match="must be in"):
            newton_cg(PlanarSaddle(), np.zeros(2), rho=1e-3, **bad)
    for bad in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"least_damping must be in \(0, 1\]"):
            newton_cg(PlanarSaddle(), np.zeros(2), rho=1e-3, least_damping=bad)
    published = {"forcing": 0.0, "least_damping": 1.0}
    assert newton_cg(PlanarSaddle(), [0.3, 0.2], rho=1e-8, **published).success


def test_start_is_not_written_to_and_lists_and_integers_serve():
    start = np.zeros(2)
    start.setflags(write=False)
    assert newton_cg(PlanarSaddle(), start, rho=1e-6).success
    assert not start.any()
    assert newton_cg(PlanarSaddle(), [0, 0], rho=1e-6).success
    result = newton_cg(PlanarSaddle(), np.zeros(2, np.float32), rho=1e-6)
    assert result.x.dtype == np.float64


# --- pictures, progress, small pieces -------------------------------------------------------------


def test_plot(tmp_path):
    problem = SmoothedWells()
    result = pgd(problem, np.concatenate([np.full(12, 0.5), np.zeros(4)]), rho=1e-6)
    figure = plot_optimization(result, tmp_path / "descent.png")
    assert (tmp_path / "descent.png").stat().st_size > 10_000
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "f",
        "||grad f||",
        "lambda_min",
        "||W||",
    ]
    lines = {line.get_gid(): line for axes in figure.axes for line in axes.get_lines()}
    assert lines["fun"].get_ydata()[-1] == result.fun
    assert lines["weights"].get_ydata()[-1] == result.W_norm
    assert lines["curvature"].get_ydata()[-1] == result.lambda_min
    kicks = [row.iteration - 1 for row in result.history if row.step == "perturbation"]
    marks = [line for line in figure.axes[0].get_lines() if line.get_gid() == "escape"]
    assert [line.get_xdata()[0] for line in marks] == kicks
    labels = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert len(labels) == 2
    assert len(result.plot().axes) == 4


def test_plot_at_an_exact_saddle_and_bad_suffix(tmp_path):
    result = hessian_descent(PlanarSaddle(), np.zeros(2), rho=1e-6)
    assert len(plot_optimization(result).axes) == 3
    with pytest.raises(ValueError, match="the suffix decides"):
        plot_optimization(result, tmp_path / "a.xyz")


def test_progress_bar(capsys, monkeypatch):
    assert newton_cg(PlanarSaddle(), np.zeros(2), rho=1e-6, progress=True).success
    assert "newton_cg" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"derand-fast\[progress\]"):
        newton_cg(PlanarSaddle(), np.zeros(2), rho=1e-6, progress=True)


def test_norm_and_dot_at_the_ends_of_the_range():
    assert norm(np.zeros(3)) == 0.0
    assert norm(np.full(4, 1e200)) == pytest.approx(2e200)
    assert norm(np.full(4, 1e-200)) == pytest.approx(2e-200)
    assert norm(np.array([1.0, math.inf])) == math.inf
    assert math.isnan(norm(np.array([1.0, math.nan])))
    assert norm(random_unit(50, np.random.default_rng(0))) == pytest.approx(1.0)
    a = np.random.default_rng(1).standard_normal(100_003)
    assert dot(a, a) == pytest.approx(math.fsum(a * a), rel=1e-15)


def test_certificates_of_a_run_and_of_certify_agree():
    problem = MatrixFactorization()
    result = newton_cg(problem, problem.saddle, rho=1e-5)
    again = certify(problem, result.x, rho=1e-5)
    assert again.success
    assert again.grad_norm == result.grad_norm


@pytest.mark.parametrize("name", ["capped_newton", "hessian_steps", "perturbed_gradient"])
def test_examples(name):
    module = importlib.import_module(f"derand_fast.optimize.{name}")
    assert doctest.testmod(module).failed == 0
