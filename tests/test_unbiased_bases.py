"""Mutually unbiased bases: their inner products are known."""

import numpy as np
import pytest

from derand_fast.unbiased_bases import field_tables, largest_order, nearly_orthogonal


@pytest.mark.parametrize(
    ("most", "order"),
    [(2, None), (3, (3, 1)), (8, (7, 1)), (9, (3, 2)), (26, (5, 2)), (32, (31, 1)), (4, (3, 1))],
)
def test_largest_order(most, order):
    assert largest_order(most) == order


@pytest.mark.parametrize(("p", "m"), [(3, 1), (7, 1), (3, 2), (5, 2), (3, 3)])
def test_field_axioms(p, m):
    q = p**m
    sums, products = field_tables(p, m)
    generator = np.random.default_rng(0)
    a, b, c = generator.integers(0, q, (3, 500))
    assert np.array_equal(products[a, sums[b, c]], sums[products[a, b], products[a, c]])
    assert np.array_equal(products[a, products[b, c]], products[products[a, b], c])
    assert np.array_equal(products, products.T)
    assert np.array_equal(sums[0], np.arange(q))
    assert np.array_equal(products[1], np.arange(q))
    # Every element but 0 has one inverse, and p times anything is 0.
    assert np.array_equal(np.count_nonzero(products[1:, 1:] == 1, axis=1), np.ones(q - 1))
    multiple = np.zeros(q, np.int64)
    for _ in range(p):
        multiple = sums[multiple, np.arange(q)]
    assert not multiple.any()


@pytest.mark.parametrize("k", [6, 10, 14, 18, 19, 50])
def test_inner_products(k):
    p, m = largest_order(k // 2)
    q = p**m
    n = 2 * q * (q + 1)
    vectors = nearly_orthogonal(n, k)
    assert vectors.shape == (n, k)
    gram = vectors @ vectors.T
    # A few roundings of sums of q products.
    assert np.abs(np.diag(gram) - 1.0).max() < 1e-13
    np.fill_diagonal(gram, 0.0)
    assert np.abs(gram).max() <= 1.0 / np.sqrt(q) + 1e-13
    assert np.abs(gram).max() > 0.8 / np.sqrt(q)
    assert nearly_orthogonal(n + 1, k) is None
    assert np.array_equal(nearly_orthogonal(n // 2 + 1, k), vectors[: n // 2 + 1])


def test_too_few_dimensions():
    assert nearly_orthogonal(2, 5) is None
