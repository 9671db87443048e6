"""What runs where the shards are: building them, asking them, adding up their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from derand_fast.distributed.ordered_sum import Node, OrderedSum
from derand_fast.objectives.protocol import check_objective

__all__ = ["Answers", "Description", "Group", "build", "describe", "evaluate"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

_OPTIONAL = ("bias_hessian", "weight_curvature")


class Description(NamedTuple):
    """How to build a group: consecutive shards of a sum over ``n_shards`` of them.

    ``parts`` holds the entries of x that each shard sees, or is None where they see all of it; then
    n_params is the length of x, and ``first_bias`` where its block "b" begins, of n_biases entries.
    """

    recipes: Sequence[Any]
    first: int
    n_shards: int
    parts: Sequence[IndexArray] | None = None
    n_params: int = 0
    first_bias: int = 0
    n_biases: int = 0


class Answers(NamedTuple):
    """Length of a shard's vector, and its optional methods."""

    n_params: int
    offers: frozenset[str]


class Group:
    """The shards of a description, built. To another process goes the description."""

    def __init__(self, shards: list[Any], description: Description) -> None:
        self.shards, self.description = shards, description

    def __reduce__(self) -> tuple[Any, ...]:
        """Build it again: compiled parts and scratch memory stay where they are."""
        return build, (self.description,)


def build(description: Description) -> Group:
    """Build shards from their recipes.

    Raises
    ------
    TypeError, ValueError
        If one is no objective; says which.
    """
    shards = []
    for number, recipe in enumerate(description.recipes, description.first):
        shard = recipe if hasattr(recipe, "value_and_grad") else recipe()
        try:
            check_objective(shard)
        except (TypeError, ValueError) as error:
            raise type(error)(f"shards[{number}]: {error}") from None
        shards.append(shard)
    return Group(shards, description)


def describe(group: Group) -> list[Answers]:
    """Return what each shard of the group is like."""
    return [
        Answers(
            int(shard.n_params),
            frozenset(name for name in _OPTIONAL if getattr(shard, name, None) is not None),
        )
        for shard in group.shards
    ]


def evaluate(group: Group, method: str, x: FloatArray, v: FloatArray | None) -> dict[Node, Any]:
    """Return partial sums of what the method returns, in the order of all shards.

    A value and its gradient are one vector. No sums are returned where a shard answers with an
    operator.
    """
    shards, description = group.shards, group.description
    total = OrderedSum(description.n_shards)
    for place, shard in enumerate(shards):
        part = None if description.parts is None else description.parts[place]
        point = x if part is None else x[part]
        direction = v if v is None or part is None else v[part]
        answer = _ASK[method](shard, point, direction)
        if method == "bias_hessian":
            if not (isinstance(answer, np.ndarray) or scipy.sparse.issparse(answer)):
                return {}
            if part is not None:
                answer = _widened_matrix(answer, shard, part, description)
        elif part is not None and method != "value":
            answer = _widened(answer, part, description.n_params)
        with np.errstate(over="ignore", invalid="ignore"):
            total.add(description.first + place, answer)
    return total.nodes


def _value(shard: Any, x: FloatArray, _: Any) -> FloatArray:
    return np.array([float(shard.value(x))])


def _value_and_grad(shard: Any, x: FloatArray, _: Any) -> FloatArray:
    value, gradient = shard.value_and_grad(x)
    return np.concatenate(([float(value)], gradient))


def _hvp(shard: Any, x: FloatArray, v: Any) -> FloatArray:
    return np.asarray(shard.hvp(x, v))


_ASK: dict[str, Callable[[Any, FloatArray, Any], Any]] = {
    "value": _value,
    "value_and_grad": _value_and_grad,
    "hvp": _hvp,
    "bias_hessian": lambda shard, x, _: shard.bias_hessian(x),
    "weight_curvature": lambda shard, x, _: shard.weight_curvature(x),
}


def _widened(answer: FloatArray, part: IndexArray, n_params: int) -> FloatArray:
    """Put a vector in its places among all entries of x, what comes before the entries first."""
    before = answer.size - part.size
    whole = np.zeros(before + n_params)
    whole[:before] = answer[:before]
    whole[before + part] = answer[before:]
    return whole


def _widened_matrix(
    answer: Any, shard: Any, part: IndexArray, description: Description
) -> scipy.sparse.csr_array[Any]:
    """Put a shard's H_bb in its place in that of the sum."""
    places = part[shard.blocks["b"].slice] - description.first_bias
    entries = scipy.sparse.coo_array(answer)
    rows, columns = entries.coords
    return scipy.sparse.csr_array(
        (entries.data, (places[rows], places[columns])), shape=2 * (description.n_biases,)
    )
