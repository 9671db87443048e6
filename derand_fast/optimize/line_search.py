"""Line searches whose tests every step short enough passes, so that they end."""

from __future__ import annotations

from typing import NamedTuple

from derand_fast.optimize.evaluation import Point
from derand_fast.optimize.run import Run
from derand_fast.optimize.vectors import Vector, dot, norm

__all__ = ["NewtonStep", "curvature_step", "gradient_step", "newton_step"]

# A descent step of at most 1/L lowers f by at least 1/2 step ||g||^2; the rest is for rounding.
_GRADIENT_SHARE = 0.4
# Halvings before the step is at rounding level: 2^-60 of the first one.
_HALVINGS = 60
_DOUBLINGS = 60
# Powers are written as products: those overflow to infinity, ** raises.
# The cubic test of Royer and Wright with eta = 0.1, and the usual share of the linear decrease.
_CUBIC_SHARE = 0.1
_LINEAR_SHARE = 1e-4


def gradient_step(run: Run, step: float) -> tuple[Point, float]:
    """Return a point x - a g with f(x) - f >= 0.4 a ||g||^2, and a = step / 2^j.

    Every a <= 1/L passes, so a >= min(step, 1/(2L)) and the decrease is at least
    0.2 ||g||^2 / L once step >= 1/(2L).
    """
    start = run.point
    for _ in range(_HALVINGS):
        trial = run.evaluator.point(start.x - step * start.grad)
        if run.decrease(trial) >= _GRADIENT_SHARE * step * start.grad_norm * start.grad_norm:
            return trial, step
        step *= 0.5
    raise run.no_decrease("gradient")


def curvature_step(
    run: Run, direction: Vector, curvature: float, scale: float
) -> tuple[Point, float]:
    """Return a point x + a v with f(x) - f >= c a^2 / 6, and the scale a / c.

    v is ``direction`` or its opposite, v'g <= 0, v'Hv = -c, c = ``curvature``. From
    f(x + a v) <= f(x) - c a^2 / 2 + K a^3 / 6 every a <= 2c/K passes; at a = 2c/K the test is the
    guarantee 2 c^3 / (3 K^2) of Hessian descent. The search starts at a = scale c and halves; if
    the first length passes it doubles while f falls on. So a > c/K, or a = scale c, at the end, and
    2/scale is the estimate of K on line.
    """
    if dot(direction, run.point.grad) > 0.0:
        direction = -direction
    length = scale * curvature
    for halvings in range(_HALVINGS):
        trial = _curvature_trial(run, direction, curvature, length)
        if trial is not None:
            if halvings == 0:
                trial, length = _lengthened(run, direction, curvature, trial, length)
            return trial, length / curvature
        length *= 0.5
    raise run.no_decrease("direction of negative curvature")


def _curvature_trial(run: Run, direction: Vector, curvature: float, length: float) -> Point | None:
    trial = run.evaluator.point(run.point.x + length * direction)
    return trial if run.decrease(trial) >= curvature * length * length / 6.0 else None


def _lengthened(
    run: Run, direction: Vector, curvature: float, best: Point, length: float
) -> tuple[Point, float]:
    for _ in range(_DOUBLINGS):
        trial = _curvature_trial(run, direction, curvature, 2.0 * length)
        if trial is None or trial.fun >= best.fun:
            break
        best, length = trial, 2.0 * length
    return best, length


class NewtonStep(NamedTuple):
    """Where a Newton step led; ``damped``: the damping outweighed the curvature along it."""

    point: Point
    shortened: bool
    damped: bool


def newton_step(run: Run, direction: Vector, eps: float) -> NewtonStep:
    """Return a point x + a d, a = 2^-j, that passes the cubic or the linear test, or beyond.

    d is from capped CG with damping 2 eps. The cubic test f(x) - f >= (0.1/6) a^3 ||d||^3 gives the
    complexity of Royer, O'Neill and Wright. It has a scale, that of K; the linear one,
    f(x) - f >= 1e-4 a |g'd|, has none. As |g'd| >= eps ||d||^2 for a capped-CG step, either of them
    yields order eps^3 for steps of length eps, which is all that the complexity asks.

    Where the damping outweighs the curvature d'Hd > 0, the minimiser along d of the quadratic
    model, at a = 1 + 2 eps ||d||^2 / d'Hd, is beyond 2: then a doubles while both f and ||g|| fall.
    Both are then below those of the unit step, so that nothing of the analysis is lost.
    """
    start = run.point
    slope = abs(dot(start.grad, direction))
    length = norm(direction)
    cube = length * length * length
    # g'd = -(d'Hd + 2 eps ||d||^2) by the Galerkin property of conjugate gradients.
    damped = slope < 4.0 * eps * length * length
    fraction = 1.0
    for halvings in range(_HALVINGS):
        trial = run.evaluator.point(start.x + fraction * direction)
        cubic = _CUBIC_SHARE / 6.0 * fraction**3 * cube
        if run.decrease(trial) >= min(cubic, _LINEAR_SHARE * fraction * slope):
            if damped and halvings == 0:
                trial = _prolonged(run, direction, trial)
            return NewtonStep(trial, halvings > 0, damped)
        fraction *= 0.5
    raise run.no_decrease("Newton direction")


def _prolonged(run: Run, direction: Vector, best: Point) -> Point:
    start, fraction = run.point.x, 1.0
    for _ in range(_DOUBLINGS):
        fraction *= 2.0
        trial = run.evaluator.point(start + fraction * direction)
        if not (trial.fun < best.fun and trial.grad_norm <= best.grad_norm):
            break
        best = trial
    return best
