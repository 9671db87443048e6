"""Two ways to take the sums of a Gaussian risk: over pairs of units, or over moments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels import mehler
from derand_fast.kernels.vectors import LANES
from derand_fast.objectives.hermite import Target, root_tables, series_rule, symmetric_tensor
from derand_fast.threads import map_ranges

__all__ = ["Form", "Moments", "Pairs", "Point", "Problem", "Units", "by_group"]

FloatArray = NDArray[np.float64]

# Rows of cosines that are held at once.
_TAIL_ROWS = 64
_NOTHING: FloatArray = np.empty((0, 0, 0, LANES))
# Shorter passes (in vector operations) run on one thread: starting threads costs some 0.1 ms.
_THREAD_OPERATIONS = 2e6


class Problem(NamedTuple):
    """What is the same at all points: sizes, the activation's code and iota, the target."""

    d: int
    h: int
    code: int
    iota: float
    basis: FloatArray
    target: Target
    noise_variance: float
    n_threads: int

    def split(self, flat: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Views (W, b, a, c) of a flat vector, of shapes (h, d), (h,), (h,) and (1,)."""
        h, start = self.h, self.h * self.d
        W, b, a = flat[:start], flat[start : start + h], flat[start + h : start + 2 * h]
        return W.reshape(h, self.d), b, a, flat[start + 2 * h :]

    def share(self, work: Callable[[int, int], None], count: int, operations: float) -> None:
        """Run ``work`` on parts of range(count), on several threads where there is enough to do."""
        map_ranges(work, count, self.n_threads if operations > _THREAD_OPERATIONS else 1)


class Point(NamedTuple):
    """A flat vector and its parts, which are views of it."""

    flat: FloatArray
    W: FloatArray
    b: FloatArray
    a: FloatArray
    c: float


class Units(NamedTuple):
    """Units at a point, all but ``rows`` (h, d) by groups of eight, (G, ..., 8).

    Directions u_j by rows and in the coordinates inside, |w_j|, b_j, a_j, the series of derivatives
    0 to top and E[act^(top)(z_j)^2].
    """

    point: Point
    rows: FloatArray
    inside: FloatArray
    scales: FloatArray
    biases: FloatArray
    amplitudes: FloatArray
    series: FloatArray
    energies: FloatArray


class Sums(NamedTuple):
    """What units see of all polynomials R_n, see `kernels.mehler`.

    R_n(u_j), by groups (G, >= terms, 8); the sums V_j with the gradients of R_n over all of x,
    (h, d); the same inside and for more derivatives, by groups (G, orders, 3, 8).
    """

    values: FloatArray
    pulls: FloatArray | None
    inside_pulls: FloatArray


class Prepared(NamedTuple):
    """What all Hessian products at a point share.

    ``slopes`` (h, d) is V + S^2 w; ``known`` see `kernels.mehler.assemble_product`; ``lanes``
    (G, d, 8) is W by groups; ``matrices`` those of `pair_matrices`, if there are any.
    """

    units: Units
    slopes: FloatArray
    known: FloatArray
    lanes: FloatArray
    matrices: FloatArray | None


class Form:
    """One way to take the sums, for a fixed number of terms and nodes."""

    name = ""

    def __init__(
        self, problem: Problem, terms: int, nodes: int, basis: FloatArray, degree: int
    ) -> None:
        self.problem, self.terms, self.nodes = problem, terms, nodes
        self.target, self.basis, self.degree = problem.target, basis, degree
        self.width = -(-terms // LANES) * LANES
        self.roots, self.inverse_roots = root_tables(LANES * (terms // LANES + 1))
        # For Hessians: two degrees are lost, and sqrt(n (n - 1)) stands by the lower one.
        self.double_roots = self.roots[:-1] * self.roots[1:]
        # Numba compiles once more for arrays that may be written.
        self.double_roots.flags.writeable = False

    # What the two forms do each in its way.

    def value(self, units: Units) -> float:
        raise NotImplementedError

    def value_and_sums(self, units: Units) -> tuple[float, Sums]:
        raise NotImplementedError

    def prepare(self, point: Point, with_outputs: bool) -> Prepared:
        raise NotImplementedError

    def product(self, prepared: Prepared, change: Point) -> FloatArray:
        raise NotImplementedError

    # What they share.

    def units(self, point: Point, top: int) -> Units:
        """Directions, and series of derivatives up to ``top``."""
        scale = np.sqrt(np.square(point.W).sum(axis=1))
        rows = np.divide(
            point.W, scale[:, None], out=np.zeros_like(point.W), where=scale[:, None] > 0.0
        )
        inside = _columns_by_group(np.einsum("jc,ic->ji", rows, self.basis))
        scales, biases = by_group(scale), by_group(point.b)
        series, energies = self.series(scales, biases, top, shifted=False)
        return Units(point, rows, inside, scales, biases, by_group(point.a), series, energies)

    def series(
        self, scales: FloatArray, biases: FloatArray, top: int, *, shifted: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Hermite coefficients of derivatives 0 to top, and E[act^(top)^2]."""
        problem, groups = self.problem, len(scales)
        rule = series_rule(self.terms, self.nodes, shifted)
        chunks = -(-(self.terms + (top == 3)) // LANES)
        table = rule.table[:chunks]
        series = np.empty((groups, top + 1, LANES * chunks, LANES))
        energies = np.empty((groups, LANES))

        def work(start: int, stop: int) -> None:
            mehler.hermite_series(
                *(start, stop, problem.code, problem.iota, scales, biases, rule.nodes, table),
                *(self.inverse_roots, series, energies),
                np.empty((5, 2 * LANES * rule.nodes.size)),
            )

        problem.share(work, groups, groups * rule.nodes.size * (LANES * chunks + 100.0))
        return series, energies

    def degree_sums(self, units: Units, values: FloatArray, orders: int) -> FloatArray:
        """S^m_j = sum_n X^m_jn R_n(u_j) for m < orders, (orders, h); the fifth is that of s X^4."""
        return _by_unit(self._degree_sums(units, values, orders), self.problem.h)

    def _degree_sums(self, units: Units, values: FloatArray, orders: int) -> FloatArray:
        groups = len(units.scales)
        sums = np.empty((groups, orders, LANES))
        mehler.degree_sums(0, groups, self.terms, self.roots, units.series, values, sums)
        return sums

    def slopes(self, units: Units, second: FloatArray, sums: Sums) -> FloatArray:
        """V_j + S^2_j w_j: half the gradient in w_j, but for a_j."""
        inside = _by_unit(sums.inside_pulls[:, 0], self.problem.h)[: len(self.basis)]
        slopes = np.einsum("ij,ic->jc", inside, self.basis)
        slopes += second[:, None] * units.point.W
        if sums.pulls is not None:
            slopes += sums.pulls
        return slopes

    def bias_hessian(self, units: Units, second: FloatArray) -> FloatArray:
        """H_bb from S^2."""
        h = self.problem.h
        packed = self._packed_orders(units)
        lanes = _columns_by_group(units.rows)
        out = np.empty((h, h))

        def work(start: int, stop: int) -> None:
            mehler.pair_curvatures(
                *(start, stop, lanes, units.rows, packed, units.series, units.point.a, second),
                out,
            )

        self.problem.share(work, (len(lanes) + 1) // 2, 3.0 * len(lanes) * h * self.terms / 2)
        return out

    def pair_tail(self, units: Units, t: FloatArray) -> float:
        """Sum over all pairs of t_j t_k |r_jk|^terms."""
        total = 0.0
        for begin in range(0, t.size, _TAIL_ROWS):
            part = slice(begin, begin + _TAIL_ROWS)
            cosines = np.abs(np.einsum("jc,kc->jk", units.rows[part], units.rows))
            total += float((_power(cosines, self.terms) * t * t[part, None]).sum())
        return total

    def _packed_orders(self, units: Units) -> FloatArray:
        """All derivatives of a unit's coefficient side by side, (8 G, terms, orders)."""
        kept = units.series[:, :, : self.terms].transpose(0, 3, 2, 1)
        return np.ascontiguousarray(kept).reshape(-1, *kept.shape[2:])

    def _polynomial(self, units: Units, constant: float, gradient: FloatArray, orders: int) -> Sums:
        """Sums of polynomials in the coordinates inside."""
        return self._polynomial_sums(units, self.degree, constant, gradient, self.roots, orders)

    def _polynomial_sums(
        self,
        units: Units,
        degree: int,
        constant: float,
        gradient: FloatArray,
        roots: FloatArray,
        orders: int,
    ) -> Sums:
        groups = len(units.scales)
        values = np.empty((groups, self.width, LANES))
        pulls = np.empty((groups, orders, 3, LANES))

        def work(start: int, stop: int) -> None:
            mehler.polynomial_sums(
                *(start, stop, degree, constant, gradient, roots),
                *(units.inside, units.series, values, pulls, self._work()),
            )

        self.problem.share(work, groups, 5.0 * groups * gradient.shape[1])
        return Sums(values, None, pulls)

    def _work(self) -> FloatArray:
        return np.empty((9, LANES * mehler.MOMENT_GROUPS * self.terms))

    def _prepared(
        self, units: Units, sums: Sums, second: FloatArray, matrices: FloatArray | None
    ) -> Prepared:
        """Arrange by unit what products need; ``second`` is that of `Tensor.second`."""
        h, k, last = self.problem.h, len(self.basis), self.terms - 1
        scaled = self.degree_sums(units, sums.values, 5)
        series = units.series
        known = np.empty((h, 10 + 3 * k + k * k))
        known[:, :4] = scaled[1:].T
        known[:, 4:7] = _by_unit(series[:, :3, 0], h).T
        for column, (order, n) in enumerate(((1, last), (2, last), (2, last - 1)), start=7):
            known[:, column] = series[:, order, n].reshape(-1)[:h]
        for order in range(3):
            start = 10 + order * k
            known[:, start : start + k] = _by_unit(sums.inside_pulls[:, order], h)[:k].T
        for row in range(k):
            # Row i of the Hessian is the gradient of entry i of the gradient.
            part = self._polynomial_sums(
                units, max(self.degree - 1, 0), 0.0, second[row], self.double_roots, 2
            )
            start = 10 + (3 + row) * k
            known[:, start : start + k] = _by_unit(part.inside_pulls[:, 1], h)[:k].T
        slopes = self.slopes(units, scaled[2], sums)
        lanes = _columns_by_group(units.point.W)
        return Prepared(units, slopes, known, lanes, matrices)

    def _assembled(
        self, prepared: Prepared, change: Point, sums: FloatArray, inside: FloatArray
    ) -> FloatArray:
        """Hessian product; sums and inside see `kernels.mehler.assemble_product`."""
        point = prepared.units.point
        product = np.empty_like(change.flat)
        W, b, a, c = self.problem.split(product)
        c[0] = mehler.assemble_product(
            *(point.W, point.a, prepared.units.rows, prepared.slopes, self.basis, prepared.known),
            *(change.W, change.b, change.a, change.c, sums, inside, W, b, a),
        )
        return product


class Pairs(Form):
    """Sums over pairs of units; the target is a polynomial in the teacher's coordinates."""

    name = "pairs"

    def __init__(self, problem: Problem, terms: int, nodes: int) -> None:
        target = problem.target
        degree = min(target.degree, terms - 1)
        super().__init__(problem, terms, nodes, problem.basis, degree)
        tensor = symmetric_tensor(target.k, degree + 1)
        entries = -target.entries[: tensor.multiplicity.size]
        self._gradient, self._second = tensor.gradient(entries), tensor.second(entries)
        self._buffer: FloatArray = np.empty(0)

    def value(self, units: Units) -> float:
        return self._values(units, 1, with_slopes=False)[0]

    def value_and_sums(self, units: Units) -> tuple[float, Sums]:
        return self._values(units, 1, with_slopes=True)

    def _values(self, units: Units, orders: int, *, with_slopes: bool) -> tuple[float, Sums]:
        point, h, d = units.point, self.problem.h, self.problem.d
        constant = point.c - self.target.mean
        sums = self._polynomial(units, constant, self._gradient, orders)
        once = self.degree_sums(units, sums.values, 1)[0]
        packed, lanes = self._packed(units), _columns_by_group(units.rows)
        weighted = point.a[:, None] * point.W
        groups = len(lanes)
        pulls = np.zeros((groups, d, LANES))

        def work(start: int, stop: int) -> None:
            mehler.pair_sums(
                *(start, stop, with_slopes, lanes, units.rows, packed, units.series),
                *(weighted, sums.values, pulls, np.empty((3, LANES * mehler.PAIR_BLOCK))),
            )

        self.problem.share(work, groups, (4.0 if with_slopes else 2.0) * groups * h * self.width)
        twice = self.degree_sums(units, sums.values, 1)[0]
        value = float((point.a * (once + twice)).sum()) + constant**2
        rest = self.target.second_moment - self.target.mean**2 + self.problem.noise_variance
        return value + rest, sums._replace(pulls=_by_unit(pulls, h).T)

    def _packed(self, units: Units) -> FloatArray:
        """Eight a_k X^0_kn, then eight X^1_kn, (width / 8, 8 G, 16).

        Zero from n = terms and terms - 1 on: slopes are those of the truncated series.
        """
        groups, chunks = len(units.scales), self.width // LANES
        packed = np.empty((chunks, groups * LANES, 2 * LANES))
        view = packed.reshape(chunks, groups, LANES, 2, LANES)
        series = units.series[:, :2, : self.width].reshape(groups, 2, chunks, LANES, LANES)
        view[...] = series.transpose(2, 0, 4, 1, 3)
        view[:, :, :, 0] *= units.amplitudes[:, :, None]
        end = self.terms - self.width + LANES
        view[-1, :, :, 0, end:] = 0.0
        view[-1, :, :, 1, end - 1 :] = 0.0
        return packed

    def prepare(self, point: Point, with_outputs: bool) -> Prepared:
        h = self.problem.h
        units = self.units(point, 3)
        _, sums = self._values(units, 3, with_slopes=True)
        packed, lanes = self._packed_orders(units), _columns_by_group(units.rows)
        fields = mehler.ALL_FIELDS if with_outputs else mehler.INNER_FIELDS
        shape = (len(lanes), h, fields, LANES)
        # Fresh pages cost more than the matrices: one buffer serves all points.
        if self._buffer.size != math.prod(shape):
            self._buffer = np.empty(shape)
        matrices = self._buffer

        def work(start: int, stop: int) -> None:
            mehler.pair_matrices(
                *(start, stop, self.terms, lanes, units.rows, packed, units.series, matrices)
            )

        operations = (19.0 if with_outputs else 10.0) * len(lanes) * h * self.terms / 2
        self.problem.share(work, (len(lanes) + 1) // 2, operations)
        return self._prepared(units, sums, self._second, matrices)

    def product(self, prepared: Prepared, change: Point) -> FloatArray:
        matrices, lanes, point = prepared.matrices, prepared.lanes, prepared.units.point
        assert matrices is not None
        h, d = self.problem.h, self.problem.d
        groups = len(lanes)
        columns, rates = np.empty((h, mehler.PRODUCT_ROWS)), np.empty((groups, 2, LANES))
        lanes_change = np.empty_like(lanes)
        mehler.pair_columns(
            *(point.W, point.a, prepared.known, change.W, change.b, change.a),
            *(columns, rates, lanes_change),
        )
        sums = np.empty((groups, mehler.PRODUCT_ROWS + d, LANES))

        def work(start: int, stop: int) -> None:
            mehler.pair_product(
                *(start, stop, matrices, lanes, lanes_change, rates),
                *(point.W, change.W, point.a, columns, sums),
                np.empty((2, LANES * mehler.PRODUCT_BLOCK)),
            )

        self.problem.share(work, groups, groups * h * (4.0 * d + 20.0))
        return self._assembled(prepared, change, sums, _NOTHING)


class Moments(Form):
    """Sums of squares over the moments of student minus target, in all d <= 3 coordinates."""

    name = "moments"

    def __init__(self, problem: Problem, terms: int, nodes: int) -> None:
        super().__init__(problem, terms, nodes, _completed(problem.basis), terms - 1)
        self._tensor = symmetric_tensor(problem.d, terms)
        self._entries = self.target.entries_in(problem.d, terms)
        self._rest = self.target.rest(min(self.target.degree, terms - 1)) + problem.noise_variance

    def value(self, units: Units) -> float:
        return self._square(self._residual(units))

    def value_and_sums(self, units: Units) -> tuple[float, Sums]:
        residual = self._residual(units)
        gradient = self._tensor.gradient(residual)
        return self._square(residual), self._polynomial(units, residual[0], gradient, 1)

    def _square(self, residual: FloatArray) -> float:
        return float((self._tensor.multiplicity * residual**2).sum()) + self._rest

    def _residual(self, units: Units) -> FloatArray:
        """Entries of the tensors of student minus target."""
        residual = self._total(units, units.amplitudes[None], None) - self._entries
        residual[0] += units.point.c
        return residual

    def _total(
        self, units: Units, factors: FloatArray, inside_change: FloatArray | None
    ) -> FloatArray:
        """Sum of the parts of `moments`, in order."""
        size = self._tensor.multiplicity.size
        parts = np.empty((mehler.MOMENT_PARTS, size))
        with_change = inside_change is not None
        other = units.inside if inside_change is None else inside_change

        def work(start: int, stop: int) -> None:
            mehler.moments(
                *(start, stop, self.terms, with_change, self.inverse_roots, units.inside),
                *(other, units.series, factors, parts, self._work()),
            )

        operations = (6.0 if with_change else 3.0) * len(units.scales) * size
        self.problem.share(work, len(parts), operations)
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total

    def prepare(self, point: Point, with_outputs: bool) -> Prepared:
        units = self.units(point, 3)
        residual = self._residual(units)
        sums = self._polynomial(units, residual[0], self._tensor.gradient(residual), 3)
        return self._prepared(units, sums, self._tensor.second(residual), None)

    def product(self, prepared: Prepared, change: Point) -> FloatArray:
        units = prepared.units
        point = units.point
        rate = (point.W * change.W).sum(axis=1)
        own = (change.a, point.a * change.b, point.a * rate, point.a)
        factors = np.stack([by_group(entries) for entries in own])
        inside_change = _columns_by_group(np.einsum("jc,ic->ji", change.W, self.basis))
        tensor = self._total(units, factors, inside_change)
        sums = self._polynomial(units, tensor[0], self._tensor.gradient(tensor), 1)
        new = self._degree_sums(units, sums.values, 3)
        return self._assembled(prepared, change, new, sums.inside_pulls)


# ------------------------------------------------------------------------------------------------
# Arrangement
# ------------------------------------------------------------------------------------------------


def by_group(entries: FloatArray) -> FloatArray:
    """Arrange (h,) as (groups, 8), lanes past the end zero."""
    groups = np.zeros((-(-entries.size // LANES), LANES))
    groups.reshape(-1)[: entries.size] = entries
    return groups


def _columns_by_group(rows: FloatArray) -> FloatArray:
    """Arrange (h, d) as (groups, d, 8), lanes past the end zero."""
    h, d = rows.shape
    padded = np.zeros((-(-h // LANES), LANES, d))
    padded.reshape(-1, d)[:h] = rows
    return np.ascontiguousarray(padded.transpose(0, 2, 1))


def _by_unit(groups: FloatArray, h: int) -> FloatArray:
    """Arrange (groups, m, 8) as (m, h)."""
    return np.ascontiguousarray(groups.transpose(1, 0, 2)).reshape(groups.shape[1], -1)[:, :h]


def _power(base: FloatArray, exponent: int) -> FloatArray:
    """base**exponent by squaring: several times faster than numpy's, which takes logarithms."""
    result = np.ones_like(base)
    while exponent:
        if exponent % 2:
            result *= base
        exponent //= 2
        base = base * base
    return result


def _completed(basis: FloatArray) -> FloatArray:
    """Return an orthogonal (d, d) matrix whose first rows are the basis."""
    q, _ = np.linalg.qr(basis.T, mode="complete")
    return np.ascontiguousarray(np.vstack([basis, q[:, len(basis) :].T]))
