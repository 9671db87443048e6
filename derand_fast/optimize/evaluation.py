"""Calls of the objective: counted, checked, and named in every error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from derand_fast.budget import Budget
from derand_fast.optimize.result import Status
from derand_fast.optimize.vectors import Vector, dot, norm, random_unit

__all__ = [
    "Evaluator",
    "Point",
    "Stopped",
    "check_objective",
    "check_symmetry",
    "checked_start",
    "first_point",
]

# |u'Hv - v'Hu| of a symmetric product computed in doubles is of order 1e-15 (||Hu|| + ||Hv||), of
# one by forward differences 1e-8, of one with a wrong block about 1/sqrt(n). Where the Hessian
# nearly vanishes, differences still carry the rounding of the gradient: sqrt(u) of its size.
_ASYMMETRY = 1e-5
_DIFFERENCE_NOISE = 1e-7


class Stopped(Exception):  # noqa: N818 - not an error: the way out of a run
    """Ends a run from anywhere in it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Point(NamedTuple):
    """A point with its value and gradient."""

    x: Vector
    fun: float
    grad: Vector
    grad_norm: float

    @property
    def is_finite(self) -> bool:
        """Whether value and gradient are; a norm is finite only if all entries are."""
        return math.isfinite(self.fun) and math.isfinite(self.grad_norm)


class Evaluator:
    """Evaluate an objective: count, check shapes, watch the clock, name the call that raised.

    Parameters
    ----------
    objective : Objective
        Checked already.
    budget : Budget
        Every call begins with a look at it once ``watching`` is set.
    """

    def __init__(self, objective: Any, budget: Budget) -> None:
        self.objective = objective
        self.n = int(objective.n_params)
        self.nfev = self.njev = self.nhev = 0
        self.rejected = 0
        self.watching = False
        self._budget = budget
        self._gradients_per_product = int(getattr(objective, "gradients_per_product", 0))

    def point(self, x: Vector) -> Point:
        """Evaluate value and gradient; not finite ones are counted, not refused.

        A step that overflows leads nowhere; the objective is not asked there.
        """
        self._look_at_clock()
        if not np.isfinite(x).all():
            self.rejected += 1
            return Point(x, math.nan, np.full(self.n, math.nan), math.nan)
        self.nfev += 1
        self.njev += 1
        fun, grad = self._call("value_and_grad", self.njev, self.objective.value_and_grad, x)
        gradient = self._vector("value_and_grad", grad)
        point = Point(x, float(fun), gradient, norm(gradient))
        if not point.is_finite:
            self.rejected += 1
        return point

    def product(self, x: Vector, v: Vector) -> Vector:
        """Hessian times v; raises `Stopped` if it is not finite."""
        self._look_at_clock()
        if self._gradients_per_product:
            self.njev += self._gradients_per_product
        else:
            self.nhev += 1
        count = self.nhev or self.njev
        product = self._vector("hvp", self._call("hvp", count, self.objective.hvp, x, v))
        if not np.isfinite(product).all():
            entry = int(np.flatnonzero(~np.isfinite(product))[0])
            raise Stopped(
                Status.NOT_FINITE,
                f"entry {entry} of the Hessian product (hvp call {count}) is {product[entry]}; "
                "this is the last good point",
            )
        return product

    def bias_hessian(self, x: Vector) -> Any | None:
        """H_bb as the objective gives it, or None."""
        function = getattr(self.objective, "bias_hessian", None)
        return None if function is None else self._call("bias_hessian", 1, function, x)

    def weight_curvature(self, x: Vector) -> Vector | None:
        """Curvature that H_bb has along each tied weight, as the objective gives it, or None."""
        function = getattr(self.objective, "weight_curvature", None)
        return None if function is None else self._call("weight_curvature", 1, function, x)

    def _look_at_clock(self) -> None:
        if self.watching and self._budget.expired:
            raise Stopped(Status.TIME_LIMIT, "the time limit was reached")

    def _vector(self, name: str, value: ArrayLike) -> Vector:
        vector = np.asarray(value, dtype=np.float64)
        if vector.shape != (self.n,):
            raise ValueError(
                f"{name} must return an array of shape ({self.n},), got shape {vector.shape}"
            )
        return vector

    def _call(self, name: str, count: int, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            error.add_note(f"derand_fast: raised by {name}, call {count}, of the objective")
            raise


def check_objective(objective: Any) -> None:
    """Raise TypeError or ValueError, naming the rule, unless this is an objective."""
    missing = [
        name for name in ("n_params", "value_and_grad", "hvp") if not hasattr(objective, name)
    ]
    if missing:
        raise TypeError(
            "objective must have n_params, value_and_grad(x) and hvp(x, v), or be a function with "
            f"jac=...; {type(objective).__name__} lacks {', '.join(missing)}"
        )
    if int(objective.n_params) < 1:
        raise ValueError(f"n_params must be at least 1, got {objective.n_params}")
    lam = getattr(objective, "lam", None)
    if lam is not None and not 0.0 <= float(lam) < math.inf:
        raise ValueError(f"lam must be finite and at least 0, got {lam}")
    step = getattr(objective, "collapse_step", None)
    if step is not None and not callable(step):
        raise TypeError(f"{type(objective).__name__}.collapse_step must be a method, not {step!r}")


def checked_start(x: ArrayLike, n: int, name: str) -> Vector:
    """Return a copy of the caller's point as float64 of shape (n,)."""
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(
            f"{name} must have shape ({n},), the objective's n_params; got {array.shape}"
        )
    start = np.array(array, dtype=np.float64)
    if not np.isfinite(start).all():
        entry = int(np.flatnonzero(~np.isfinite(start))[0])
        raise ValueError(f"{name}[{entry}] is {start[entry]}; all entries must be finite")
    return start


def first_point(evaluator: Evaluator, x: Vector, name: str) -> Point:
    """Evaluate the caller's point; ValueError saying what is not finite there."""
    point = evaluator.point(x)
    if not math.isfinite(point.fun):
        raise ValueError(f"the objective is {point.fun} at {name}; it must be finite there")
    if not math.isfinite(point.grad_norm):
        entry = int(np.argmax(~np.isfinite(point.grad)))
        raise ValueError(
            f"entry {entry} of the gradient is {point.grad[entry]} at {name}; it must be finite "
            "there"
        )
    return point


def check_symmetry(evaluator: Evaluator, point: Point, generator: np.random.Generator) -> None:
    """Compare u'Hv with v'Hu for one random pair; two products.

    Raises
    ------
    ValueError
        If they differ by more than rounding or gradient differences explain: all that follows,
        the certificate above all, is about symmetric Hessians.
    """
    u = random_unit(evaluator.n, generator)
    v = random_unit(evaluator.n, generator)
    try:
        product_u, product_v = evaluator.product(point.x, u), evaluator.product(point.x, v)
    except Stopped as stopped:
        if stopped.status is not Status.NOT_FINITE:
            raise
        raise ValueError(f"hvp is not finite at the start: {stopped.message}") from None
    difference = abs(dot(u, product_v) - dot(v, product_u))
    allowed = _ASYMMETRY * (norm(product_u) + norm(product_v))
    if difference > allowed + _DIFFERENCE_NOISE * (abs(point.fun) + point.grad_norm):
        raise ValueError(
            f"hvp is not symmetric at the start: u'Hv and v'Hu differ by "
            f"{difference:.3g} for random unit u, v with ||Hu|| = {norm(product_u):.3g}, "
            f"||Hv|| = {norm(product_v):.3g}"
        )
