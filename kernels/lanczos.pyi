from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["COperator", "LanczosResult", "leftmost_eigenpair"]

class COperator:
    address: int
    n: int
    context: int
    owner: object
    def __init__(self, address: int, n: int, context: int = 0, owner: object = None) -> None: ...

class LanczosResult(NamedTuple):
    ritz_value: float
    vector: npt.NDArray[np.float64]
    residual: float
    n_products: int
    lambda_min_lower: float
    ritz_value_max: float
    safety: float
    status: Literal["negative_curvature", "certified", "exact", "converged", "not_converged"]
    delta: float
    message: str

# Besides a callable and a pointer pair: numpy arrays, scipy sparse matrices and LinearOperators.
# scipy ships no types, so these are Any here.
def leftmost_eigenpair(
    operator: Callable[[npt.NDArray[np.float64]], npt.ArrayLike]
    | tuple[int, int]
    | COperator
    | Any,
    n: int | None = None,
    *,
    threshold: float | None = None,
    eps: float | None = None,
    delta: float = 1e-9,
    tol: float = 1e-8,
    seed: int | np.random.Generator | np.random.SeedSequence | None = 0,
    start: npt.ArrayLike | None = None,
    max_products: int | None = None,
    max_memory: int = ...,
) -> LanczosResult: ...
