r"""Ising and QUBO problems as maximum cuts.

An energy over spins s in {-1, 1}^n or bits x in {0, 1}^n,

    E(s) = sum_i h_i s_i + sum_ij J_ij s_i s_j + offset,    E(x) = sum_ij Q_ij x_i x_j + offset,

falls as a cut rises. Let one more vertex stand for the fields, always on side +1, let x_i = 1 mean
side +1, let c_i say whether vertex i is cut from that vertex and c_ij whether i and j are cut from
each other. Then s_i = 1 - 2 c_i, s_i s_j = 1 - 2 c_ij, x_i = 1 - c_i and
x_i x_j = 1 - (c_i + c_j + c_ij) / 2, so with B the energy where all spins, or all bits, are 1

    E(s) = B - 2 cut,       weights  h_i                        and  J_ij,
    E(x) = B - cut / 2,     weights  2 Q_ii + sum_(j != i) (Q_ij + Q_ji)  and  Q_ij + Q_ji.

Integers stay integers, so that bounds of the cut may be rounded. The vertex of the fields is left
out where its weights are all 0: then the energy does not change if all spins flip.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from derand_fast.checks import finite_number
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.results import CutResult

__all__ = ["FIELD", "IsingProblem", "as_problem", "from_dimod", "from_ising", "from_qubo"]

FloatArray = NDArray[np.float64]
SignArray = NDArray[np.int8]
Vartype = Literal["SPIN", "BINARY"]

_UNIT_ROUNDOFF = 2.0**-53
# Integers of smaller magnitude than this are exact in float64, and so are their sums.
_EXACT_LIMIT = 2.0**53
# Values on side +1 and on side -1, and what the energy falls by as the cut rises by 1.
_VALUES: dict[Vartype, tuple[int, int]] = {"SPIN": (1, -1), "BINARY": (1, 0)}
_FALL: dict[Vartype, float] = {"SPIN": 2.0, "BINARY": 0.5}


class _Extra(enum.Enum):
    """A label that no variable of the caller's can have."""

    FIELD = "field"

    def __str__(self) -> str:
        return "FIELD"

    __repr__ = __str__


