"""Tables of embeddings: distortion over all pairs, held-out rows, smallest dimension, scaling.

    python bench/embedding_table.py distortion [--only digits] [--threads 2] [--seconds 30]
    python bench/embedding_table.py heldout
    python bench/embedding_table.py auto
    python bench/embedding_table.py scaling --rows 2500 5000 10000 20000

prints Markdown. Every distortion is (max r - min r) / (max r + min r) over all pairs of distinct
rows, r the ratio of squared distances: the value of max |c r - 1| at the best scalar c. Rivals are
measured by the same exact kernel. Seconds are wall time of ``fit``, compiled beforehand, with the
search unlimited unless --seconds is given; CPU seconds stand beside them, since a busy machine
shows in the first and not in the second.
"""

import argparse
import math
import resource
import time
from collections.abc import Iterator

import numpy as np
import scipy.sparse
from embedding_data import DATA, mixture
from machine import describe
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from derand_fast.embedding import JLEmbedding
from derand_fast.embedding_basis import row_space
from derand_fast.embedding_pairs import AllPairs, product

DIMENSIONS = {
    "digits": (10, 20, 30, 50),
    "breast cancer": (5, 10, 20),
    "normalised uniform": (10, 20, 30, 50),
    "gaussian": (20, 50, 100),
    "clusters": (20, 50, 100),
    "manifold": (10, 20, 50, 200),
    "text": (20, 50, 100),
    "squares": (10, 15, 19),
}
HELD_OUT = (("digits", 20), ("manifold", 20), ("clusters", 50), ("gaussian", 30))
SMALLEST = (("digits", 0.2), ("digits", 0.1), ("gaussian", 0.2), ("breast cancer", 0.2))
SEEDS = range(5)
ROW = "| " + " | ".join(["{}"] * 9) + " |"


class Rows:
    """Rows reduced to their span, and how well images keep their distances."""

    def __init__(self, X):
        self.X = X
        space = row_space(X, centred=True)
        self._pairs = AllPairs(space.points, 2)

    def distortion(self, components):
        """Return the optimally scaled distortion of a (k, d) map."""
        A = components.toarray() if scipy.sparse.issparse(components) else np.asarray(components)
        if scipy.sparse.issparse(self.X):
            images = self.X @ A.T
        else:
            images = product(self.X, np.ascontiguousarray(A.T), 2)
        images = images - images.mean(axis=0)
        _, _, low, high = self._pairs.pairs_outside(images, -1.0, math.inf, 0.0, 0)
        return (high - low) / (high + low)

    def best_of(self, kind, k):
        """Return the best of five seeds of a random projection."""
        maps = (kind(k, random_state=seed).fit(self.X).components_ for seed in SEEDS)
        return min(self.distortion(components) for components in maps)

    def principal(self, k):
        """Return the distortion of principal components (uncentred where rows are sparse)."""
        if scipy.sparse.issparse(self.X):
            return self.distortion(TruncatedSVD(k, random_state=0).fit(self.X).components_)
        k = min(k, *self.X.shape)
        return self.distortion(PCA(k, svd_solver="full").fit(self.X).components_)


def timed_fit(embedding, X):
    """Return the fitted embedding, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    embedding.fit(X)
    return embedding, time.perf_counter() - wall, time.process_time() - cpu


def compile_kernels():
    """Compile everything on small rows."""
    X = np.random.default_rng(0).random((200, 20))
    JLEmbedding(3, max_iter=20, n_jobs=2).fit(X).distortion(X)


def distortion_rows(only, threads, seconds) -> Iterator[str]:
    """Yield the lines of the main table."""
    yield ROW.format(
        *("data", "k", "Gaussian, best of 5", "sparse, best of 5", "PCA", "**ours**"),
        *("lower bound", "s", "CPU s"),
    )
    yield ROW.format(*["---"] * 9)
    for name, dimensions in DIMENSIONS.items():
        if only and name not in only:
            continue
        rows = Rows(DATA[name]())
        for k in dimensions:
            embedding, wall, cpu = timed_fit(
                JLEmbedding(k, n_jobs=threads, time_limit=seconds), rows.X
            )
            rivals = (
                rows.best_of(GaussianRandomProjection, k),
                rows.best_of(SparseRandomProjection, k),
                rows.principal(k),
            )
            yield ROW.format(
                name,
                k,
                *(f"{rival:.3f}" for rival in rivals),
                f"**{embedding.max_distortion_:.4f}**",
                f"{embedding.lower_bound_:.3f}",
                f"{wall:.1f}",
                f"{cpu:.1f}",
            )


def held_out_rows(threads, seconds) -> Iterator[str]:
    """Yield the lines of the table of rows never seen: fitted on the even, measured on the odd."""
    yield "| data | k | fitted rows | held-out rows | Gaussian, best of 5, held-out rows |"
    yield "| --- | --- | --- | --- | --- |"
    for name, k in HELD_OUT:
        X = DATA[name]()
        order = np.random.default_rng(0).permutation(len(X))
        embedding = JLEmbedding(k, n_jobs=threads, time_limit=seconds).fit(X[order[::2]])
        rows = Rows(np.ascontiguousarray(X[order[1::2]]))
        held_out = rows.distortion(embedding.components_)
        rival = rows.best_of(GaussianRandomProjection, k)
        yield f"| {name} | {k} | {embedding.max_distortion_:.3f} | {held_out:.3f} | {rival:.3f} |"


def smallest_rows(threads, seconds) -> Iterator[str]:
    """Yield the lines of the table of smallest dimensions."""
    yield "| data | eps | k | distortion | s |"
    yield "| --- | --- | --- | --- | --- |"
    for name, eps in SMALLEST:
        embedding, wall, _ = timed_fit(
            JLEmbedding(eps=eps, n_jobs=threads, time_limit=seconds), DATA[name]()
        )
        yield (
            f"| {name} | {eps} | {embedding.n_components_} | {embedding.max_distortion_:.4f} "
            f"| {wall:.1f} |"
        )


def scaling_rows(sizes, threads, seconds) -> Iterator[str]:
    """Yield the lines of the table of times at growing n (d = 784, k = 32), and the exponent."""
    yield "| n | Gaussian (one) | **ours** | lower bound | s | CPU s | peak MB so far |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    times = []
    for n in sizes:
        X = mixture(n)
        embedding, wall, cpu = timed_fit(JLEmbedding(32, n_jobs=threads, time_limit=seconds), X)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        projection = GaussianRandomProjection(32, random_state=0).fit(X)
        rival = Rows(X).distortion(projection.components_)
        times.append(cpu)
        yield (
            f"| {n} | {rival:.3f} | **{embedding.max_distortion_:.3f}** "
            f"| {embedding.lower_bound_:.3f} | {wall:.1f} | {cpu:.1f} | {peak:.0f} |"
        )
    if len(times) > 1:
        exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        yield f"\nCPU seconds grow like n^{exponent:.2f}."


def main():
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=("distortion", "heldout", "auto", "scaling"))
    parser.add_argument("--only", nargs="+", choices=tuple(DATA))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--rows", nargs="+", type=int, default=[2500, 5000, 10000, 20000])
    options = parser.parse_args()
    print(describe(), flush=True)
    print()
    compile_kernels()
    lines = {
        "distortion": lambda: distortion_rows(options.only, options.threads, options.seconds),
        "heldout": lambda: held_out_rows(options.threads, options.seconds),
        "auto": lambda: smallest_rows(options.threads, options.seconds),
        "scaling": lambda: scaling_rows(options.rows, options.threads, options.seconds),
    }[options.table]()
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
