"""An objective as a sum over shards, here or on the workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import scipy.sparse.linalg
from numpy.typing import ArrayLike, NDArray

from derand_fast.checks import finite_number, flat_vector, whole_number
from derand_fast.distributed.dask_tools import (
    call_packed,
    checked_client,
    large_messages,
    packed,
    worker_addresses,
)
from derand_fast.distributed.ordered_sum import OrderedSum
from derand_fast.distributed.shard_group import Description, build, describe, evaluate
from derand_fast.objectives.protocol import Block, Blocks, check_objective, without_weights

__all__ = ["ShardedObjective"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

# A point travels with the task of each worker; beyond so many bytes in all it is spread from worker
# to worker instead, which takes one more round trip.
_INLINE_BYTES = 2**26
# Evaluations begun again because the cluster forgot the shards (a restart), before giving up.
_ATTEMPTS = 3


class ShardedObjective:
    """f(x) = sum_s f_s(x[part_s]) + lam ||W||_F^2, a sum over shards that stay where they are.

    Each evaluation is one map-reduce: x goes to every worker once, each worker adds up what its own
    shards return, and the partial sums come back. Additions follow one binary tree over the shards,
    so the bits depend on the shards only: they are the same in this process (``client=None``), on
    any number of workers, and after the loss of a worker, whose shards are built again elsewhere.

    Parameters
    ----------
    shards : sequence of objectives and recipes
        A shard is an `Objective`; a recipe is a function without arguments that returns one, such
        as ``functools.partial(read_shard, "part-07.npz")``. Recipes run on the workers, which is
        the way to data that no single machine holds. Objectives are sent, and the scheduler keeps
        a copy to send again.
    parts : sequence of integer arrays, optional
        The entries of x that each shard sees, none twice; by default all of x.
    n_params : int, optional
        Length of x; by default that of the shards, which have no parts then.
    lam : float
        Weight of the penalty, which is added here, once: shards leave it out.
    blocks : mapping of str to Block, optional
        Which parts of x are "W", "b" and "theta".
    collapses : bool
        Whether f = E[g(Wx + b)] + lam ||W||_F^2 over x ~ N(0, I), so that the minimisers may set
        the block "W" to 0 (`Objective.collapse_step`).
    client : distributed.Client, optional
        Where the workers are.

    Attributes
    ----------
    n_params, n_shards : int
        Length of x; number of shards.
    lam, blocks, client
        As above.
    bias_hessian, weight_curvature : method or None
        Those of `Objective`, where every shard has one, and for ``weight_curvature`` no parts.
        Arrays are summed; where shards have operators, so has the sum, one map-reduce a product.
    collapse_step : method or None
        ``collapse_step(x)`` = -W, if ``collapses``.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, or a shard is no objective or of the wrong length. The
        methods raise them for points that are not finite real vectors of length n_params, and what
        a shard raises.
    ImportError
        For a client without Dask.

    Notes
    -----
    Between machines equal bits need equal processors: the kernels choose their loops by processor.
    On one machine a call on a cluster costs about 15 ms more than the slowest worker, and 70 ms at
    a million parameters (`bench/distributed_table.py`): 16 n_params bytes go to and from each
    worker for `value_and_grad`. Pickles hold the shards or recipes and no client:
    a copy works in its own process.

    Dask tries a task on three workers that die of it, then raises ``KilledWorker``.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.distributed import ShardedObjective
    >>> from derand_fast.objectives import MaxCutObjective
    >>> edges = [[(0, 1), (1, 2)], [(2, 3), (3, 0)]]
    >>> shards = [MaxCutObjective((4, part, None), 1, tau=0.1, lam=0.0) for part in edges]
    >>> f = ShardedObjective(shards, lam=0.5, blocks=shards[0].blocks, collapses=True)
    >>> whole = MaxCutObjective((4, edges[0] + edges[1], None), 1, tau=0.1, lam=0.5)
    >>> x = np.linspace(-1.0, 1.0, f.n_params)
    >>> bool(np.isclose(f.value(x), whole.value(x), rtol=1e-14))
    True
    """

    def __init__(
        self,
        shards: Sequence[Any],
        *,
        parts: Sequence[ArrayLike] | None = None,
        n_params: int | None = None,
        lam: float = 0.0,
        blocks: Mapping[str, Block] | None = None,
        collapses: bool = False,
        client: Any = None,
    ) -> None:
        self._recipes = _checked_recipes(shards)
        self.n_shards = len(self._recipes)
        self.lam = finite_number("lam", lam, 0.0)
        self.blocks: Mapping[str, Block] = Blocks(blocks or {})
        self._collapses = bool(collapses)
        if n_params is not None:
            n_params = whole_number("n_params", n_params, 1)
        self._parts = _checked_parts(parts, self.n_shards, n_params)
        self._size = n_params or 0
        self.client: Any = None if client is None else checked_client(client)
        self._groups: list[Any] = []
        self._place()
        self.n_params, self._offers = self._agreed(n_params)
        check_objective(self)
        if "W" not in self.blocks and (self.lam > 0.0 or self._collapses):
            raise ValueError('blocks must name "W" where lam or collapses speaks of it')

    def __repr__(self) -> str:
        """Sizes and place."""
        place = "this process" if self.client is None else f"{len(self._groups)} workers"
        return (
            f"ShardedObjective(n_params={self.n_params}, n_shards={self.n_shards}, "
            f"lam={self.lam!r}, on {place})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """All but the client and what it knows."""
        state = self.__dict__.copy()
        return {**state, "client": None, "_groups": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._place()

    # -- the protocol ------------------------------------------------------------------------------

    def value(self, x: ArrayLike) -> float:
        """f(x)."""
        point = self._checked("x", x)
        return float(self._sum("value", point)[0]) + self._penalty(point)

    def value_and_grad(self, x: ArrayLike) -> tuple[float, FloatArray]:
        """f(x) and its gradient."""
        point = self._checked("x", x)
        total = self._sum("value_and_grad", point)
        gradient = total[1:].copy()
        self._add_weights(gradient, point)
        return float(total[0]) + self._penalty(point), gradient

    def hvp(self, x: ArrayLike, v: ArrayLike) -> FloatArray:
        """Hessian of f at x times v."""
        point, direction = self._checked("x", x), self._checked("v", v)
        product = self._sum("hvp", point, direction).copy()
        self._add_weights(product, direction)
        return product

    @property
    def bias_hessian(self) -> Callable[[ArrayLike], Any] | None:
        """H_bb of the sum, or None."""
        return self._bias_hessian if "bias_hessian" in self._offers else None

    @property
    def weight_curvature(self) -> Callable[[ArrayLike], FloatArray] | None:
        """Curvature along tied weights, or None."""
        return self._weight_curvature if "weight_curvature" in self._offers else None

    @property
    def collapse_step(self) -> Callable[[ArrayLike], FloatArray] | None:
        """The step that sets W to 0, or None."""
        return self._collapse_step if self._collapses else None

    def _bias_hessian(self, x: ArrayLike) -> Any:
        point = self._checked("x", x)
        total = self._sum("bias_hessian", point)
        if total is not None:
            return total
        biases = self.blocks["b"].slice
        size = biases.stop - biases.start

        def multiply(vector: FloatArray) -> FloatArray:
            whole = np.zeros(self.n_params)
            whole[biases] = np.reshape(vector, -1)
            return self._sum("hvp", point, whole)[biases]

        return scipy.sparse.linalg.LinearOperator(
            (size, size), matvec=multiply, rmatvec=multiply, dtype=np.float64
        )

    def _weight_curvature(self, x: ArrayLike) -> FloatArray:
        return np.array(self._sum("weight_curvature", self._checked("x", x)))

    def _collapse_step(self, x: ArrayLike) -> FloatArray:
        return without_weights(self, self._checked("x", x))

    # -- pieces ------------------------------------------------------------------------------------

    def _checked(self, name: str, vector: ArrayLike) -> FloatArray:
        return flat_vector(name, vector, self.n_params)

    def _penalty(self, point: FloatArray) -> float:
        if self.lam == 0.0:
            return 0.0
        W = point[self.blocks["W"].slice]
        with np.errstate(over="ignore"):
            # Pairwise sums of numpy: one order for one length. BLAS might have several.
            return self.lam * float(np.add.reduce(W * W))

    def _add_weights(self, vector: FloatArray, direction: FloatArray) -> None:
        """Add the penalty's gradient, or its Hessian times the direction: 2 lam W."""
        if self.lam > 0.0:
            part = self.blocks["W"].slice
            vector[part] += (2.0 * self.lam) * direction[part]

    def _agreed(self, n_params: int | None) -> tuple[int, frozenset[str]]:
        """Length of x and the optional methods that all shards have."""
        found = [entry for group in self._map(describe) for entry in group]
        sizes = [entry.n_params for entry in found]
        if self._parts is None:
            n_params = sizes[0] if n_params is None else n_params
            expected = [n_params] * len(sizes)
        else:
            assert n_params is not None
            expected = [part.size for part in self._parts]
        for number, (size, wanted) in enumerate(zip(sizes, expected, strict=True)):
            if size != wanted:
                raise ValueError(f"shards[{number}].n_params must be {wanted}, got {size}")
        offers = frozenset.intersection(*(entry.offers for entry in found))
        return n_params, offers

    # -- map and reduce ----------------------------------------------------------------------------

    def _sum(self, method: str, x: FloatArray, v: FloatArray | None = None) -> Any:
        """Sum of what a method of the shards returns; None where these are operators."""
        total = OrderedSum(self.n_shards)
        with np.errstate(over="ignore", invalid="ignore"):
            for nodes in self._map(evaluate, method, x, v):
                total.absorb(nodes)
        return total.total if total.nodes else None

    def _map(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call the function on each group of shards, where the group is."""
        if self.client is None:
            return [function(group, *arguments) for group in self._groups]
        for attempt in range(_ATTEMPTS):
            try:
                sent = [self._sent(argument) for argument in arguments]
                with large_messages():
                    futures = [
                        self.client.submit(function, group, *sent, pure=False)
                        for group in self._groups
                    ]
                return list(self.client.gather(futures))
            except CancelledError:
                # The cluster was restarted: the scheduler has forgotten how to build the shards.
                if attempt == _ATTEMPTS - 1:
                    raise
                self._place()
        raise AssertionError

    def _sent(self, argument: Any) -> Any:
        """Return what a task gets: the array itself, or for many bytes a copy on every worker."""
        size = argument.nbytes if isinstance(argument, np.ndarray) else 0
        if size * len(self._groups) <= _INLINE_BYTES:
            return argument
        return self.client.scatter(argument, broadcast=True, hash=False)

    def _place(self) -> None:
        """Have the shards built: in one group here, or in a group on each worker."""
        if self.client is None:
            self._groups = [build(self._description(0, self.n_shards))]
            return
        addresses = worker_addresses(self.client)
        count = min(len(addresses), self.n_shards)
        cuts = [self.n_shards * group // count for group in range(count + 1)]
        with large_messages():
            self._groups = [
                self.client.submit(
                    call_packed,
                    packed(build, self._description(cuts[group], cuts[group + 1])),
                    pure=False,
                    workers=[addresses[group]],
                    allow_other_workers=True,
                )
                for group in range(count)
            ]

    def _description(self, first: int, last: int) -> Description:
        """Return what it takes to build shards first to last."""
        recipes = self._recipes[first:last]
        if self._parts is None:
            return Description(recipes, first, self.n_shards)
        biases = self.blocks["b"].slice if "b" in self.blocks else slice(0, 0)
        return Description(
            *(recipes, first, self.n_shards, self._parts[first:last], self._size),
            *(biases.start, biases.stop - biases.start),
        )


def _checked_recipes(shards: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(shards, str | bytes) or not hasattr(shards, "__iter__"):
        raise TypeError(f"shards must be a sequence of objectives or recipes, got {shards!r}")
    recipes = tuple(shards)
    if not recipes:
        raise ValueError("shards must hold at least one")
    for number, recipe in enumerate(recipes):
        if not (hasattr(recipe, "value_and_grad") or callable(recipe)):
            raise TypeError(
                f"shards[{number}] must be an objective or a function that returns one, "
                f"got {recipe!r}"
            )
    return recipes


def _checked_parts(
    parts: Sequence[ArrayLike] | None, n_shards: int, n_params: int | None
) -> list[IndexArray] | None:
    if parts is None:
        return None
    if n_params is None:
        raise ValueError("parts need n_params, the length of x")
    arrays = [np.asarray(part) for part in parts]
    if len(arrays) != n_shards:
        raise ValueError(f"parts must be as many as shards, {n_shards}, got {len(arrays)}")
    for number, array in enumerate(arrays):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TypeError(
                f"parts[{number}] must be a vector of integers, not {array.dtype} of shape "
                f"{array.shape}"
            )
        if array.size and not (array.min() >= 0 and array.max() < n_params):
            raise ValueError(
                f"parts[{number}] must be entries of x, 0 to {n_params - 1}; got {array.min()} to "
                f"{array.max()}"
            )
        if np.unique(array).size != array.size:
            raise ValueError(f"parts[{number}] must name no entry twice")
    return [array.astype(np.intp) for array in arrays]
