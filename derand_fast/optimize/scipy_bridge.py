"""The two call styles: `newton_cg(objective, x0)` and `minimize(fun, x0, method=newton_cg)`.

scipy hands a custom method everything raw: ``fun`` and its derivatives, ``args``, bounds,
constraints, the callback, ``tol`` and the options. What cannot be honoured is refused here; scipy's
own unconstrained methods ignore it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from derand_fast.optimize.vectors import Vector, norm

__all__ = ["FunctionObjective", "ScipyKeywords", "as_objective", "call_back", "chosen_rho"]

# scipy's own gradient tolerance (gtol of BFGS), where minimize was called without tol and rho.
_DEFAULT_RHO = 1e-5
# Central differences: the error h^2 + u/h is least at h = u^(1/3).
_DIFFERENCE_STEP = float(np.finfo(np.float64).eps) ** (1.0 / 3.0)
_DIFFERENCE_NAMES = ("2-point", "3-point", "cs")


class ScipyKeywords(TypedDict, total=False):
    """What `scipy.optimize.minimize` passes to a custom method."""

    jac: Any
    hess: Any
    hessp: Any
    bounds: Any
    constraints: Any
    tol: float | None
    maxiter: int | None
    disp: bool


class FunctionObjective:
    """Functions in scipy's form as an objective.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)``; returns (value, gradient) if jac is True.
    n_params : int
        Length of x.
    args : tuple
        Further arguments of all functions.
    jac : callable or True
        ``jac(x, *args)``.
    hess : callable, optional
        ``hess(x, *args)``: array, sparse matrix or LinearOperator. Called once per point.
    hessp : callable, optional
        ``hessp(x, p, *args)``; goes before hess. Without both, products are central differences
        of the gradient.

    Raises
    ------
    TypeError, ValueError
        If a derivative is missing or of a kind that cannot be used.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        n_params: int,
        args: tuple[Any, ...],
        jac: Any,
        hess: Any,
        hessp: Any,
    ) -> None:
        if jac is not True and not callable(jac):
            raise ValueError(
                "jac must be a function or True: second-order certificates need exact gradients, "
                f"and finite differences of values are not; got jac={jac!r} (scipy hands its "
                "finite-difference names over as None)"
            )
        if isinstance(hess, str) and hess in _DIFFERENCE_NAMES:
            hess = None
        for name, function in (("hess", hess), ("hessp", hessp)):
            if function is not None and not callable(function):
                raise ValueError(
                    f"{name} must be a function, None or (hess) one of {_DIFFERENCE_NAMES}; got "
                    f"{function!r}: quasi-Newton updates carry no certificate"
                )
        self.n_params = n_params
        self._fun, self._args = fun, args
        self._jac, self._hess, self._hessp = jac, hess, hessp
        self._hess_point: Vector | None = None
        self._hess_matrix: Any = None
        self.gradients_per_product = 2 if hess is None and hessp is None else 0

    def value(self, x: Vector) -> float:
        """Return f(x)."""
        return self._number(self._fun(x.copy(), *self._args), with_gradient=self._jac is True)

    def value_and_grad(self, x: Vector) -> tuple[float, Vector]:
        """Return f(x) and a gradient of our own; the function gets a copy of x that it may keep."""
        if self._jac is True:
            fun, grad = self._fun(x.copy(), *self._args)
        else:
            fun = self._fun(x.copy(), *self._args)
            grad = self._jac(x.copy(), *self._args)
        return self._number(fun), np.array(grad, dtype=np.float64)

    def hvp(self, x: Vector, v: Vector) -> Vector:
        """Return the Hessian at x times v."""
        if self._hessp is not None:
            return np.array(self._hessp(x.copy(), v.copy(), *self._args), dtype=np.float64)
        if self._hess is not None:
            return np.asarray(self._matrix(x) @ v, dtype=np.float64).reshape(-1)
        length = norm(v)
        if length == 0.0:
            return np.zeros_like(v)
        step = _DIFFERENCE_STEP * max(1.0, norm(x)) / length
        forward, backward = self._gradient(x + step * v), self._gradient(x - step * v)
        return (forward - backward) / (2.0 * step)

    def _gradient(self, x: Vector) -> Vector:
        return self.value_and_grad(x)[1] if self._jac is True else self._plain_gradient(x)

    def _plain_gradient(self, x: Vector) -> Vector:
        return np.array(self._jac(x, *self._args), dtype=np.float64)

    def _matrix(self, x: Vector) -> Any:
        """Hessian at x; Lanczos and conjugate gradients ask for the same one many times."""
        if self._hess_point is None or not np.array_equal(self._hess_point, x):
            self._hess_matrix = self._hess(x.copy(), *self._args)
            self._hess_point = x.copy()
        return self._hess_matrix

    @staticmethod
    def _number(value: Any, with_gradient: bool = False) -> float:
        number = np.asarray(value[0] if with_gradient else value)
        if number.size != 1:
            raise ValueError(f"fun must return one number, got shape {number.shape}")
        return float(number.item())


def as_objective(
    objective: Any, x0: ArrayLike, args: tuple[Any, ...], keywords: ScipyKeywords
) -> tuple[Any, bool]:
    """Return an objective, and whether it was given as functions in scipy's form.

    Raises
    ------
    TypeError
        If the first argument is neither, or an objective comes with derivatives or args.
    ValueError
        For bounds, constraints or a missing gradient.
    """
    unknown = set(keywords) - set(ScipyKeywords.__annotations__)
    if unknown:
        raise TypeError(f"unknown keyword arguments: {', '.join(sorted(unknown))}")
    _refuse_limits(keywords)
    derivatives = {name: keywords.get(name) for name in ("jac", "hess", "hessp")}
    if hasattr(objective, "value_and_grad") or not callable(objective):
        given = [name for name, value in derivatives.items() if value is not None]
        if given or args:
            raise TypeError(
                f"an objective brings its own derivatives and arguments; {given or 'args'} must "
                "not be given with it"
            )
        return objective, False
    shape = np.shape(x0)
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(f"x0 must be a vector with at least one entry, got shape {shape}")
    if not isinstance(args, tuple):
        args = (args,)
    return FunctionObjective(objective, shape[0], args, **derivatives), True


def _refuse_limits(keywords: ScipyKeywords) -> None:
    if keywords.get("bounds") is not None:
        raise ValueError(
            "bounds must be None: this method is for unconstrained problems and would ignore them"
        )
    constraints = keywords.get("constraints")
    if constraints is not None and (not isinstance(constraints, list | tuple) or constraints):
        raise ValueError(
            "constraints must be empty: this method is for unconstrained problems and would "
            "ignore them"
        )


def chosen_rho(rho: float | None, keywords: ScipyKeywords, functions: bool) -> float | None:
    """Return rho, else scipy's tol, else (called in scipy's form) scipy's usual 1e-5."""
    if rho is not None:
        return rho
    tol = keywords.get("tol")
    if tol is not None:
        return tol
    return _DEFAULT_RHO if functions else None


def call_back(callback: Callable[..., object], state: OptimizeResult) -> bool:
    """Call in scipy's form; tell whether to stop (StopIteration or a true return value).

    A callback whose only parameter is named ``intermediate_result`` gets the state under that
    name, any other one a copy of x.
    """
    try:
        if _wants_state(callback):
            answer = callback(intermediate_result=state)
        else:
            answer = callback(state.x)
    except StopIteration:
        return True
    return isinstance(answer, bool | np.bool_) and bool(answer)


def _wants_state(callback: Callable[..., object]) -> bool:
    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):
        return False
    return names == {"intermediate_result"}
