"""Newton-CG with a minimum-eigenvalue oracle: the fast default."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

from numpy.typing import ArrayLike

from derand_fast.kernels.lanczos import LanczosResult
from derand_fast.optimize.capped_cg import capped_cg
from derand_fast.optimize.collapse import Collapser
from derand_fast.optimize.hessian_steps import leads_down
from derand_fast.optimize.line_search import NewtonStep, curvature_step, newton_step
from derand_fast.optimize.result import SOSPResult
from derand_fast.optimize.run import Run, optimise, start_run
from derand_fast.optimize.scipy_bridge import ScipyKeywords
from derand_fast.optimize.vectors import norm

__all__ = ["newton_cg"]


def newton_cg(
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
    max_iter: int = 10_000,
    time_limit: float | None = None,
    callback: Callable[..., object] | None = None,
    progress: bool = False,
    zeta: float = 0.5,
    forcing: float = 0.1,
    least_damping: float = 1e-3,
    **scipy_keywords: Unpack[ScipyKeywords],
) -> SOSPResult:
    """Minimise by damped Newton steps from capped conjugate gradients.

    Ends at a point with ||grad f|| <= rho and lambda_min >= -curvature_tol, the latter certified.
    Where the gradient is larger, capped conjugate gradients on (H + 2 curvature_tol I) d = -g give
    a Newton step or negative curvature; elsewhere randomized Lanczos finds curvature below
    -curvature_tol / 2 or certifies the target. Where the objective has ``collapse_step``, Newton's
    step in W alone is tried too, and at the start one random input is fixed.

    Parameters
    ----------
    objective : Objective or callable
        An objective has ``n_params``, ``value_and_grad(x)`` and ``hvp(x, v)``. A function is used
        as in `scipy.optimize.minimize`, which can call this method:
        ``minimize(fun, x0, jac=..., hessp=..., method=newton_cg, options={"rho": 1e-6})``.
    x0 : (n,) array
        Start; it may be a saddle.
    args : tuple
        Further arguments of a function.
    rho : float
        Target for ||grad f||. Called in scipy's form it defaults to ``tol``, or 1e-5.
    hess_lipschitz : float, optional
        K, Lipschitz constant of the Hessian: sets the curvature target to sqrt(K rho).
    grad_lipschitz : float, optional
        Lipschitz constant of the gradient, as a first value of ||H|| in the cap.
    curvature_tol : float, optional
        The curvature target itself; the default without K is sqrt(rho), as if K were 1.
    delta : float
        Probability, in (0, 1), that anything the result claims is false.
    seed : int
        The same seed gives the same bits, if the objective does.
    max_iter : int
        Most accepted steps (``maxiter`` is understood too).
    time_limit : float, optional
        Seconds; looked at before every evaluation.
    callback : callable, optional
        Called after each step, as in scipy: ``callback(xk)`` or
        ``callback(intermediate_result=...)``. StopIteration, or the return value True, ends the
        run.
    progress : bool
        Show a tqdm bar (extra ``progress``).
    zeta, forcing : float
        Accuracy of conjugate gradients, in [0, 1): ||r|| <= zeta curvature_tol ||d|| / 2, or
        ||r|| <= forcing ||g||.
    least_damping : float
        In (0, 1]. While unit steps succeed and the damping outweighs the curvature they meet, it
        falls from 2 curvature_tol by factors of 4 to this share of it; any other step restores it.
        The complexity keeps its exponents, its constant grows by least_damping^-3 at worst.
        ``forcing=0, least_damping=1`` is nearest to the published method. Flat directions, such as
        the many of a wide network, need small values: steps along them are gradient steps divided
        by the damping.
    **scipy_keywords
        jac, hess, hessp, bounds, constraints, tol, maxiter, disp, as `scipy.optimize.minimize`
        passes them. jac must be a function or True. Without hess and hessp the products are
        central differences of the gradient (two gradients each) and the certificate holds up to
        their error, as the message then says.

    Returns
    -------
    SOSPResult
        ``success`` is True only when certified. At a limit, an interrupt or a value that is not
        finite it holds the best point so far.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, or rho is missing.
    ValueError
        If a number breaks its rule, shapes disagree, f or its gradient is not finite at x0, the
        Hessian product is not symmetric there, or bounds or constraints are given.
    ImportError
        If progress is asked for without tqdm.
    Exception
        What the objective or the callback raises comes out with notes that say where, and with the
        result so far as its attribute ``partial_result``.

    Notes
    -----
    Outer iterations O(sqrt(K) D rho^-1.5) up to a logarithm, D = f(x0) - inf f, with curvature
    target sqrt(K rho) [1]_. Each costs one product per conjugate gradient iteration. Memory: a
    dozen vectors, and the Lanczos basis.

    References
    ----------
    .. [1] C. W. Royer, M. O'Neill, S. J. Wright, "A Newton-CG algorithm with complexity guarantees
       for smooth unconstrained optimization", Math. Program. 180 (2020), 451-488.

    Examples
    --------
    From exactly a saddle, where the gradient is 0:

    >>> import numpy as np
    >>> from derand_fast.optimize import newton_cg
    >>> class Saddle:
    ...     n_params = 2
    ...     def value_and_grad(self, x):
    ...         return x[0]**2 - x[1]**2 + x[1]**4 / 4, np.array([2*x[0], x[1]**3 - 2*x[1]])
    ...     def hvp(self, x, v):
    ...         return np.array([2.0 * v[0], (3.0 * x[1]**2 - 2.0) * v[1]])
    >>> result = newton_cg(Saddle(), np.zeros(2), rho=1e-6)
    >>> result.success, round(result.fun, 9), result.n_escapes
    (True, -1.0, 1)
    """
    for name, value in (("zeta", zeta), ("forcing", forcing)):
        if not 0.0 <= value < 1.0 or (name == "zeta" and value == 0.0):
            raise ValueError(f"{name} must be in [0, 1) and zeta not 0, got {value}")
    if not 0.0 < least_damping <= 1.0:
        raise ValueError(f"least_damping must be in (0, 1], got {least_damping}")
    run = start_run(
        "newton_cg",
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
    return optimise(run, lambda run: _descend(run, zeta, forcing, least_damping))


def _descend(run: Run, zeta: float, forcing: float, least_damping: float) -> LanczosResult:
    options = run.options
    norm_bound = options.grad_lipschitz or 0.0
    scale = run.first_curvature_scale()
    eps = options.curvature_tol
    collapser = Collapser(run)
    collapser.at_start()
    while True:
        if run.point.grad_norm <= options.rho:
            found = run.certificate(0.5 * options.curvature_tol)
            if not leads_down(found, options):
                return found
            point, scale = curvature_step(run, found.vector, -found.ritz_value, scale)
            run.n_escapes += 1
            run.accept(point, "negative curvature")
            collapser.after_step()
            continue
        x = run.point.x
        step = capped_cg(
            lambda v, x=x: run.evaluator.product(x, v),  # type: ignore[misc]
            run.point.grad,
            eps,
            zeta=zeta,
            forcing=forcing,
            norm_bound=norm_bound,
        )
        norm_bound = step.norm_bound
        if math.isnan(step.curvature):
            accepted = newton_step(run, step.direction, eps)
            eps = _next_damping(accepted, eps, options.curvature_tol, least_damping)
            run.accept(accepted.point, "newton")
        else:
            unit = step.direction / norm(step.direction)
            point, scale = curvature_step(run, unit, -step.curvature, scale)
            eps = options.curvature_tol
            run.accept(point, "negative curvature")
        collapser.after_step()


def _next_damping(accepted: NewtonStep, eps: float, largest: float, least_share: float) -> float:
    if accepted.shortened:
        return largest
    return max(0.25 * eps, least_share * largest) if accepted.damped else eps
