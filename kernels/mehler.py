"""Gaussian risk of a layer of units by Hermite series: exact up to truncation, without nodes.

For x ~ N(0, I_d) and units z_j = w_j . x + b_j, write s_j = |w_j|, u_j = w_j / s_j, and h_n for the
orthonormal Hermite polynomials. Mehler's formula (1866) gives, for derivatives act^(m), act^(l),

    E[act^(m)(z_j) act^(l)(z_k)] = sum_n X^m_jn X^l_kn (u_j . u_k)^n,
    X^m_jn = E[act^(m)(s_j t + b_j) h_n(t)],  t ~ N(0, 1).

Three identities carry all derivatives; none divides by s_j, so nothing is lost as w_j -> 0:

    d X^m_n / d b = X^(m+1)_n,   s X^(m+1)_n = sqrt(n+1) X^m_(n+1),
    d E / d w_j   = E[act^(m+1)_j act^(l+1)_k] w_k + E[act^(m+2)_j act^(l)_k] w_j.

A sum of units s(x) = sum_j a_j act(z_j) has as its part of degree n the tensor
T_n = sum_j a_j X^0_jn u_j^(tensor n). Two forms of E[s^2] and its derivatives follow:

* pairs: sums over k of a_k X_kn (u_j . u_k)^n for each unit j, O(h^2 terms), any d;
* moments: the entries of T_n in d <= 3, O(h terms^d); E[s^2] is a sum of squares (Parseval).

Either way unit j sees a homogeneous polynomial R_n for each degree n, and what it needs is
P_jn = R_n(u_j), its gradient and its second derivatives. A target that depends on three coordinates
at most is a polynomial of the same kind.

Layout
------
Units come in groups of eight, one in each lane of a `vectors` register; arrays by group have shape
(groups, ..., 8), lanes past the last unit are zero. ``terms`` counts degrees 0, ..., terms - 1.
Entries of symmetric tensors are listed by degrees n = 0, 1, ..., within by exponents (n - c - b, b,
c) of the coordinates, b fastest; without third (second) coordinate, c (b) is 0.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.activations import apply_activation
from derand_fast.kernels.vectors import (
    LANES,
    add,
    alternate,
    dot_numbers,
    extract,
    fma,
    fma_numbers,
    lane_sum,
    last_of,
    load,
    load_row,
    multiply,
    multiply_rows,
    powers,
    spread,
    store,
    store_row,
)

FloatArray = npt.NDArray[np.float64]

# Units whose coefficients stay in the second-level cache while all groups pass by.
PAIR_BLOCK = 64
# Units of a Hessian product whose shares of the vector are added at once: few, so that arithmetic
# goes on while the next fields come from memory.
PRODUCT_BLOCK = 8
# Groups whose powers stay in the first- and second-level caches while all exponents pass by.
MOMENT_GROUPS = 4
# Sums over units that are added up at the end: as many threads can be at work.
MOMENT_PARTS = 8
# Fields of ``pair_matrices``: what the first layer needs, then what amplitudes need in addition.
INNER_FIELDS = 8
ALL_FIELDS = 13
# Where each field of the pair (j, k) goes in the pair (k, j).
_TRANSPOSED = (0, 2, 1, 3, 5, 4, 6, 7, 8, 11, 12, 9, 10)
# Rows of the output of ``pair_product`` before those of the vector.
PRODUCT_ROWS = 5


# ------------------------------------------------------------------------------------------------
# Units and their series
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def hermite_series(
    first: int,
    last: int,
    code: int,
    iota: float,
    scales: FloatArray,
    biases: FloatArray,
    nodes: FloatArray,
    table: FloatArray,
    inverse_roots: FloatArray,
    series: FloatArray,
    energies: FloatArray,
    work: FloatArray,
) -> None:
    """series[g, m, n] = X^m_n for m <= top, energies[g] = E[act^(top)^2]; groups first to last.

    The highest derivative by the rule sum_q table[q, n] (act(s t_q + b) +- act(b - s t_q)), + for
    even n; the lower ones by X^m_n = s X^(m+1)_(n-1) / sqrt(n), which amplifies no rounding, and by
    the rule at n = 0. nodes (M,) positive, table (width / 8, M, 8), series (G, top + 1, width, 8),
    inverse_roots (width,), work (5, 16 M). About 3 M width flops and 2 M activations for each unit.
    """
    orders, width = series.shape[1], series.shape[2]
    top = orders - 1
    z, highest = work[0], work[1 + top]
    for g in range(first, last):
        s, b = load(scales, LANES * g), load(biases, LANES * g)
        for q in range(nodes.size):
            store(z, 2 * LANES * q, fma(s, nodes[q], b))
            store(z, 2 * LANES * q + LANES, fma(s, -nodes[q], b))
        apply_activation(code, iota, 0, top, z, work[1], work[2], work[3], work[4], work[4])
        _lowest_coefficients(g, table, series, work)
        energy = spread(0.0)
        for q in range(nodes.size):
            right, left = load(highest, 2 * LANES * q), load(highest, 2 * LANES * q + LANES)
            energy = fma(fma(right, right, multiply(left, left)), table[0, q, 0], energy)
            store(highest, 2 * LANES * q, add(right, left))
            store(highest, 2 * LANES * q + LANES, fma(left, -1.0, right))
        store(energies, LANES * g, energy)
        for chunk in range(width // LANES):
            sums = alternate(0.0, 0.0)
            for q in range(nodes.size):
                right = load(highest, 2 * LANES * q)
                left = load(highest, 2 * LANES * q + LANES)
                place = (chunk * nodes.size + q) * LANES
                sums = fma_numbers(alternate(right, left), table, place, sums)
            store_row(series, ((g * orders + top) * width + LANES * chunk) * LANES, sums)
        for m in range(top - 1, -1, -1):
            for n in range(1, width):
                above = load(series, ((g * orders + m + 1) * width + n - 1) * LANES)
                value = multiply(multiply(s, inverse_roots[n]), above)
                store(series, ((g * orders + m) * width + n) * LANES, value)


@kernel(fastmath=False)
def _lowest_coefficients(g: int, table: Any, series: Any, work: Any) -> None:
    """X^m_0 for m < top."""
    orders, width = series.shape[1], series.shape[2]
    for m in range(orders - 1):
        total = spread(0.0)
        for q in range(table.shape[1]):
            right = load(work[1 + m], 2 * LANES * q)
            left = load(work[1 + m], 2 * LANES * q + LANES)
            total = fma(add(right, left), table[0, q, 0], total)
        store(series, (g * orders + m) * width * LANES, total)


@kernel(fastmath=False)
def degree_sums(
    first: int,
    last: int,
    terms: int,
    roots: FloatArray,
    series: FloatArray,
    values: FloatArray,
    sums: FloatArray,
) -> None:
    """sums[g, m] = sum_n X^m_n P_n for m < 4, and sums[g, 4] that of s X^4; sums (G, 1 to 5, 8).

    values (G, >= terms, 8) holds P_n, roots[n] = sqrt(n). No fourth derivative is needed:
    s X^4_n = sqrt(n + 1) X^3_(n+1).
    """
    orders, width = series.shape[1], series.shape[2]
    for g in range(first, last):
        place = g * values.shape[1] * LANES
        for m in range(min(sums.shape[1], 4)):
            start = (g * orders + m) * width * LANES
            total = spread(0.0)
            for n in range(terms):
                total = fma(load(series, start + LANES * n), load(values, place + LANES * n), total)
            store(sums, (g * sums.shape[1] + m) * LANES, total)
        if sums.shape[1] == 5:
            start = ((g * orders + 3) * width + 1) * LANES
            total = spread(0.0)
            for n in range(terms):
                x = multiply(load(series, start + LANES * n), roots[n + 1])
                total = fma(x, load(values, place + LANES * n), total)
            store(sums, (g * 5 + 4) * LANES, total)


# ------------------------------------------------------------------------------------------------
# Pairs of units
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def pair_sums(
    first: int,
    last: int,
    with_slopes: bool,
    lanes: FloatArray,
    rows: FloatArray,
    packed: FloatArray,
    series: FloatArray,
    weighted: FloatArray,
    values: FloatArray,
    pulls: FloatArray,
    work: FloatArray,
) -> None:
    """values[g, n] += sum_k a_k X^0_kn r^n; pulls[g] += sum_k (sum_n X^1_jn X^1_kn r^n) a_k w_k.

    r = u_j . u_k; pulls only ``with_slopes``. values (G, 8 chunks, 8), pulls (G, d, 8), weighted
    (h, d) = a_k w_k, work (3, 8 PAIR_BLOCK). A unit's sums run over k in order: they do not depend
    on first and last. 2 multiplications or additions for each pair and term, 4 with slopes.
    """
    h, d = rows.shape
    inner = work[2]
    for begin in range(0, h, PAIR_BLOCK):
        end = min(begin + PAIR_BLOCK, h)
        for g in range(first, last):
            _start_powers(g, begin, end, lanes, rows, work)
            for chunk in range(packed.shape[0]):
                if with_slopes:
                    _add_values_and_slopes(g, chunk, begin, end, packed, series, values, work)
                else:
                    _add_values(g, chunk, begin, end, packed, values, work)
            if not with_slopes:
                continue
            for i in range(d):
                place = (g * d + i) * LANES
                pull = load(pulls, place)
                for k in range(begin, end):
                    pull = fma(load(inner, LANES * (k - begin)), weighted[k, i], pull)
                store(pulls, place, pull)


@kernel(fastmath=False)
def _start_powers(g: int, begin: int, end: int, lanes: Any, rows: Any, work: Any) -> None:
    """Cosines r of the group's units with units begin to end; r^0; sums of zero."""
    for k in range(begin, end):
        place = LANES * (k - begin)
        store(work[0], place, _cosine(g, k, lanes, rows))
        store(work[1], place, 1.0)
        store(work[2], place, 0.0)


