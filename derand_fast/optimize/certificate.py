"""The certificate of second-order stationarity, and the bound on ||W|| that follows from it.

Failure probabilities. One call of an optimiser, or of `certify`, claims all it claims with
probability at least 1 - delta. Half of delta goes to the Hessian: its j-th Lanczos run gets
6/(pi j)^2 of that half, and these shares add up to it however many runs there are. Run j starts
from a random vector of its own, drawn after its point is fixed, so that the promise of
`leftmost_eigenpair` holds given all that went before; the union bound adds the shares. The other
half goes to H_bb, at most two runs with a quarter each. An objective without W spends the first
half only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike

from derand_fast.budget import Budget
from derand_fast.kernels.lanczos import LanczosResult, leftmost_eigenpair
from derand_fast.optimize.evaluation import (
    Evaluator,
    Point,
    check_objective,
    check_symmetry,
    checked_start,
    first_point,
)
from derand_fast.optimize.options import Options, check_options
from derand_fast.optimize.result import OptimizationRow, SOSPResult, Status
from derand_fast.optimize.scipy_bridge import ScipyKeywords, as_objective
from derand_fast.optimize.vectors import Vector, norm

__all__ = [
    "Collapse",
    "CurvatureOracle",
    "Facts",
    "assemble",
    "certify",
    "has_weights",
    "measure_collapse",
    "weight_norm",
]

# Children of the seed: no two uses, and no caller's default_rng(seed), share a stream.
_CERTIFY_KEY = 0xCE
# Relative residual of the eigenvalue that `certify` reports at a saddle, and the most products.
_REPORT_TOL = 1e-3
_REPORT_PRODUCTS = 500


class CurvatureOracle:
    """Randomized Lanczos at point after point, with one failure probability for all.

    Parameters
    ----------
    evaluator : Evaluator
        Counts the products.
    delta : float
        For all calls together.
    seeds : numpy.random.SeedSequence
        A child of it serves each call.
    shares : callable, optional
        Share of delta for the j-th call, j = 1, 2, ...; the sum must not exceed 1.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        delta: float,
        seeds: np.random.SeedSequence,
        shares: Callable[[int], float] | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._delta = delta
        self._seeds = seeds
        self.shares = _basel_share if shares is None else shares
        self.calls = 0

    def __call__(self, x: Vector, *, threshold: float, eps: float) -> LanczosResult:
        """Find v'Hv < -threshold, or certify lambda_min >= -eps."""
        return self._run(x, threshold=-threshold, eps=eps)

    def eigenpair(self, x: Vector, tol: float) -> LanczosResult:
        """Converge to the leftmost eigenpair, as far as a reader needs it."""
        return self._run(x, tol=tol, max_products=min(self._evaluator.n, _REPORT_PRODUCTS))

    def _run(self, x: Vector, **arguments: Any) -> LanczosResult:
        self.calls += 1
        return leftmost_eigenpair(
            lambda v: self._evaluator.product(x, v),
            self._evaluator.n,
            delta=self._delta * self.shares(self.calls),
            seed=self._seeds.spawn(1)[0],
            **arguments,
        )


def _basel_share(call: int) -> float:
    """6 / (pi j)^2: the sum over all j is 1."""
    return 6.0 / (math.pi * call) ** 2


# A few operations on numbers that are right to half a unit in the last place.
_ROUNDING = 1e-15


class Collapse(NamedTuple):
    """What is known about ||W|| at a point."""

    bound: float | None
    stein_residual: float | None


def weight_norm(objective: Any, x: Vector) -> float | None:
    """||W||_F, None without a block W."""
    blocks = getattr(objective, "blocks", None) or {}
    return norm(x[blocks["W"].slice]) if "W" in blocks else None


