"""Many vectors in few dimensions that are nearly orthogonal: mutually unbiased bases.

For an odd prime power q the q + 1 bases of C^q that are the standard one and

    v_ab(x) = psi(a x^2 + b x) / sqrt(q),    a, b, x in the field of q elements,

psi a nontrivial additive character, are mutually unbiased: vectors of different bases have inner
products of size 1 / sqrt(q) (Wootters and Fields, Ann. Phys. 191, 1989; Alltop, IEEE Trans. Inf.
Theory 26, 1980). Real and imaginary parts side by side, of v and of i v, make 2 q (q + 1) unit
vectors of R^(2 q) whose inner products are at most 1 / sqrt(q) in size: independent random vectors
have up to sqrt(2 log n) times more. Rows without structure, whose distances are nearly alike, want
to be mapped to such vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["field_tables", "largest_order", "nearly_orthogonal"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


def largest_order(most: int) -> tuple[int, int] | None:
    """Return (p, m), p an odd prime, with the largest p^m up to ``most``; None below 3."""
    for q in range(most, 2, -1):
        p = next((divisor for divisor in range(2, q + 1) if q % divisor == 0), q)
        m = 1
        while p**m < q:
            m += 1
        if p > 2 and p**m == q:
            return p, m
    return None


def field_tables(p: int, m: int) -> tuple[IndexArray, IndexArray]:
    """Return the sums and the products of the field of q = p^m elements, two (q, q) tables.

    The element number e is the polynomial whose coefficients are the digits of e to the base p.
    """
    q = p**m
    digits = np.arange(q)[:, None] // p ** np.arange(m) % p
    weights = p ** np.arange(m)
    sums = (digits[:, None, :] + digits[None, :, :]) % p @ weights
    plain = np.zeros((q, q, 2 * m - 1), np.int64)
    for i in range(m):
        plain[:, :, i : i + m] += digits[:, None, i, None] * digits[None, :, :]
    # t^m = the polynomial number ``rule``: irreducible if no product of others vanishes.
    for rule in range(q):
        products = plain.copy()
        for power in range(2 * m - 2, m - 1, -1):
            products[:, :, power - m : power] += products[:, :, power, None] * digits[rule]
        table = products[:, :, :m] % p @ weights
        if m == 1 or np.all(table[1:, 1:]):
            return sums, table
    raise AssertionError("every finite field has an irreducible polynomial")


def nearly_orthogonal(n: int, k: int) -> FloatArray | None:
    """Return n unit vectors of R^k with inner products of at most 1 / sqrt(q), q about k / 2.

    q is the largest odd prime power up to k / 2; None where there are fewer than n such vectors.
    All v come before all i v. O(n k + q^2) time and memory.
    """
    order = largest_order(k // 2)
    if order is None:
        return None
    p, m = order
    q = p**m
    if n > 2 * q * (q + 1):
        return None
    sums, products = field_tables(p, m)
    number = np.arange(n) % (q * (q + 1))
    basis, b = number // q - 1, number % q
    x = np.arange(q)
    vectors = np.zeros((n, q), np.complex128)
    standard = basis < 0
    vectors[standard, b[standard]] = 1.0
    quadratic = products[basis[~standard, None], products[x, x]]
    value = sums[quadratic, products[b[~standard, None], x]]
    # The constant coefficient is a linear form, so this is an additive character.
    vectors[~standard] = np.exp(2j * np.pi / p * (value % p)) / np.sqrt(q)
    vectors[q * (q + 1) :] *= 1j
    out = np.zeros((n, k))
    out[:, :q], out[:, q : 2 * q] = vectors.real, vectors.imag
    return out
