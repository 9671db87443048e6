"""Quadrature rules: nodes and weights as read-only float64 arrays, computed once per size.

They run at import or once per problem, so they are plain Python; the kernels take the arrays.
Rules for the standard normal in d dimensions come as a ``NodeSet``: a tensor grid, a sparse grid,
or scrambled Sobol points.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, roots_hermitenorm, roots_legendre

FloatArray = npt.NDArray[np.float64]

# Nested rules for the standard normal with 1, 3, 9, 19 and 35 nodes, exact to these degrees
# (A. Genz, B. Keister, J. Comput. Appl. Math. 71, 1996). Each extends the one before by the zeros
# of the even polynomial E that makes E P orthogonal to every polynomial of lower degree than E, P
# having the nodes so far as zeros. Solved here in 120-digit arithmetic; the tests check moments.
# Stage k adds +- the nodes of row k; row k of the weights lists 0, then those of rows 1, 2, ..., k.
NESTED_DEGREES = (1, 5, 15, 29, 51)
NESTED_NODES: tuple[tuple[float, ...], ...] = (
    (0.0,),
    (1.7320508075688773,),
    (0.74109534999454084, 2.8612795760570581, 4.1849560176727319),
    (
        *(1.230423634027306, 2.5960831150492022, 3.2053337944991945),
        *(5.1870160399136561, 6.36339449433637),
    ),
    (
        *(0.24899229757996061, 2.2336260616769417, 3.6353185190372782, 4.7364330859522971),
        *(5.6981777684881096, 7.1221067008046167, 7.9807717985905609, 9.0169397898903025),
    ),
)
NESTED_WEIGHTS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (0.66666666666666667, 0.16666666666666667),
    (
        *(0.25396825396825397, 0.094850948509485095, 0.27007432957793787),
        *(0.0079963254708935328, 9.4269457556517489e-5),
    ),
    (
        *(0.30346719985420587, 0.064096054686807589, 0.20832499164960888),
        *(-0.0063372247933737359, 6.0123369459847818e-5, 0.061151730125247677),
        *(0.018085234254798453, 0.0028848804365067513, 6.0948087314689835e-7),
        8.6296846022298858e-10,
    ),
    (
        *(0.00051489450806878429, 0.045273685465150516, 0.14807083115521601),
        *(0.0023113452403522101, 3.57293481989751e-5, 0.092364726716986306),
        *(0.0031554462691875638, 0.00081895392750226491, 2.4676421345798079e-7),
        *(4.6011760348656187e-10, 0.19176011588804443, 0.015673473751851152),
        *(0.00027524214116785157, 2.734220680118783e-6, 2.1394194479561106e-8),
        *(3.0972223576063162e-12, 5.4500412650636899e-15, 1.0541326582333341e-18),
    ),
)
# Stage k enters a sparse grid at level 1 + NESTED_COSTS[k]: the first l whose degree 2 l - 1 the
# stage before does not reach ("delayed", so that no level pays for nodes it does not need).
NESTED_COSTS = (0, 1, 3, 8, 15)
MAX_SPARSE_LEVEL = 26
# Sums over nodes are cut into at most this many blocks (a few more when scramblings round up),
# unless they would hold fewer nodes than that.
MAX_BLOCKS = 32
LEAST_BLOCK = 256
SOBOL_BITS = 30


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


# ------------------------------------------------------------------------------------------------
# The standard normal in d dimensions
# ------------------------------------------------------------------------------------------------


class NodeSet(NamedTuple):
    """A rule E[g(x)] ~ sum_q weights[q] g(nodes[q]) for x ~ N(0, I_d).

    Attributes
    ----------
    dimension : int
        d.
    nodes, weights : ndarray of float64, shapes (count, d) and (count,)
        Read-only. When ``tensor`` is true, shapes (m, 1) and (m,): one axis of the grid.
    tensor : bool
        The nodes are all m^d tuples of axis nodes, the last coordinate running fastest.
    lower : ndarray of float64, shape (n_lower, count)
        Weights on the same nodes of coarser rules, for an error estimate; (0, 0) if there are none.
    replicates : int
        The nodes are this many independent groups of equal size, one after the other.
    """

    dimension: int
    nodes: FloatArray
    weights: FloatArray
    tensor: bool
    lower: FloatArray
    replicates: int

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return int(self.weights.size) ** (self.dimension if self.tensor else 1)

    @property
    def block(self) -> int:
        """Nodes of one block of a sum: depends on the rule alone, and divides each replicate."""
        size = self.n_nodes // self.replicates
        parts = -(-MAX_BLOCKS // self.replicates)
        return min(max(LEAST_BLOCK, -(-size // parts)), size)


_NO_WEIGHTS = _frozen(np.empty((0, 0)), np.empty(0))[0]


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def tensor_hermite(level: int, dimension: int) -> NodeSet:
    """Tensor grid of Gauss-Hermite rules: exact to degree ``2 level - 1`` in each variable.

    ``level``^``dimension`` nodes, of which only the ``level`` of one axis are stored.

    Parameters
    ----------
    level : int
        Nodes on each axis, at least 1.
    dimension : int
        d, at least 1.

    Returns
    -------
    NodeSet

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import tensor_hermite
    >>> tensor_hermite(5, 3).n_nodes
    125
    """
    _at_least_one(level=level, dimension=dimension)
    nodes, weights = gauss_hermite(level)
    return NodeSet(dimension, nodes[:, None], weights, True, _NO_WEIGHTS, 1)


def sparse_count(level: int, dimension: int) -> int:
    """Count the nodes of ``sparse_hermite(level, dimension)`` without making them.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import sparse_count
    >>> [sparse_count(level, 10) for level in (1, 2, 3, 4)]
    [1, 21, 201, 1221]
    """
    _at_least_one(level=level, dimension=dimension)
    # by_cost[c]: partial nodes whose stages cost c together.
    by_cost = [1] + [0] * (level - 1)
    for _ in range(dimension):
        extended = [0] * level
        for new, cost in zip(NESTED_NODES, NESTED_COSTS, strict=True):
            size = len(new) * (1 if cost == 0 else 2)
            for c in range(level - cost):
                extended[c + cost] += size * by_cost[c]
        by_cost = extended
    return sum(by_cost)


@functools.lru_cache(maxsize=16)
def sparse_hermite(level: int, dimension: int) -> NodeSet:
    """Smolyak sparse grid on nested Gauss-Hermite rules: exact to total degree ``2 level - 1``.

    The sum over k with sum_i cost(k_i) <= level - 1 of the tensor products of the differences
    U_k - U_(k-1), U_0, U_1, ... being the nested rules of 1, 3, 9, 19 and 35 nodes (delayed:
    F. Heiss, V. Winschel, J. Econometrics 144, 2008). Weights may be negative. ``lower`` holds the
    weights of level - 1 and level - 2 (as far as these are positive), whose nodes are among these.

    Time and memory O(count (d + level)); ``sparse_count`` tells the count beforehand. Kept for the
    last 16 calls.

    Parameters
    ----------
    level : int
        1 to 26.
    dimension : int
        d, at least 1.

    Returns
    -------
    NodeSet

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import sparse_hermite
    >>> rule = sparse_hermite(3, 6)
    >>> moment = rule.weights @ (rule.nodes[:, 0] ** 2 * rule.nodes[:, 5] ** 2)
    >>> rule.n_nodes, round(float(moment), 12)
    (73, 1.0)
    """
    _at_least_one(level=level, dimension=dimension)
    if level > MAX_SPARSE_LEVEL:
        raise ValueError(f"level must be at most {MAX_SPARSE_LEVEL}, got {level}")
    axis: list[float] = []
    births: list[int] = []
    shares: list[list[float]] = []  # What each rule gives to each node of the axis.
    for stage, new in enumerate(NESTED_NODES):
        for place, node in enumerate(new, start=sum(map(len, NESTED_NODES[:stage]))):
            later = [row[place] for row in NESTED_WEIGHTS[stage:]]
            for signed in (node,) if node == 0.0 else (node, -node):
                axis.append(signed)
                births.append(stage)
                shares.append([0.0] * stage + later)
    increments = np.diff(np.array(shares), axis=1, prepend=0.0)

    # One variable after the other. by_cost[q, c] is the weight of partial node q in the tensor
    # products whose stages cost exactly c; reached[q] is the least such c.
    nodes = np.empty((1, 0))
    by_cost = np.zeros((1, level))
    by_cost[0, 0] = 1.0
    reached = np.zeros(1, dtype=np.intp)
    for _ in range(dimension):
        parts = []
        for node, birth, increment in zip(axis, births, increments, strict=True):
            kept = reached + NESTED_COSTS[birth] < level
            if not kept.any():
                continue
            extended = np.zeros((np.count_nonzero(kept), level))
            for stage, cost in enumerate(NESTED_COSTS):
                if birth <= stage and cost < level:
                    extended[:, cost:] += increment[stage] * by_cost[kept, : level - cost]
            column = np.full((len(extended), 1), node)
            cost_so_far = reached[kept] + NESTED_COSTS[birth]
            parts.append((np.hstack([nodes[kept], column]), extended, cost_so_far))
        nodes = np.concatenate([part[0] for part in parts])
        by_cost = np.concatenate([part[1] for part in parts])
        reached = np.concatenate([part[2] for part in parts])
    sums = by_cost.cumsum(axis=1)  # Column c: the weights of level c + 1.
    nodes, weights = _frozen(nodes, sums[:, -1])
    lower, _ = _frozen(sums[:, -2:-4:-1].T, _NO_WEIGHTS)
    return NodeSet(dimension, nodes, weights, False, lower if level > 1 else _NO_WEIGHTS, 1)


def sobol_normal(count: int, dimension: int, replicates: int, seed: int) -> NodeSet:
    """Scrambled Sobol points through the inverse normal, in antithetic pairs.

    ``replicates`` independent scramblings of ``count`` points each: count / 2 Sobol points x and
    their mirror images -x. So E of an odd function is exactly 0 in each replicate, and the sum is
    unbiased. Time and memory O(replicates count d).

    Parameters
    ----------
    count : int
        Points in each replicate, a power of two, at least 2 and at most 2^30.
    dimension : int
        d, at least 1 and at most 21201.
    replicates : int
        Independent scramblings, at least 1.
    seed : int
        Not negative. The same seed gives the same points.

    Returns
    -------
    NodeSet

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from derand_fast.kernels.quadrature import sobol_normal
    >>> rule = sobol_normal(256, 20, replicates=4, seed=0)
    >>> rule.nodes.shape, abs(float(rule.weights @ rule.nodes[:, 7])) < 1e-15
    ((1024, 20), True)
    """
    # Not above: scipy.stats is slow to import, and only this rule needs it.
    from scipy.stats import qmc

    _at_least_one(dimension=dimension, replicates=replicates)
    if dimension > qmc.Sobol.MAXDIM:
        raise ValueError(f"dimension must be at most {qmc.Sobol.MAXDIM}, got {dimension}")
    if not 2 <= count <= 2**SOBOL_BITS or count & (count - 1):
        raise ValueError(f"count must be a power of two from 2 to 2**{SOBOL_BITS}, got {count}")
    half = count // 2
    nodes = np.empty((replicates, 2, half, dimension))
    for replicate, stream in enumerate(np.random.SeedSequence(seed).spawn(replicates)):
        generator: dict[str, Any] = {"rng": np.random.default_rng(stream)}
        try:
            engine = qmc.Sobol(dimension, bits=SOBOL_BITS, **generator)
        except TypeError:  # scipy before 1.15
            engine = qmc.Sobol(dimension, bits=SOBOL_BITS, seed=generator["rng"])
        # Multiples of 2^-30 in [0, 1): their cells' centres keep off both ends.
        uniform = engine.random_base2(half.bit_length() - 1) + 0.5 ** (SOBOL_BITS + 1)
        nodes[replicate, 0] = ndtri(uniform)
        np.negative(nodes[replicate, 0], out=nodes[replicate, 1])
    total = replicates * count
    flat, weights = _frozen(nodes.reshape(total, dimension), np.full(total, 1.0 / total))
    return NodeSet(dimension, flat, weights, False, _NO_WEIGHTS, replicates)
