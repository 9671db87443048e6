"""The exact population risk of a two-layer network under squared loss, without nodes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.kernels.activations import ACTIVATIONS
from derand_fast.kernels.vectors import LANES
from derand_fast.objectives.hermite import MOST_DIRECTIONS, Target
from derand_fast.objectives.mehler_forms import (
    Form,
    Moments,
    Pairs,
    Point,
    Prepared,
    Problem,
    Units,
    by_group,
)
from derand_fast.objectives.protocol import Block, Blocks
from derand_fast.threads import thread_count

__all__ = ["MehlerRisk"]

FloatArray = NDArray[np.float64]

_PARTS = ("W1", "b1", "W2", "b2")
_LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256)
_MOST_TERMS = _LADDER[-1]
# Activations whose series end, with the number of their terms.
_POLYNOMIAL_TERMS = {"quadratic": 3, "linear": 3}
_LEAST_TERMS = 3
# Half as many nodes as the rule for the series of one unit may have.
_NODES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024)
# Two rules for the series of the steepest units must agree to this share of the units' size.
_NODE_TOLERANCE = 1e-13
_ORTHONORMAL = 1e-10
_EPS = float(np.finfo(np.float64).eps)
_MOST_MOMENT_INPUTS = 3


class MehlerRisk:
    """f = E[(sum_j a_j act(w_j . x + b_j) + c - y)^2] over x ~ N(0, I_d), exactly, for any d.

    The target is y = link(U x) + noise. With h_n the orthonormal Hermite polynomials,
    C_jn = E[act(|w_j| t + b_j) h_n(t)] and r_jk the cosine of w_j and w_k, Mehler's formula gives

        E[act(z_j) act(z_k)] = sum_n C_jn C_kn r_jk^n,    n = 0, ..., terms - 1,

    and likewise for the target. No nodes in d dimensions, no directions of vanishing w_j: all
    formulas are smooth at W = 0. The flat vector is p = (W row by row, b, a, c), of length
    h d + 2 h + 1. What is minimised is the truncated series: gradient, Hessian products and
    `bias_hessian` are its exact derivatives, up to rounding. There is no regulariser.

    Parameters
    ----------
    d, h : int
        Inputs and units, at least 1.
    activation : str
        "smooth_relu", its "_squared" or "_cubed", "tanh", "erf", "quadratic" or "linear".
    U : (k, d) array
        The teacher's directions: k = 1, 2 or 3 orthonormal rows.
    link : function
        ``link(points)`` is the target without noise at points (N, k) = U x, an (N,) array. Smooth;
        it is read at construction only.
    noise_variance : float, optional
        Variance of the noise, which is added to f. Not negative.
    iota : float, optional
        Sharpness of the smooth ReLU log(1 + exp(iota x)) / iota, positive; others ignore it.
    terms : "auto" or int, optional
        Terms of the series, 3 to 256. "auto" takes the least of 16, 24, 32, 48, 64, 96, 128, 192
        and 256 by which `error_bound` is at most ``tol`` at the first point that is evaluated, and
        256 where none is. Then it stays, so that f is one fixed function, until `refine` is called.
    tol : float, optional
        What "auto" aims at: an absolute error of f.
    active : sequence of 4 bools, optional
        Which of W, b, a and c are variables. Derivatives in the others are returned as 0, and the
        others' entries of a direction do not count.
    n_threads : int, optional
        Threads at most, by default all usable cores; short passes use one. The bits of the results
        do not depend on it.

    Attributes
    ----------
    n_params : int
        h d + 2 h + 1.
    blocks : mapping
        "W" (h, d), "b" (h,), "theta" (h + 1,) = (a, c).
    terms, n_nodes : int or None
        Terms of the series, and nodes of the rule for C; None before the first point.
    form : str or None
        "moments" (d <= 3, many units): f is a sum of squares over the moments of degree below
        ``terms``, no cancellation. "pairs": sums over pairs of units.
    d, h, activation, iota, tol, noise_variance, active, n_threads
        As given.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or outside these ranges, for rows of U that are not
        orthonormal, and where the link is not finite. The methods raise them for points and
        directions that are not finite real vectors of length n_params.

    Notes
    -----
    With N terms, `value_and_grad` takes 4 h^2 N + 4 h^2 d operations ("pairs"; `value` half) or
    about 5 h N^d / d! ("moments"), and 4 h N n_nodes for the series. The first Hessian product at a
    point prepares the others: "pairs" then keeps 8 (13 if a is active) h^2 numbers until a product
    at another point, and a product costs h^2 (4 d + 20) operations; "moments" as much as a
    gradient. A teacher of k directions costs h N^k / k! more, less where its own series is short.

    Derivatives of the n-th term lose a degree: so grad_W f = H_bb W, across the teacher's
    directions, holds up to the error of truncation, however small W is there.

    Steep units (iota |w_j| large) need more terms and nodes: C_jn falls like
    exp(-pi sqrt(n) / (iota |w_j|)). At iota |w_j| = 10 and 20, 256 terms leave 1e-7 and 4e-5. A
    teacher of 1, 2 or 3 directions is expanded to degree 255, 127 or 63. What is missing of either
    is part of `error_bound`. Products and `refine` run one at a time; other methods may be called
    from several threads.

    References
    ----------
    .. [1] F. G. Mehler, "Ueber die Entwicklung einer Function von beliebig vielen Variablen nach
       Laplaceschen Functionen hoeherer Ordnung", J. reine angew. Math. 66 (1866).
    .. [2] L. N. Trefethen, J. A. C. Weideman, "The exponentially convergent trapezoidal rule",
       SIAM Review 56 (2014).

    Examples
    --------
    A single unit x_1^2 + c against y = x_1: E (x^2 + c - x)^2 = 3 + 1 + c^2 + 2 c.

    >>> import numpy as np
    >>> from derand_fast.objectives.mehler_risk import MehlerRisk
    >>> f = MehlerRisk(2, 1, "quadratic", U=[[1.0, 0.0]], link=lambda points: points[:, 0])
    >>> p = np.array([1.0, 0.0, 0.0, 1.0, 0.5])  # W, b, a, c
    >>> value, gradient = f.value_and_grad(p)
    >>> round(value, 12), round(float(gradient[4]), 12), f.terms, f.error_bound(p) < 1e-12
    (5.25, 3.0, 3, True)
    """

    def __init__(
        self,
        d: int,
        h: int,
        activation: str,
        *,
        U: ArrayLike,
        link: Callable[[FloatArray], ArrayLike],
        noise_variance: float = 0.0,
        iota: float = 1.0,
        terms: int | str = "auto",
        tol: float = 1e-10,
        active: Sequence[bool] | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.d, self.h = whole_number("d", d, 1), whole_number("h", h, 1)
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}; got {activation!r}")
        self.activation = activation
        self.iota = finite_number("iota", iota, 0.0)
        if self.iota == 0.0:
            raise ValueError("iota must be positive, got 0.0")
        self.noise_variance = finite_number("noise_variance", noise_variance, 0.0)
        self.tol = finite_number("tol", tol, 0.0)
        self.active = _active(active)
        self.n_threads = thread_count(n_threads)
        self._ladder = _ladder(terms, activation)
        basis = _orthonormal_rows(U, self.d)
        if not callable(link):
            raise TypeError(f"link must be a function, not {link!r}")
        self._problem = Problem(
            *(self.d, self.h, ACTIVATIONS[activation], self.iota, basis),
            *(Target.of(link, len(basis)), self.noise_variance, self.n_threads),
        )
        ends = np.cumsum([0, self.h * self.d, self.h, self.h, 1]).tolist()
        self.n_params: int = ends[-1]
        self._slices = tuple(slice(*pair) for pair in pairwise(ends))
        self.blocks: Mapping[str, Block] = Blocks(
            {
                "W": Block(self._slices[0], (self.h, self.d)),
                "b": Block(self._slices[1], (self.h,)),
                "theta": Block(slice(ends[2], ends[4]), (self.h + 1,)),
            }
        )
        self._form: Form | None = None
        self._lock = threading.RLock()
        self._latest: Prepared | None = None

    def __repr__(self) -> str:
        """Sizes, and what was picked."""
        return (
            f"MehlerRisk(d={self.d}, h={self.h}, {self.activation!r}, iota={self.iota!r}, "
            f"k={len(self._problem.basis)}, terms={self.terms}, form={self.form!r})"
        )

    @property
    def terms(self) -> int | None:
        """Terms of the series; None before the first point."""
        return None if self._form is None else self._form.terms

    @property
    def n_nodes(self) -> int | None:
        """Nodes of the rule for the series of one unit; None before the first point."""
        return None if self._form is None else 2 * self._form.nodes

    @property
    def form(self) -> str | None:
        """'moments' or 'pairs'; None before the first point."""
        return None if self._form is None else self._form.name

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, p: ArrayLike) -> float:
        """f(p), the same bits as from `value_and_grad`."""
        point = self._point("p", p)
        form = self._form_at(point)
        return form.value(form.units(point, 2))

    def value_and_grad(self, p: ArrayLike) -> tuple[float, FloatArray]:
        """f(p) and its gradient, (n_params,)."""
        point = self._point("p", p)
        form = self._form_at(point)
        units = form.units(point, 2)
        value, sums = form.value_and_sums(units)
        scaled = form.degree_sums(units, sums.values, 3)
        gradient = np.empty(self.n_params)
        W, b, a, c = self._problem.split(gradient)
        slopes = form.slopes(units, scaled[2], sums)
        np.multiply(2.0 * point.a[:, None], slopes, out=W)
        np.multiply(2.0 * point.a, scaled[1], out=b)
        np.multiply(2.0, scaled[0], out=a)
        mean = float((units.amplitudes * units.series[:, 0, 0]).sum())
        c[0] = 2.0 * (mean + point.c - self._problem.target.mean)
        return value, self._masked(gradient)

    def hvp(self, p: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at p times v, (n_params,); the first product at a point prepares others."""
        point, change = self._point("p", p), self._point("v", v)
        self._masked(change.flat)
        change = change._replace(c=float(change.flat[-1]))
        with self._lock:
            form = self._form_at(point)
            if self._latest is None or not np.array_equal(
                self._latest.units.point.flat, point.flat
            ):
                # Not to be found half made, should preparation fail.
                self._latest = None
                self._latest = form.prepare(point, with_outputs=self.active[2])
            return self._masked(form.product(self._latest, change))

    def bias_hessian(self, p: ArrayLike) -> FloatArray:
        """H_bb, the Hessian in b alone, whatever is active: (h, h), dense, exactly symmetric.

        O(h^2 terms) operations.
        """
        point = self._point("p", p)
        form = self._form_at(point)
        units = form.units(point, 2)
        _, sums = form.value_and_sums(units)
        return form.bias_hessian(units, form.degree_sums(units, sums.values, 3)[2])

    # -- truncation --------------------------------------------------------------------------------

    def error_bound(self, p: ArrayLike) -> float:
        """Bound of the absolute error of f(p).

        With t_j^2 = E[act(z_j)^2] minus the sum of C_jn^2 over the terms that are kept, the dropped
        terms are, by Cauchy and Schwarz, at most

            sum_jk |a_j a_k| t_j t_k |r_jk|^N + 2 sum_j |a_j| t_j t_y |U u_j|^N,

        t_y^2 being the same tail of the target (which may be cut earlier, where t_j is larger). The
        t_j come from t_j^2 <= |w_j|^4 / (N (N - 1)) times the tail of act'' from N - 2 on. To this
        are added what follows from errors e_j of the coefficients of a unit, 2 sqrt(f) sum |a_j|
        e_j + (sum |a_j| e_j)^2, and the same for the target.

        Returns
        -------
        float

        Notes
        -----
        The truncation part is rigorous up to rounding. The e_j are the difference of two
        trapezoidal rules whose nodes interlace, which is the error but for its square; no rule sees
        what a link does between its nodes. Rounding of the sums is not included.
        """
        point = self._point("p", p)
        return self._bound(self._form_at(point), point)

    def refine(self, p: ArrayLike) -> float:
        """Take as many terms and nodes as p needs, never fewer than before.

        Parameters
        ----------
        p : (n_params,) array-like
            The point to be served.

        Returns
        -------
        float
            `error_bound` at p afterwards: at most ``tol`` unless ``terms`` was given as a number or
            256 are not enough.
        """
        point = self._point("p", p)
        with self._lock:
            return self._refine(point)

    def _refine(self, point: Point) -> float:
        before = form = self._form
        least = (0, 0) if before is None else (before.terms, before.nodes)
        bound = math.inf
        for terms in self._ladder:
            if terms < least[0]:
                continue
            nodes = self._enough_nodes(point, terms, least[1])
            if form is None or (form.terms, form.nodes) != (terms, nodes):
                form = self._make_form(terms, nodes)
            bound = self._bound(form, point)
            if bound <= self.tol:
                break
        if form is not before:
            # At once: other threads must not see what is on trial.
            self._form, self._latest = form, None
        return bound

    def _enough_nodes(self, point: Point, terms: int, least: int) -> int:
        """Half the nodes by which two rules agree on the steepest units."""
        scale = np.sqrt(np.square(point.W).sum(axis=1))
        steepest = np.argsort(scale, kind="stable")[-LANES:]
        units = by_group(scale[steepest]), by_group(point.b[steepest])
        for nodes in _NODES:
            if nodes < least:
                continue
            form = Form(self._problem, terms, nodes, self._problem.basis, 0)
            series, energies = form.series(*units, 3, shifted=False)
            other, _ = form.series(*units, 3, shifted=True)
            difference = np.square(series[:, 3] - other[:, 3]).sum(axis=1)
            if (difference <= _NODE_TOLERANCE**2 * energies).all():
                break
        return nodes

    def _bound(self, form: Form, point: Point) -> float:
        h, size, target = self.h, np.abs(point.a), self._problem.target
        units = form.units(point, 2)
        series = units.series[:, 0, : form.terms]
        other, energies = form.series(units.scales, units.biases, 2, shifted=True)
        errors = np.square(series - other[:, 0, : form.terms]).sum(axis=1).reshape(-1)[:h]
        wrong = float((size * np.sqrt(errors)).sum()) + target.error
        tails = self._tails(form.terms, units, energies)
        dropped = form.pair_tail(units, size * np.sqrt(tails))
        inside = np.einsum("jc,ic->ji", units.rows, self._problem.basis)
        reach = np.sqrt(np.square(inside).sum(axis=1))
        for degree, lost in target.losses(form.terms):
            seen = np.square(series[:, degree + 1 :]).sum(axis=1).reshape(-1)[:h] + tails
            dropped += 2.0 * lost * float((size * np.sqrt(seen) * reach ** (degree + 1)).sum())
        value = max(form.value(units), 0.0) + dropped
        return dropped + 2.0 * math.sqrt(value) * wrong + wrong * wrong

    def _tails(self, terms: int, units: Units, energies: FloatArray) -> FloatArray:
        """Bounds of t_j^2, (h,), from energies by two rules."""
        if self.activation in _POLYNOMIAL_TERMS:
            return np.zeros(self.h)
        kept = np.square(units.series[:, 2, : terms - 2]).sum(axis=1)
        tails = np.maximum(units.energies - kept, 0.0) + np.abs(units.energies - energies)
        # Eight roundings: both are sums of positive terms of relative error near eps.
        tails += 8.0 * _EPS * units.energies
        return (tails * units.scales**4 / (terms * (terms - 1.0))).reshape(-1)[: self.h]

    # -- pieces ------------------------------------------------------------------------------------

    def _point(self, name: str, vector: ArrayLike) -> Point:
        flat = flat_vector(name, vector, self.n_params)
        W, b, a, c = self._problem.split(flat)
        return Point(flat, W, b, a, float(c[0]))

    def _masked(self, flat: FloatArray) -> FloatArray:
        for part, active in zip(self._slices, self.active, strict=True):
            if not active:
                flat[part] = 0.0
        return flat

    def _form_at(self, point: Point) -> Form:
        form = self._form
        if form is not None:
            return form
        with self._lock:
            if self._form is None:
                self._refine(point)
            assert self._form is not None
            return self._form

    def _make_form(self, terms: int, nodes: int) -> Form:
        exponents = math.comb(terms - 1 + self.d, self.d) if self.d <= _MOST_MOMENT_INPUTS else 0
        # For each unit both forms cost about the same where these are equal.
        by_moments = 0 < exponents <= self.h * terms // 2
        return (Moments if by_moments else Pairs)(self._problem, terms, nodes)