FIELD = _Extra.FIELD
"""Label of the vertex that stands for the fields."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IsingProblem:
    """An energy to minimise, and the graph whose cuts are its samples.

    Built by `from_ising`, `from_qubo` and `from_dimod`; `derand_fast.max_cut` takes it in place of
    a graph. A sample gives each variable a spin, +1 or -1, or a bit, 0 or 1: as a mapping from
    variables to values, or as an array in the order of ``variables``.

    Attributes
    ----------
    graph : CSRGraph
        Its vertices are the variables, after the vertex `FIELD` where there are fields.
    variables : tuple
        The caller's labels.
    vartype : {"SPIN", "BINARY"}
    linear : (n,) float64 array
        Coefficients of the single variables.
    tails, heads, couplings : (k,) arrays
        Positions of two variables, and the coefficient of their product; pairs may repeat.
    offset : float
    """

    graph: CSRGraph
    variables: tuple[Any, ...]
    vartype: Vartype
    linear: FloatArray
    tails: NDArray[np.intp]
    heads: NDArray[np.intp]
    couplings: FloatArray
    offset: float

    def __repr__(self) -> str:
        """Sizes only."""
        return (
            f"IsingProblem({self.vartype}, n_variables={len(self.variables)}, "
            f"n_couplings={self.couplings.size}, offset={self.offset!r})"
        )

    def energy(self, sample: Mapping[Any, int] | Iterable[int]) -> float:
        """Return the energy of a sample, correctly rounded.

        Raises
        ------
        ValueError
            If a variable is missing or unknown, or a value no spin or bit.

        Examples
        --------
        >>> problem = from_ising({"a": 0.5}, {("a", "b"): -1.0})
        >>> problem.energy({"a": -1, "b": -1})
        -1.5
        """
        return self._energy_of(self._spins_of(sample, "sample"))

    def partition(self, sample: Mapping[Any, int] | Iterable[int]) -> SignArray:
        """Return a sample as a cut: +1 or -1 for each vertex of ``graph``.

        Raises
        ------
        ValueError
            If a variable is missing or unknown, or a value no spin or bit.
        """
        return self._with_field(self._spins_of(sample, "sample"))

    def sample(self, partition: SignArray) -> dict[Any, int]:
        """Return a cut, such as that of a `Solution`, as a sample.

        Parameters
        ----------
        partition : array of +1 and -1
            One for each vertex of ``graph``.

        Examples
        --------
        >>> from derand_fast import max_cut
        >>> problem = from_qubo({("a", "a"): -2.0, ("b", "b"): -1.0, ("a", "b"): 3.0})
        >>> result = max_cut(problem, n_solutions=2)
        >>> [problem.sample(partition) for _, partition in result.solutions]
        [{'a': 1, 'b': 0}, {'a': 0, 'b': 1}]
        """
        up, down = _VALUES[self.vartype]
        spins = self._spins(np.asarray(partition))
        values = np.where(spins > 0, up, down).tolist()
        return dict(zip(self.variables, values, strict=True))

    # ----------------------------------------------------------------------------------------------
    # For max_cut
    # ----------------------------------------------------------------------------------------------

    def sides(self, fixed: Mapping[Any, int]) -> dict[Any, int]:
        """Return variables fixed to values as vertices fixed to sides."""
        if not isinstance(fixed, Mapping):
            raise TypeError(f"fixed must be a mapping from variables to values, not {fixed!r}")
        _check_labels(fixed, self.variables, "fixed")
        spins = self._to_spins(list(fixed.values()), list(fixed), "fixed").tolist()
        sides: dict[Any, int] = dict(zip(fixed, spins, strict=True))
        return {FIELD: 1} | sides if self._has_field else sides

    def cut_target(self, energy: float) -> float:
        """Return the cut at which the energy is reached, to rounding."""
        top = math.fsum([self.offset, *self._coefficients()])
        return (top - energy - self._rounding(top, energy)) / _FALL[self.vartype]

    def lower_bound(self, upper_bound: float) -> float:
        """Return a lower bound on the energy of all samples from an upper bound on all cuts."""
        fall = _FALL[self.vartype] * upper_bound
        if self._whole:
            # Energies are integers but for the offset; half the bound of a cut need not be one.
            return _sum_below(self.offset, math.ceil(math.fsum(self._coefficients()) - fall))
        top = math.fsum([self.offset, *self._coefficients()])
        return top - fall - self._rounding(top, fall)

    def complete(self, result: CutResult) -> CutResult:
        """Return the result with energy, its lower bound, and the sample."""
        bound = result.upper_bound
        return replace(
            result,
            energy=self._energy_of(self._spins(result.partition)),
            energy_lower_bound=None if bound is None else self.lower_bound(bound),
            sample=self.sample(result.partition),
        )

    # ----------------------------------------------------------------------------------------------
    # Private
    # ----------------------------------------------------------------------------------------------

    @property
    def _has_field(self) -> bool:
        return self.graph.n_vertices > len(self.variables)

    def _coefficients(self) -> list[float]:
        """All but the offset; their sum and the offset are the energy of all spins or bits 1."""
        return [*self.linear.tolist(), *self.couplings.tolist()]

    @property
    def _whole(self) -> bool:
        """Whether all coefficients but the offset are integers whose sums are exact."""
        parts = (self.linear, self.couplings)
        whole = all(np.array_equal(part, np.rint(part)) for part in parts)
        return whole and 4.0 * self._magnitude() < _EXACT_LIMIT

    def _magnitude(self) -> float:
        return float(np.abs(self.linear).sum() + np.abs(self.couplings).sum())

    def _rounding(self, one: float, other: float) -> float:
        """Return a bound on the rounding errors in the difference of two energies, one by a cut.

        Each weight of the graph is a sum of coefficients. With at most d coefficients at a variable
        each sum is off by gamma_(d + 2) <= 2 (d + 2) u of its terms' magnitudes, which are 4 times
        the coefficients' in all; twice of this is an energy.
        """
        merged = 0.0
        if not self._whole:
            ends = np.concatenate((self.tails, self.heads))
            degree = int(np.bincount(ends).max(initial=0))
            merged = 16.0 * (degree + 2) * _UNIT_ROUNDOFF * self._magnitude()
        return merged + 8.0 * _UNIT_ROUNDOFF * (abs(one) + abs(other))

    def _energy_of(self, spins: SignArray) -> float:
        values = spins.astype(np.float64) if self.vartype == "SPIN" else (spins > 0).astype(float)
        single = self.linear * values
        double = self.couplings * values[self.tails] * values[self.heads]
        return math.fsum([self.offset, *single.tolist(), *double.tolist()])

    def _spins(self, partition: SignArray) -> SignArray:
        if partition.shape != (self.graph.n_vertices,):
            raise ValueError(
                f"partition has shape {partition.shape}; one sign for each of the "
                f"{self.graph.n_vertices} vertices is needed"
            )
        return partition[1:] * partition[0] if self._has_field else partition

    def _with_field(self, spins: SignArray) -> SignArray:
        return np.concatenate((np.ones(1, np.int8), spins)) if self._has_field else spins

    def _spins_of(self, sample: Mapping[Any, int] | Iterable[int], name: str) -> SignArray:
        variables = self.variables
        if isinstance(sample, Mapping):
            _check_labels(sample, variables, name)
            missing = [label for label in variables if label not in sample]
            if missing:
                raise ValueError(f"{name} holds no value for {missing[0]!r}")
            return self._to_spins([sample[label] for label in variables], variables, name)
        values = list(sample)
        if len(values) != len(variables):
            raise ValueError(
                f"{name} holds {len(values)} values; one for each of the {len(variables)} "
                "variables is needed"
            )
        return self._to_spins(values, variables, name)

    def _to_spins(self, values: Sequence[Any], labels: Sequence[Any], name: str) -> SignArray:
        up, down = _VALUES[self.vartype]
        for label, value in zip(labels, values, strict=True):
            if value not in (up, down):
                raise ValueError(f"{name}[{label!r}] is {value!r}; it must be {up} or {down}")
        return np.array([1 if value == up else -1 for value in values], dtype=np.int8)


def _sum_below(offset: float, whole: int) -> float:
    """Return offset + whole, rounded down."""
    total = offset + whole
    above = Fraction(total) > Fraction(offset) + whole
    return math.nextafter(total, -math.inf) if above else total


def _check_labels(named: Iterable[Any], variables: Sequence[Any], name: str) -> None:
    known = set(variables)
    for label in named:
        if label not in known:
            raise ValueError(f"{name} holds {label!r}, which is no variable")


# --------------------------------------------------------------------------------------------------
# Building problems
# --------------------------------------------------------------------------------------------------


def from_ising(h: Any, J: Any, offset: float = 0.0) -> IsingProblem:
    """State an Ising problem: minimise sum_i h_i s_i + sum_ij J_ij s_i s_j + offset over spins.

    Parameters
    ----------
    h : mapping from variables to numbers, or (n,) array
        Fields. Variables without one need not be listed; ``{}`` for none at all.
    J : mapping from pairs of variables to numbers, or (n, n) array or sparse array
        Couplings. All entries count: (i, j) and (j, i) add up, so a symmetric matrix holds each
        coupling twice (take its upper triangle, ``numpy.triu(J)``, if it should not). As s_i s_i is
        1, J_ii adds to the offset, as in dimod.
    offset : float

    Returns
    -------
    IsingProblem
        Of mappings, the variables are in the order in which they first appear, those of h first.
        With an array among h and J they are 0, ..., n - 1.

    Raises
    ------
    TypeError
        If a coefficient is not a real number, or J neither a mapping nor a matrix.
    ValueError
        For coefficients that are not finite or too large, a matrix that is not square, keys of J
        that are no pairs, or sizes and labels of h and J that do not fit.

    Notes
    -----
    O(n + k) time and memory for k couplings.

    Examples
    --------
    A triangle of antiferromagnetic couplings, with a field at one corner:

    >>> from derand_fast import max_cut
    >>> problem = from_ising({"a": 1.0}, {("a", "b"): 1.0, ("b", "c"): 1.0, ("a", "c"): 1.0})
    >>> result = max_cut(problem)
    >>> result.energy, result.energy_lower_bound, result.sample["a"]
    (-2.0, -2.0, -1)
    """
    return _problem("SPIN", h, J, offset, ("h", "J"))


def from_qubo(Q: Any, offset: float = 0.0) -> IsingProblem:
    """State a QUBO problem: minimise sum_ij Q_ij x_i x_j + offset over bits.

    Parameters
    ----------
    Q : mapping from pairs of variables to numbers, or (n, n) array or sparse array
        All entries count: (i, j) and (j, i) add up, so Q need not be symmetric. Q_ii is the
        coefficient of x_i x_i = x_i.
    offset : float

    Returns
    -------
    IsingProblem
        Of a mapping, the variables are in the order in which they first appear; of a matrix they
        are 0, ..., n - 1.

    Raises
    ------
    TypeError
        If a coefficient is not a real number, or Q neither a mapping nor a matrix.
    ValueError
        For coefficients that are not finite or too large, a matrix that is not square, or keys that
        are no pairs.

    Notes
    -----
    O(n + k) time and memory for k coefficients.

    Examples
    --------
    A largest set of vertices of a path of three no two of which are neighbours:

    >>> from derand_fast import max_cut
    >>> result = max_cut(from_qubo([[-1, 2, 0], [0, -1, 2], [0, 0, -1]]))
    >>> result.energy, result.energy_lower_bound, result.sample
    (-2.0, -2.0, {0: 1, 1: 0, 2: 1})
    """
    return _problem("BINARY", {}, Q, offset, ("", "Q"))


def from_dimod(bqm: Any) -> IsingProblem:
    """Take over a model of dimod; `max_cut` does so by itself.

    Parameters
    ----------
    bqm : dimod.BinaryQuadraticModel
        Or whatever has its attributes vartype, linear, quadratic and offset; dimod is not imported.

    Returns
    -------
    IsingProblem

    Raises
    ------
    TypeError
        For other objects, and models whose variables are neither spins nor bits.
    ValueError
        For coefficients that are not finite or too large.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> model = SimpleNamespace(
    ...     vartype=SimpleNamespace(name="SPIN"), linear={"a": 0, "b": 0},
    ...     quadratic={("a", "b"): -1.0}, offset=2.0)
    >>> from_dimod(model)
    IsingProblem(SPIN, n_variables=2, n_couplings=1, offset=2.0)
    """
    if not _is_dimod_model(bqm):
        raise TypeError(f"expected a dimod BinaryQuadraticModel, not {type(bqm).__name__}")
    linear, quadratic = dict(bqm.linear.items()), dict(bqm.quadratic.items())
    return _problem(bqm.vartype.name, linear, quadratic, bqm.offset, ("linear", "quadratic"))


def as_problem(graph: Any) -> IsingProblem | None:
    """Return what states an energy as a problem; None for all else."""
    if isinstance(graph, IsingProblem):
        return graph
    return from_dimod(graph) if _is_dimod_model(graph) else None


def _is_dimod_model(model: Any) -> bool:
    kind = getattr(getattr(model, "vartype", None), "name", None)
    return kind in _VALUES and all(
        hasattr(model, name) for name in ("linear", "quadratic", "offset")
    )


def _problem(
    vartype: Vartype, linear: Any, quadratic: Any, offset: float, names: tuple[str, str]
) -> IsingProblem:
    """Read the coefficients, whichever form they have, and build the graph."""
    offset = finite_number("offset", offset, -math.inf)
    linear_name, quadratic_name = names
    sparse = scipy.sparse.issparse(quadratic)
    if sparse:
        quadratic = scipy.sparse.coo_array(quadratic)  # a dok_array would pass for a mapping
    if isinstance(quadratic, Mapping):
        _check_pairs(quadratic, quadratic_name)
    else:
        quadratic = _matrix(quadratic, quadratic_name)
    if not isinstance(linear, Mapping):
        linear = _vector(linear, linear_name)
    variables = _variables_of(linear, quadratic, names)
    fields = _fields(linear, variables, linear_name)
    tails, heads, couplings = _couplings(quadratic, variables, quadratic_name)
    with np.errstate(over="ignore"):
        magnitude = 4.0 * float(np.abs(fields).sum() + np.abs(couplings).sum()) + abs(offset)
    if magnitude == math.inf:
        raise ValueError("coefficients are too large: four times their sum must be finite")
    graph = _graph(vartype, variables, fields, tails, heads, couplings)
    return IsingProblem(graph, variables, vartype, fields, tails, heads, couplings, offset)


def _check_pairs(quadratic: Mapping[Any, Any], name: str) -> None:
    for pair in quadratic:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError(f"{name} holds {pair!r}, which is no pair of variables")


def _matrix(values: Any, name: str) -> Any:
    """Return a square matrix as an array, dense or sparse."""
    if not scipy.sparse.issparse(values):
        values = _array(values, name)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(
            f"{name} must be a mapping or a square matrix; its shape is {values.shape}"
        )
    return values


def _vector(values: Any, name: str) -> Any:
    values = _array(values, name)
    if values.ndim != 1:
        raise ValueError(f"{name} must be a mapping or one row; its shape is {values.shape}")
    return values


def _array(values: Any, name: str) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first, e.g. with {name}.filled(0)")
    try:
        return np.asarray(values)
    except ValueError as error:  # ragged rows
        raise ValueError(f"{name} is no array: {error}") from None


def _variables_of(linear: Any, quadratic: Any, names: tuple[str, str]) -> tuple[Any, ...]:
    """Labels in the order of their first appearance; 0, ..., n - 1 where an array is given."""
    sizes = [
        len(part) if part.ndim == 1 else part.shape[0]
        for part in (linear, quadratic)
        if not isinstance(part, Mapping)
    ]
    if not sizes:
        return tuple(dict.fromkeys([*linear, *chain.from_iterable(quadratic)]))
    if sizes[0] != sizes[-1]:
        raise ValueError(
            f"{names[0]} has {sizes[0]} entries, but {names[1]} is {sizes[1]} x {sizes[1]}"
        )
    return tuple(range(sizes[0]))


def _fields(linear: Any, variables: Sequence[Any], name: str) -> FloatArray:
    if not isinstance(linear, Mapping):
        return _finite(linear, name, lambda k: k)
    _check_labels(linear, variables, name)
    labels = list(linear)
    index = {label: k for k, label in enumerate(variables)}
    fields = np.zeros(len(variables))
    values = _finite(list(linear.values()), name, labels.__getitem__)
    fields[[index[label] for label in labels]] = values
    return fields


def _couplings(
    quadratic: Any, variables: Sequence[Any], name: str
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Return the positions of both variables, and the coefficient, of each entry."""
    if not isinstance(quadratic, Mapping):
        entries = scipy.sparse.coo_array(quadratic)
        rows, columns = (part.astype(np.intp) for part in entries.coords)
        return rows, columns, _finite(entries.data, name, lambda k: (int(rows[k]), int(columns[k])))
    _check_labels(chain.from_iterable(quadratic), variables, name)
    pairs = list(quadratic)
    index = {label: k for k, label in enumerate(variables)}
    rows, columns = (
        np.fromiter((index[pair[end]] for pair in pairs), dtype=np.intp, count=len(pairs))
        for end in (0, 1)
    )
    return rows, columns, _finite(list(quadratic.values()), name, pairs.__getitem__)


