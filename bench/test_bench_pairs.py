"""One pass over all pairs: 2,000 rows, 20 and 50 dimensions, one thread.

Rival: the same pass with BLAS (one thread) and whole-array NumPy, which keeps several n x n arrays.
``extra_info`` has the time per pair and the largest deviation from the rival.
"""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from derand_fast.embedding_pairs import AllPairs

ROWS = 2000
# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("evaluate",)


class Setup:
    """Rows, images, and the squared distances the rival keeps."""

    def __init__(self, k):
        generator = np.random.default_rng(0)
        self.X = generator.standard_normal((ROWS, 60))
        self.Y = self.X @ generator.standard_normal((60, k)) / np.sqrt(k)
        norms = np.einsum("ij,ij->i", self.X, self.X)
        self.inverse = np.triu(norms[:, None] + norms - 2.0 * self.X @ self.X.T, 1)
        self.inverse[self.inverse > 0.0] = 1.0 / self.inverse[self.inverse > 0.0]
        self.counts = self.inverse > 0.0
        self.ours = AllPairs(self.X, 1)
        found = self.ours.evaluate(self.Y, 0.0, 0.0)
        self.level = found.high + 1.0 / found.low
        self.sharpness = 12.0 / self.level

    def evaluate(self):
        """Our pass."""
        return self.ours.evaluate(self.Y, self.sharpness, self.level)

    def numpy(self):
        """The same gradient, array by array."""
        norms = np.einsum("ij,ij->i", self.Y, self.Y)
        r = (norms[:, None] + norms - 2.0 * self.Y @ self.Y.T) * self.inverse
        v = 1.0 / np.where(self.counts, r, 1.0)
        weights = np.exp(self.sharpness * (r + v - self.level)) * self.counts
        C = weights * (1.0 - v * v) * self.inverse
        C += C.T
        return weights.sum(), 2.0 * (C.sum(axis=1)[:, None] * self.Y - C @ self.Y)


@pytest.fixture(scope="module", params=[20, 50])
def setup(request):
    with threadpool_limits(limits=1, user_api="blas"):
        yield Setup(request.param)


@pytest.mark.parametrize("which", ["evaluate", "numpy"])
def test_bench_pass(benchmark, setup, which):
    result = benchmark(getattr(setup, which))
    gradient = result.gradient if which == "evaluate" else result[1]
    expected = setup.numpy()[1]
    deviation = float(np.abs(gradient - expected).max() / np.abs(expected).max())
    pairs = ROWS * (ROWS - 1) / 2
    benchmark.extra_info["deviation"] = deviation
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_pair"] = benchmark.stats["min"] / pairs * 1e9
    assert deviation < 1e-6
