"""The methods inside scipy.optimize.minimize: everything that it passes is honoured or refused."""

import math

import numpy as np
import pytest
import scipy.sparse
from saddles import PhaseRetrieval, PlanarSaddle
from scipy.optimize import BFGS, Bounds, LinearConstraint, minimize, rosen, rosen_der, rosen_hess
from scipy.optimize import rosen_hess_prod as rosen_hessp
from scipy.sparse.linalg import aslinearoperator

from derand_fast.optimize import Status, certify, hessian_descent, newton_cg, pgd

METHODS = (pgd, hessian_descent, newton_cg)
all_methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


def saddle(z, tilt=0.0):
    return z[0] ** 2 - z[1] ** 2 + z[1] ** 4 / 4.0 + tilt * z[1]


def saddle_jac(z, tilt=0.0):
    return np.array([2.0 * z[0], z[1] ** 3 - 2.0 * z[1] + tilt])


def saddle_hess(z, tilt=0.0):
    return np.diag([2.0, 3.0 * z[1] ** 2 - 2.0])


def saddle_hessp(z, v, tilt=0.0):
    return saddle_hess(z) @ v


@all_methods
def test_leaves_the_saddle_where_scipy_stays(method):
    stays = minimize(saddle, np.zeros(2), jac=saddle_jac, hessp=saddle_hessp, method="trust-krylov")
    assert stays.success
    assert stays.fun == 0.0
    result = minimize(
        saddle,
        np.zeros(2),
        jac=saddle_jac,
        hessp=saddle_hessp,
        method=method,
        options={"rho": 1e-6, "seed": 3},
    )
    assert result.success
    assert result.fun == pytest.approx(-1.0)
    assert (result.rho, result.seed) == (1e-6, 3)


@pytest.mark.parametrize("form", ["dense", "sparse", "operator", "hessp", "none", "2-point"])
def test_every_form_of_hessian(form):
    given = {
        "dense": {"hess": saddle_hess},
        "sparse": {"hess": lambda z: scipy.sparse.csr_array(saddle_hess(z))},
        "operator": {"hess": lambda z: aslinearoperator(saddle_hess(z))},
        "hessp": {"hessp": saddle_hessp},
        "none": {},
        "2-point": {"hess": "2-point"},
    }[form]
    result = minimize(saddle, np.zeros(2), jac=saddle_jac, method=newton_cg, tol=1e-6, **given)
    assert result.success
    assert result.fun == pytest.approx(-1.0)
    differences = form in ("none", "2-point")
    assert (result.nhev == 0) is differences
    assert ("differences of gradients" in result.message) is differences
    if differences:
        assert result.njev > result.nfev


def test_args_reach_all_functions_and_hess_is_called_once_a_point():
    points = []

    def hess(z, tilt):
        points.append(tuple(z))
        return saddle_hess(z, tilt)

    result = minimize(saddle, np.zeros(2), args=(0.1,), jac=saddle_jac, hess=hess, method=newton_cg)
    assert result.success
    assert result.x[1] == pytest.approx(-math.sqrt(2.0), abs=0.05)
    assert np.abs(saddle_jac(result.x, 0.1)).max() <= 1e-5
    assert len(points) == len(set(points))
    assert len(points) < result.nhev
    single = newton_cg(saddle, np.zeros(2), 0.1, jac=saddle_jac, hessp=saddle_hessp, rho=1e-5)
    assert single.x == pytest.approx(result.x, abs=1e-5)


def test_jac_true():
    def both(z):
        return saddle(z), saddle_jac(z)

    through = minimize(both, np.zeros(2), jac=True, hessp=saddle_hessp, method=newton_cg, tol=1e-6)
    direct = newton_cg(both, np.zeros(2), jac=True, hessp=saddle_hessp, rho=1e-6)
    assert through.x.tobytes() == direct.x.tobytes()
    assert newton_cg(both, np.zeros(2), jac=True, rho=1e-6).success


def test_same_bits_as_with_an_objective():
    through = minimize(
        saddle,
        np.zeros(2),
        jac=saddle_jac,
        hessp=saddle_hessp,
        method=newton_cg,
        options={"rho": 1e-6},
    )
    direct = newton_cg(PlanarSaddle(), np.zeros(2), rho=1e-6)
    assert through.x == pytest.approx(direct.x, rel=1e-12, abs=1e-12)
    assert through.nit == direct.nit


def test_tolerances():
    def run(**arguments):
        return minimize(
            saddle, [0.5, 0.5], jac=saddle_jac, hess=saddle_hess, method=newton_cg, **arguments
        )

    assert run().rho == 1e-5
    assert run(tol=1e-3).rho == 1e-3
    assert run(tol=1e-3, options={"rho": 1e-4}).rho == 1e-4
    assert run(options={"maxiter": 1}).nit == 1
    assert run(options={"max_iter": 2}).nit == 2
    with pytest.raises(ValueError, match="rho must be positive"):
        run(tol=0.0)
    with pytest.raises(TypeError, match="unknown keyword arguments: gtoll"):
        run(options={"gtoll": 1.0})


def test_display(capsys):
    minimize(saddle, [0.5, 0.5], jac=saddle_jac, method=newton_cg, options={"disp": True})
    assert "certified  yes" in capsys.readouterr().out