# ------------------------------------------------------------------------------------------------
# Arguments
# ------------------------------------------------------------------------------------------------


def _ladder(terms: int | str, activation: str) -> tuple[int, ...]:
    if isinstance(terms, str):
        if terms != "auto":
            raise ValueError(f"terms must be 'auto' or an integer, got {terms!r}")
        exact = _POLYNOMIAL_TERMS.get(activation)
        return _LADDER if exact is None else (exact,)
    terms = whole_number("terms", terms, _LEAST_TERMS)
    if terms > _MOST_TERMS:
        raise ValueError(f"terms must be at most {_MOST_TERMS}, got {terms}")
    return (terms,)


def _active(active: Sequence[bool] | None) -> tuple[bool, bool, bool, bool]:
    if active is None:
        return (True, True, True, True)
    flags = tuple(active)
    if len(flags) != len(_PARTS):
        raise ValueError(f"active must hold one bool for each of {', '.join(_PARTS)}; got {active}")
    for flag in flags:
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"active must hold bools, not {flag!r}")
    W, b, a, c = map(bool, flags)
    return W, b, a, c


def _orthonormal_rows(U: ArrayLike, d: int) -> FloatArray:
    array = np.asarray(U)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"U must hold real numbers, not {array.dtype}")
    rows = np.array(array, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != d or not 1 <= len(rows) <= min(d, MOST_DIRECTIONS):
        raise ValueError(
            f"U must have shape (k, {d}) with k at least 1 and at most "
            f"{min(d, MOST_DIRECTIONS)}; got {rows.shape}"
        )
    error = np.abs(rows @ rows.T - np.eye(len(rows))).max()
    if not error <= _ORTHONORMAL:
        raise ValueError(f"the rows of U must be orthonormal; U U^T is off by {error:.3g}")
    return rows
