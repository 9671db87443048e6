"""``derand-fast jl``: embed the rows of a data file in few dimensions, distances kept."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from derand_fast.cli.messages import (
    INTERRUPTED,
    NOT_WRITTEN,
    OK,
    CommandError,
    complain,
    input_errors,
)
from derand_fast.cli.options import add_output_options, add_seed, add_threads, check_plot
from derand_fast.cli.outputs import check_outputs, to_json, write_everything

if TYPE_CHECKING:
    from derand_fast.embedding import JLEmbedding

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_options", "run"]

_PAIRS = ("all", "norms")
_DEFAULT_EPS = 0.1
_SUBJECT = "the data"

SUMMARY = "find a linear map into few dimensions that keeps distances"
DESCRIPTION = """\
Find the linear map A of the rows of a matrix into k dimensions that changes
their distances the least: the distortion is the largest error
| ||A (x - y)||^2 / ||x - y||^2 - 1 | over all pairs of rows x, y, and the one
reported is exact. The same seed gives the same answer unless a time limit cuts
the work short.
"""
EPILOG = """\
data files, one row for each point:
  .npy    a NumPy array
  .npz    a sparse matrix of scipy.sparse.save_npz, or one NumPy array
  .csv    numbers with commas between, perhaps below a line of names
  .mtx    Matrix Market, real

The rows are counted from 0. A row x is embedded as A x, nothing is subtracted.

exit status:
  0    done
  2    wrong usage or bad input; nothing was computed
  3    an output could not be written
  130  interrupted (Ctrl-C): the best map so far is reported if there was one
"""


class _Outcome(NamedTuple):
    """What there is to report; distortions of other maps by name."""

    embedding: JLEmbedding
    n_rows: int
    others: dict[str, float]
    seconds: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "data",
        metavar="DATA",
        nargs="?",
        help="data file (default: built-in, 150 points on a curved surface of dimension 3 in 40 "
        "dimensions)",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("-k", metavar="K", type=int, help="dimensions of the image")
    size.add_argument(
        "--eps",
        metavar="E",
        type=float,
        help="take the fewest dimensions found that have a distortion of at most E "
        f"(default: {_DEFAULT_EPS})",
    )
    add(
        "--pairs",
        choices=_PAIRS,
        default="all",
        help="what is to keep its length: the differences of all pairs of rows (default), or the "
        "rows themselves",
    )
    add(
        "--time-limit",
        metavar="S",
        type=float,
        help="stop the search after S seconds; reading DATA, the final check and the other maps "
        "are not included",
    )
    add_seed(parser, "the search, and of the Gaussian map that is compared")
    add_threads(parser)
    add_output_options(
        parser,
        output="A.npy",
        output_help="write the matrix A, (k, d), as a NumPy array",
        plot_help="what the map does to distances, and how it was found",
    )
    add("--progress", action="store_true", help="list the stages of the search on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Embed and write; return the exit status."""
    if importlib.util.find_spec("sklearn") is None:
        raise CommandError('jl needs scikit-learn: pip install "derand-fast[embedding]"')
    check_plot(arguments)
    check_outputs(arguments, DATA=arguments.data)
    X = _load(arguments.data)
    outcome = _solve(X, arguments)
    written = write_everything(
        to_json(_fields(outcome)) if arguments.json else _report(outcome),
        arguments,
        output=lambda path: _write_map(path, outcome.embedding),
        plot=lambda path: _plot(path, outcome.embedding, X),
    )
    if not written:
        return NOT_WRITTEN
    return INTERRUPTED if outcome.embedding.interrupted_ else OK


def _load(name: str | None) -> Any:
    if name is None:
        X = _example()
        complain(
            f"no DATA given: embedding the built-in example, {X.shape[0]} points on a curved "
            f"surface of dimension 3 in {X.shape[1]} dimensions"
        )
        return X
    from derand_fast.cli.matrix_files import read_matrix

    with input_errors(f"cannot read {name}", _SUBJECT):
        return read_matrix(name)


