"""The register intrinsics against numpy, at every alignment and in both float types."""

import numba
import numpy as np
import pytest

from derand_fast.kernels.simd import (
    LANES,
    add_products,
    add_scaled_row,
    clear_row,
    dot_row,
    load_row,
    new_row,
    scale_row,
    squared_norm,
    store_scaled_row,
    sum_row,
)

DTYPES = [np.float32, np.float64]
FACTOR = -1.7


@numba.njit
def _store_new(array, out):
    row = new_row(array)
    store_scaled_row(row, 1.0, out, 1)


@numba.njit
def _copy(array, offset, out, position):
    row = new_row(array)
    load_row(row, array, offset)
    store_scaled_row(row, 1.0, out, position)


@numba.njit
def _store_scaled(array, offset, factor, out, position):
    row = new_row(array)
    load_row(row, array, offset)
    store_scaled_row(row, factor, out, position)


@numba.njit
def _scale(array, offset, factor, out, position):
    row = new_row(array)
    scale_row(row, factor, array, offset)
    store_scaled_row(row, 1.0, out, position)


@numba.njit
def _add_scaled(array, offset, factor, out, position):
    """out[position:] = array[offset:] + factor * array[offset + 1:]."""
    row = new_row(array)
    load_row(row, array, offset)
    add_scaled_row(row, factor, array, offset + 1)
    store_scaled_row(row, 1.0, out, position)


@numba.njit
def _add_products(array, offset, out, position):
    """out[position:] = array[offset:] + array[offset + 1:] * array[offset + 2:]; factors stay."""
    row, one, other = new_row(array), new_row(array), new_row(array)
    load_row(row, array, offset)
    load_row(one, array, offset + 1)
    load_row(other, array, offset + 2)
    add_products(row, one, other, array)
    store_scaled_row(row, 1.0, out, position)
    store_scaled_row(one, 1.0, out, position + LANES)
    store_scaled_row(other, 1.0, out, position + 2 * LANES)


@numba.njit
def _products(array, offset, other):
    """(row . array[other:], row . row, the sum of row)."""
    row = new_row(array)
    load_row(row, array, offset)
    return dot_row(row, array, other), squared_norm(row, array), sum_row(row, array)


@numba.njit
def _fresh_each_time(array, out):
    """A register reserved in a loop starts from zero in each turn."""
    for turn in range(3):
        row = new_row(array)
        add_scaled_row(row, 1.0, array, turn)
        store_scaled_row(row, 1.0, out, turn * LANES)


@numba.njit
def _sum_of_rows(array, count, out):
    """A reduction: one register through a loop, a second one that must not disturb it."""
    total, other = new_row(array), new_row(array)
    for i in range(count):
        load_row(other, array, np.uint64(i))
        add_products(total, other, other, array)
    store_scaled_row(total, 1.0, out, 0)


@numba.njit
def _clear(array, out):
    row = new_row(array)
    load_row(row, array, 0)
    clear_row(row, array)
    store_scaled_row(row, 1.0, out, 0)


def _numbers(dtype):
    """Thirty numbers that start off any 32-byte boundary."""
    numbers = np.random.default_rng(5).normal(size=31).astype(dtype)[1:]
    numbers.flags.writeable = False
    return numbers


def _eight(array, offset):
    return array[offset : offset + LANES].astype(np.float64)


def _rounding(dtype, magnitudes, count):
    """Error of ``count`` roundings in the type, for sums of terms of these magnitudes."""
    return count * np.finfo(dtype).eps / 2 * magnitudes


def _check(out, position, expected, tolerance):
    """Eight numbers where they should be, and nothing written outside."""
    assert np.all(np.abs(_eight(out, position) - expected) <= tolerance)
    outside = np.delete(out, np.arange(position, position + LANES))
    assert np.all(np.isnan(outside))


def _out(dtype):
    return np.full(40, np.nan, dtype)