@kernel(fastmath=False)
def _cosine(g: int, k: int, lanes: Any, rows: Any) -> Any:
    """u_j . u_k for the eight units j of a group."""
    r = spread(0.0)
    for i in range(rows.shape[1]):
        r = fma(load(lanes, (g * rows.shape[1] + i) * LANES), rows[k, i], r)
    return r


@kernel(fastmath=False)
def _add_values(
    g: int, chunk: int, begin: int, end: int, packed: Any, values: Any, work: Any
) -> None:
    """Eight degrees of the values; the powers move on by eight."""
    start = (g * values.shape[1] + LANES * chunk) * LANES
    value = load_row(values, start)
    for k in range(begin, end):
        r, p = load(work[0], LANES * (k - begin)), load(work[1], LANES * (k - begin))
        power = powers(p, r)
        value = fma_numbers(power, packed, (chunk * packed.shape[1] + k) * 2 * LANES, value)
        store(work[1], LANES * (k - begin), multiply(last_of(power), r))
    store_row(values, start, value)


@kernel(fastmath=False)
def _add_values_and_slopes(
    g: int, chunk: int, begin: int, end: int, packed: Any, series: Any, values: Any, work: Any
) -> None:
    """The same, and eight degrees of sum_n X^1_jn X^1_kn r^n."""
    start = (g * values.shape[1] + LANES * chunk) * LANES
    value = load_row(values, start)
    slopes = load_row(series, ((g * series.shape[1] + 1) * series.shape[2] + LANES * chunk) * LANES)
    for k in range(begin, end):
        r, p = load(work[0], LANES * (k - begin)), load(work[1], LANES * (k - begin))
        inner = load(work[2], LANES * (k - begin))
        place = (chunk * packed.shape[1] + k) * 2 * LANES
        power = powers(p, r)
        value = fma_numbers(power, packed, place, value)
        inner = dot_numbers(multiply_rows(power, slopes), packed, place + LANES, inner)
        store(work[1], LANES * (k - begin), multiply(last_of(power), r))
        store(work[2], LANES * (k - begin), inner)
    store_row(values, start, value)


