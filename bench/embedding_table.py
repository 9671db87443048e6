"""Tables of embeddings: distortion over all pairs, held-out rows, smallest dimension, scaling.

    python bench/embedding_table.py                              # everything, about 15 minutes
    python bench/embedding_table.py distortion norms             # some of the tables
    python bench/embedding_table.py distortion --only digits --all-dimensions
    python bench/embedding_table.py scaling --rows 2500 5000 10000 20000 --csv results/

prints Markdown; --csv DIRECTORY also writes a file for each table. Every distortion is
(max r - min r) / (max r + min r) over all pairs of distinct rows, r the ratio of squared distances:
the value of max |c r - 1| at the best scalar c. Rivals are measured by the same exact kernel.
Seconds are wall time of ``fit``, compiled beforehand, with the search unlimited unless --seconds is
given; CPU seconds stand beside them, since a busy machine shows in the first and not in the second.
"""

import argparse
import csv
import math
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from embedding_data import DATA, mixture
from machine import describe
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from derand_fast.embedding import JLEmbedding
from derand_fast.embedding_basis import row_space
from derand_fast.embedding_pairs import AllPairs, product

# Dimensions of each data set that are always shown, and those of --all-dimensions.
SHOWN = {
    "digits": (20, 30, 50),
    "breast cancer": (10,),
    "normalised uniform": (30,),
    "gaussian": (50,),
    "clusters": (50,),
    "manifold": (20, 200),
    "text": (50,),
    "squares": (19,),
}
MORE = {
    "digits": (10,),
    "breast cancer": (5, 20),
    "normalised uniform": (10, 20, 50),
    "gaussian": (20, 100),
    "clusters": (20, 100),
    "manifold": (10, 50),
    "text": (20, 100),
    "squares": (10, 15),
}
HELD_OUT = (("digits", 20), ("manifold", 20), ("clusters", 50), ("gaussian", 30))
SMALLEST = (("digits", 0.2), ("digits", 0.1), ("gaussian", 0.2), ("breast cancer", 0.2))
SEEDS = range(5)

# A table: lines of cells, the first of them the names of the columns.
Lines = Iterator[tuple[Any, ...]]


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


def distortion_lines(options: argparse.Namespace) -> Lines:
    """Yield the main table."""
    yield (
        *("data", "k", "Gaussian, best of 5", "sparse, best of 5", "PCA", "**ours**"),
        *("lower bound", "s", "CPU s"),
    )
    for name, shown in SHOWN.items():
        if options.only and name not in options.only:
            continue
        rows = Rows(DATA[name]())
        for k in sorted(shown + (MORE[name] if options.all_dimensions else ())):
            embedding, wall, cpu = timed_fit(
                JLEmbedding(k, n_jobs=options.threads, time_limit=options.seconds), rows.X
            )
            rivals = (
                rows.best_of(GaussianRandomProjection, k),
                rows.best_of(SparseRandomProjection, k),
                rows.principal(k),
            )
            yield (
                *(name, k, *(f"{rival:.3f}" for rival in rivals)),
                f"**{embedding.max_distortion_:.4f}**",
                *(f"{embedding.lower_bound_:.3f}", f"{wall:.1f}", f"{cpu:.1f}"),
            )


def norms_lines(options: argparse.Namespace) -> Lines:
    """Yield the experiment of arXiv 2510.19382: norms of the rows only, both methods."""
    yield "method", "n", "d", "k", "largest distortion of a norm", "s", "CPU s"
    X = DATA["normalised uniform"]()
    for method in ("search", "objective"):
        make = {"pairs": "norms", "method": method, "n_jobs": options.threads}
        # Kernels of norms are compiled first.
        JLEmbedding(30, max_iter=1, **make).fit(X)
        embedding, wall, cpu = timed_fit(JLEmbedding(30, **make), X)
        found = f"{embedding.max_distortion_:.1e}"
        yield method, *X.shape, 30, found, f"{wall:.2f}", f"{cpu:.2f}"


