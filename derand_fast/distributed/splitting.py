"""The package's objectives cut into shards."""

from __future__ import annotations

import math
from functools import partial, singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.checks import whole_number
from derand_fast.distributed.sharded import ShardedObjective
from derand_fast.graphs import as_graph
from derand_fast.kernels.activations import ACTIVATIONS
from derand_fast.objectives.cut import MaxCutObjective
from derand_fast.objectives.distortion import JLObjective, _AllPairs
from derand_fast.objectives.network import NetworkRisk
from derand_fast.objectives.node_risk import NodeRisk

__all__ = ["shard"]

FloatArray = NDArray[np.float64]

# What a NetworkRisk needs to sum over its nodes by itself.
_OF_ALL_NODES = ("_plan", "_engine", "_engine_made")
_NAMES = {code: name for name, code in ACTIVATIONS.items()}


def shard(objective: Any, n_shards: int, *, client: Any = None, n_threads: int = 1) -> Any:
    """Cut one of the package's objectives into shards, here or on the workers of a cluster.

    The sum is the same but for rounding: `MaxCutObjective` is cut by edges, each shard seeing its
    own vertices only; `NodeRisk` and `NetworkRisk` by quadrature nodes; `JLObjective` by blocks of
    pairs. Minimisers and certificates take the result as they take the objective.

    Parameters
    ----------
    objective : MaxCutObjective, NodeRisk, NetworkRisk or JLObjective
        Of a NetworkRisk with a rule of nodes; a Mehler series has none, and is cheap.
    n_shards : int
        How many, at least 1: fewer where there are fewer edges or nodes, and up to
        3 sqrt(n_shards) more of pairs of blocks. The bits of the result depend on it, and on
        nothing else: a few for each worker that there may ever be is a good number.
    client : distributed.Client, optional
        Where the workers are; by default all shards stay in this process.
    n_threads : int
        Threads of each shard. The bits do not depend on it.

    Returns
    -------
    ShardedObjective or NetworkRisk
        A NetworkRisk with its sum over nodes cut into shards.

    Raises
    ------
    TypeError
        For another objective: make a `ShardedObjective` of shards of your own.
    ValueError
        If a number is out of range, or the risk has no nodes.
    ImportError
        For a client without Dask.

    Notes
    -----
    The data of the shards are copied once, and the scheduler keeps them to replace a lost worker.
    Data too large for this machine: `ShardedObjective` with recipes that read them on the workers.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast import newton_cg
    >>> from derand_fast.distributed import shard
    >>> from derand_fast.objectives import NodeRisk
    >>> nodes = np.linspace(-2.0, 2.0, 40)[:, None]
    >>> shares = np.full(40, 1.0 / 40.0)
    >>> risk = NodeRisk((1, 2, 1), "tanh", nodes, shares, np.tanh(2.0 * nodes[:, 0]))
    >>> shard(risk, 4)
    ShardedObjective(n_params=7, n_shards=4, lam=0.0, on this process)
    >>> newton_cg(shard(risk, 4), np.linspace(-1.0, 1.0, 7), rho=1e-2).success
    True
    """
    count = whole_number("n_shards", n_shards, 1)
    n_threads = whole_number("n_threads", n_threads, 1)
    return _shard(objective, count, client, n_threads)


@singledispatch
def _shard(objective: Any, count: int, client: Any, n_threads: int) -> Any:
    raise TypeError(
        f"shard knows MaxCutObjective, NodeRisk, NetworkRisk and JLObjective, not "
        f"{type(objective).__name__}; make a ShardedObjective of shards of your own"
    )