def _finite(values: Any, name: str, key_of: Callable[[int], Any]) -> FloatArray:
    """Return coefficients as float64, checked."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite
        coefficients = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(coefficients))
    if bad.size:
        place = int(bad[0])
        raise ValueError(f"{name}[{key_of(place)!r}] is {coefficients[place]}; it must be finite")
    return coefficients


def _graph(
    vartype: Vartype,
    variables: tuple[Any, ...],
    linear: FloatArray,
    tails: NDArray[np.intp],
    heads: NDArray[np.intp],
    couplings: FloatArray,
) -> CSRGraph:
    """Return the graph whose cuts lower the energy; see the head of this file."""
    n = len(variables)
    fields = linear
    if vartype == "BINARY":
        # Q_ii has both its ends at i, and so counts twice, as it should.
        ends = np.concatenate((tails, heads))
        doubled = np.concatenate((couplings, couplings))
        fields = 2.0 * linear + np.bincount(ends, weights=doubled, minlength=n)
    apart = tails != heads
    extra = int(fields.any())
    edges = np.column_stack((tails[apart], heads[apart])) + extra
    weights = couplings[apart]
    labels = variables
    if extra:
        rays = np.column_stack((np.zeros(n, np.intp), np.arange(1, n + 1)))
        edges = np.concatenate((rays, edges))
        weights = np.concatenate((fields, weights))
        labels = (FIELD, *variables)
    graph = as_graph((n + extra, edges, weights))
    return graph if labels == tuple(range(n)) else replace(graph, labels=labels)
