"""Perturbed gradient descent: saddles are left by a random kick and patience."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

from numpy.typing import ArrayLike

from derand_fast.kernels.lanczos import LanczosResult
from derand_fast.optimize.evaluation import Point
from derand_fast.optimize.hessian_steps import leads_down
from derand_fast.optimize.line_search import gradient_step
from derand_fast.optimize.options import check_choice, needed, positive
from derand_fast.optimize.result import SOSPResult
from derand_fast.optimize.run import Run, optimise, start_run
from derand_fast.optimize.scipy_bridge import ScipyKeywords
from derand_fast.optimize.vectors import Vector, norm, random_unit

__all__ = ["PGDParameters", "jin2017_parameters", "jin2021_parameters", "pgd"]

_MODES = ("practical", "theory", "theory-2021")
_GROWTH = 1.25
# The escape window lasts until the kick's typical part along v has grown to ten times the length
# at which the gradient exceeds rho.
_WINDOW_MARGIN = 10.0
# A kick is never below this share of ||x||: it would be lost in rounding.
_LEAST_KICK = 1e-10


class PGDParameters(NamedTuple):
    """All constants of perturbed gradient descent.

    Attributes
    ----------
    log_factor : float
        chi (2017) or iota (2021).
    step : float
        Step length eta.
    radius : float
        Radius of the ball, in units of x.
    grad_threshold : float
        Perturb at gradients no larger.
    decrease_threshold : float
        What an escape lowers f by at least.
    wait : float
        Steps between two perturbations, and until the decrease is judged.
    """

    log_factor: float
    step: float
    radius: float
    grad_threshold: float
    decrease_threshold: float
    wait: float


def jin2017_parameters(
    n: int,
    grad_lipschitz: float,
    hess_lipschitz: float,
    rho: float,
    delta: float,
    decrease: float,
    c: float = 0.5,
) -> PGDParameters:
    """Constants of Algorithm 2 of Jin, Ge, Netrapalli, Kakade and Jordan (2017).

    chi = 3 max(ln(n L D / (c rho^2 delta)), 4), eta = c/L, r = sqrt(c)/chi^2 rho/L,
    g = sqrt(c)/chi^2 rho, F = c/chi^3 sqrt(rho^3/K), T = chi/c^2 L/sqrt(K rho).

    Parameters
    ----------
    n : int
        Dimension.
    grad_lipschitz, hess_lipschitz : float
        L and K.
    rho, delta : float
        Target and failure probability.
    decrease : float
        D, at least f(x0) - inf f.
    c : float
        The theorem holds for c below an absolute constant that is not given numerically.

    Returns
    -------
    PGDParameters

    References
    ----------
    .. [1] C. Jin, R. Ge, P. Netrapalli, S. Kakade, M. Jordan, "How to escape saddle points
       efficiently", ICML 2017, arXiv 1703.00887.

    Examples
    --------
    >>> from derand_fast.optimize import jin2017_parameters
    >>> jin2017_parameters(10, 1.0, 1.0, 0.01, 0.1, 1.0, c=1.0).wait.__round__(3)
    414.465
    """
    L, K = grad_lipschitz, hess_lipschitz
    chi = 3.0 * max(math.log(n * L * decrease / (c * rho**2 * delta)), 4.0)
    return PGDParameters(
        log_factor=chi,
        step=c / L,
        radius=math.sqrt(c) / chi**2 * rho / L,
        grad_threshold=math.sqrt(c) / chi**2 * rho,
        decrease_threshold=c / chi**3 * math.sqrt(rho**3 / K),
        wait=chi / c**2 * L / math.sqrt(K * rho),
    )


def jin2021_parameters(
    n: int,
    grad_lipschitz: float,
    hess_lipschitz: float,
    rho: float,
    delta: float,
    decrease: float,
    c: float = 0.5,
) -> PGDParameters:
    """Constants of Jin, Netrapalli, Ge, Kakade and Jordan (2021).

    iota = c ln(n L D / (K rho delta)), eta = 1/L, r = eta rho / (400 iota^3), g = rho,
    F = sqrt(rho^3/K) / (50 iota^3), T = iota L/sqrt(K rho). There the ball has radius
    rho / (400 iota^3), in units of the gradient, and the kick is eta times a point of it.

    Parameters
    ----------
    n, grad_lipschitz, hess_lipschitz, rho, delta, decrease
        As for `jin2017_parameters`.
    c : float
        The theorem holds for c above an absolute constant that is not given numerically; the
        logarithm is taken as 1 at least.

    Returns
    -------
    PGDParameters

    References
    ----------
    .. [1] C. Jin, P. Netrapalli, R. Ge, S. Kakade, M. Jordan, "On nonconvex optimization for
       machine learning: gradients, stochasticity, and saddle points", J. ACM 68 (2021), article 11,
       arXiv 1902.04811.

    Examples
    --------
    >>> from derand_fast.optimize import jin2021_parameters
    >>> jin2021_parameters(10, 1.0, 1.0, 0.01, 0.1, 1.0, c=1.0).wait.__round__(3)
    92.103
    """
    L, K = grad_lipschitz, hess_lipschitz
    iota = c * max(math.log(n * L * decrease / (K * rho * delta)), 1.0)
    return PGDParameters(
        log_factor=iota,
        step=1.0 / L,
        radius=rho / (400.0 * iota**3) / L,
        grad_threshold=rho,
        decrease_threshold=math.sqrt(rho**3 / K) / (50.0 * iota**3),
        wait=iota * L / math.sqrt(K * rho),
    )


def pgd(
    objective: Any,
    x0: ArrayLike,
    args: tuple[Any, ...] = (),
    *,
    rho: float | None = None,
    hess_lipschitz: float | None = None,
    grad_lipschitz: float | None = None,
    curvature_tol: float | None = None,
    delta: float = 1e-6,
    seed: int = 0,
    max_iter: int = 1_000_000,
    time_limit: float | None = None,
    callback: Callable[..., object] | None = None,
    progress: bool = False,
    parameters: str = "practical",
    fun_lower: float | None = None,
    c: float = 0.5,
    **scipy_keywords: Unpack[ScipyKeywords],
) -> SOSPResult:
    """Minimise by gradient steps and, where the gradient is small, random kicks.

    Ends at a point with ||grad f|| <= rho and lambda_min >= -curvature_tol, the latter certified by
    Lanczos, never by the theorem: its constants are not known.

    Parameters
    ----------
    objective, x0, args, rho, hess_lipschitz, grad_lipschitz, curvature_tol, delta, seed, max_iter
        As for `newton_cg`.
    time_limit, callback, progress
        As for `newton_cg`.
    parameters : {"practical", "theory", "theory-2021"}
        "practical": steps by backtracking; at a small gradient Lanczos certifies, or measures the
        curvature -c, which sets how long the descent after a kick may take to show (about
        ln(sqrt(n) L/c) L/c steps); both double while a kick leads nowhere. "theory" is Algorithm
        2 of 2017 with `jin2017_parameters`, "theory-2021" the same with `jin2021_parameters`; the
        point it would return is certified first, and where Lanczos refutes it the run goes on.
        Theory needs both constants and ``fun_lower``.
    fun_lower : float, optional
        Lower bound of f, for D = f(x0) - fun_lower.
    c : float
        The absolute constant of the theorems.
    **scipy_keywords
        What `scipy.optimize.minimize` passes; see `newton_cg`.

    Returns
    -------
    SOSPResult

    Raises
    ------
    TypeError, ValueError, ImportError
        As for `newton_cg`.

    Notes
    -----
    Gradients O(L D / rho^2) up to logarithms. The kick is uniform in a ball.

    References
    ----------
    .. [1] C. Jin, R. Ge, P. Netrapalli, S. Kakade, M. Jordan, "How to escape saddle points
       efficiently", ICML 2017, arXiv 1703.00887.
    .. [2] C. Jin, P. Netrapalli, R. Ge, S. Kakade, M. Jordan, "On nonconvex optimization for
       machine learning: gradients, stochasticity, and saddle points", J. ACM 68 (2021), article 11,
       arXiv 1902.04811.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.optimize import pgd
    >>> class Saddle:
    ...     n_params = 2
    ...     def value_and_grad(self, x):
    ...         return x[0]**2 - x[1]**2 + x[1]**4 / 4, np.array([2*x[0], x[1]**3 - 2*x[1]])
    ...     def hvp(self, x, v):
    ...         return np.array([2.0 * v[0], (3.0 * x[1]**2 - 2.0) * v[1]])
    >>> result = pgd(Saddle(), np.zeros(2), rho=1e-4)
    >>> result.success, round(result.fun, 7), result.n_escapes
    (True, -1.0, 1)
    """
    check_choice("parameters", parameters, _MODES)
    run = start_run(
        "pgd",
        objective,
        x0,
        args,
        scipy_keywords,
        rho=rho,
        hess_lipschitz=hess_lipschitz,
        grad_lipschitz=grad_lipschitz,
        curvature_tol=curvature_tol,
        delta=delta,
        seed=seed,
        max_iter=max_iter,
        time_limit=time_limit,
        callback=callback,
        progress=progress,
    )
    if parameters == "practical":
        return optimise(run, _descend)
    constants = _theory_constants(run, parameters, fun_lower, c)
    return optimise(run, lambda run: _descend_by_theory(run, constants))


def _theory_constants(
    run: Run, parameters: str, fun_lower: float | None, c: float
) -> PGDParameters:
    options = run.options
    L, K = needed(options, "grad_lipschitz", "hess_lipschitz")
    if fun_lower is None:
        raise ValueError(f'parameters="{parameters}" needs fun_lower')
    decrease = run.point.fun - float(fun_lower)
    if not 0.0 < decrease < math.inf:
        raise ValueError(f"fun_lower must be below f(x0) = {run.point.fun}, got {fun_lower}")
    formulas = jin2017_parameters if parameters == "theory" else jin2021_parameters
    return formulas(run.n, L, K, options.rho, options.delta, decrease, positive("c", c))


def _kicked(run: Run, radius: float) -> Point:
    """Return the point moved by a vector uniform in the ball of this radius."""
    direction = random_unit(run.n, run.generator)
    length = radius * run.generator.random() ** (1.0 / run.n)
    shift: Vector = length * direction
    return run.evaluator.point(run.point.x + shift)


def _descend(run: Run) -> LanczosResult:
    options = run.options
    step, patience = run.first_gradient_step(), 1.0
    while True:
        while run.point.grad_norm > options.rho:
            point, step = gradient_step(run, step)
            run.accept(point, "gradient")
            step *= _GROWTH
        found = run.certificate(options.curvature_tol)
        if not leads_down(found, options):
            return found
        step, fallen = _escape(run, -found.ritz_value, step, patience)
        patience = 1.0 if fallen else 2.0 * patience


def _escape(run: Run, curvature: float, step: float, patience: float) -> tuple[float, bool]:
    """Kick, then descend for as long as curvature -c needs to show; tell whether f fell.

    The kick of radius r = rho step has a part of about r/sqrt(n) along v. Gradient descent
    multiplies it by 1 + step c, and at length rho/c its gradient alone exceeds rho. Without an
    escape, the kick and the descent back lower f by at most 2 rho r + L r^2, about 3 rho r.
    """
    rho = run.options.rho
    saddle = run.point
    radius = patience * max(rho * step, _LEAST_KICK * norm(saddle.x))
    enough = 4.0 * patience * rho * radius + run.noise
    run.accept(_kicked(run, radius), "perturbation")
    growth = math.log(_WINDOW_MARGIN * math.sqrt(run.n) / min(1.0, step * curvature))
    elapsed = 0.0
    while elapsed < patience * growth:
        if run.point.grad_norm == 0.0:
            break
        point, step = gradient_step(run, step)
        run.accept(point, "gradient")
        elapsed += math.log1p(step * curvature)
        step *= _GROWTH
        if saddle.fun - run.point.fun > enough and run.point.grad_norm <= rho:
            break
    fallen = saddle.fun - run.point.fun > enough
    run.n_escapes += int(fallen)
    return step, fallen


def _descend_by_theory(run: Run, constants: PGDParameters) -> LanczosResult:
    """Algorithm 2 as published; its answer is certified before it is believed."""
    wait = math.ceil(constants.wait)
    saved = run.point
    since = wait + 1
    judging = False
    while True:
        if run.point.grad_norm <= constants.grad_threshold and since > wait:
            saved, since, judging = run.point, 0, True
            run.accept(_kicked(run, constants.radius), "perturbation")
        if judging and since == wait:
            judging = False
            if run.point.fun - saved.fun > -constants.decrease_threshold:
                run.return_to(saved)
                found = run.certificate(run.options.curvature_tol)
                if not leads_down(found, run.options):
                    return found
                since = wait + 1
                continue
            run.n_escapes += 1
        run.accept(run.evaluator.point(run.point.x - constants.step * run.point.grad), "gradient")
        since += 1
