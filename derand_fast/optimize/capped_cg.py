"""Capped conjugate gradients: a damped Newton step, or a direction of negative curvature.

For symmetric H, g != 0 and damping eps, conjugate gradients run on (H + 2 eps I) y = -g. If all
curvature they meet is at least eps (that of the damped matrix), they converge like those of a
matrix with condition number kappa = (M + 2 eps)/eps, M >= ||H|| on the vectors seen; whatever
contradicts that convicts a direction d with d'Hd < -eps ||d||^2:

- an iterate y_j or a search direction p_j with curvature below eps;
- residuals that fall slower than sqrt(T) tau^(j/2), tau = sqrt(kappa)/(sqrt(kappa) + 1),
  T = 4 kappa^4/(1 - sqrt(tau))^2: then a difference y_(j+1) - y_i is such a direction.

This is Algorithm 1 of Royer, O'Neill and Wright (2020). Two things differ. The stop: they ask for
||r|| <= zeta ||g|| / (3 kappa), only to conclude ||r|| <= zeta eps ||y|| / 2; here the conclusion
itself is tested, which holds earlier, and ``forcing`` > 0 also accepts ||r|| <= forcing ||g||. A
unit step from the latter either has ||d|| of order eps at least, as the analysis needs, or cuts
||g|| to 2 forcing ||g|| + O(rho): a logarithmic factor in the complexity for far fewer products.
And the iterates y_i are not stored but computed again in the rare third case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from derand_fast.optimize.vectors import Vector, dot, norm

__all__ = ["CGStep", "capped_cg"]

Product = Callable[[Vector], Vector]


class CGStep(NamedTuple):
    """A direction: a damped Newton step, or one with d'Hd = curvature ||d||^2 < -eps ||d||^2.

    ``curvature`` is nan for a Newton step. ``norm_bound`` is the largest ||Hu||/||u|| seen.
    """

    direction: Vector
    curvature: float
    norm_bound: float
    iterations: int


class _ConjugateGradients:
    """Iterate y, residual r = g + (H + 2 eps I) y and search direction p, with images under H."""

    def __init__(self, product: Product, gradient: Vector, eps: float) -> None:
        self._product, self._eps = product, eps
        self.y = self.Hy = np.zeros_like(gradient)
        self.r, self.p = gradient, -gradient
        self.Hp = self.Hr = self.Hy
        self._beta = 0.0

    def multiply(self) -> None:
        """Spend one product on H p; as p = beta p_before - r, H r comes without one."""
        before = self.Hp
        self.Hp = self._product(self.p)
        self.Hr = self._beta * before - self.Hp

    def advance(self) -> None:
        """Go to the next iterate."""
        square = dot(self.r, self.r)
        damping = 2.0 * self._eps
        alpha = square / (dot(self.p, self.Hp) + damping * dot(self.p, self.p))
        self.y = self.y + alpha * self.p
        self.Hy = self.Hy + alpha * self.Hp
        self.r = self.r + alpha * (self.Hp + damping * self.p)
        self._beta = dot(self.r, self.r) / square
        self.p = self._beta * self.p - self.r


class _Cap:
    """Bound M on ||H|| as seen so far, and what follows from it."""

    def __init__(self, norm_bound: float, eps: float, zeta: float) -> None:
        self.M = norm_bound
        self._eps, self._zeta = eps, zeta
        self._update()

    def see(self, image: Vector, vector: Vector) -> None:
        """Raise M to ||Hu||/||u|| if that is larger."""
        length = norm(vector)
        if length > 0.0 and norm(image) > self.M * length:
            self.M = norm(image) / length
            self._update()

    def _update(self) -> None:
        kappa = (self.M + 2.0 * self._eps) / self._eps
        root = math.sqrt(kappa)
        self.zeta_hat = self._zeta / (3.0 * kappa)
        # tau rounds to 1 for kappa beyond 1e32; the bound then never bites, as it must.
        self._log_tau = -math.log1p(1.0 / root)
        one_minus_root_tau = -math.expm1(0.5 * self._log_tau)
        self._log_T = math.log(4.0) + 4.0 * math.log(kappa) - 2.0 * math.log(one_minus_root_tau)

    def log_allowed(self, iteration: int) -> float:
        """Log of sqrt(T) tau^(j/2), the largest ||r_j|| / ||r_0|| of a well-behaved run."""
        return 0.5 * (self._log_T + iteration * self._log_tau)


def capped_cg(
    product: Product,
    gradient: Vector,
    eps: float,
    *,
    zeta: float = 0.5,
    forcing: float = 0.0,
    norm_bound: float = 0.0,
) -> CGStep:
    """Solve (H + 2 eps I) d = -g roughly, or find negative curvature.

    Parameters
    ----------
    product : callable
        v -> H v.
    gradient : (n,) array
        g, not 0.
    eps : float
        Damping and curvature level, positive.
    zeta : float
        Accuracy: a Newton step has ||(H + 2 eps I) d + g|| <= zeta eps ||d|| / 2.
    forcing : float
        Also accept a residual of at most forcing ||g||; 0 is the method as published.
    norm_bound : float
        A lower bound of ||H|| known from before.

    Returns
    -------
    CGStep

    Notes
    -----
    One product per iteration, a dozen vectors of memory. A Newton step satisfies
    d'(H + 2 eps I) d >= eps ||d||^2 and g'd = -d'(H + 2 eps I) d up to rounding.

    References
    ----------
    .. [1] C. W. Royer, M. O'Neill, S. J. Wright, "A Newton-CG algorithm with complexity guarantees
       for smooth unconstrained optimization", Math. Program. 180 (2020), 451-488.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.optimize.capped_cg import capped_cg
    >>> H = np.diag([1.0, 2.0, -3.0])
    >>> step = capped_cg(lambda v: H @ v, np.array([1.0, 1.0, 1.0]), 0.1)
    >>> bool(step.direction @ H @ step.direction < -0.1 * step.direction @ step.direction)
    True
    """
    cap = _Cap(norm_bound, eps, zeta)
    size = norm(gradient)
    cg = _ConjugateGradients(product, gradient, eps)
    # Rounding can keep the residual from ever passing; exact arithmetic ends after n iterations.
    most = 4 * gradient.size + 50
    for j in range(1, most + 1):
        cg.multiply()
        cap.see(cg.Hp, cg.p)
        cap.see(cg.Hr, cg.r)
        if (curvature := _curvature(cg.p, cg.Hp)) < -eps:
            return CGStep(cg.p, curvature, cap.M, j)
        slow = math.log(norm(cg.r) / size) > cap.log_allowed(j - 1)
        cg.advance()
        if slow:
            return _slow_direction(product, gradient, eps, j, cap.M)
        cap.see(cg.Hy, cg.y)
        if (curvature := _curvature(cg.y, cg.Hy)) < -eps:
            return CGStep(cg.y, curvature, cap.M, j)
        accuracy = max(cap.zeta_hat * size, forcing * size, 0.5 * zeta * eps * norm(cg.y))
        if norm(cg.r) <= accuracy:
            break
    return CGStep(cg.y, math.nan, cap.M, j)


def _curvature(vector: Vector, image: Vector) -> float:
    square = dot(vector, vector)
    return dot(vector, image) / square if square > 0.0 else 0.0


def _slow_direction(
    product: Product, gradient: Vector, eps: float, iterations: int, norm_bound: float
) -> CGStep:
    """Find the difference of two iterates that explains slow convergence.

    The iterates come again, bit by bit, from a second and a third run: they were not stored.
    """
    last = _ConjugateGradients(product, gradient, eps)
    for _ in range(iterations):
        last.multiply()
        last.advance()
    earlier = _ConjugateGradients(product, gradient, eps)
    for _ in range(iterations - 1):
        difference = last.y - earlier.y
        image = last.Hy - earlier.Hy
        if (curvature := _curvature(difference, image)) < -eps:
            return CGStep(difference, curvature, norm_bound, iterations)
        earlier.multiply()
        earlier.advance()
    # Only rounding gets here: no direction explains it.
    return CGStep(last.y, math.nan, norm_bound, iterations)