def _example() -> Any:
    """Return cosines of 40 linear functions of 150 random points in the cube [-1, 1]^3."""
    import numpy as np

    generator = np.random.default_rng(0)
    places = generator.uniform(-1.0, 1.0, (150, 3))
    slopes = generator.standard_normal((3, 40))
    return np.cos(places @ slopes + generator.uniform(0.0, 2.0 * np.pi, 40))


def _solve(X: Any, arguments: argparse.Namespace) -> _Outcome:
    try:
        from derand_fast.embedding import JLEmbedding
    except ImportError as error:  # too old a scikit-learn
        raise CommandError(str(error)) from error
    from derand_fast.embedding_baselines import Baselines
    from derand_fast.threads import thread_count

    start = perf_counter()
    with input_errors("the search failed", _SUBJECT):
        n_threads = thread_count(arguments.threads)
        # Its own lines are for standard output, where only the report may be.
        with contextlib.redirect_stdout(sys.stderr):
            embedding = JLEmbedding(
                "auto" if arguments.k is None else arguments.k,
                eps=_DEFAULT_EPS if arguments.eps is None else arguments.eps,
                pairs=arguments.pairs,
                time_limit=arguments.time_limit,
                random_state=arguments.seed,
                n_jobs=n_threads,
                verbose=arguments.progress,
            ).fit(X)
        seconds = perf_counter() - start
        others = Baselines(
            X,
            embedding.n_components_,
            pairs=arguments.pairs,
            seed=arguments.seed,
            n_threads=n_threads,
        ).distortions()
    return _Outcome(embedding, X.shape[0], others, seconds)


def _report(outcome: _Outcome) -> str:
    embedding = outcome.embedding
    certificate = embedding.certificate_
    k, d = embedding.components_.shape
    norms = embedding.pairs == "norms"
    first, second = embedding.worst_pair_
    lines = [
        f"data        {outcome.n_rows:,} rows in {d:,} dimensions",
        f"map         into {k:,} dimensions",
        f"distortion  {embedding.max_distortion_:.6g}, exact over "
        f"{certificate.n_pairs:,} {'rows' if norms else 'pairs'}",
        f"worst       {f'row {first}' if norms else f'rows {first} and {second}'}",
    ]
    if not norms:
        lines.append(
            f"bound       no linear map into {k:,} dimensions has less than "
            f"{embedding.lower_bound_:.4g}"
        )
    for name, distortion in outcome.others.items():
        lines.append(f"{name:<11} {distortion:.6g}  (map of as many dimensions at its best scale)")
    ended = " until interrupted" if embedding.interrupted_ else ""
    lines.append(f"time        {outcome.seconds:.3f} s, {embedding.n_iter_:,} passes{ended}")
    if certificate.n_equal_pairs:
        what = "rows of zeros" if norms else "pairs of equal rows"
        lines.append(f"left out    {certificate.n_equal_pairs:,} {what}")
    return "\n".join(lines)


def _fields(outcome: _Outcome) -> dict[str, Any]:
    """Everything but the map in plain JSON types."""
    embedding = outcome.embedding
    certificate = embedding.certificate_
    return {
        "n_rows": outcome.n_rows,
        "n_features": embedding.components_.shape[1],
        "n_components": embedding.n_components_,
        "pairs": embedding.pairs,
        "max_distortion": float(embedding.max_distortion_),
        "lower_bound": float(embedding.lower_bound_),
        "worst_pair": list(embedding.worst_pair_),
        "certificate": certificate._asdict(),
        "others": outcome.others,
        "history": [row._asdict() for row in embedding.history_],
        "n_iter": embedding.n_iter_,
        "interrupted": embedding.interrupted_,
        "seed": embedding.random_state,
        "seconds": outcome.seconds,
    }


def _write_map(path: Path, embedding: JLEmbedding) -> None:
    import numpy as np

    with path.open("wb") as file:  # a name would get the suffix .npy
        np.save(file, embedding.components_)


def _plot(path: Path, embedding: JLEmbedding, X: Any) -> None:
    from derand_fast.plot import plot_embedding

    plot_embedding(embedding, X, path)
