"""``derand-fast structure``: train a student on a teacher until its weights show the structure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derand_fast.cli.messages import (
    INTERRUPTED,
    NOT_WRITTEN,
    OK,
    CommandError,
    input_errors,
)
from derand_fast.cli.options import (
    add_output_options,
    add_progress_bar,
    add_seed,
    add_threads,
    check_plot,
    check_progress_bar,
)
from derand_fast.cli.outputs import check_outputs, to_json, write_everything

if TYPE_CHECKING:
    from derand_fast.structure import StructureResult

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_options", "run"]

# As in the solver's modules, which are not imported before the arguments are read.
_TEACHERS = ("tanh", "smooth_relu", "linear", "quadratic", "cubic", "sum_of_tanh", "product")
_ACTIVATIONS = (
    *("smooth_relu", "smooth_relu_squared", "smooth_relu_cubed"),
    *("tanh", "erf", "quadratic", "linear"),
)
_LOSSES = ("squared", "logistic", "pseudo_huber")
_INPUTS = ("gaussian", "uniform", "rademacher", "student_t")
_METHODS = ("newton_cg", "hessian_descent", "pgd", "sgd")
_CERTIFICATE_FIELDS = (
    *("certified", "message", "fun", "rho", "grad_norm", "curvature_tol", "lambda_min"),
    *("lambda_min_lower", "delta", "n_escapes", "collapse_bound", "collapse_bound_apriori"),
    *("stein_residual", "nit", "nfev", "njev", "nhev"),
)

SUMMARY = "train a student network until its structure shows"
DESCRIPTION = """\
Train a student network on the population risk of a teacher that depends on a
few directions of its input, down to a certified second-order stationary point.
There the part W_perp of the first layer outside the teacher's directions has
collapsed to zero. Without options a built-in example is solved: a student of
100 units and a tanh of one direction in 10 dimensions. The same seed gives the
same answer unless a time limit cuts the work short.
"""
EPILOG = """\
files of --output, read by numpy.load:
  W1, b1, W2, b2, ... are the student's layers at the end, (units, inputs) and
  (units,); U (indices, d) holds the teacher's directions.

exit status:
  0    done, also where the point could not be certified: the report says so
  2    wrong usage or bad input; nothing was solved
  3    an output could not be written
  130  interrupted (Ctrl-C): the best point so far is reported if there was one
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    _add_problem_options(parser)
    _add_method_options(parser)
    add_output_options(
        parser,
        output="NETWORK.npz",
        output_help="write the student's weights and biases and the teacher's directions",
        plot_help="the units before and after, and the norms over the iterations",
    )
    add_progress_bar(parser)


def _add_problem_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--d", metavar="N", type=int, default=10, help="dimension of the input (default: 10)")
    add(
        "--hidden",
        metavar="N[,N...]",
        type=_widths,
        default=100,
        help="units of every hidden layer, or of each (default: 100)",
    )
    add(
        "--depth",
        metavar="N",
        type=int,
        default=2,
        help="layers of the student, the output among them (default: 2)",
    )
    _add_choice(parser, "--activation", _ACTIVATIONS, "of the student")
    add(
        "--iota",
        metavar="X",
        type=float,
        default=2.0,
        help="sharpness of the smooth ReLU log(1 + exp(iota x)) / iota (default: 2)",
    )
    _add_choice(parser, "--teacher", _TEACHERS, "what the teacher makes of its indices")
    add(
        "--indices",
        metavar="N",
        type=int,
        default=1,
        help="directions the teacher depends on (default: 1)",
    )
    add(
        "--lam",
        metavar="X",
        type=float,
        default=1e-4,
        help="weight of the penalty ||W1||^2 (default: 1e-4)",
    )
    add(
        "--train",
        metavar="PARTS",
        type=_parts,
        default="first",
        help="what is trained: first (default: W1 and b1), all, or names such as W1,b1,W2",
    )
    _add_choice(parser, "--loss", _LOSSES, "between student and teacher")
    _add_choice(parser, "--inputs", _INPUTS, "distribution; the theorem is for gaussian")


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_choice(parser, "--method", _METHODS, "sgd is for comparison: its end is only checked")
    add(
        "--rho",
        metavar="X",
        type=float,
        default=1e-6,
        help="target for the gradient's norm; that for the curvature is -sqrt(rho) (default: 1e-6)",
    )
    add_seed(parser, "directions, student and method")
    add("--time-limit", metavar="S", type=float, help="stop the descent after S seconds")
    add_threads(parser)