@all_methods
def test_callbacks(method):
    seen = []

    def stop_at_third(xk):
        seen.append(xk)
        if len(seen) == 3:
            raise StopIteration

    problem = PhaseRetrieval()
    arguments = {"jac": True, "hessp": problem.hvp, "method": method, "tol": 1e-9}
    result = minimize(problem.value_and_grad, problem.saddle, callback=stop_at_third, **arguments)
    assert (result.nit, result.status, len(seen)) == (3, Status.CALLBACK, 3)
    assert not result.success
    assert seen[0] is not seen[1]

    states = []

    def keep(*, intermediate_result):
        states.append(intermediate_result)

    result = minimize(problem.value_and_grad, problem.saddle, callback=keep, **arguments)
    assert len(states) == result.nit
    assert states[-1].fun == result.fun
    assert "grad_norm" in states[-1]
    # A method such as list.append returns None; an array as return value is no wish to stop.
    result = minimize(
        problem.value_and_grad, problem.saddle, callback=lambda xk: xk > 0, **arguments
    )
    assert result.success


@all_methods
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bounds": [(0, 1), (0, 1)]}, ValueError, "bounds must be None"),
        ({"bounds": Bounds(0, 1)}, ValueError, "bounds must be None"),
        ({"constraints": LinearConstraint(np.eye(2), 0, 1)}, ValueError, "constraints must be"),
        ({"constraints": {"type": "eq", "fun": saddle}}, ValueError, "constraints must be"),
        ({"constraints": [{"type": "eq", "fun": saddle}]}, ValueError, "constraints must be"),
        ({"jac": None}, ValueError, "jac must be a function or True"),
        ({"jac": "2-point"}, ValueError, "jac must be a function or True"),
        ({"jac": False}, ValueError, "jac must be a function or True"),
        ({"hess": BFGS()}, ValueError, "quasi-Newton updates carry no certificate"),
        ({"hess": "4-point"}, ValueError, "hess must be a function"),
        ({"hessp": 3}, ValueError, "hessp must be a function"),
    ],
)
def test_what_cannot_be_honoured_is_refused(method, arguments, error, words):
    with pytest.raises(error, match=words):
        minimize(saddle, np.zeros(2), **({"jac": saddle_jac, "method": method} | arguments))


def test_refusals_of_the_direct_call():
    with pytest.raises(ValueError, match="x0 must be a vector"):
        newton_cg(saddle, np.zeros((2, 2)), jac=saddle_jac)
    with pytest.raises(TypeError, match="lacks n_params"):
        newton_cg(3, np.zeros(2), rho=1.0)
    with pytest.raises(TypeError, match="brings its own"):
        newton_cg(PlanarSaddle(), np.zeros(2), (1,), rho=1.0)
    with pytest.raises(ValueError, match="fun must return one number"):
        newton_cg(lambda z: z, np.zeros(2), jac=saddle_jac)
    with pytest.raises(ValueError, match=r"value_and_grad must return an array of shape \(2,\)"):
        newton_cg(saddle, np.zeros(2), jac=lambda z: np.zeros(3))
    with pytest.raises(ValueError, match="hvp is not symmetric"):
        newton_cg(saddle, np.zeros(2), jac=saddle_jac, hess=lambda z: np.array([[2, 1], [0, -2]]))


def test_an_objective_passes_through_minimize():
    result = minimize(PlanarSaddle(), np.zeros(2), method=newton_cg, tol=1e-6)
    assert result.success


def test_gradient_buffers_may_be_reused():
    buffer = np.zeros(2)

    def jac(z):
        buffer[:] = saddle_jac(z)
        return buffer

    def hessp(z, v):
        v *= 1.0  # the functions get copies of everything
        z *= 1.0
        return saddle_hessp(z, v)

    assert newton_cg(saddle, np.zeros(2), jac=jac, hessp=hessp, rho=1e-6).success


@all_methods
def test_rosenbrock(method):
    result = minimize(
        rosen,
        np.array([-1.2, 1.0, 0.5]),
        jac=rosen_der,
        hessp=rosen_hessp,
        method=method,
        tol=1e-4,
    )
    assert result.success
    np.testing.assert_allclose(result.x, 1.0, atol=1e-2)
    other = newton_cg(rosen, [-1.2, 1.0], jac=rosen_der, hess=rosen_hess, rho=1e-8)
    assert other.x == pytest.approx([1.0, 1.0])


def test_certify_takes_functions():
    at_saddle = certify(saddle, np.zeros(2), jac=saddle_jac, hess=saddle_hess, rho=1e-6)
    assert at_saddle.status == Status.NEGATIVE_CURVATURE
    scipys = minimize(saddle, np.zeros(2), jac=saddle_jac, method="BFGS")
    assert scipys.success
    assert not certify(saddle, scipys.x, jac=saddle_jac, rho=1e-5).success
    tilted = certify(saddle, [0.0, 1.0], (1.0,), jac=saddle_jac, hessp=saddle_hessp, rho=1e-6)
    assert tilted.success


def test_products_by_differences_are_accurate():
    problem = PhaseRetrieval()
    generator = np.random.default_rng(0)
    x, v = generator.standard_normal((2, problem.n_params))
    from derand_fast.optimize.scipy_bridge import FunctionObjective

    function = FunctionObjective(problem.value_and_grad, problem.n_params, (), True, None, None)
    for scale in (1e-6, 1.0, 1e6):
        # Truncation h^2 and rounding u/h, both about u^(2/3) = 4e-11.
        np.testing.assert_allclose(
            function.hvp(x, scale * v), scale * problem.hvp(x, v), rtol=1e-7, atol=1e-7 * scale
        )
    assert not function.hvp(x, np.zeros_like(v)).any()
    assert function.value(x) == problem.value(x)
