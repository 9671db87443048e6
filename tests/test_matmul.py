"""The small matrix product against extended precision, at every small shape and on every tile."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from derand_fast.kernels.matmul import (
    COLUMN_BLOCK,
    DEPTH_BLOCK,
    TILE_ROWS,
    multiply,
    workspace_size,
)

DTYPES = [np.float64, np.float32]
PLAIN, LEFT, RIGHT = range(3)
SENTINEL = -77.0


@numba.njit(nogil=True)
def multiply_blocks(transposed, a, b, out, m, n, k, accumulate, workspace):
    """One product of the leading blocks of bigger arrays, as a kernel would call it."""
    target = out[1 : m + 1, 1 : n + 1]
    if transposed == LEFT:
        multiply(a[:k, :m].T, b[:k, :n], target, accumulate, workspace)
    elif transposed == RIGHT:
        multiply(a[:m, :k], b[:n, :k].T, target, accumulate, workspace)
    else:
        multiply(a[:m, :k], b[:k, :n], target, accumulate, workspace)


def stored(transposed, a, b):
    """The arrays whose transposition, where asked for, gives a and b back."""
    a = np.ascontiguousarray(a.T) if transposed == LEFT else a
    b = np.ascontiguousarray(b.T) if transposed == RIGHT else b
    return a, b


def product(transposed, a, b, former=None):
    """Compute out (+)= a @ b amid a frame of sentinels and with a poisoned workspace."""
    (m, k), n = a.shape, b.shape[1]
    out = np.full((m + 2, n + 2), SENTINEL, a.dtype)
    out[1:-1, 1:-1] = np.nan if former is None else former
    workspace = np.full(workspace_size(n, k) + 1, np.nan, a.dtype)
    workspace[-1] = SENTINEL
    arrays = stored(transposed, a, b)
    multiply_blocks(transposed, *arrays, out, m, n, k, former is not None, workspace)
    assert workspace[-1] == SENTINEL
    result = out[1:-1, 1:-1].copy()
    out[1:-1, 1:-1] = SENTINEL
    assert (out == SENTINEL).all()
    return result


def assert_close(result, a, b, former):
    """The result is the product, but for rounding.

    A term passes through at most min(k, DEPTH_BLOCK) rounded operations in its block, then one for
    each later block, at most k in all, and the former entry adds one: (k + 1) u (|former| +
    |a| |b|) to first order; k + 2 covers the higher orders (k^2 u < 1/2). The reference, in
    extended precision, rounds at most as often with its own unit, so the units add.
    """
    exact_a, exact_b, exact_former = (x.astype(np.longdouble) for x in (a, b, former))
    magnitude = abs(exact_former) + abs(exact_a) @ abs(exact_b)
    unit = (np.finfo(a.dtype).eps + np.finfo(np.longdouble).eps) / 2
    error = abs(result - (exact_former + exact_a @ exact_b))
    assert (error <= (a.shape[1] + 2) * unit * magnitude).all()


# Depths are packed by fours; beyond that all are alike. Their remainders by 13 are all there are.
SMALL_DEPTHS = (*range(13), 16, 17, 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [PLAIN, LEFT, RIGHT])
def test_every_small_shape(dtype, transposed):
    """The largest shape of each depth is right; smaller ones are its corners, bit for bit."""
    size = 41
    rng = np.random.default_rng(transposed)
    a, b, former = rng.normal(size=(3, size, size)).astype(dtype)
    workspace = np.full(workspace_size(size, size), np.nan, dtype)
    arrays = stored(transposed, a, b)
    for k in SMALL_DEPTHS:
        expected = product(transposed, a[:, :k], b[:k], former)
        assert_close(expected, a[:, :k], b[:k], former)
        framed = np.full((size + 2, size + 2), SENTINEL, dtype)
        for m in range(size):
            # All n where m is small, else every 13th from a start that moves with the depth, so
            # that every pair of m and n is met.
            step = 1 if m < 10 else 13
            for n in range((m + k) % step, size, step):
                framed[1 : m + 1, 1 : n + 1] = former[:m, :n]
                multiply_blocks(transposed, *arrays, framed, m, n, k, True, workspace)
                assert (framed[1 : m + 1, 1 : n + 1] == expected[:m, :n]).all()
                framed[1 : m + 1, 1 : n + 1] = SENTINEL
                assert (framed == SENTINEL).all()


LARGE = [
    (3, 2, DEPTH_BLOCK),
    (5, COLUMN_BLOCK, DEPTH_BLOCK + 1),
    (TILE_ROWS, COLUMN_BLOCK + 1, 2 * DEPTH_BLOCK + 3),
    (67, 2 * COLUMN_BLOCK + 5, 3),
    (260, 33, 1000),
    (1, 1, 2000),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [PLAIN, LEFT, RIGHT])
@pytest.mark.parametrize("shape", LARGE)
def test_shapes_beyond_the_blocks(dtype, transposed, shape):
    m, n, k = shape
    rng = np.random.default_rng(m)
    a = rng.normal(size=(m, k)).astype(dtype)
    b = rng.normal(size=(k, n)).astype(dtype)
    former = rng.normal(size=(m, n)).astype(dtype)
    assert_close(product(transposed, a, b), a, b, np.zeros_like(former))
    assert_close(product(transposed, a, b, former), a, b, former)


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_are_exact(dtype):
    """Small integers add without rounding, in any order: equality, not closeness."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (77, 600)), rng.integers(-9, 10, (600, 401))
    for transposed in (PLAIN, LEFT, RIGHT):
        assert (product(transposed, a.astype(dtype), b.astype(dtype)) == a @ b).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_on_row_and_column_alone(dtype):
    """Permuted and cut out products, whole or by depth blocks, are the same bits."""
    m, n, k = 90, 430, 2 * DEPTH_BLOCK + 37
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    whole = product(PLAIN, a, b)
    assert (product(LEFT, a, b) == whole).all()
    assert (product(RIGHT, a, b) == whole).all()
    rows, columns = rng.permutation(m)[:61], rng.permutation(n)[:397]
    part = product(PLAIN, np.ascontiguousarray(a[rows]), np.ascontiguousarray(b[:, columns]))
    assert (part == whole[np.ix_(rows, columns)]).all()
    built = np.zeros_like(whole)
    for first in range(0, k, DEPTH_BLOCK):
        last = first + DEPTH_BLOCK
        built = product(PLAIN, np.ascontiguousarray(a[:, first:last]), b[first:last], built)
    assert (built == whole).all()


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_alignment_leaves_the_bits(offset):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(20, 50)), rng.normal(size=(50, 30))
    moved = []
    for array in (a, b, np.empty((20, 30)), np.empty(workspace_size(30, 50))):
        buffer = np.empty(array.size + offset)[offset:]
        buffer[:] = array.ravel()
        moved.append(buffer.reshape(array.shape))
    multiply(*moved[:3], False, moved[3])
    assert (moved[2] == product(PLAIN, a, b)).all()