@kernel(fastmath=False)
def pair_curvatures(
    first: int,
    last: int,
    lanes: FloatArray,
    rows: FloatArray,
    packed: FloatArray,
    series: FloatArray,
    a: FloatArray,
    diagonal: FloatArray,
    out: FloatArray,
) -> None:
    """H_bb: out[j, k] = 2 a_j a_k sum_n X^1_jn X^1_kn r^n, on the diagonal + 2 a_j diagonal_j.

    Each pair once: out is exactly symmetric. Part i of ceil(G / 2) is groups i and G - 1 - i, so
    that parts are equal work. 3 operations for each pair and term.
    """
    groups, orders, width = series.shape[0], series.shape[1], series.shape[2]
    h = a.size
    for part in range(first, last):
        for side in range(1 if 2 * part == groups - 1 else 2):
            g = part if side == 0 else groups - 1 - part
            start = (g * orders + 1) * width * LANES
            for k in range(LANES * g, h):
                r, p, total = _cosine(g, k, lanes, rows), spread(1.0), spread(0.0)
                for n in range(packed.shape[1]):
                    x = multiply(p, packed[k, n, 1])
                    total = fma(load(series, start + LANES * n), x, total)
                    p = multiply(p, r)
                _store_symmetric(g, k, total, a, out)
            for j in range(LANES * g, min(LANES * (g + 1), h)):
                out[j, j] += 2.0 * a[j] * diagonal[j]


@kernel(fastmath=False)
def _store_symmetric(g: int, k: int, total: Any, a: Any, out: Any) -> None:
    """out[j, k] = out[k, j] = 2 a_j a_k total for the units j <= k of a group."""
    for lane in range(min(LANES, k + 1 - LANES * g)):
        j = LANES * g + lane
        out[j, k] = out[k, j] = 2.0 * (a[j] * a[k]) * extract(total, lane)