def _ranges(size: int, count: int) -> list[tuple[int, int]]:
    """Cut range(size) into at most ``count`` parts, none empty."""
    count = max(1, min(count, size))
    return [(size * part // count, size * (part + 1) // count) for part in range(count)]


# --------------------------------------------------------------------------------------------------
# Edges
# --------------------------------------------------------------------------------------------------


@_shard.register
def _shard_cut(objective: MaxCutObjective, count: int, client: Any, n_threads: int) -> Any:
    graph, rank = objective.graph, objective.rank
    tails, heads, weights = graph.edges()
    recipes, parts = [], []
    for first, last in _ranges(tails.size, count):
        ends = np.column_stack((tails[first:last], heads[first:last]))
        # Without an edge one vertex stands for all.
        vertices, places = np.unique(ends, return_inverse=True)
        vertices = vertices if vertices.size else np.zeros(1, dtype=np.intp)
        edges = as_graph((vertices.size, places.reshape(-1, 2), weights[first:last]))
        recipes.append(
            partial(MaxCutObjective, edges, rank, tau=objective.tau, lam=0.0, n_threads=n_threads)
        )
        rows = vertices[:, None] * rank + np.arange(rank)
        parts.append(np.concatenate((rows.ravel(), graph.n_vertices * rank + vertices)))
    return ShardedObjective(
        recipes,
        parts=parts,
        n_params=objective.n_params,
        lam=objective.lam,
        blocks=objective.blocks,
        collapses=True,
        client=client,
    )


# --------------------------------------------------------------------------------------------------
# Nodes
# --------------------------------------------------------------------------------------------------


@_shard.register
def _shard_nodes(objective: NodeRisk, count: int, client: Any, n_threads: int) -> Any:
    nodes = objective._nodes
    inputs = nodes.inputs.reshape(nodes.n_nodes, -1)[:, :-1]
    weights = nodes.weights.reshape(nodes.n_nodes, -1)
    targets = nodes.targets.reshape(weights.shape)
    recipes = [
        partial(
            NodeRisk,
            objective.widths,
            _NAMES[objective._code],
            np.ascontiguousarray(inputs[first:last]),
            np.ascontiguousarray(weights[first:last]),
            np.ascontiguousarray(targets[first:last]),
            loss=objective.loss,
            iota=objective._iota,
            delta=objective.delta,
            active=objective.active,
            n_threads=n_threads,
            dtype=objective.dtype,
            keep_bytes=objective.keep_bytes,
        )
        for first, last in _ranges(nodes.n_nodes, count)
    ]
    return ShardedObjective(recipes, client=client)


class _ShardedNetworkRisk(NetworkRisk):
    """A risk whose sum over nodes is taken by shards."""

    def __init__(self, risk: NetworkRisk, nodes: ShardedObjective) -> None:
        # Where W_perp is 0 the risk needs a few nodes in k dimensions only: these stay here.
        kept = {name: part for name, part in vars(risk).items() if name not in _OF_ALL_NODES}
        self.__dict__.update(kept)
        self._nodes_sum = nodes
        self._bias = None

    @property
    def _engine(self) -> Any:
        """What serves where W_perp is not 0."""
        return self._nodes_sum

    def _rest(self, engine: Any, full: FloatArray) -> float:
        """Return the penalty and, under the squared loss, the variance of the noise."""
        rest = self.lam * float(np.square(self._first(full)).sum())
        return rest + self.teacher.noise**2 if self._is_squared else rest


@_shard.register
def _shard_network(objective: NetworkRisk, count: int, client: Any, n_threads: int) -> Any:
    if not isinstance(objective._engine, NodeRisk):
        raise ValueError(
            f"a risk by {objective.description} has no nodes to cut into shards; give NetworkRisk "
            "a rule of nodes"
        )
    nodes = _shard_nodes(objective._engine, count, client, n_threads)
    return _ShardedNetworkRisk(objective, nodes)


# --------------------------------------------------------------------------------------------------
# Pairs
# --------------------------------------------------------------------------------------------------


class _NoPairs:
    """A sum over pairs of equal rows, which have no distance."""

    def __init__(self, n_params: int, n_sigmas: int) -> None:
        self.n_params, self._n_sigmas = n_params, n_sigmas

    def value(self, x: FloatArray) -> float:
        """0."""
        return 0.0

    def value_and_grad(self, x: FloatArray) -> tuple[float, FloatArray]:
        """0 and 0."""
        return 0.0, np.zeros(self.n_params)

    def hvp(self, x: FloatArray, v: FloatArray) -> FloatArray:
        """0."""
        return np.zeros(self.n_params)

    def weight_curvature(self, x: FloatArray) -> FloatArray:
        """0."""
        return np.zeros((self._n_sigmas, 1))

    def bias_hessian(self, x: FloatArray) -> None:
        """No matrix: as for other pairs, the sum is asked for products."""


def _listed_pairs(points: FloatArray, left: Any, right: Any, options: dict[str, Any]) -> Any:
    """Build the shard of these pairs of rows."""
    _, kinds = np.unique(points, axis=0, return_inverse=True)
    if (kinds[left] == kinds[right]).all():
        n_sigmas = options["k"] if options["sigma"] == "rows" else 1
        return _NoPairs(n_sigmas + options["k"] * points.shape[1], n_sigmas)
    return JLObjective(points, pairs=(left, right), lam=0.0, **options)


def _own_pairs(points: FloatArray, options: dict[str, Any]) -> Any:
    """Build the shard of all pairs of rows of a block."""
    return _listed_pairs(points, *np.triu_indices(len(points), 1), options)


def _mutual_pairs(first: FloatArray, second: FloatArray, options: dict[str, Any]) -> Any:
    """Build the shard of all pairs of a row of one block and a row of another."""
    n, m = len(first), len(second)
    left, right = np.repeat(np.arange(n), m), n + np.tile(np.arange(m), n)
    return _listed_pairs(np.concatenate((first, second)), left, right, options)


@_shard.register
def _shard_pairs(objective: JLObjective, count: int, client: Any, n_threads: int) -> Any:
    options = {
        "k": objective.k,
        "eps": objective.eps,
        "loss": objective.loss,
        "sigma": objective.sigma,
        "n_threads": n_threads,
    }
    pairs = objective._pairs
    points = pairs._points
    recipes: list[Any] = []
    if isinstance(pairs, _AllPairs):
        # So many blocks have at least ``count`` pairs of blocks.
        blocks = math.ceil((math.sqrt(8 * count + 1) - 1) / 2)
        cuts = _ranges(len(points), blocks)
        for place, (first, last) in enumerate(cuts):
            own = points[first:last]
            recipes.append(partial(_own_pairs, own, options))
            recipes += [partial(_mutual_pairs, own, points[i:j], options) for i, j in cuts[:place]]
    else:
        left, right = pairs._ends
        for first, last in _ranges(left.size, count):
            ends = np.stack((left[first:last], right[first:last]))
            rows, places = np.unique(ends, return_inverse=True)
            one, other = places.reshape(2, -1)
            recipes.append(partial(_listed_pairs, points[rows], one, other, options))
    return ShardedObjective(recipes, lam=objective.lam, blocks=objective.blocks, client=client)
