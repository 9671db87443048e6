"""Steps that take randomness out: all of W at once, or one direction of it.

For f = E[g(W x + b)] + lam ||W||_F^2, x ~ N(0, I), two things are known without a Hessian product.

Stein's identity, grad_W f = (H_bb + 2 lam I) W, makes -W the Newton step in W alone with
H_bb + 2 lam I for its Hessian, and -<grad_W f, W> the curvature along it with the sign reversed.

For a unit vector u the input x'u = t is a standard normal number that enters as t W u only. Fixed
at t it leaves h(t) = f(W - (W u) u', b + t W u) with E_t[h(t)] = f(W, b) - lam ||W u||^2: the
method of conditional expectations. t = 1 and t = -1 have the first three moments of t, so the
smaller of h(1) and h(-1) is at most f - lam ||W u||^2 up to fourth differences of g. At b = 0,
often a saddle by symmetry, this is the way out.

An objective asks for both by its member ``collapse_step``. Neither is taken unless f falls.
"""

from __future__ import annotations

import math

import numpy as np

from derand_fast.optimize.certificate import has_weights
from derand_fast.optimize.evaluation import Point
from derand_fast.optimize.run import Run
from derand_fast.optimize.vectors import Vector, dot, norm

__all__ = ["Collapser"]

# Least decrease by the whole step, as a share of its slope (Armijo).
_SLOPE_SHARE = 1e-4
# Least decrease by fixing an input, as a share of what its mean over t gives.
_GAIN_SHARE = 0.25
# The leading direction need not be exact: any u will do.
_POWER_STEPS = 8


class Collapser:
    """Tries the steps during one run; without ``collapse_step`` it does nothing.

    The whole step is tried after every step of the method, after j refusals in a row only every
    2^j-th time: refusals cost a logarithm of the number of steps. One that is taken lowers f and
    follows a step of the method, so it at most doubles the bound on the number of steps.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._step = getattr(run.evaluator.objective, "collapse_step", None)
        self._pause = 1
        self._wait = 0

    def at_start(self) -> None:
        """Try the whole step; where it is refused, fix one input, and try it again."""
        if self._step is None or self.after_step():
            return
        point = self._with_an_input_fixed()
        if point is not None:
            if self._run.point.grad_norm <= self._run.options.rho:
                self._run.n_escapes += 1
            self._run.accept(point, "collapse")
            self._wait, self._pause = 0, 1
            self.after_step()

    def after_step(self) -> bool:
        """Try the whole step; returns whether it was taken."""
        if self._step is None:
            return False
        if self._wait > 0:
            self._wait -= 1
            return False
        run = self._run
        step = self._checked_step()
        slope = dot(step, run.point.grad)
        if slope < 0.0:
            point = run.evaluator.point(run.point.x + step)
            if run.decrease(point) >= -_SLOPE_SHARE * slope:
                self._pause = 1
                run.accept(point, "collapse")
                return True
        self._wait, self._pause = self._pause, 2 * self._pause
        return False

    def _checked_step(self) -> Vector:
        assert self._step is not None
        step = np.asarray(self._step(self._run.point.x), dtype=np.float64)
        if step.shape != self._run.point.x.shape or not np.isfinite(step).all():
            kind = type(self._run.evaluator.objective).__name__
            raise ValueError(
                f"{kind}.collapse_step must return a finite vector of shape "
                f"{self._run.point.x.shape}, got shape {step.shape}"
            )
        return step

    def _with_an_input_fixed(self) -> Point | None:
        """Fix the input of largest weight at 1 or -1; None where f does not fall enough."""
        run, objective = self._run, self._run.evaluator.objective
        if not has_weights(objective) or hasattr(objective, "weight_curvature"):
            return None
        weights, biases = objective.blocks["W"].slice, objective.blocks["b"].slice
        start = run.point
        W = start.x[weights].reshape(math.prod(objective.blocks["b"].shape), -1)
        if not W.any():
            return None
        u = _leading_direction(W)
        # Without BLAS: its bits may depend on the number of threads.
        y = np.einsum("ij,j->i", W, u)
        first = -1.0 if dot(start.grad[biases], y) > 0.0 else 1.0
        for t in (first, -first):
            x = start.x.copy()
            x[weights] -= np.multiply.outer(y, u).ravel()
            x[biases] += t * y
            point = run.evaluator.point(x)
            if run.decrease(point) >= _GAIN_SHARE * float(objective.lam) * dot(y, y):
                return point
        return None


def _leading_direction(W: Vector) -> Vector:
    """Approximate the leading right singular vector of W, from its longest row."""
    u = W[int(np.argmax(np.einsum("ij,ij->i", W, W)))].copy()
    u /= norm(u)
    for _ in range(_POWER_STEPS):
        u = np.einsum("ij,i->j", W, np.einsum("ij,j->i", W, u))
        u /= norm(u)
    return u
