"""Hermite expansions: rules for the coefficients of one unit, tensors, and those of a target."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from derand_fast.kernels import matmul
from derand_fast.kernels.vectors import LANES

__all__ = [
    "MOST_DIRECTIONS",
    "SeriesRule",
    "Target",
    "Tensor",
    "root_tables",
    "series_rule",
    "symmetric_tensor",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

# The rule ends where density times polynomial falls below this.
_NEGLIGIBLE = 1e-18
# For a target by number of its directions: terms computed, half the nodes on an axis.
_TARGET_TERMS = {1: 256, 2: 128, 3: 64}
_TARGET_NODES = {1: 512, 2: 128, 3: 56}
MOST_DIRECTIONS = max(_TARGET_TERMS)
# Degrees of the target beyond which less than this share of its norm is left are dropped.
_TARGET_TOLERANCE = 1e-13
_EPS = float(np.finfo(np.float64).eps)


class SeriesRule(NamedTuple):
    """Positive nodes (M,), and weight times h_n at them, (chunks, M, 8) for eight n at a time."""

    nodes: FloatArray
    table: FloatArray


@functools.lru_cache(maxsize=64)
def series_rule(terms: int, nodes: int, shifted: bool) -> SeriesRule:
    """Trapezoidal rule for E[g(t) h_n(t)], t ~ N(0, 1), n <= terms, from g(t) +- g(-t).

    For g analytic in a strip about the real line the error falls exponentially with the number of
    nodes, faster than that of a Gauss rule where the strip is narrow. Nodes at odd multiples of
    half the spacing, or, ``shifted``, at multiples of the spacing.
    """
    columns = LANES * (terms // LANES + 1)
    end = _end_of_rule(terms)
    spacing = end / nodes
    t = np.asarray(spacing * (np.arange(nodes) + (0.0 if shifted else 0.5)), np.float64)
    # h_n exp(-t^2 / 4) is bounded; the other half of the density comes last.
    values = _hermite_functions(t, terms + 1)
    density = spacing / math.sqrt(2.0 * math.pi) * np.exp(-0.25 * t * t)
    if shifted:
        density[0] *= 0.5
    table = np.zeros((nodes, columns))
    table[:, : terms + 1] = values * density[:, None]
    chunks = np.ascontiguousarray(table.reshape(nodes, -1, LANES).transpose(1, 0, 2))
    for array in (t, chunks):
        array.flags.writeable = False
    return SeriesRule(t, chunks)


@functools.cache
def _end_of_rule(terms: int) -> float:
    """Where density times |h_n(t)| t, n <= terms, has become negligible."""
    t = np.arange(4.0, 32.0, 0.125)
    size = np.abs(_hermite_functions(t, terms + 1)).max(axis=1) * t * np.exp(-0.25 * t * t)
    return float(t[size > _NEGLIGIBLE][-1] + 0.125)


def _hermite_functions(t: FloatArray, count: int) -> FloatArray:
    """h_n(t) exp(-t^2 / 4) for n < count, (len(t), count)."""
    values = np.zeros((t.size, count))
    values[:, 0] = np.exp(-0.25 * t * t)
    values[:, 1] = t * values[:, 0]
    for n in range(1, count - 1):
        lower = math.sqrt(n) * values[:, n - 1]
        values[:, n + 1] = (t * values[:, n] - lower) / math.sqrt(n + 1)
    return values


@functools.cache
def root_tables(count: int) -> tuple[FloatArray, FloatArray]:
    """sqrt(n) and 1 / sqrt(n) (0 for n = 0), n <= count."""
    roots = np.sqrt(np.arange(count + 1.0))
    inverse = np.append(0.0, 1.0 / roots[1:])
    for array in (roots, inverse):
        array.flags.writeable = False
    return roots, inverse


class Tensor(NamedTuple):
    """How the entries of symmetric tensors of degrees below ``terms`` are listed.

    An entry stands for a power v^alpha of k coordinates: ``exponents`` (3, entries) are alpha,
    ``multiplicity`` is n! / alpha!, and ``up[i]`` says where alpha + e_i stands, for all alpha of
    degree below terms - 1. A tensor is the polynomial R_n(v) = sum multiplicity entry v^alpha.
    """

    exponents: IntArray
    multiplicity: FloatArray
    up: IntArray
    terms: int

    def gradient(self, entries: FloatArray) -> FloatArray:
        """Coefficients of (gradient R_n) / n: (3, exponents), zero for missing coordinates."""
        out = np.zeros((3, self.up.shape[1]))
        out[: len(self.up)] = self.multiplicity[: self.up.shape[1]] * entries[self.up]
        return out

    def second(self, entries: FloatArray) -> FloatArray:
        """Coefficients of (Hessian R_n) / (n (n - 1)), row by row: (k, 3, exponents)."""
        k, inner = len(self.up), int((self.exponents.sum(axis=0) < self.terms - 2).sum())
        out = np.zeros((k, 3, inner))
        for row in range(k):
            once = self.up[row][:inner]
            out[row, :k] = self.multiplicity[:inner] * entries[self.up[:, once]]
        return out


@functools.lru_cache(maxsize=16)
def symmetric_tensor(k: int, terms: int) -> Tensor:
    """Exponents (n - c - b, b, c) for n = 0, 1, ..., then c, then b, and what belongs to them."""
    runs = [
        (n, c, n - c + 1 if k >= 2 else 1)
        for n in range(terms)
        for c in range(n + 1 if k == 3 else 1)
    ]
    lengths = [length for _, _, length in runs]
    degree = np.repeat([n for n, _, _ in runs], lengths)
    c = np.repeat([c for _, c, _ in runs], lengths)
    b = np.concatenate([np.arange(length) for length in lengths])
    a = degree - b - c
    binomials = np.array([[math.comb(n, m) for m in range(terms)] for n in range(terms)], float)
    multiplicity = binomials[degree, c] * binomials[degree - c, b]
    inner = degree < terms - 1
    steps = np.eye(3, dtype=np.intp)[:k]
    up = np.stack(
        [_positions(k, a[inner] + i, b[inner] + j, c[inner] + m) for i, j, m in steps.tolist()]
    )
    return Tensor(np.stack([a, b, c]), multiplicity, up, terms)


def _positions(k: int, a: IntArray, b: IntArray, c: IntArray) -> IntArray:
    """Where exponents stand in the list of those of k coordinates."""
    n = a + b + c
    if k == 1:
        return n
    if k == 2:
        return n * (n + 1) // 2 + b
    return n * (n + 1) * (n + 2) // 6 + c * (n + 1) - c * (c - 1) // 2 + b


class Target(NamedTuple):
    """Hermite expansion y = sum_n Y_n of a link in its k coordinates.

    Attributes
    ----------
    k : int
        Number of coordinates.
    entries : array
        Of the tensors, in the order of `symmetric_tensor`: E[y h_alpha] / sqrt(multiplicity).
    energies : array
        Squared norms of the tensors, for all degrees that were computed.
    second_moment : float
        E[y^2].
    degree : int
        The last that is kept: what was computed beyond is below rounding.
    error : float
        Norm of the difference of two rules whose nodes interlace, halved.
    """

    k: int
    entries: FloatArray
    energies: FloatArray
    second_moment: float
    degree: int
    error: float

    @classmethod
    def of(cls, link: Callable[[FloatArray], ArrayLike], k: int) -> Target:
        """Expand ``link``, a function of points (N, k), by tensor rules."""
        terms, nodes = _TARGET_TERMS[k], _TARGET_NODES[k]
        one, other = (
            _expansion(link, k, terms, series_rule(terms, nodes, shifted))
            for shifted in (False, True)
        )
        # Both halves of one rule with twice the nodes.
        coefficients = 0.5 * (one[0] + other[0])
        second_moment = 0.5 * (one[1] + other[1])
        tensor = symmetric_tensor(k, terms)
        place = tensor.exponents
        kept = coefficients[tuple(place[:k])]
        degrees = place.sum(axis=0)
        energies = np.bincount(degrees, kept**2, terms).astype(np.float64)
        # From the far end: a difference of sums would be rounding.
        beyond = np.append(np.cumsum(energies[:0:-1])[::-1], 0.0)
        degree = int(np.argmax(beyond <= _TARGET_TOLERANCE**2 * second_moment))
        difference = (one[0] - other[0])[tuple(place[:k])]
        error = 0.5 * math.sqrt(float(np.square(difference[degrees <= degree]).sum()))
        entries = kept / np.sqrt(tensor.multiplicity)
        return cls(k, entries, energies, second_moment, degree, error)

    @property
    def mean(self) -> float:
        """E[y]."""
        return float(self.entries[0])

    def known_beyond(self, degree: int) -> float:
        """Squared norm of what was computed beyond a degree."""
        return float(self.energies[degree + 1 :].sum())

    def rest(self, degree: int) -> float:
        """E[y^2] minus the squared norm up to a degree, without noise."""
        rest = self.second_moment - float(self.energies[: degree + 1].sum())
        return max(rest, self.known_beyond(degree))

    def losses(self, terms: int) -> tuple[tuple[int, float], ...]:
        """Norms of what is dropped beyond the degrees they come with."""
        kept, known = min(self.degree, terms - 1), self.energies.size - 1
        # Eight roundings: both are sums of positive terms of relative error near eps.
        unknown = max(self.second_moment - float(self.energies.sum()), 0.0)
        unknown += 8.0 * _EPS * self.second_moment
        return (kept, math.sqrt(self.known_beyond(kept))), (known, math.sqrt(unknown))

    def entries_in(self, d: int, terms: int) -> FloatArray:
        """Entries of the tensors in d coordinates, the teacher's first, of degree < terms."""
        n_kept = min(self.degree + 1, terms)
        a, b, c = symmetric_tensor(self.k, n_kept).exponents
        entries = np.zeros(symmetric_tensor(d, terms).multiplicity.size)
        entries[_positions(d, a, b, c)] = self.entries[: a.size]
        return entries


