"""Hessian descent: gradient steps, and steps along negative curvature where the gradient is small.

With L, K the Lipschitz constants of gradient and Hessian, rho the target and
eps = sqrt(K rho), every constant follows from Taylor's formula:

- ||g|| > rho: x -= g/L lowers f by at least rho^2 / (2L);
- else Lanczos finds a unit v with v'Hv = -c < -eps/2 or certifies lambda_min >= -eps. With the sign
  for which v'g <= 0, f(x + a v) <= f - c a^2/2 + K a^3/6, and a = 2c/K lowers f by at least
  2c^3/(3K^2) > rho^1.5 / (12 sqrt(K)).

So with D = f(x0) - inf f there are at most 2 L D/rho^2 + 12 sqrt(K) D / rho^1.5 steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

from numpy.typing import ArrayLike

from derand_fast.kernels.lanczos import LanczosResult
from derand_fast.optimize.evaluation import Point, Stopped
from derand_fast.optimize.line_search import curvature_step, gradient_step
from derand_fast.optimize.options import Options, check_choice, needed
from derand_fast.optimize.result import SOSPResult, Status
from derand_fast.optimize.run import Run, optimise, start_run
from derand_fast.optimize.scipy_bridge import ScipyKeywords
from derand_fast.optimize.vectors import dot

__all__ = ["hessian_descent", "leads_down"]

# Growth of the step after each accepted one: a too short one is found out, at few extra trials.
_GROWTH = 1.25


def hessian_descent(
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
    max_iter: int = 100_000,
    time_limit: float | None = None,
    callback: Callable[..., object] | None = None,
    progress: bool = False,
    parameters: str = "practical",
    fun_lower: float | None = None,
    **scipy_keywords: Unpack[ScipyKeywords],
) -> SOSPResult:
    """Minimise by gradient steps and steps along measured negative curvature.

    Ends at a point with ||grad f|| <= rho and lambda_min >= -curvature_tol, the latter certified.

    Parameters
    ----------
    objective, x0, args, rho, hess_lipschitz, grad_lipschitz, curvature_tol, delta, seed, max_iter
        As for `newton_cg`. The two constants are first guesses in practical mode and are believed
        in theory mode.
    time_limit, callback, progress
        As for `newton_cg`.
    parameters : {"practical", "theory"}
        "practical" estimates L and K on line: gradient steps by backtracking, curvature steps by a
        search for a decrease of 2c^3/(3K^2), K the estimate. "theory" takes steps g/L and 2c/K as
        derived, and stops (`Status.WRONG_CONSTANTS`) when a step lowers f by less than it must:
        then a constant is too small. It needs both constants.
    fun_lower : float, optional
        Lower bound of f, theory mode only: the failure probability is then shared equally among
        the at most 1 + 12 sqrt(K) D / rho^1.5 Lanczos runs instead of by 6/(pi j)^2.
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
    Memory: the Lanczos basis. Gradients O(L D / rho^2): the slow part is the descent between
    saddles, not the escapes. The guarantees are derived at the top of the source file; the method
    is folklore, see [1]_ for its accelerated relatives.

    References
    ----------
    .. [1] Y. Carmon, J. Duchi, O. Hinder, A. Sidford, "Accelerated methods for nonconvex
       optimization", SIAM J. Optim. 28 (2018), 1751-1772.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.optimize import hessian_descent
    >>> class Saddle:
    ...     n_params = 2
    ...     def value_and_grad(self, x):
    ...         return x[0]**2 - x[1]**2 + x[1]**4 / 4, np.array([2*x[0], x[1]**3 - 2*x[1]])
    ...     def hvp(self, x, v):
    ...         return np.array([2.0 * v[0], (3.0 * x[1]**2 - 2.0) * v[1]])
    >>> result = hessian_descent(Saddle(), np.zeros(2), rho=1e-6)
    >>> result.success, round(result.fun, 9), result.n_escapes
    (True, -1.0, 1)
    """
    check_choice("parameters", parameters, ("practical", "theory"))
    run = start_run(
        "hessian_descent",
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
    needed(run.options, "grad_lipschitz", "hess_lipschitz")
    if fun_lower is not None:
        run.oracle.shares = _equal_shares(run.options, run.point.fun - float(fun_lower))
    return optimise(run, _descend_by_theory)


def leads_down(found: LanczosResult, options: Options) -> bool:
    """Whether a Lanczos run ended with a direction to follow, not with a certificate."""
    return found.status == "negative_curvature" or found.ritz_value < -options.curvature_tol


def _descend(run: Run) -> LanczosResult:
    options = run.options
    step, scale = run.first_gradient_step(), run.first_curvature_scale()
    while True:
        if run.point.grad_norm > options.rho:
            point, step = gradient_step(run, step)
            run.accept(point, "gradient")
            step *= _GROWTH
            continue
        found = run.certificate(0.5 * options.curvature_tol)
        if not leads_down(found, options):
            return found
        point, scale = curvature_step(run, found.vector, -found.ritz_value, scale)
        run.n_escapes += 1
        run.accept(point, "negative curvature")


def _descend_by_theory(run: Run) -> LanczosResult:
    options = run.options
    L, K = needed(options, "grad_lipschitz", "hess_lipschitz")
    while True:
        start = run.point
        if start.grad_norm > options.rho:
            point = run.evaluator.point(start.x - start.grad / L)
            _check_decrease(run, point, start.grad_norm**2 / (2.0 * L), "gradient", L)
            run.accept(point, "gradient")
            continue
        found = run.certificate(0.5 * options.curvature_tol)
        if not leads_down(found, options):
            return found
        c, v = -found.ritz_value, found.vector
        if dot(v, start.grad) > 0.0:
            v = -v
        point = run.evaluator.point(start.x + (2.0 * c / K) * v)
        _check_decrease(run, point, 2.0 * c**3 / (3.0 * K**2), "curvature", K)
        run.n_escapes += 1
        run.accept(point, "negative curvature")


def _check_decrease(run: Run, point: Point, promised: float, kind: str, constant: float) -> None:
    """Stop when a step disproves the constant it was made from."""
    # The promise is an equality for a pure quadratic or cubic: leave room for rounding.
    if point.is_finite and run.decrease(point) < (1.0 - 1e-6) * promised - run.noise:
        raise Stopped(
            Status.WRONG_CONSTANTS,
            f"a {kind} step lowered f by {run.decrease(point):.6g}, less than the {promised:.6g} "
            f"that {constant:.6g} as Lipschitz constant promises: the constant is too small",
        )


def _equal_shares(options: Options, decrease: float) -> Callable[[int], float]:
    """Share delta among as many Lanczos runs as the decrease allows."""
    if not 0.0 <= decrease < math.inf:
        raise ValueError(f"fun_lower must be at most f(x0); it exceeds it by {-decrease}")
    K, rho = options.hess_lipschitz, options.rho
    assert K is not None
    # From c >= curvature_tol/2: D / (2 c^3 / (3 K^2)) steps, 12 sqrt(K) D / rho^1.5 if the target
    # is sqrt(K rho).
    most = 1.0 + 12.0 * K**2 * decrease / options.curvature_tol**3
    limit = math.floor(most * (1.0 + 1e-9))

    def share(call: int) -> float:
        if call > limit:
            raise Stopped(
                Status.WRONG_CONSTANTS,
                f"more than {limit} Lanczos runs: hess_lipschitz is too small or fun_lower too "
                f"high (K = {K:.6g}, rho = {rho:.6g})",
            )
        return 1.0 / limit

    return share