def held_out_lines(options: argparse.Namespace) -> Lines:
    """Yield the table of rows never seen: fitted on half of the rows, measured on the others."""
    yield "data", "k", "fitted rows", "held-out rows", "Gaussian, best of 5, held-out rows"
    for name, k in HELD_OUT:
        if options.only and name not in options.only:
            continue
        X = DATA[name]()
        order = np.random.default_rng(0).permutation(len(X))
        embedding = JLEmbedding(k, n_jobs=options.threads, time_limit=options.seconds)
        embedding.fit(X[order[::2]])
        rows = Rows(np.ascontiguousarray(X[order[1::2]]))
        held_out = rows.distortion(embedding.components_)
        rival = rows.best_of(GaussianRandomProjection, k)
        yield name, k, *(f"{x:.3f}" for x in (embedding.max_distortion_, held_out, rival))


def smallest_lines(options: argparse.Namespace) -> Lines:
    """Yield the table of smallest dimensions."""
    yield "data", "eps", "k", "distortion", "s", "CPU s"
    for name, eps in SMALLEST:
        if options.only and name not in options.only:
            continue
        embedding, wall, cpu = timed_fit(
            JLEmbedding(eps=eps, n_jobs=options.threads, time_limit=options.seconds), DATA[name]()
        )
        found = f"{embedding.max_distortion_:.4f}"
        yield name, eps, embedding.n_components_, found, f"{wall:.1f}", f"{cpu:.1f}"


def scaling_lines(options: argparse.Namespace) -> Lines:
    """Yield times at growing n (d = 784, k = 32); the last line has the fitted exponents.

    A pass over the pairs (values and gradients) is quadratic in n. A fit makes as many passes as a
    fixed number of flops allows, but not fewer than 120, so that it grows more slowly at first.
    """
    columns = "Gaussian (one)", "**ours**", "lower bound", "s", "CPU s", "CPU s a pass"
    yield "n", *columns, "peak MB so far"
    times, passes = [], []
    for n in options.rows:
        X = mixture(n)
        embedding, wall, cpu = timed_fit(
            JLEmbedding(32, n_jobs=options.threads, time_limit=options.seconds), X
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        projection = GaussianRandomProjection(32, random_state=0).fit(X)
        rival = Rows(X).distortion(projection.components_)
        times.append(cpu)
        passes.append(seconds_of_a_pass(X, embedding, options.threads))
        yield (
            *(n, f"{rival:.3f}", f"**{embedding.max_distortion_:.3f}**"),
            *(f"{embedding.lower_bound_:.3f}", f"{wall:.1f}", f"{cpu:.1f}"),
            *(f"{passes[-1]:.3f}", f"{peak:.0f}"),
        )
    if len(times) > 1:
        exponents = [np.polyfit(np.log(options.rows), np.log(y), 1)[0] for y in (times, passes)]
        yield "fit", "", "", "", "", *(f"n^{exponent:.2f}" for exponent in exponents), ""


def seconds_of_a_pass(X: Any, embedding: JLEmbedding, threads: int) -> float:
    """Return the processor seconds of one value and gradient over all pairs, least of three."""
    pairs = AllPairs(np.ascontiguousarray(X, dtype=np.float64), threads)
    images = np.ascontiguousarray(embedding.transform(X), dtype=np.float64)
    taken = []
    for _ in range(3):
        begin = time.process_time()
        pairs.evaluate(images, 10.0, 2.0)
        taken.append(time.process_time() - begin)
    return min(taken)


TABLES = {
    "distortion": distortion_lines,
    "norms": norms_lines,
    "heldout": held_out_lines,
    "auto": smallest_lines,
    "scaling": scaling_lines,
}


def show(name: str, lines: Lines, directory: Path | None) -> None:
    """Print a table as Markdown, line by line, and write it as CSV."""
    print(f"\n## {name}\n")
    kept = []
    for line in lines:
        kept.append([str(cell).strip("*") for cell in line])
        print("| " + " | ".join(str(cell) for cell in line) + " |", flush=True)
        if len(kept) == 1:
            print("|" + " --- |" * len(line))
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"embedding_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept)


def main():
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--only", nargs="+", choices=tuple(DATA), help="data sets")
    parser.add_argument("--all-dimensions", action="store_true", help="more rows in distortion")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=None, help="limit of each search")
    parser.add_argument("--rows", nargs="+", type=int, default=[2500, 5000, 10000, 20000])
    parser.add_argument("--csv", type=Path, metavar="DIRECTORY")
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    print(describe(), flush=True)
    compile_kernels()
    for name in options.tables or TABLES:
        show(name, TABLES[name](options), options.csv)


if __name__ == "__main__":
    main()
