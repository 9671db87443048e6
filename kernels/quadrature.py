"""Quadrature rules: nodes and weights as read-only float64 arrays, computed once per size.

They run at import or once per problem, so they are plain Python; the kernels take the arrays.
"""

import functools

import numpy as np
import numpy.typing as npt
from scipy.special import roots_hermitenorm, roots_legendre

FloatArray = npt.NDArray[np.float64]


def _frozen(nodes: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two contiguous arrays nobody can change: the cache hands the same ones to every caller."""
    nodes, weights = np.ascontiguousarray(nodes), np.ascontiguousarray(weights)
    nodes.flags.writeable = False
    weights.flags.writeable = False
    return nodes, weights


@functools.cache
def gauss_hermite(count: int) -> tuple[FloatArray, FloatArray]:
    """Rule for the standard normal: E[g(x)] ~ sum_q weights[q] g(nodes[q]), x ~ N(0, 1).

    Exact for polynomials of degree up to ``2 count - 1``. The weights sum to 1 (probabilists'
    convention); the nodes are symmetric about 0 and ascending.

    Parameters
    ----------
    count : int
        Number of nodes, at least 1.

    Returns
    -------
    nodes, weights : ndarray of float64, shape (count,)
        Read-only.

    Raises
    ------
    ValueError
        If ``count`` is below 1.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import gauss_hermite
    >>> nodes, weights = gauss_hermite(5)
    >>> round(float(weights @ nodes**4), 12)
    3.0
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    nodes, weights = roots_hermitenorm(count)
    return _frozen(nodes, weights / weights.sum())


@functools.cache
def gauss_legendre(count: int) -> tuple[FloatArray, FloatArray]:
    """Rule for the unit interval: integral of g over [0, 1] ~ sum_q weights[q] g(nodes[q]).

    Exact for polynomials of degree up to ``2 count - 1``. The weights sum to 1.

    Parameters
    ----------
    count : int
        Number of nodes, at least 1.

    Returns
    -------
    nodes, weights : ndarray of float64, shape (count,)
        Read-only, nodes ascending inside (0, 1).

    Raises
    ------
    ValueError
        If ``count`` is below 1.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import gauss_legendre
    >>> nodes, weights = gauss_legendre(3)
    >>> round(float(weights @ nodes**5), 12)
    0.166666666667
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    nodes, weights = roots_legendre(count)
    return _frozen(0.5 * (1.0 + nodes), 0.5 * weights)
