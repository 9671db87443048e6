"""Feed-forward networks as plain arrays: what a student is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, whole_number
from derand_fast.kernels.activations import ACTIVATIONS, apply_activation

__all__ = ["Network", "random_network"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Network:
    """x -> W_L act(... act(W_1 x + b_1) ...) + b_L with one output.

    Parameters
    ----------
    weights : tuple of arrays
        W_1 (h_1, d), W_2 (h_2, h_1), ..., W_L (1, h_{L-1}); at least two layers.
    biases : tuple of arrays
        b_1 (h_1,), ..., b_L (1,).
    activation : str
        "smooth_relu", "smooth_relu_squared", "smooth_relu_cubed", "tanh", "erf", "quadratic" or
        "linear"; after every layer but the last.
    iota : float
        Sharpness of the smooth ReLU log(1 + exp(iota x)) / iota, positive. Others ignore it.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two layers, shapes do not fit, an entry is not finite, or the
        activation is not known.

    Examples
    --------
    >>> from derand_fast.networks import Network
    >>> net = Network(([[1.0, 0.0]], [[2.0]]), ([0.0], [1.0]), "quadratic")
    >>> net.widths, net.predict([[3.0, 5.0]]).tolist()
    ((2, 1, 1), [19.0])
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    activation: str = "smooth_relu"
    iota: float = 2.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}; got {self.activation!r}")
        iota = finite_number("iota", self.iota, 0.0)
        if iota == 0.0:
            raise ValueError("iota must be positive, got 0.0")
        object.__setattr__(self, "iota", iota)
        weights = tuple(_real_array("weights", i, w, 2) for i, w in enumerate(self.weights))
        biases = tuple(_real_array("biases", i, b, 1) for i, b in enumerate(self.biases))
        if len(weights) < 2 or len(weights) != len(biases):
            raise ValueError(
                "a network needs as many weights as biases, at least two; "
                f"got {len(weights)} and {len(biases)}"
            )
        for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
            if 0 in w.shape:
                raise ValueError(f"weights[{layer}] must not be empty, got shape {w.shape}")
            if b.shape != w.shape[:1]:
                raise ValueError(f"biases[{layer}] must have shape {w.shape[:1]}, got {b.shape}")
            if layer and w.shape[1] != weights[layer - 1].shape[0]:
                raise ValueError(
                    f"weights[{layer}] must have {weights[layer - 1].shape[0]} columns, "
                    f"got shape {w.shape}"
                )
        if weights[-1].shape[0] != 1:
            raise ValueError(f"the last layer must have one output, got {weights[-1].shape[0]}")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    @property
    def widths(self) -> tuple[int, ...]:
        """(d, h_1, ..., h_{L-1}, 1)."""
        return (self.weights[0].shape[1], *(w.shape[0] for w in self.weights))

    @property
    def depth(self) -> int:
        """Number of layers L."""
        return len(self.weights)

    def flat(self) -> FloatArray:
        """Return all parameters as one new vector (W_1 row by row, b_1, W_2, b_2, ...)."""
        parts = [p.ravel() for pair in zip(self.weights, self.biases, strict=True) for p in pair]
        return np.concatenate(parts)

    def with_parameters(self, flat: ArrayLike) -> Network:
        """Return the network of the same form whose parameters are ``flat``."""
        vector = np.asarray(flat, dtype=np.float64)
        shapes = [p.shape for pair in zip(self.weights, self.biases, strict=True) for p in pair]
        sizes = [math.prod(shape) for shape in shapes]
        if vector.shape != (sum(sizes),):
            raise ValueError(f"flat must have shape ({sum(sizes)},), got {vector.shape}")
        cuts = np.split(vector, np.cumsum(sizes)[:-1])
        parts = [part.reshape(shape) for part, shape in zip(cuts, shapes, strict=True)]
        return Network(tuple(parts[::2]), tuple(parts[1::2]), self.activation, self.iota)

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the outputs (N,) for the rows of X (N, d); O(N x number of parameters) flops."""
        hidden = np.asarray(X, dtype=np.float64)
        if hidden.ndim != 2 or hidden.shape[1] != self.widths[0]:
            raise ValueError(f"X must have shape (N, {self.widths[0]}), got {hidden.shape}")
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = _activate(self.activation, self.iota, hidden @ w.T + b)
        return np.asarray(hidden @ self.weights[-1][0] + self.biases[-1][0])


def random_network(
    d: int,
    hidden: int | Sequence[int],
    *,
    depth: int = 2,
    activation: str = "smooth_relu",
    iota: float = 2.0,
    seed: int = 0,
) -> Network:
    """Return a student with weights N(0, 1 / fan-in) and biases 0.

    Parameters
    ----------
    d : int
        Inputs, at least 1.
    hidden : int or sequence of int
        Units of each hidden layer, or of all of them.
    depth : int
        Layers, at least 2: depth - 1 hidden ones and the output.
    activation, iota
        As for `Network`.
    seed : int
        The same seed gives the same bits.

    Returns
    -------
    Network

    Raises
    ------
    TypeError, ValueError
        If a number breaks its rule, or ``hidden`` and ``depth`` disagree.

    Examples
    --------
    >>> from derand_fast.networks import random_network
    >>> random_network(2, 1000).widths, random_network(5, [8, 4], depth=3).widths
    ((2, 1000, 1), (5, 8, 4, 1))
    """
    d = whole_number("d", d, 1)
    depth = whole_number("depth", depth, 2)
    if isinstance(hidden, Sequence | np.ndarray):
        units = [whole_number("hidden", h, 1) for h in hidden]
        if len(units) != depth - 1:
            raise ValueError(f"hidden must name {depth - 1} layers for depth {depth}, got {hidden}")
    else:
        units = [whole_number("hidden", hidden, 1)] * (depth - 1)
    random = np.random.default_rng(whole_number("seed", seed, 0))
    widths = [d, *units, 1]
    weights = tuple(
        random.standard_normal((above, below)) / math.sqrt(below)
        for below, above in pairwise(widths)
    )
    biases = tuple(np.zeros(width) for width in widths[1:])
    return Network(weights, biases, activation, iota)


def _activate(activation: str, iota: float, z: FloatArray) -> FloatArray:
    flat = np.ascontiguousarray(z).ravel()
    values = np.empty_like(flat)
    apply_activation(ACTIVATIONS[activation], iota, 0, 0, flat, *([values] * 5))
    return values.reshape(z.shape)


def _real_array(name: str, index: int, entries: Any, n_dimensions: int) -> FloatArray:
    array = np.asarray(entries)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}[{index}] must hold real numbers, not {array.dtype}")
    if array.ndim != n_dimensions:
        raise ValueError(f"{name}[{index}] must have {n_dimensions} axes, got shape {array.shape}")
    array = np.array(array, dtype=np.float64)
    if not np.isfinite(array).all():
        place = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
        raise ValueError(f"{name}[{index}] must be finite; its entry {place} is {array[place]}")
    array.setflags(write=False)
    return array
