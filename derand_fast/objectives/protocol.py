"""What an optimiser may ask of an objective, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "BLOCK_NAMES",
    "Block",
    "Blocks",
    "Objective",
    "block_view",
    "check_objective",
    "pack",
    "without_weights",
]

FloatArray = NDArray[np.float64]

BLOCK_NAMES = ("W", "b", "theta")
_METHODS = ("value", "value_and_grad", "hvp")


class Block(NamedTuple):
    """A named part of the flat vector: ``x[slice].reshape(shape)``."""

    slice: slice
    shape: tuple[int, ...]


class Blocks(Mapping[str, Block]):
    """Blocks by their names: read-only, and unlike a mapping proxy it can be pickled."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self._blocks = dict(blocks)

    def __getitem__(self, name: str) -> Block:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def __repr__(self) -> str:
        return f"Blocks({self._blocks})"


@runtime_checkable
class Objective(Protocol):
    """A twice differentiable function of one flat float64 vector.

    Nothing has to inherit from this class: whatever has these members is an objective.

    Attributes
    ----------
    n_params : int
        Length of x, at least 1.
    lam : float
        Optional. f contains lam ||W||_F^2.
    blocks : mapping of str to Block
        Optional. Which parts of x are "W", "b" and "theta"; none overlap.
    bias_hessian : method
        Optional. ``bias_hessian(x)`` is H_bb, the Hessian in the block "b" alone, (n_b, n_b): a
        dense array, a scipy.sparse array or a ``LinearOperator``. For f = E[g(Wx + b)] +
        lam ||W||_F^2 it contains no 2 lam I, and grad_W f = (H_bb + 2 lam I) W.
    weight_curvature : method
        Optional, for tied weights (W = sigma I): ``weight_curvature(x)`` has the shape of the block
        "W", each entry the Rayleigh quotient of H_bb along that entry's direction, and
        grad_W f = (weight_curvature + 2 lam) W entry by entry.
    collapse_step : method
        Optional. ``collapse_step(x)`` is the (n_params,) step that sets the block "W" to 0, the
        Newton step in W alone with H_bb + 2 lam I for its Hessian. `newton_cg` tries it. Only for
        f = E[g(Wx + b)] + lam ||W||_F^2 over x ~ N(0, I), whatever g does with "theta".

    Notes
    -----
    The same x gives the same bits. Points need not be kept in memory: x may be overwritten between
    calls. A value that overflows or is undefined comes back as infinity or NaN, not as an error.
    """

    n_params: int

    def value(self, x: FloatArray, /) -> float:
        """f(x)."""
        ...

    def value_and_grad(self, x: FloatArray, /) -> tuple[float, FloatArray]:
        """f(x) and its gradient, a new (n_params,) array that the caller may overwrite."""
        ...

    def hvp(self, x: FloatArray, v: FloatArray, /) -> FloatArray:
        """Hessian of f at x times v: linear and symmetric in v, a new (n_params,) array."""
        ...


def check_objective(objective: Any) -> int:
    """Return ``n_params`` after a look at the members; nothing is called.

    Parameters
    ----------
    objective : object
        Anything that might be an `Objective`.

    Returns
    -------
    int
        Length of x.

    Raises
    ------
    TypeError
        If a method is missing or not callable, or ``n_params`` is not an integer; names it.
    ValueError
        If ``n_params`` is below 1, ``lam`` negative or not finite, or a block is not a part of x.

    Examples
    --------
    >>> from derand_fast.objectives import check_objective
    >>> check_objective(object())
    Traceback (most recent call last):
    TypeError: object is no objective: it lacks n_params, value, value_and_grad, hvp
    """
    kind = type(objective).__name__
    missing = [name for name in ("n_params", *_METHODS) if not hasattr(objective, name)]
    if missing:
        raise TypeError(f"{kind} is no objective: it lacks {', '.join(missing)}")
    optional = [
        name
        for name in ("bias_hessian", "collapse_step", "weight_curvature")
        if getattr(objective, name, None) is not None
    ]
    for name in (*_METHODS, *optional):
        if not callable(getattr(objective, name)):
            raise TypeError(f"{kind}.{name} must be a method, not {getattr(objective, name)!r}")
    n_params = objective.n_params
    if isinstance(n_params, bool) or not isinstance(n_params, int | np.integer):
        raise TypeError(f"{kind}.n_params must be an integer, not {n_params!r}")
    if n_params < 1:
        raise ValueError(f"{kind}.n_params must be at least 1, got {n_params}")
    lam = getattr(objective, "lam", None)
    if lam is not None and not (math.isfinite(lam) and lam >= 0.0):
        raise ValueError(f"{kind}.lam must be finite and not negative, got {lam}")
    _check_blocks(kind, getattr(objective, "blocks", None) or {}, int(n_params))
    return int(n_params)


