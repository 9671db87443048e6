"""Our matrix product beside numpy's and Numba's, all on one thread, in GFLOP/s.

Run ``OPENBLAS_NUM_THREADS=1 python bench/test_bench_matmul.py`` for the table, or with ``pytest
--benchmark-only`` for one row per shape with the same figures in ``extra_info``. Rivals take turns
and each keeps its best time, so that other load hits all alike. numpy and Numba both call OpenBLAS,
the latter scipy's copy; its thread count must be set before it loads.
"""

import os
import time

import numba
import numpy as np
import pytest

from derand_fast.kernels.matmul import multiply, workspace_size

SHAPES = [
    (512, 256, 256),
    (256, 256, 512),
    (1024, 64, 10),
    (1024, 1000, 2),
    (1024, 32, 64),
    (1024, 10, 64),
    (16, 64, 1024),
    (512, 512, 10),
    (2048, 2048, 2048),
]
TRANSPOSED = ["a @ b", "a.T @ b", "a @ b.T"]


@numba.njit(nogil=True)
def numba_dot(a, b, out):
    np.dot(a, b, out)


def operands(shape, dtype, transposed):
    """Factors (m, k) and (k, n), stored transposed where the name of the product says so."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if transposed == "a.T @ b" else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if transposed == "a @ b.T" else (k, n)).astype(dtype)
    a = a.T if transposed == "a.T @ b" else a
    b = b.T if transposed == "a @ b.T" else b
    return a, b, np.empty((m, n), dtype), np.empty(workspace_size(n, k), dtype)


def gigaflops(shape, dtype, transposed, seconds=0.6):
    """GFLOP/s of each way, best of interleaved repetitions, after one checked call of each."""
    m, n, k = shape
    a, b, out, workspace = operands(shape, dtype, transposed)
    ways = {
        "ours": lambda: multiply(a, b, out, False, workspace),
        "numpy": lambda: np.matmul(a, b, out=out),
        "numba": lambda: numba_dot(a, b, out),
    }
    exact = a.astype(float) @ b.astype(float)
    for way in ways.values():
        out.fill(np.nan)
        way()
        # Rounding of k terms, with a factor four to spare for the sizes of normal numbers.
        assert abs(out - exact).max() <= 4 * k * np.finfo(dtype).eps * (abs(a) @ abs(b)).max()
    flops = 2 * m * n * k
    repeats = max(1, int(2e6 / flops))
    best = dict.fromkeys(ways, np.inf)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(repeats):
                way()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats)
    return {name: flops / duration / 1e9 for name, duration in best.items()}


@pytest.mark.skipif(os.environ.get("OPENBLAS_NUM_THREADS") != "1", reason="rivals need one thread")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("transposed", TRANSPOSED)
@pytest.mark.parametrize("shape", SHAPES)
def test_product(benchmark, shape, dtype, transposed):
    a, b, out, workspace = operands(shape, dtype, transposed)
    figures = gigaflops(shape, dtype, transposed)
    benchmark.extra_info.update({name: round(value, 1) for name, value in figures.items()})
    benchmark(multiply, a, b, out, False, workspace)
    assert np.isfinite(out).all()


def main():
    from machine import describe

    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        raise SystemExit("set OPENBLAS_NUM_THREADS=1: the rivals must run on one thread")
    print(describe())
    print(f"{'GFLOP/s':34} {'ours':>8} {'numpy':>8} {'numba':>8}")
    for dtype in (np.float64, np.float32):
        for shape in SHAPES:
            for transposed in TRANSPOSED:
                figures = gigaflops(shape, dtype, transposed)
                name = f"{np.dtype(dtype).name} {transposed:8} {'x'.join(map(str, shape))}"
                print(f"{name:34}", *(f"{value:8.1f}" for value in figures.values()), flush=True)


if __name__ == "__main__":
    main()