@kernel(fastmath=False)
def pair_matrices(
    first: int,
    last: int,
    terms: int,
    lanes: FloatArray,
    rows: FloatArray,
    packed: FloatArray,
    series: FloatArray,
    matrices: FloatArray,
) -> None:
    """matrices[g, k] = series of the pairs (j, k) that Hessian products need, by fields.

    With K_ml = sum_n X^m_jn X^l_kn r^n to the end that derivatives of the truncated series have,
    the fields are K11, K12, K21, K22, K31, K13, r^(terms-1), r^(terms-2) and, where there is room
    for them, K00, K10, K20, K01, K02. matrices (G, h, 8 or 13, 8), packed (h, terms, 4). Parts as
    for `pair_curvatures`; what is computed for (j, k) serves (k, j). 10 operations for each
    unordered pair and term, 19 with all fields.
    """
    groups, h = matrices.shape[0], matrices.shape[1]
    for part in range(first, last):
        for side in range(1 if 2 * part == groups - 1 else 2):
            g = part if side == 0 else groups - 1 - part
            for k in range(LANES * g, h):
                r = _cosine(g, k, lanes, rows)
                _inner_fields(g, k, terms, r, packed, series, matrices)
                if matrices.shape[2] == ALL_FIELDS:
                    _outer_fields(g, k, terms, r, packed, series, matrices)
                if k >= LANES * (g + 1):
                    _transpose_fields(g, k, matrices)


@kernel(fastmath=False)
def _inner_fields(
    g: int, k: int, terms: int, r: Any, packed: Any, series: Any, matrices: Any
) -> None:
    orders, width = series.shape[1], series.shape[2]
    one = (g * orders + 1) * width * LANES
    two, three = one + width * LANES, one + 2 * width * LANES
    k11 = k12 = k21 = k22 = k31 = k13 = spread(0.0)
    p = spread(1.0)
    for n in range(terms - 2):
        x1, x2 = load(series, one + LANES * n), load(series, two + LANES * n)
        x3 = load(series, three + LANES * n)
        y1, y2 = multiply(p, packed[k, n, 1]), multiply(p, packed[k, n, 2])
        y3 = multiply(p, packed[k, n, 3])
        k11, k12, k21 = fma(x1, y1, k11), fma(x1, y2, k12), fma(x2, y1, k21)
        k22, k31, k13 = fma(x2, y2, k22), fma(x3, y1, k31), fma(x1, y3, k13)
        p = multiply(p, r)
    # K22 has lost two degrees by differentiation, the others one.
    n = terms - 2
    x1, x2 = load(series, one + LANES * n), load(series, two + LANES * n)
    x3 = load(series, three + LANES * n)
    y1, y2 = multiply(p, packed[k, n, 1]), multiply(p, packed[k, n, 2])
    y3 = multiply(p, packed[k, n, 3])
    k11, k12, k21 = fma(x1, y1, k11), fma(x1, y2, k12), fma(x2, y1, k21)
    k31, k13 = fma(x3, y1, k31), fma(x1, y3, k13)
    start = (g * matrices.shape[1] + k) * matrices.shape[2] * LANES
    store(matrices, start, k11)
    store(matrices, start + LANES, k12)
    store(matrices, start + 2 * LANES, k21)
    store(matrices, start + 3 * LANES, k22)
    store(matrices, start + 4 * LANES, k31)
    store(matrices, start + 5 * LANES, k13)
    store(matrices, start + 6 * LANES, multiply(p, r))
    store(matrices, start + 7 * LANES, p)


@kernel(fastmath=False)
def _outer_fields(
    g: int, k: int, terms: int, r: Any, packed: Any, series: Any, matrices: Any
) -> None:
    orders, width = series.shape[1], series.shape[2]
    zero = g * orders * width * LANES
    one, two = zero + width * LANES, zero + 2 * width * LANES
    k00 = k10 = k20 = k01 = k02 = spread(0.0)
    p = spread(1.0)
    for n in range(terms):
        x0, x1 = load(series, zero + LANES * n), load(series, one + LANES * n)
        x2 = load(series, two + LANES * n)
        y0, y1 = multiply(p, packed[k, n, 0]), multiply(p, packed[k, n, 1])
        y2 = multiply(p, packed[k, n, 2])
        k00, k10, k20 = fma(x0, y0, k00), fma(x1, y0, k10), fma(x2, y0, k20)
        k01, k02 = fma(x0, y1, k01), fma(x0, y2, k02)
        p = multiply(p, r)
    start = ((g * matrices.shape[1] + k) * ALL_FIELDS + INNER_FIELDS) * LANES
    store(matrices, start, k00)
    store(matrices, start + LANES, k10)
    store(matrices, start + 2 * LANES, k20)
    store(matrices, start + 3 * LANES, k01)
    store(matrices, start + 4 * LANES, k02)