def has_weights(objective: Any) -> bool:
    """Whether the bound on ||W|| can be asked for: blocks W and b that fit, and lam > 0."""
    blocks = getattr(objective, "blocks", None) or {}
    lam = getattr(objective, "lam", None)
    if not lam or "W" not in blocks or "b" not in blocks:
        return False
    rows, weights = math.prod(blocks["b"].shape), math.prod(blocks["W"].shape)
    tied = getattr(objective, "weight_curvature", None) is not None
    return rows > 0 and weights > 0 and (tied or weights % rows == 0)


def measure_collapse(
    evaluator: Evaluator,
    point: Point,
    lambda_min_lower: float,
    delta: float,
    seeds: np.random.SeedSequence,
) -> Collapse:
    """Bound ||W||_F by what is measured at the point.

    (H_bb + 2 lam I) W = grad_W f - R defines the residual R, 0 for a Gaussian expectation. So
    ||W||_F <= (||grad_W f||_F + ||R||_F) / (2 lam - mu) wherever lambda_min(H_bb) >= -mu > -2 lam.
    Where weights are tied (W = sigma I), the objective gives the Rayleigh quotients of H_bb along
    them, and the same holds entry by entry. Where H_bb is cut out of the Hessian products, its
    smallest eigenvalue is at least that of the whole (Cauchy), and the certificate of the whole
    serves too.
    """
    objective = evaluator.objective
    lam = float(objective.lam)
    weights, biases = objective.blocks["W"].slice, objective.blocks["b"].slice
    matrix = evaluator.bias_hessian(point.x)
    product = _bias_product(evaluator, point.x, biases, matrix)
    rows = math.prod(objective.blocks["b"].shape)
    lower = _bias_lower(product, rows, lam, delta, seeds)
    if matrix is None:
        lower = max(lower, lambda_min_lower)
    W, gradient = point.x[weights], point.grad[weights]
    curvature = evaluator.weight_curvature(point.x)
    if curvature is None:
        columns = W.reshape(rows, -1).T
        products = [product(np.ascontiguousarray(column)) for column in columns]
        image = np.column_stack(products).ravel()
    else:
        image = curvature.ravel() * W
    residual = norm(gradient - image - 2.0 * lam * W)
    if 2.0 * lam + lower <= 0.0:
        return Collapse(None, residual)
    # Where the bound is an equality, rounding must not make it false.
    bound = (norm(gradient) + residual) / (2.0 * lam + lower)
    return Collapse((1.0 + _ROUNDING) * bound, residual)


def _bias_product(
    evaluator: Evaluator, x: Vector, biases: slice, matrix: Any | None
) -> Callable[[Vector], Vector]:
    """Return v -> H_bb v: with the objective's own matrix, or as a block of the whole product."""
    if matrix is not None:
        return lambda v: np.asarray(matrix @ v, dtype=np.float64)

    def block_product(v: Vector) -> Vector:
        embedded = np.zeros(evaluator.n)
        embedded[biases] = v
        return evaluator.product(x, embedded)[biases]

    return block_product


def _bias_lower(
    product: Callable[[Vector], Vector],
    rows: int,
    lam: float,
    delta: float,
    seeds: np.random.SeedSequence,
) -> float:
    """Lower bound of lambda_min(H_bb) with probability 1 - delta.

    -lam/4 is enough: the bound on ||W|| is then within 1/7 of that of the exact eigenvalue 0. If
    the eigenvalue is below, a second run aims half-way between the Ritz value and -2 lam.
    """
    eps = 0.25 * lam
    lower = -math.inf
    for _ in range(2):
        found = leftmost_eigenpair(
            product, rows, eps=eps, delta=0.5 * delta, seed=seeds.spawn(1)[0]
        )
        lower = max(lower, found.lambda_min_lower)
        if found.status != "negative_curvature" or found.ritz_value <= -2.0 * lam:
            break
        eps = 0.5 * (2.0 * lam - found.ritz_value)
    return lower


class Facts(NamedTuple):
    """Everything about a run that is not measured at its last point."""

    method: str
    status: Status
    message: str
    n_steps: int
    n_escapes: int
    history: tuple[OptimizationRow, ...]