def test_depth_zero_writes_zeros_or_nothing():
    former = np.arange(6.0).reshape(2, 3)
    a, b = np.empty((2, 0)), np.empty((0, 3))
    for transposed in (PLAIN, LEFT, RIGHT):
        assert (product(transposed, a, b) == 0).all()
        assert (product(transposed, a, b, former) == former).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_reach_their_row_and_column_only(poison):
    rng = np.random.default_rng(3)
    a, b = abs(rng.normal(size=(13, 21))), abs(rng.normal(size=(21, 35)))
    a[4, 20] = poison
    b[7, 34] = poison
    with np.errstate(invalid="ignore"):
        expected = a @ b
    for transposed in (PLAIN, LEFT, RIGHT):
        result = product(transposed, a, b)
        special = ~np.isfinite(expected)
        assert special.sum() == 13 + 35 - 1
        np.testing.assert_array_equal(result[special], expected[special])
        assert np.isfinite(result[~special]).all()


def test_python_arrays_read_only_inputs_and_transposes():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(9, 12)), rng.normal(size=(12, 17))
    expected = product(PLAIN, a, b)
    workspace = np.empty(workspace_size(17, 12))
    a_turned, b_turned = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    for array in (a, b, a_turned, b_turned):
        array.flags.writeable = False
    # Mixed pairs are met above; each kind of pair is compiled anew here.
    for left, right in [(a, b), (a_turned.T, b_turned.T)]:
        out = np.full((9, 17), np.nan)
        multiply(left, right, out, False, workspace)
        assert (out == expected).all()


def test_threads_at_once_give_the_bits_of_one():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(300, 310)), rng.normal(size=(310, 290))
    expected = product(PLAIN, a, b)

    def work(_):
        return product(PLAIN, a, b)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(work, range(20)))
    assert all((result == expected).all() for result in results)


def test_workspace_of_the_largest_serves_all():
    sizes = np.array([[workspace_size(n, k) for k in range(300)] for n in range(0, 420, 5)])
    assert (np.diff(sizes, axis=0) >= 0).all()
    assert (np.diff(sizes, axis=1) >= 0).all()
    assert sizes.max() == workspace_size(10**6, 10**6)


OTHER_PROCESSORS = {
    "haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"},
    "generic": {"NUMBA_CPU_NAME": "generic"},
}
CHECK_ON_OTHER_PROCESSOR = """
import numpy as np
from derand_fast.kernels import matmul
rng = np.random.default_rng(0)
for _ in range(40):
    m, n, k = rng.integers(0, 60, 3)
    a = rng.integers(-9, 10, (m, k)).astype(float)
    b = rng.integers(-9, 10, (k, n)).astype(float)
    workspace = np.empty(matmul.workspace_size(n, k))
    out = np.ones((m, n))
    matmul.multiply(a, b, out, True, workspace)
    assert (out == a @ b + 1).all(), (m, n, k)
print("tile", matmul.TILE_ROWS, matmul.VECTORS, matmul.VECTOR_BYTES)
"""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="names x86 processors")
@pytest.mark.parametrize(
    ("processor", "tile"), [("haswell", "tile 4 3 32"), ("generic", "tile 4 2 16")]
)
def test_tiles_of_other_processors(processor, tile, tmp_path):
    environment = os.environ | OTHER_PROCESSORS[processor] | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", CHECK_ON_OTHER_PROCESSOR]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == tile
