"""``derand-fast maxcut``: solve a graph file, print a report, write the cut and a picture."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from derand_fast.cli.cut_files import read_sides, write_cut
from derand_fast.cli.messages import (
    INTERRUPTED,
    NOT_WRITTEN,
    OK,
    CommandError,
    complain,
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
    from derand_fast.graphs import CSRGraph
    from derand_fast.results import CutResult

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_options", "run"]

# As in derand_fast.maxcut, which is not imported before the arguments are read.
_METHODS = ("anneal", "newton-cg", "hessian-descent", "pgd")
_BOUNDS: dict[str, bool | Literal["proof", "tight"]] = {
    "on": True,
    "off": False,
    "proof": "proof",
    "tight": "tight",
}
_SUBJECT = "the graph"

SUMMARY = "find a large cut and an upper bound"
DESCRIPTION = """\
Find a large cut of a weighted graph, and an upper bound that tells how far
from optimal it can be at most. The same seed gives the same answer unless a
time limit cuts the work short.
"""
EPILOG = """\
graph files (packed as .gz or not):
  .mtx or a %%MatrixMarket line     Matrix Market, real and symmetric
  .edges .edgelist .csv .tsv        one line 'u v [w]' for each edge
  anything else                     rudy: a line 'n m', then m lines 'i j [w]'

vertex labels, in --output, --fixed, --initial and in the "sets" of --json:
  The vertices are called what the file calls them: 1, ..., n in rudy and Matrix
  Market files, their names in edge lists. Those of the built-in graph are
  0, ..., 799. The first vertex is on side +1, unless vertices are fixed.
  What --output writes can be read by --initial, and by --fixed if cut short.

exit status:
  0    done
  2    wrong usage or bad input; nothing was solved
  3    an output could not be written
  130  interrupted (Ctrl-C): the best cut so far is reported if there was one
"""


def _effort(text: str) -> str | float:
    """Return a number, or the word as it is; the solver knows which words there are."""
    try:
        return float(text)
    except ValueError:
        return text


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        nargs="?",
        help="graph file (default: a built-in random graph of 800 vertices and 19,176 edges)",
    )
    add(
        "--time-limit",
        metavar="S",
        type=float,
        help="stop the search after S seconds; reading FILE is not included",
    )
    add(
        "--method",
        choices=_METHODS,
        default="anneal",
        help="anneal (default, the best cuts), or a descent to a certified stationary point",
    )
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument(
        "--effort",
        metavar="E",
        type=_effort,
        help="how much to search: quick, normal (default without a time limit), thorough, or a "
        "multiple of normal",
    )
    plan.add_argument(
        "--sweeps", metavar="N", type=int, help="annealing sweeps, all searches together"
    )
    add("--target", metavar="X", type=float, help="stop once a cut of at least X is found")
    add(
        "--fixed",
        metavar="SIDES.txt",
        type=Path,
        help="vertices that must be on a side: one line 'label +1' or 'label -1' each",
    )
    add(
        "--initial",
        metavar="CUT.txt",
        type=Path,
        help="a cut to start from, as --output writes it; the answer is never worse",
    )
    add(
        "--solutions",
        metavar="K",
        type=int,
        default=1,
        help='up to K different good cuts in the report, and in the "solutions" of --json',
    )
    add(
        "--min-distance",
        metavar="D",
        type=int,
        default=1,
        help="any two of them differ in at least D vertices (default: 1)",
    )
    add_seed(parser, "the search")
    add_threads(parser)
    add(
        "--bound",
        choices=_BOUNDS,
        default="on",
        help="upper bound: on (default), off, proof (slower, proven without probability), or tight "
        "(slower, odd-cycle inequalities too: most of the gap of grids and sparse graphs)",
    )
    add_output_options(
        parser,
        output="CUT.txt",
        output_help="write the cut: a comment line '# cut VALUE', then for each vertex its label, "
        "a tab and +1 or -1, in the graph's order",
        plot_help="cut and bound over time",
    )
    add_progress_bar(parser)


def run(arguments: argparse.Namespace) -> int:
    """Solve and write; return the exit status."""
    check_progress_bar(arguments)
    check_plot(arguments)
    inputs = {"FILE": arguments.file, "--fixed": arguments.fixed, "--initial": arguments.initial}
    check_outputs(arguments, **inputs)
    graph = _load_graph(arguments.file)
    result = _solve(graph, arguments)
    written = write_everything(
        _to_json(result, graph) if arguments.json else str(result),
        arguments,
        output=lambda path: write_cut(path, result.cut_value, _labelled_sides(result, graph)),
        plot=result.plot,
    )
    if not written:
        return NOT_WRITTEN
    return INTERRUPTED if "interrupted" in result.message else OK


def _load_graph(name: str | None) -> CSRGraph:
    from derand_fast.generators import demo_graph
    from derand_fast.graphs import as_graph

    if name is None:
        graph = demo_graph()
        complain(
            "no FILE given: solving the built-in example, a random graph of "
            f"{graph.n_vertices:,} vertices and {graph.n_edges:,} edges"
        )
        return graph
    with input_errors(f"cannot read {name}", _SUBJECT):
        return _with_file_labels(as_graph(name), name)


def _with_file_labels(graph: CSRGraph, name: str) -> CSRGraph:
    from derand_fast.readers import counts_from_one

    if graph.labels is not None or not counts_from_one(name):
        return graph
    return dataclasses.replace(graph, labels=range(1, graph.n_vertices + 1))


def _solve(graph: CSRGraph, arguments: argparse.Namespace) -> CutResult:
    from derand_fast.maxcut import max_cut

    fixed = _sides(arguments.fixed, graph)
    initial = _sides(arguments.initial, graph)
    with input_errors("the search failed", _SUBJECT):
        return max_cut(
            graph,
            time_limit=arguments.time_limit,
            method=arguments.method,
            effort=arguments.effort,
            sweeps=arguments.sweeps,
            target=arguments.target,
            fixed=fixed,
            initial=None if initial is None else _side_of(initial, graph, arguments.initial),
            n_solutions=arguments.solutions,
            min_distance=arguments.min_distance,
            seed=arguments.seed,
            n_threads=arguments.threads,
            bound=_BOUNDS[arguments.bound],
            progress=arguments.progress,
        )


def _to_json(result: CutResult, graph: CSRGraph) -> str:
    fields = result.to_dict()
    # Sets have no order, and that of strings changes from run to run.
    sides = list(_labelled_sides(result, graph))
    fields["sets"] = [[label for label, side in sides if side == sign] for sign in (1, -1)]
    return to_json(fields)


def _labels(graph: CSRGraph) -> Sequence[Any]:
    """Return the labels in the graph's order; those of files are ints or strings."""
    return range(graph.n_vertices) if graph.labels is None else graph.labels


def _labelled_sides(result: CutResult, graph: CSRGraph) -> Iterator[tuple[Any, int]]:
    """Pairs (label, +1 or -1) in the graph's order."""
    return zip(_labels(graph), result.partition.tolist(), strict=True)


def _sides(path: Path | None, graph: CSRGraph) -> dict[Any, int] | None:
    return None if path is None else read_sides(path, _labels(graph))


def _side_of(sides: dict[Any, int], graph: CSRGraph, path: Path) -> set[Any]:
    """Return the vertices on side +1 of a cut that must say where all are."""
    missing = [label for label in _labels(graph) if label not in sides]
    if missing:
        raise CommandError(f"{path} says nothing of vertex {str(missing[0])!r}")
    return {label for label, side in sides.items() if side > 0}