def assemble(
    facts: Facts,
    options: Options,
    evaluator: Evaluator,
    budget: Budget,
    point: Point,
    found: LanczosResult | None,
    collapse: Collapse | None,
) -> SOSPResult:
    """Put the result together; ``certified`` is decided here and nowhere else."""
    lower = -math.inf if found is None else found.lambda_min_lower
    ritz_value = math.nan if found is None else found.ritz_value
    certified = point.grad_norm <= options.rho and lower >= -options.curvature_tol
    below = found is not None and ritz_value < -options.curvature_tol
    # As a dictionary: scipy's stubs know the entries of scipy's own results only.
    fields: dict[str, Any] = {
        "x": point.x,
        "fun": point.fun,
        "jac": point.grad,
        "success": certified,
        "status": Status.CERTIFIED if certified else facts.status,
        "message": facts.message,
        "nit": facts.n_steps,
        "nfev": evaluator.nfev,
        "njev": evaluator.njev,
        "nhev": evaluator.nhev,
        "rho": options.rho,
        "curvature_tol": options.curvature_tol,
        "delta": options.delta,
        "grad_norm": point.grad_norm,
        "lambda_min": ritz_value,
        "lambda_min_lower": lower,
        "certified": certified,
        "negative_curvature_direction": found.vector if found is not None and below else None,
        "n_escapes": facts.n_escapes,
        "W_norm": weight_norm(evaluator.objective, point.x),
        "collapse_bound": None if collapse is None else collapse.bound,
        "collapse_bound_apriori": _apriori_bound(evaluator.objective, options),
        "stein_residual": None if collapse is None else collapse.stein_residual,
        "history": facts.history,
        "seconds": budget.elapsed(),
        "seed": options.seed,
        "method": facts.method,
    }
    return SOSPResult(**fields)


def _apriori_bound(objective: Any, options: Options) -> float | None:
    if not has_weights(objective) or not getattr(objective, "gaussian", True):
        return None
    denominator = 2.0 * float(objective.lam) - options.curvature_tol
    return options.rho / denominator if denominator > 0.0 else None


def describe_certificate(
    point: Point, found: LanczosResult, options: Options
) -> tuple[Status, str]:
    """Say in words what a Lanczos run at a point means for the target."""
    if found.ritz_value < -options.curvature_tol:
        return (
            Status.NEGATIVE_CURVATURE,
            f"a direction of curvature {found.ritz_value:.6g} was found, below "
            f"{-options.curvature_tol:.3g}: not a second-order stationary point",
        )
    if point.grad_norm > options.rho:
        return (
            Status.GRADIENT_TOO_LARGE,
            f"the gradient norm {point.grad_norm:.6g} is above rho = {options.rho:.3g}",
        )
    if found.lambda_min_lower < -options.curvature_tol:
        return Status.NOT_DECIDED, f"the curvature could not be certified: {found.message}"
    return Status.CERTIFIED, "certified second-order stationary point"


