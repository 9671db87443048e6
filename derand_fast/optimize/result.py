"""What the optimisers return."""

from __future__ import annotations

import enum
import os
from typing import Any, NamedTuple

from scipy.optimize import OptimizeResult

from derand_fast.notebook import report_as_html
from derand_fast.optimize.vectors import Vector

__all__ = ["OptimizationRow", "SOSPResult", "Status"]


class Status(enum.IntEnum):
    """Why a run ended; only CERTIFIED is success."""

    CERTIFIED = 0
    MAX_ITERATIONS = 1
    TIME_LIMIT = 2
    CALLBACK = 3
    INTERRUPTED = 4
    NOT_FINITE = 5
    NO_DECREASE = 6
    NOT_DECIDED = 7
    NEGATIVE_CURVATURE = 8
    GRADIENT_TOO_LARGE = 9
    WRONG_CONSTANTS = 10
    OBJECTIVE_RAISED = 11


class OptimizationRow(NamedTuple):
    """One accepted step and the point it led to.

    ``step`` is "start", "gradient", "newton", "negative curvature", "collapse" (W set to 0, or one
    random input fixed), "perturbation" or "return" (of `pgd`, to the point before a fruitless
    perturbation); the other entries belong to the point it
    led to. ``lambda_min`` is the smallest Ritz value of the Hessian
    there, nan where none was computed. ``W_norm`` is nan without a block W.
    """

    iteration: int
    seconds: float
    fun: float
    grad_norm: float
    lambda_min: float
    W_norm: float
    step: str


class SOSPResult(OptimizeResult):
    """A point, and what is certified about it.

    A scipy `OptimizeResult`: a dictionary whose entries are attributes too. The target is
    ||grad f|| <= rho and lambda_min(Hess f) >= -curvature_tol.

    Attributes
    ----------
    x, fun, jac : array, float, array
        Point, value, gradient.
    success, certified : bool
        True only if the gradient was measured to be within rho and the curvature certified to be
        within curvature_tol, all false certificates of the call together having probability at
        most ``delta`` over the random start vectors.
    status, message : Status, str
        Why the run ended.
    nit, nfev, njev, nhev : int
        Accepted steps; evaluations of the value, of the gradient, Hessian-vector products.
        ``value_and_grad`` counts in nfev and in njev. Products by gradient differences count in
        njev, two each, and not in nhev.
    rho, curvature_tol, delta : float
        What was asked for.
    grad_norm : float
        ||grad f(x)||.
    lambda_min : float
        Smallest Ritz value of the Hessian at x, an upper bound of its smallest eigenvalue; nan if
        the run ended before one was computed.
    lambda_min_lower : float
        Certified lower bound of the smallest eigenvalue; -inf if there is none.
    negative_curvature_direction : array or None
        Unit v with v'Hv = lambda_min < -curvature_tol; None if no such direction is known.
    n_escapes : int
        Saddles left: steps along negative curvature from points with ||grad f|| <= rho, or (`pgd`)
        perturbations there that led away.
    W_norm : float or None
        ||W||_F at x; None without a block W.
    collapse_bound : float or None
        A-posteriori bound of ||W||_F,
        (||grad_W f||_F + stein_residual) / (2 lam + lower bound of lambda_min(H_bb)): it asks no
        Lipschitz constant. None without blocks W, b and ``lam``, or where the denominator is not
        positive. It holds with the same probability.
    stein_residual : float or None
        ||grad_W f - (H_bb + 2 lam I) W||_F as measured: 0 up to rounding and quadrature for a
        Gaussian expectation. It is part of the bound, so that the bound holds for any f.
    collapse_bound_apriori : float or None
        rho / (2 lam - curvature_tol), which every certified point satisfies if f is a Gaussian
        expectation; with curvature_tol = sqrt(K rho) the bound of [1]_. None if lam is too small
        or the objective says by ``gaussian = False`` that it is none.
    history : tuple of OptimizationRow
        Steps with their values. Long runs keep every step but gradient steps, of these every
        2nd, 4th, ...
    seconds : float
        Wall-clock time of the call.
    seed, method : int, str
        The seed used and the name of the method.

    References
    ----------
    .. [1] K. Tsikouras, A. Pantis, I. Mitliagkas, C. Tzamos, "Derandomization ...", ICLR 2026,
       arXiv 2510.19382, Lemma 3.1.
    """

    x: Vector
    fun: float
    jac: Vector
    success: bool
    status: int
    message: str
    nit: int
    nfev: int
    njev: int
    nhev: int
    rho: float
    curvature_tol: float
    delta: float
    grad_norm: float
    lambda_min: float
    lambda_min_lower: float
    certified: bool
    negative_curvature_direction: Vector | None
    n_escapes: int
    W_norm: float | None
    collapse_bound: float | None
    collapse_bound_apriori: float | None
    stein_residual: float | None
    history: tuple[OptimizationRow, ...]
    seconds: float
    seed: int
    method: str

    @property
    def n_gradient_equivalents(self) -> int:
        """Work in gradients: max(nfev, njev) + nhev, a product counted like a gradient."""
        return max(self.nfev, self.njev) + self.nhev

    def __str__(self) -> str:
        """Return a short report for people."""
        lines = [
            f"f          {self.fun:.12g}",
            f"gradient   {self.grad_norm:.3g}  (target: at most {self.rho:.3g})",
            f"curvature  lambda_min = {self.lambda_min:.6g} (Ritz value), certified at least "
            f"{self.lambda_min_lower:.6g}  (target: at least {-self.curvature_tol:.3g})",
            f"certified  {self._claim()}",
        ]
        if self.W_norm is not None:
            lines.append(f"||W||      {self.W_norm:.6g}{self._bounds()}")
        lines.append(
            f"work       {self.nit} steps, {self.n_escapes} escapes, {self.nfev} values, "
            f"{self.njev} gradients, {self.nhev} Hessian products, {self.seconds:.3g} s"
        )
        lines.append(f"method     {self.method}, seed {self.seed}: {self.message}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the report for notebooks."""
        return report_as_html("Second-order stationary point", str(self))

    def _claim(self) -> str:
        if self.certified:
            return f"yes, except with probability {self.delta:.3g}"
        return "no"

    def _bounds(self) -> str:
        parts = []
        if self.collapse_bound is not None:
            parts.append(f"at most {self.collapse_bound:.6g} by its own gradient")
        if self.collapse_bound_apriori is not None:
            parts.append(f"at most {self.collapse_bound_apriori:.6g} at any certified point")
        return f"  ({'; '.join(parts)})" if parts else ""

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot the history; save to ``path`` if given. Needs the ``plot`` extra."""
        from derand_fast.plot import plot_optimization

        return plot_optimization(self, path)