def _expansion(
    link: Callable[[FloatArray], ArrayLike], k: int, terms: int, rule: SeriesRule
) -> tuple[FloatArray, float]:
    """E[link h_alpha] for all alpha below ``terms`` in each axis, and E[link^2]; slab by slab."""
    half = rule.table.transpose(1, 0, 2).reshape(rule.nodes.size, -1)[:, :terms]
    signs = np.where(np.arange(terms) % 2 == 0, 1.0, -1.0)
    nodes = np.concatenate([-rule.nodes[::-1], rule.nodes])
    table = np.concatenate([(half * signs)[::-1], half])
    weights = table[:, 0]
    if k == 1:
        values = _link_values(link, nodes[:, None])
        return (table * values[:, None]).sum(axis=0), float((weights * values**2).sum())
    others = np.stack(np.meshgrid(*[nodes] * (k - 1), indexing="ij"), axis=-1).reshape(-1, k - 1)
    shares = weights if k == 2 else np.multiply.outer(weights, weights).ravel()
    slabs = np.empty((nodes.size, terms ** (k - 1)))
    second_moments = np.empty(nodes.size)
    for place, node in enumerate(nodes):
        points = np.column_stack([np.full(len(others), node), others])
        values = _link_values(link, points)
        second_moments[place] = (shares * values**2).sum()
        part = _product(table.T, values.reshape(nodes.size, -1))
        slabs[place] = (part if k == 2 else _product(part, table)).ravel()
    coefficients = _product(table.T, slabs).reshape((terms,) * k)
    return coefficients, float((weights * second_moments).sum())


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b with bits that depend on no thread count."""
    out = np.empty((a.shape[0], b.shape[1]))
    workspace = np.empty(matmul.workspace_size(b.shape[1], a.shape[1]))
    matmul.multiply(a, b, out, False, workspace)
    return out


def _link_values(link: Callable[[FloatArray], ArrayLike], points: FloatArray) -> FloatArray:
    values = np.asarray(link(points))
    if values.dtype.kind not in "biuf":
        raise TypeError(f"link must return real numbers, not {values.dtype}")
    if values.shape != (len(points),):
        raise ValueError(
            f"link must return shape ({len(points)},) for points {points.shape}, got {values.shape}"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        place = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"link must be finite; it is {values[place]} at {points[place].tolist()}")
    return values