def certify(
    objective: Any,
    x: ArrayLike,
    args: tuple[Any, ...] = (),
    *,
    rho: float,
    delta: float = 1e-6,
    hess_lipschitz: float | None = None,
    curvature_tol: float | None = None,
    seed: int = 0,
    **scipy_keywords: Unpack[ScipyKeywords],
) -> SOSPResult:
    """Check whether a point, from any optimiser, is second-order stationary.

    The claim is ||grad f(x)|| <= rho and lambda_min(Hess f(x)) >= -curvature_tol. It is false with
    probability at most ``delta`` over the random start of Lanczos, for any point chosen without
    knowledge of that start: do not search for a seed that certifies.

    Parameters
    ----------
    objective : Objective or callable
        As for `newton_cg`.
    x : (n,) array
        The point.
    args : tuple
        Further arguments of a function.
    rho : float
        Gradient target.
    delta : float
        Failure probability of all that the result claims.
    hess_lipschitz : float, optional
        K; sets the curvature target to sqrt(K rho).
    curvature_tol : float, optional
        The curvature target itself; the default is sqrt(rho).
    seed : int
        Streams differ from those of the optimisers with the same seed.
    **scipy_keywords
        jac, hess and hessp of a function.

    Returns
    -------
    SOSPResult
        With ``nit`` = 0. ``negative_curvature_direction`` shows the way out if there is one.

    Raises
    ------
    TypeError, ValueError
        For wrong arguments, values that are not finite at x, or a product that is not symmetric.

    Notes
    -----
    One gradient, two products for the symmetry probe, then at most about
    ln(2 sqrt(n) / delta) sqrt((lambda_max - lambda_min) / curvature_tol) products, and a few more
    for the bound on ||W||.

    Examples
    --------
    A saddle at which scipy's methods report success:

    >>> import numpy as np
    >>> from derand_fast.optimize import certify
    >>> class Saddle:
    ...     n_params = 2
    ...     def value_and_grad(self, x):
    ...         return x[0]**2 - x[1]**2 + x[1]**4 / 4, np.array([2*x[0], x[1]**3 - 2*x[1]])
    ...     def hvp(self, x, v):
    ...         return np.array([2.0 * v[0], (3.0 * x[1]**2 - 2.0) * v[1]])
    >>> at_saddle = certify(Saddle(), [0.0, 0.0], rho=1e-6)
    >>> at_saddle.success, round(at_saddle.lambda_min, 9)
    (False, -2.0)
    >>> at_minimum = certify(Saddle(), [0.0, np.sqrt(2.0)], rho=1e-6)
    >>> at_minimum.success, round(at_minimum.lambda_min_lower, 6)
    (True, 2.0)
    """
    options = check_options(
        rho=rho,
        hess_lipschitz=hess_lipschitz,
        grad_lipschitz=None,
        curvature_tol=curvature_tol,
        delta=delta,
        seed=seed,
    )
    objective, _ = as_objective(objective, x, args, scipy_keywords)
    check_objective(objective)
    budget = Budget(None)
    evaluator = Evaluator(objective, budget)
    point = first_point(evaluator, checked_start(x, evaluator.n, "x"), "x")
    seeds = np.random.SeedSequence(options.seed, spawn_key=(_CERTIFY_KEY,))
    probe, curvature, bias = seeds.spawn(3)
    check_symmetry(evaluator, point, np.random.default_rng(probe))
    oracle = CurvatureOracle(evaluator, 0.5 * options.delta, curvature)
    found = oracle(point.x, threshold=options.curvature_tol, eps=options.curvature_tol)
    if found.status == "negative_curvature":
        # No certificate to come: say how negative, to a thousandth of the norm.
        found = _better(found, oracle.eigenpair(point.x, _REPORT_TOL))
    collapse = None
    if has_weights(objective):
        collapse = measure_collapse(
            evaluator, point, found.lambda_min_lower, 0.5 * options.delta, bias
        )
    status, message = describe_certificate(point, found, options)
    facts = Facts("certify", status, message + objective_note(objective), 0, 0, ())
    return assemble(facts, options, evaluator, budget, point, found, collapse)


def _better(first: LanczosResult, second: LanczosResult) -> LanczosResult:
    """Return the run with the lower Ritz value, with the higher of the two lower bounds."""
    best = first if first.ritz_value <= second.ritz_value else second
    lower = max(first.lambda_min_lower, second.lambda_min_lower)
    return best._replace(lambda_min_lower=lower)


def objective_note(objective: Any) -> str:
    """Return what must be said about the products, or nothing."""
    by_differences = getattr(objective, "hessian", None) == "differences"
    if by_differences or getattr(objective, "gradients_per_product", 0):
        return " (Hessian products by differences of gradients: true up to their error)"
    return ""