OFFSETS = [(0, 0), (1, 0), (0, 3), (5, 2), (7, 9), (13, 31)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_row_is_zero(dtype):
    """Lanes, width and start value of a register; eight numbers are written, no more."""
    out = _out(dtype)
    _store_new(_numbers(dtype), out)
    _check(out, 1, np.zeros(LANES), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "position"), OFFSETS)
def test_moves_and_scalings(dtype, offset, position):
    """Loads and stores are exact; each multiplication is rounded once."""
    array = _numbers(dtype)
    own = _eight(array, offset)
    out = _out(dtype)
    _copy(array, offset, out, position)
    _check(out, position, own, 0)
    factor = float(dtype(FACTOR))
    for function in (_store_scaled, _scale):
        out = _out(dtype)
        function(array, offset, factor, out, position)
        _check(out, position, factor * own, _rounding(dtype, np.abs(factor * own), 1.01))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "position"), OFFSETS[:-1])
def test_fused_sums(dtype, offset, position):
    """A + f b and a + b c, rounded twice without and once with a fused multiply-add."""
    array = _numbers(dtype)
    first, second, third = (_eight(array, offset + step) for step in range(3))
    factor = float(dtype(FACTOR))
    out = _out(dtype)
    _add_scaled(array, offset, factor, out, position)
    magnitude = np.abs(first) + np.abs(factor * second)
    _check(out, position, first + factor * second, _rounding(dtype, magnitude, 2.01))
    out = np.full(3 * LANES + 2, np.nan, dtype)
    _add_products(array, offset, out, 1)
    assert np.isnan(out[[0, -1]]).all()
    magnitude = np.abs(first) + np.abs(second * third)
    errors = np.abs(out[1 : 1 + LANES] - (first + second * third))
    assert np.all(errors <= _rounding(dtype, magnitude, 2.01))
    np.testing.assert_array_equal(out[1 + LANES : -1], [*second, *third])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("offset", "other"), [(0, 0), (1, 6), (9, 2), (22, 21)])
def test_products(dtype, offset, other):
    """Sums of products, squares and lanes: a rounding each and three levels of the tree."""
    array = _numbers(dtype)
    first, second = _eight(array, offset), _eight(array, other)
    dot, square, total = _products(array, offset, other)
    # Eight roundings would also cover a sum taken in order.
    assert abs(dot - first @ second) <= _rounding(dtype, np.abs(first) @ np.abs(second), 8)
    assert abs(square - first @ first) <= _rounding(dtype, first @ first, 8)
    assert abs(total - first.sum()) <= _rounding(dtype, np.abs(first).sum(), 8)
    returned = {kind.return_type[0] for kind in _products.nopython_signatures}
    assert numba.from_dtype(np.dtype(dtype)) in returned  # not widened to float64


@pytest.mark.parametrize("dtype", DTYPES)
def test_registers_are_reserved_afresh_and_kept_apart(dtype):
    """What one turn of a loop, or another register, leaves behind is not seen."""
    array = _numbers(dtype)
    out = np.full(3 * LANES, np.nan, dtype)
    _fresh_each_time(array, out)
    np.testing.assert_array_equal(out, np.concatenate([array[i : i + LANES] for i in range(3)]))
    out = np.full(LANES, np.nan, dtype)
    _sum_of_rows(array, 20, out)
    expected = sum(_eight(array, i) ** 2 for i in range(20))
    # Twenty squares added one after the other.
    assert np.all(np.abs(out - expected) <= _rounding(dtype, expected, 21))


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_pass_lane_by_lane(dtype):
    """NaN and infinity keep their meaning and their lane."""
    array = np.arange(9, dtype=dtype)
    array[2], array[5] = np.nan, np.inf
    out = _out(dtype)
    _scale(array, 1, 2.0, out, 3)
    np.testing.assert_array_equal(out[3:11], 2 * array[1:9])
    assert np.isnan(_products(array, 1, 1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_clear_row(dtype):
    """Whatever the register held, also what is not a number."""
    out = np.ones(LANES, dtype)
    _clear(np.full(LANES, np.nan, dtype), out)
    assert not out.any()