def _add_choice(
    parser: argparse.ArgumentParser, option: str, words: tuple[str, ...], meaning: str
) -> None:
    """Add an option whose default is the first word."""
    parser.add_argument(
        option,
        metavar="NAME",
        choices=words,
        type=_word,
        default=words[0],
        help=f"{', '.join(words)}: {meaning} (default: {words[0]})",
    )


def _word(text: str) -> str:
    """Names of functions have underscores, words of commands hyphens: both are understood."""
    return text.replace("-", "_")


def _widths(text: str) -> int | list[int]:
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"one number or several with commas between, not {text!r}"
        ) from None
    return widths[0] if len(widths) == 1 else widths


def _parts(text: str) -> str | list[str]:
    return text if text in ("first", "all") else [part.strip() for part in text.split(",")]


def run(arguments: argparse.Namespace) -> int:
    """Train and write; return the exit status."""
    if arguments.progress and arguments.method == "sgd":
        raise CommandError("--progress is not for --method sgd")
    check_progress_bar(arguments)
    check_plot(arguments)
    check_outputs(arguments)
    result = _solve(arguments)
    written = write_everything(
        to_json(_fields(result)) if arguments.json else str(result),
        arguments,
        output=lambda path: _write_network(path, result),
        plot=result.plot,
    )
    if not written:
        return NOT_WRITTEN
    return INTERRUPTED if "interrupted" in result.certificate.message else OK


def _solve(arguments: argparse.Namespace) -> StructureResult:
    from derand_fast.structure import discover_structure

    # Plain stochastic gradient descent has no such option.
    options: dict[str, Any] = {"progress": True} if arguments.progress else {}
    with input_errors("the descent failed", "the network"):
        return discover_structure(
            arguments.teacher,
            d=arguments.d,
            hidden=arguments.hidden,
            depth=arguments.depth,
            activation=arguments.activation,
            iota=arguments.iota,
            n_indices=arguments.indices,
            loss=arguments.loss,
            lam=arguments.lam,
            train=arguments.train,
            inputs=arguments.inputs,
            method=arguments.method,
            rho=arguments.rho,
            seed=arguments.seed,
            time_limit=arguments.time_limit,
            n_threads=arguments.threads,
            **options,
        )


def _fields(result: StructureResult) -> dict[str, Any]:
    """Everything but the weights in plain JSON types."""
    teacher, student = result.teacher, result.network
    return {
        "W_perp_norm": result.W_perp_norm,
        "W_perp_norm_initial": result.W_perp_norm_initial,
        "collapse": result.collapse,
        "W_par_norm": result.W_par_norm,
        "singular_values": result.singular_values.tolist(),
        "angle": result.angle,
        "lemma_applies": result.lemma_applies,
        "stein_violation": result.stein_violation,
        "rule": result.rule,
        "rule_error": {"value": result.rule_error.value, "gradient": result.rule_error.gradient},
        "certificate": {name: result.certificate[name] for name in _CERTIFICATE_FIELDS},
        "teacher": {"link": teacher.name, "d": teacher.d, "n_indices": teacher.n_indices},
        "student": {
            "widths": list(student.widths),
            "activation": student.activation,
            "iota": student.iota,
        },
        "history": [list(row) for row in result.history],
        "method": result.method,
        "lam": result.lam,
        "seed": result.seed,
        "seconds": result.seconds,
    }


def _write_network(path: Path, result: StructureResult) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"U": result.teacher.U}
    layers = zip(result.network.weights, result.network.biases, strict=True)
    for number, (weights, biases) in enumerate(layers, 1):
        arrays |= {f"W{number}": weights, f"b{number}": biases}
    with path.open("wb") as file:  # a name would get the suffix .npz
        np.savez(file, **arrays)