@kernel(fastmath=False)
def _transpose_fields(g: int, k: int, matrices: Any) -> None:
    """Write the fields of (j, k) as those of (k, j)."""
    for field in range(matrices.shape[2]):
        for lane in range(LANES):
            value = matrices[g, k, field, lane]
            matrices[k // LANES, LANES * g + lane, _TRANSPOSED[field], k % LANES] = value


@kernel(fastmath=False)
def pair_columns(
    W: FloatArray,
    a: FloatArray,
    known: FloatArray,
    change_W: FloatArray,
    change_b: FloatArray,
    change_a: FloatArray,
    columns: FloatArray,
    rates: FloatArray,
    lanes_change: FloatArray,
) -> None:
    """Arrange a change of all units for `pair_product`; known as for `assemble_product`."""
    rates[-1] = 0.0
    lanes_change[-1] = 0.0
    for k in range(a.size):
        g, lane = k // LANES, k % LANES
        rate = 0.0
        for i in range(W.shape[1]):
            rate += W[k, i] * change_W[k, i]
            lanes_change[g, i, lane] = change_W[k, i]
        rates[g, 0, lane] = change_b[k]
        rates[g, 1, lane] = rate
        columns[k, 0] = change_a[k]
        columns[k, 1] = a[k] * change_b[k]
        columns[k, 2] = a[k] * rate
        columns[k, 3] = known[k, 7] * columns[k, 1] + known[k, 8] * columns[k, 2]
        columns[k, 4] = known[k, 9] * columns[k, 2]


@kernel(fastmath=False)
def pair_product(
    first: int,
    last: int,
    matrices: FloatArray,
    lanes: FloatArray,
    lanes_change: FloatArray,
    rates: FloatArray,
    W: FloatArray,
    change_W: FloatArray,
    a: FloatArray,
    columns: FloatArray,
    out: FloatArray,
    work: FloatArray,
) -> None:
    """Sums over k of a Hessian product; with H = a_k (w_j . dw_k + dw_j . w_k), for each unit j

        out[0] = K00 x0 + K01 x1 + K02 x2 + K11 H       (only where the fields are there)
        out[1] = K10 x0 + K11 x1 + K12 x2 + K21 H       (K10 x0 and K20 x0 likewise)
        out[2] = K20 x0 + K21 x1 + K22 x2 + K31 H
        out[3] = r^(terms-1) x3,   out[4] = r^(terms-2) x4
        out[5:] = (K11 x0 + K12 x1 + K13 x2 + K22 H + a_k (K21 db_j + K31 rate_j)) w_k
                  + K11 a_k dw_k.

    columns (h, 5) holds x0 to x4; W, change_W (h, d) w_k and dw_k; lanes, lanes_change (G, d, 8)
    the same by groups; rates (G, 2, 8) db_j and w_j . dw_j; out (G, 5 + d, 8); work
    (2, 8 PRODUCT_BLOCK). Reads every field once: 8 or 13 numbers for each ordered pair.
    """
    h, d = W.shape
    fields = matrices.shape[2]
    along, direct = work[0], work[1]
    for g in range(first, last):
        db, rate = load(rates, 2 * LANES * g), load(rates, (2 * g + 1) * LANES)
        base = g * (PRODUCT_ROWS + d) * LANES
        o0 = o1 = o2 = o3 = o4 = spread(0.0)
        for i in range(d):
            store(out, base + (PRODUCT_ROWS + i) * LANES, 0.0)
        for begin in range(0, h, PRODUCT_BLOCK):
            end = min(begin + PRODUCT_BLOCK, h)
            for k in range(begin, end):
                start = (g * h + k) * fields * LANES
                k11, k12 = load(matrices, start), load(matrices, start + LANES)
                k21, k22 = load(matrices, start + 2 * LANES), load(matrices, start + 3 * LANES)
                k31, k13 = load(matrices, start + 4 * LANES), load(matrices, start + 5 * LANES)
                x0, x1, x2 = columns[k, 0], columns[k, 1], columns[k, 2]
                H = spread(0.0)
                for i in range(d):
                    place = (g * d + i) * LANES
                    H = fma(load(lanes, place), change_W[k, i], H)
                    H = fma(load(lanes_change, place), W[k, i], H)
                H = multiply(H, a[k])
                if fields == ALL_FIELDS:
                    outer = start + INNER_FIELDS * LANES
                    o0 = fma(load(matrices, outer), x0, fma(k11, H, o0))
                    o1 = fma(load(matrices, outer + LANES), x0, o1)
                    o2 = fma(load(matrices, outer + 2 * LANES), x0, o2)
                    o0 = fma(load(matrices, outer + 3 * LANES), x1, o0)
                    o0 = fma(load(matrices, outer + 4 * LANES), x2, o0)
                o1 = fma(k11, x1, fma(k12, x2, fma(k21, H, o1)))
                o2 = fma(k21, x1, fma(k22, x2, fma(k31, H, o2)))
                o3 = fma(load(matrices, start + 6 * LANES), columns[k, 3], o3)
                o4 = fma(load(matrices, start + 7 * LANES), columns[k, 4], o4)
                pull = fma(k11, x0, fma(k12, x1, multiply(k13, x2)))
                pull = fma(fma(k21, db, multiply(k31, rate)), a[k], fma(k22, H, pull))
                store(along, LANES * (k - begin), pull)
                store(direct, LANES * (k - begin), multiply(k11, a[k]))
            for i in range(d):
                place = base + (PRODUCT_ROWS + i) * LANES
                total = load(out, place)
                for k in range(begin, end):
                    total = fma(load(along, LANES * (k - begin)), W[k, i], total)
                    total = fma(load(direct, LANES * (k - begin)), change_W[k, i], total)
                store(out, place, total)
        store(out, base, o0)
        store(out, base + LANES, o1)
        store(out, base + 2 * LANES, o2)
        store(out, base + 3 * LANES, o3)
        store(out, base + 4 * LANES, o4)


# ------------------------------------------------------------------------------------------------
# Moments and polynomials in at most three coordinates
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def moments(
    first: int,
    last: int,
    terms: int,
    with_change: bool,
    inverse_roots: FloatArray,
    inside: FloatArray,
    inside_change: FloatArray,
    series: FloatArray,
    factors: FloatArray,
    out: FloatArray,
    work: FloatArray,
) -> None:
    """out[part, alpha] = sum over the part's units of (sum_m factors_m X^m_n) v^alpha.

    There are MOMENT_PARTS parts. inside (G, k, 8) holds v, factors (number, G, 8), out (parts,
    exponents), work (9, 8 MOMENT_GROUPS terms). ``with_change`` the last factor does not count in
    the sum; it times X^1_(n-1) / sqrt(n) and the change of v^alpha along dv, in inside_change like
    inside, is added. 2 operations for each unit and exponent, 5 with the change.
    """
    groups = inside.shape[0]
    for part in range(first, last):
        out[part] = 0.0
        end = groups * (part + 1) // MOMENT_PARTS
        for begin in range(groups * part // MOMENT_PARTS, end, MOMENT_GROUPS):
            for group in range(MOMENT_GROUPS):
                place = group * terms * LANES
                # Past the end stand the first group's powers, with weights of zero.
                g = begin + group if begin + group < end else begin
                _powers(g, terms, inside, place, work)
                _power_changes(g, terms, with_change, inside, inside_change, place, work)
                if begin + group < end:
                    _weights(g, terms, with_change, inverse_roots, series, factors, place, work)
                else:
                    work[3, place : place + terms * LANES] = 0.0
                    work[7, place : place + terms * LANES] = 0.0
            _add_moments(part, inside.shape[1], terms, with_change, work, out)


@kernel(fastmath=False)
def _powers(g: int, terms: int, inside: Any, place: int, work: Any) -> None:
    """work[i, place:] = powers 0, ..., terms - 1 of coordinate i of eight units."""
    k = inside.shape[1]
    for i in range(k):
        v, power = load(inside, (g * k + i) * LANES), spread(1.0)
        for n in range(terms):
            store(work[i], place + LANES * n, power)
            power = multiply(power, v)
    # Of missing coordinates only the power 0 is read.
    for i in range(k, 3):
        store(work[i], place, 1.0)


@kernel(fastmath=False)
def _power_changes(
    g: int, terms: int, with_change: bool, inside: Any, inside_change: Any, place: int, work: Any
) -> None:
    """work[4 + i, place:] = n v^(n-1) dv, zero without a change or coordinate."""
    k = inside.shape[1]
    changing = k if with_change else 0
    for i in range(changing):
        dv = load(inside_change, (g * k + i) * LANES)
        store(work[4 + i], place, 0.0)
        for n in range(1, terms):
            slope = multiply(load(work[i], place + LANES * (n - 1)), float(n))
            store(work[4 + i], place + LANES * n, multiply(slope, dv))
    for i in range(changing, 3):
        work[4 + i, place : place + terms * LANES] = 0.0


@kernel(fastmath=False)
def _weights(
    g: int,
    terms: int,
    with_change: bool,
    inverse_roots: Any,
    series: Any,
    factors: Any,
    place: int,
    work: Any,
) -> None:
    """What powers and their changes are multiplied with, into work[3] and work[7]."""
    groups, orders, width = series.shape[0], series.shape[1], series.shape[2]
    own = factors.shape[0] - 1 if with_change else factors.shape[0]
    last_factor = load(factors, ((factors.shape[0] - 1) * groups + g) * LANES)
    if not with_change:
        last_factor = spread(0.0)
    for n in range(terms):
        total = spread(0.0)
        for m in range(own):
            x = load(series, ((g * orders + m) * width + n) * LANES)
            total = fma(load(factors, (m * groups + g) * LANES), x, total)
        store(work[3], place + LANES * n, total)
        # inverse_roots[0] is 0: what stands before the first coefficient does not count.
        slope = load(series, ((g * orders + 1) * width + max(n - 1, 0)) * LANES)
        slope = multiply(slope, inverse_roots[n])
        store(work[7], place + LANES * n, multiply(last_factor, slope))


@kernel(fastmath=False)
def _add_moments(part: int, k: int, terms: int, with_change: bool, work: Any, out: Any) -> None:
    """Moments of MOMENT_GROUPS groups whose powers and weights are in ``work``."""
    x, y, z, weight = work[0], work[1], work[2], work[3]
    dx, dy, dz, rate = work[4], work[5], work[6], work[7]
    # weight z^c + rate dz^c and rate z^c, by group.
    level, slope = work[8], work[8, MOMENT_GROUPS * LANES :]
    stride = terms * LANES
    entry = 0
    for n in range(terms):
        for c in range(n + 1 if k == 3 else 1):
            for group in range(MOMENT_GROUPS):
                at = group * stride
                own, change = load(weight, at + LANES * n), load(rate, at + LANES * n)
                pz = load(z, at + LANES * c)
                dpz = load(dz, at + LANES * c)
                store(level, LANES * group, fma(own, pz, multiply(change, dpz)))
                store(slope, LANES * group, multiply(change, pz))
            for b in range(n - c + 1 if k >= 2 else 1):
                total = spread(0.0)
                for group in range(MOMENT_GROUPS):
                    x_place = group * stride + LANES * (n - c - b)
                    y_place = group * stride + LANES * b
                    px, py = load(x, x_place), load(y, y_place)
                    total = fma(load(level, LANES * group), multiply(px, py), total)
                    if with_change:
                        change = fma(load(dx, x_place), py, multiply(px, load(dy, y_place)))
                        total = fma(load(slope, LANES * group), change, total)
                out[part, entry] += lane_sum(total)
                entry += 1


@kernel(fastmath=False)
def polynomial_sums(
    first: int,
    last: int,
    degree: int,
    constant: float,
    gradient: FloatArray,
    roots: FloatArray,
    inside: FloatArray,
    series: FloatArray,
    values: FloatArray,
    pulls: FloatArray,
    work: FloatArray,
) -> None:
    """values[g, n] = R_n(v); pulls[g, o] = sum_n X^(o+1)_(n-1) roots_n (gradient R_n)(v) / n.

    R_0 = constant. gradient (3, exponents below ``degree``) holds the coefficients of
    (gradient R_n) / n, homogeneous of degree n - 1, for n <= degree; by Euler R_n is its product
    with v. values (G, any, 8), zero beyond the degree; pulls (G, orders, 3, 8), zero for missing
    coordinates; work (>= 3, >= 8 degree). 3 to 5 operations for each unit and exponent.
    """
    k = inside.shape[1]
    orders, width = series.shape[1], series.shape[2]
    x, y, z = work[0], work[1], work[2]
    for g in range(first, last):
        _powers(g, degree, inside, 0, work)
        pulls[g] = 0.0
        values[g] = 0.0
        values[g, 0] = constant
        v0 = load(inside, g * k * LANES)
        v1 = load(inside, (g * k + 1) * LANES) if k >= 2 else spread(0.0)
        v2 = load(inside, (g * k + 2) * LANES) if k == 3 else spread(0.0)
        entry = 0
        for n in range(1, degree + 1):
            g0 = g1 = g2 = spread(0.0)
            for c in range(n if k == 3 else 1):
                i0 = i1 = i2 = spread(0.0)
                for b in range(n - c if k >= 2 else 1):
                    power = multiply(load(x, LANES * (n - 1 - c - b)), load(y, LANES * b))
                    i0 = fma(power, gradient[0, entry], i0)
                    i1 = fma(power, gradient[1, entry], i1)
                    if k == 3:
                        i2 = fma(power, gradient[2, entry], i2)
                    entry += 1
                if k == 3:
                    pz = load(z, LANES * c)
                    g0, g1, g2 = fma(i0, pz, g0), fma(i1, pz, g1), fma(i2, pz, g2)
                else:
                    g0, g1 = i0, i1
            value = fma(v0, g0, fma(v1, g1, multiply(v2, g2)))
            store(values, (g * values.shape[1] + n) * LANES, value)
            for order in range(pulls.shape[1]):
                slope = ((g * orders + order + 1) * width + n - 1) * LANES
                weight = multiply(load(series, slope), roots[n])
                place = (g * pulls.shape[1] + order) * 3 * LANES
                store(pulls, place, fma(weight, g0, load(pulls, place)))
                store(pulls, place + LANES, fma(weight, g1, load(pulls, place + LANES)))
                store(pulls, place + 2 * LANES, fma(weight, g2, load(pulls, place + 2 * LANES)))


# ------------------------------------------------------------------------------------------------
# Hessian products
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def assemble_product(
    W: FloatArray,
    a: FloatArray,
    rows: FloatArray,
    slopes: FloatArray,
    basis: FloatArray,
    known: FloatArray,
    change_W: FloatArray,
    change_b: FloatArray,
    change_a: FloatArray,
    change_c: float,
    sums: FloatArray,
    inside: FloatArray,
    product_W: FloatArray,
    product_b: FloatArray,
    product_a: FloatArray,
) -> float:
    """Hessian product from what a change makes of all R_n, and from the change of each unit.

    The former is ``sums``: (G, 5 + d, 8), the output of `pair_product`, or S^0 to S^2, (G, 3, 8),
    with V ``inside`` (G, any, 3, 8). Pairs put what they contribute to V^m . dw and M dw there. The
    latter is that of the gradient 2 (S^0, a S^1, a (V + S^2 w)) with R_n held fixed:

        S^m -> S^(m+1) db + S^(m+2) w . dw + V^m . dw,
        V^m -> V^(m+1) db + V^(m+2) w . dw + M dw.

    ``slopes`` (h, d) is V + S^2 w; ``known`` (h, 10 + 3 k + k^2) holds S^1, S^2, S^3 and that of
    s X^4; X^0_0, X^1_0, X^2_0; X^1_(terms-1), X^2_(terms-1), X^2_(terms-2); V^0, V^1, V^2 and M in
    the coordinates ``basis`` @ x. Returns the entry of the constant.
    """
    k = basis.shape[0]
    from_pairs = sums.shape[1] > 3
    inner, along = np.empty(k), np.empty(k)
    constant = change_c
    for j in range(W.shape[0]):
        g, lane = j // LANES, j % LANES
        s1, s2, s3, s4 = known[j, 0], known[j, 1], known[j, 2], known[j, 3]
        da, db, rate = change_a[j], change_b[j], 0.0
        for column in range(W.shape[1]):
            rate += W[j, column] * change_W[j, column]
        for i in range(k):
            inner[i] = 0.0
            for column in range(W.shape[1]):
                inner[i] += basis[i, column] * change_W[j, column]
        value = sums[g, 0, lane] + s1 * db + s2 * rate + known[j, 4] * change_c
        slope = sums[g, 1, lane] + s2 * db + s3 * rate + known[j, 5] * change_c
        radial = sums[g, 2, lane] + s3 * db + known[j, 6] * change_c
        if from_pairs:
            # The last terms, where differentiation in biases loses no degree.
            slope += known[j, 7] * sums[g, 3, lane]
            radial += known[j, 8] * sums[g, 3, lane] + known[j, 9] * sums[g, 4, lane]
        for i in range(k):
            v1, v2 = known[j, 10 + k + i], known[j, 10 + 2 * k + i]
            value += known[j, 10 + i] * inner[i]
            slope += v1 * inner[i]
            radial += v2 * inner[i]
            along[i] = v1 * db + v2 * rate
            for other in range(k):
                along[i] += known[j, 10 + 3 * k + i * k + other] * inner[other]
            if not from_pairs:
                along[i] += inside[g, 0, i, lane]
        product_a[j] = 2.0 * value
        product_b[j] = 2.0 * (da * s1 + a[j] * slope)
        for column in range(W.shape[1]):
            pull = radial * W[j, column] + s2 * change_W[j, column] + s4 * rate * rows[j, column]
            if from_pairs:
                pull += sums[g, PRODUCT_ROWS + column, lane]
            for i in range(k):
                pull += basis[i, column] * along[i]
            product_W[j, column] = 2.0 * (da * slopes[j, column] + a[j] * pull)
        constant += da * known[j, 4] + a[j] * (db * known[j, 5] + rate * known[j, 6])
    return 2.0 * constant
