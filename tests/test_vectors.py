"""Vectors and rows of vectors against numpy, lane by lane."""

import numpy as np
import pytest
from numba.core.errors import TypingError

from derand_fast.kernels import vectors
from derand_fast.kernels._jit import kernel
from derand_fast.kernels.vectors import LANES

EPS = np.finfo(np.float64).eps


@kernel(fastmath=False)
def _arithmetic(x, y, number, out):
    a, b = vectors.load(x, 3), vectors.load(y, 5)
    vectors.store(out, 0, vectors.add(a, b))
    vectors.store(out, 8, vectors.multiply(number, b))
    vectors.store(out, 16, vectors.fma(a, number, b))
    vectors.store(out, 24, vectors.spread(number))
    vectors.store(out, 32, number)
    return vectors.lane_sum(a), vectors.extract(b, 2)


def test_arithmetic():
    rng = np.random.default_rng(0)
    x, y, out = rng.normal(size=20), rng.normal(size=20), np.empty((5, LANES))
    total, third = _arithmetic(x, y, 0.3, out)
    a, b = x[3:11], y[5:13]
    assert np.array_equal(out[0], a + b)
    assert np.array_equal(out[1], 0.3 * b)
    # Fused or not: one rounding apart.
    np.testing.assert_allclose(out[2], a * 0.3 + b, atol=2 * EPS)
    assert np.array_equal(out[3:], np.full((2, LANES), 0.3))
    assert total == pytest.approx(np.sum(a), abs=8 * EPS)
    assert third == b[2]


@kernel(fastmath=False)
def _rows(start, ratio, numbers, sums, out):
    power = vectors.powers(vectors.load(start, 0), vectors.load(ratio, 0))
    vectors.store_row(out, 0, power)
    vectors.store_row(out, 64, vectors.fma_numbers(power, numbers, 1, vectors.load_row(sums, 0)))
    pair = vectors.alternate(vectors.load(start, 0), 2.0)
    vectors.store_row(out, 128, vectors.multiply_rows(pair, power))
    vectors.store(out, 192, vectors.dot_numbers(power, numbers, 1, vectors.load(ratio, 0)))
    vectors.store(out, 200, vectors.last_of(power))


def test_rows():
    rng = np.random.default_rng(1)
    start, ratio = rng.normal(size=LANES), rng.uniform(-1, 1, LANES)
    numbers, sums = rng.normal(size=9), rng.normal(size=(LANES, LANES))
    out = np.empty((26, LANES))
    _rows(start, ratio, numbers, sums, out)
    power = [start]
    for _ in range(LANES - 1):
        power.append(power[-1] * ratio)
    power = np.array(power)
    assert np.array_equal(out[:8], power)
    np.testing.assert_allclose(out[8:16], power * numbers[1:, None] + sums, atol=8 * EPS)
    pair = np.where(np.arange(LANES)[:, None] % 2 == 0, start, 2.0)
    assert np.array_equal(out[16:24], pair * power)
    np.testing.assert_allclose(out[24], ratio + numbers[1:] @ power, atol=32 * EPS)
    assert np.array_equal(out[25], power[-1])


@kernel(fastmath=False)
def _load_store(x, out):
    vectors.store(out, 0, vectors.load(x, 0))


@pytest.mark.parametrize(
    "x",
    [np.zeros((8, 8)).T, np.zeros(16)[::2], np.zeros(8, np.float32)],
    ids=["columns", "strided", "float32"],
)
def test_other_arrays_are_refused(x):
    with pytest.raises(TypingError, match="C-contiguous float64"):
        _load_store(x, np.empty(8))


def test_read_only_arrays_are_accepted():
    x, out = np.arange(8.0), np.empty(8)
    x.flags.writeable = False
    _load_store(x, out)
    assert np.array_equal(out, x)
