"""Teachers: targets that depend on a few directions of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import is_jitted
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, whole_number

__all__ = ["LINKS", "Teacher"]

FloatArray = NDArray[np.float64]


def _smooth_relu(u: FloatArray) -> FloatArray:
    return np.asarray(np.logaddexp(0.0, 2.0 * u[:, 0]) / 2.0)


#: Links by name: of all indices at once, (N, k) -> (N,).
LINKS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "tanh": lambda u: np.tanh(u[:, 0]),
    "smooth_relu": _smooth_relu,
    "linear": lambda u: u[:, 0],
    "quadratic": lambda u: u[:, 0] ** 2 - 1.0,
    "cubic": lambda u: u[:, 0] ** 3 - 3.0 * u[:, 0],
    "sum_of_tanh": lambda u: np.tanh(u).sum(axis=1),
    "product": lambda u: np.prod(u, axis=1),
}
_SINGLE = ("tanh", "smooth_relu", "linear", "quadratic", "cubic")


class Teacher:
    """y = link(U x) + noise: a target that depends on the k rows of U only.

    Parameters
    ----------
    link : str or function
        "tanh", "smooth_relu" (iota = 2), "linear", "quadratic" (u^2 - 1), "cubic" (u^3 - 3 u), of
        one index; "sum_of_tanh", "product", of any number. Or a function of one vector of the k
        indices that returns a number; ``@numba.njit`` makes it fast.
    U : (k, d) array, optional
        Directions, linearly independent; they need be neither orthogonal nor of unit length. A
        vector is one direction. By default random orthonormal rows.
    d : int, optional
        Dimension of the input; needed without U.
    n_indices : int
        k without U: 1 to d.
    noise : float
        Standard deviation of Gaussian noise on y, independent of x.
    seed : int
        Of the random directions.

    Attributes
    ----------
    U : (k, d) array
        As given.
    basis : (k, d) array
        Orthonormal rows with the span of U.
    d, n_indices, noise, name
        As above.

    Raises
    ------
    TypeError, ValueError
        If the link is not known, U is not of full rank or not finite, or a number breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.teachers import Teacher
    >>> teacher = Teacher("tanh", [[2.0, 0.0]])
    >>> teacher.basis.tolist(), teacher.predict([[0.5, 9.0]]).round(4).tolist()
    ([[1.0, 0.0]], [0.7616])
    """

    def __init__(
        self,
        link: str | Callable[[FloatArray], float] = "tanh",
        U: ArrayLike | None = None,
        *,
        d: int | None = None,
        n_indices: int = 1,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        if isinstance(link, str):
            if link not in LINKS:
                raise ValueError(f"link must be one of {', '.join(LINKS)}; got {link!r}")
        elif not callable(link):
            raise TypeError(f"link must be a name or a function, not {link!r}")
        self.link = link
        self.noise = finite_number("noise", noise, 0.0)
        self.U = _directions(U, d, n_indices, seed)
        self.n_indices, self.d = self.U.shape
        if isinstance(link, str) and link in _SINGLE and self.n_indices > 1:
            raise ValueError(f"link={link!r} takes one index, got {self.n_indices}")
        # U = mixing @ basis with a triangle of positive diagonal: one index keeps its sign.
        q, r = np.linalg.qr(self.U.T)
        signs = np.where(np.diag(r) < 0.0, -1.0, 1.0)
        self.basis: FloatArray = np.ascontiguousarray((q * signs).T) + 0.0
        self._mixing = (r * signs[:, None]).T

    @property
    def name(self) -> str:
        """Name of the link."""
        return self.link if isinstance(self.link, str) else _name_of(self.link)

    def __repr__(self) -> str:
        noise = f", noise={self.noise:g}" if self.noise else ""
        return f"Teacher({self.name!r}, d={self.d}, n_indices={self.n_indices}{noise})"

    def inside(self, coordinates: ArrayLike) -> FloatArray:
        """Return the target without noise (N,) at points of the subspace, (N, k) in `basis`.

        Raises
        ------
        ValueError
            If the link is not finite somewhere; names the place.
        """
        points = np.ascontiguousarray(coordinates, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.n_indices:
            raise ValueError(
                f"coordinates must have shape (N, {self.n_indices}), got {points.shape}"
            )
        indices = np.ascontiguousarray(points @ self._mixing.T)
        if isinstance(self.link, str):
            targets = LINKS[self.link](indices)
        else:
            targets = np.empty(len(indices))
            (_evaluate_jitted if is_jitted(self.link) else _evaluate)(self.link, indices, targets)
        if not np.isfinite(targets).all():
            place = int(np.argmin(np.isfinite(targets)))
            raise ValueError(
                f"link {self.name} is {targets[place]} at indices {indices[place].tolist()}; "
                "it must be finite everywhere"
            )
        return np.asarray(targets, dtype=np.float64)

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the target without noise (N,) at the rows of X (N, d)."""
        points = np.asarray(X, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.d:
            raise ValueError(f"X must have shape (N, {self.d}), got {points.shape}")
        return self.inside(points @ self.basis.T)


def _name_of(link: Any) -> str:
    return getattr(link, "__name__", type(link).__name__)


def _directions(U: ArrayLike | None, d: int | None, n_indices: int, seed: int) -> FloatArray:
    if U is None:
        if d is None:
            raise ValueError("give U, or the dimension d for random directions")
        d = whole_number("d", d, 1)
        k = whole_number("n_indices", n_indices, 1)
        if k > d:
            raise ValueError(f"n_indices must be at most d = {d}, got {k}")
        random = np.random.default_rng(whole_number("seed", seed, 0))
        return np.ascontiguousarray(np.linalg.qr(random.standard_normal((d, k)))[0].T)
    array = np.asarray(U)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"U must hold real numbers, not {array.dtype}")
    rows = np.atleast_2d(np.array(array, dtype=np.float64))
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"U must have shape (k, d), k and d at least 1; got {rows.shape}")
    if d is not None and d != rows.shape[1]:
        raise ValueError(f"U has {rows.shape[1]} columns, but d is {d}")
    if not np.isfinite(rows).all():
        raise ValueError("U must be finite")
    sizes = np.linalg.svd(rows, compute_uv=False)
    k, d = rows.shape
    if k > d or sizes[-1] <= max(k, d) * np.finfo(np.float64).eps * sizes[0]:
        raise ValueError(
            f"U must have full rank {k}; its singular values are {sizes.tolist()}, d = {d}"
        )
    return rows


def _evaluate(link: Callable[[FloatArray], float], indices: FloatArray, out: FloatArray) -> None:
    for row in range(len(out)):
        out[row] = link(indices[row])


# Compiled anew for each link: a function argument cannot be cached on disk.
_evaluate_jitted = numba.njit(nogil=True)(_evaluate)