def _check_blocks(kind: str, blocks: Mapping[str, Block], n_params: int) -> None:
    taken: list[tuple[int, int, str]] = []
    for name, (part, shape) in blocks.items():
        if name not in BLOCK_NAMES:
            raise ValueError(f"{kind}.blocks may name {', '.join(BLOCK_NAMES)}, not {name!r}")
        start, stop, step = part.indices(n_params)
        if step != 1 or stop - start != math.prod(shape):
            raise ValueError(
                f"{kind}.blocks[{name!r}]: {part} of {n_params} is not of shape {shape}"
            )
        taken.append((start, stop, name))
    taken.sort()
    for (_, end, first), (start, _, second) in pairwise(taken):
        if start < end:
            raise ValueError(f"{kind}.blocks {first!r} and {second!r} overlap")


def _block_of(objective: Any, name: str) -> Block:
    blocks = getattr(objective, "blocks", None) or {}
    if name not in blocks:
        known = ", ".join(blocks) or "none"
        raise ValueError(f"{type(objective).__name__} has no block {name!r}; it has: {known}")
    return Block(*blocks[name])


def block_view(objective: Any, x: FloatArray, name: str) -> FloatArray:
    """Block ``name`` of x in its own shape: a view where x is contiguous, so writing changes x.

    Parameters
    ----------
    objective : Objective
        Names its blocks.
    x : (n_params,) ndarray
        A point, a gradient or a direction.
    name : {"W", "b", "theta"}
        Which block.

    Returns
    -------
    ndarray
        Of the block's shape.

    Raises
    ------
    ValueError
        If the objective has no such block, or x has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.objectives import MaxCutObjective, block_view
    >>> f = MaxCutObjective((2, [(0, 1)], None), 1, tau=0.1, lam=0.5)
    >>> block_view(f, np.arange(4.0), "W").tolist(), block_view(f, np.arange(4.0), "b").tolist()
    ([[0.0], [1.0]], [2.0, 3.0])
    """
    part, shape = _block_of(objective, name)
    if np.shape(x) != (objective.n_params,):
        raise ValueError(f"x must have shape ({objective.n_params},), got {np.shape(x)}")
    return x[part].reshape(shape)


def pack(objective: Any, **blocks: ArrayLike) -> FloatArray:
    """Lay named blocks out as one new flat vector; blocks not given are 0.

    Parameters
    ----------
    objective : Objective
        Names its blocks.
    **blocks : array-like
        Values by block name, each of the block's shape, or a number for all of its entries.

    Returns
    -------
    (n_params,) ndarray of float64

    Raises
    ------
    ValueError
        If the objective has no such block or the shape differs.

    Examples
    --------
    >>> from derand_fast.objectives import MaxCutObjective, pack
    >>> f = MaxCutObjective((2, [(0, 1)], None), 1, tau=0.1, lam=0.5)
    >>> pack(f, W=[[1.0], [-1.0]], b=0.5).tolist()
    [1.0, -1.0, 0.5, 0.5]
    """
    x = np.zeros(objective.n_params)
    for name, entries in blocks.items():
        part, shape = _block_of(objective, name)
        array = np.asarray(entries, dtype=np.float64)
        if array.shape not in ((), shape):
            raise ValueError(f"block {name!r} must have shape {shape}, got {array.shape}")
        x[part] = array.ravel() if array.shape else array
    return x


def without_weights(objective: Any, x: FloatArray) -> FloatArray:
    """Return the step from x that sets the block "W" to 0; no step at all where there is none."""
    step = np.zeros(objective.n_params)
    if "W" in objective.blocks:
        part = objective.blocks["W"].slice
        step[part] = -x[part]
    return step
