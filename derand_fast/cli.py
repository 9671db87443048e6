"""The command ``derand-fast``: solve a graph file, print a report, write the cut and a picture.

Nothing heavy is imported before the arguments are read, so that ``--help`` and ``--version`` answer
at once. Whatever the user can get wrong is checked before the long work and ends in one line on
standard error; the report comes before the files, so that no failure to write loses the result.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from derand_fast.graphs import CSRGraph
    from derand_fast.results import CutResult

__all__ = ["main"]

_PROGRAM = "derand-fast"
_OK, _BAD_INPUT, _NOT_WRITTEN, _INTERRUPTED = 0, 2, 3, 130
# As in derand_fast.maxcut, which is not imported before the arguments are read.
_METHODS = ("anneal", "newton-cg", "hessian-descent", "pgd")
_BOUNDS: dict[str, bool | Literal["proof"]] = {"on": True, "off": False, "proof": "proof"}

_DESCRIPTION = """\
Find a large cut of a weighted graph, and an upper bound that tells how far
from optimal it can be at most. The same seed gives the same answer unless a
time limit cuts the work short.
"""
_EPILOG = """\
graph files (packed as .gz or not):
  .mtx or a %%MatrixMarket line     Matrix Market, real and symmetric
  .edges .edgelist .csv .tsv        one line 'u v [w]' for each edge
  anything else                     rudy: a line 'n m', then m lines 'i j [w]'

vertex labels, in --output and in the "sets" of --json:
  The vertices are called what the file calls them: 1, ..., n in rudy and Matrix
  Market files, their names in edge lists. Those of the built-in graph are
  0, ..., 799. The first vertex is always on side +1.

exit status:
  0    done
  2    wrong usage or bad input; nothing was solved
  3    an output could not be written
  130  interrupted (Ctrl-C): the best cut so far is reported if there was one
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0 done, 2 wrong usage or bad input, 3 an output could not be written,
        130 interrupted.

    Raises
    ------
    SystemExit
        From argparse: status 0 after ``--help`` and ``--version``, 2 for wrong usage.
    """
    arguments = _make_parser().parse_args(argv)
    try:
        with _warnings_as_lines():
            return _run_maxcut(arguments)
    except _CommandError as error:
        _complain(f"error: {error}")
        return error.status
    except KeyboardInterrupt:
        _complain("interrupted")
        return _INTERRUPTED


class _CommandError(Exception):
    """What the user is told in one line, and the exit status."""

    def __init__(self, message: str, status: int = _BAD_INPUT) -> None:
        super().__init__(message)
        self.status = status


# --------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with the status of bad input."""
        _complain(f"error: {message} (see {self.prog} --help)")
        raise SystemExit(_BAD_INPUT)


class _ShowVersion(argparse.Action):
    """Like argparse's own, but the version is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"{_PROGRAM} {version('derand-fast')}")
        parser.exit()


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, description="Deterministic search for structure in graphs.")
    _add_version(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    maxcut = commands.add_parser(
        "maxcut",
        help="find a large cut and an upper bound",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_input_options(maxcut)
    _add_output_options(maxcut)
    _add_version(maxcut)
    return parser


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version")


def _add_input_options(parser: argparse.ArgumentParser) -> None:
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
    add("--sweeps", metavar="N", type=int, help="annealing sweeps, all searches together")
    add("--seed", metavar="N", type=int, default=0, help="seed of the search (default: 0)")
    add("--threads", metavar="N", type=int, help="threads at work (default: all usable cores)")
    add(
        "--bound",
        choices=_BOUNDS,
        default="on",
        help="upper bound: on (default), off, or proof (slower, proven without probability)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--output",
        metavar="CUT.txt",
        type=Path,
        help="write the cut: a comment line '# cut VALUE', then for each vertex its label, a tab "
        "and +1 or -1, in the graph's order",
    )
    add(
        "--plot",
        metavar="OUT.png",
        type=Path,
        help="plot cut and bound over time; the suffix decides the format (needs the plot extra)",
    )
    add("--json", action="store_true", help="print one line of JSON instead of the report")
    add(
        "--progress",
        action="store_true",
        help="show a progress bar on standard error (needs the progress extra)",
    )


# --------------------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------------------


def _run_maxcut(arguments: argparse.Namespace) -> int:
    _check_extras(arguments)
    _check_outputs(arguments)
    graph = _load_graph(arguments.file)
    result = _solve(graph, arguments)
    written = _write_everything(result, graph, arguments)
    if not written:
        return _NOT_WRITTEN
    return _INTERRUPTED if "interrupted" in result.message else _OK


def _load_graph(name: str | None) -> CSRGraph:
    from derand_fast.generators import demo_graph
    from derand_fast.graphs import as_graph

    if name is None:
        graph = demo_graph()
        _complain(
            "no FILE given: solving the built-in example, a random graph of "
            f"{graph.n_vertices:,} vertices and {graph.n_edges:,} edges"
        )
        return graph
    with _input_errors(f"cannot read {name}"):
        return _with_file_labels(as_graph(name), name)


def _with_file_labels(graph: CSRGraph, name: str) -> CSRGraph:
    from derand_fast.readers import counts_from_one

    if graph.labels is not None or not counts_from_one(name):
        return graph
    return dataclasses.replace(graph, labels=range(1, graph.n_vertices + 1))


def _solve(graph: CSRGraph, arguments: argparse.Namespace) -> CutResult:
    from derand_fast.maxcut import max_cut

    with _input_errors("the search failed"):
        return max_cut(
            graph,
            time_limit=arguments.time_limit,
            method=arguments.method,
            sweeps=arguments.sweeps,
            seed=arguments.seed,
            n_threads=arguments.threads,
            bound=_BOUNDS[arguments.bound],
            progress=arguments.progress,
        )


@contextlib.contextmanager
def _input_errors(action: str) -> Iterator[None]:
    """Turn what bad input raises into the one line for the user."""
    try:
        yield
    except OSError as error:
        raise _CommandError(f"{action}: {_reason(error)}") from error
    except MemoryError as error:
        raise _CommandError(f"{action}: not enough memory for the graph") from error
    except (ValueError, TypeError) as error:
        raise _CommandError(str(error)) from error


# --------------------------------------------------------------------------------------------------
# Checks before the long work
# --------------------------------------------------------------------------------------------------


def _check_extras(arguments: argparse.Namespace) -> None:
    if arguments.progress and importlib.util.find_spec("tqdm") is None:
        raise _CommandError('--progress needs tqdm: pip install "derand-fast[progress]"')
    if arguments.plot is not None:
        from derand_fast.plot import check_plot_path

        try:
            check_plot_path(arguments.plot)
        except (ImportError, ValueError) as error:
            raise _CommandError(f"--plot: {error}") from error


def _check_outputs(arguments: argparse.Namespace) -> None:
    paths = {
        "FILE": arguments.file and Path(arguments.file),
        "--output": arguments.output,
        "--plot": arguments.plot,
    }
    seen: dict[str, str] = {}
    for name, path in paths.items():
        if path is None or not _is_replaceable(path):
            continue
        first = seen.setdefault(os.path.realpath(path), name)
        if first != name:
            raise _CommandError(f"{first} and {name} are the same file: {path}")
    for path in (arguments.output, arguments.plot):
        if path is not None:
            _check_writable(path)


def _check_writable(path: Path) -> None:
    """Find out by doing it: permissions do not tell about read-only file systems and the like."""
    try:
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # refuses what cannot be a name here
        if os.path.isdir(path):
            raise IsADirectoryError(None, "it is a directory")
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(None, "it is read-only")
        if _is_replaceable(path):
            with _temporary_beside(path) as temporary:
                temporary.touch(exist_ok=False)
    except OSError as error:
        raise _CommandError(f"cannot write {path}: {_reason(error)}", _NOT_WRITTEN) from error


# --------------------------------------------------------------------------------------------------
# Output
# --------------------------------------------------------------------------------------------------


def _write_everything(result: CutResult, graph: CSRGraph, arguments: argparse.Namespace) -> bool:
    """Print the report and write the files, each whether or not the others fail."""
    written = _print_report(_to_json(result, graph) if arguments.json else str(result))
    if arguments.output is not None:
        written &= _write_file(arguments.output, lambda path: _write_cut(path, result, graph))
    if arguments.plot is not None:
        from derand_fast.plot import plot_history

        written &= _write_file(arguments.plot, lambda path: plot_history(result, path))
    return written


def _print_report(text: str) -> bool:
    try:
        print(text, flush=True)
    except OSError as error:
        _silence_standard_output()
        if not isinstance(error, BrokenPipeError):  # the reader left: nobody to tell
            _complain(f"error: cannot write to standard output: {_reason(error)}")
        return False
    return True


def _silence_standard_output() -> None:
    """Let the flush at the end of the process go nowhere instead of failing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _to_json(result: CutResult, graph: CSRGraph) -> str:
    fields = result.to_dict()
    # Sets have no order, and that of strings changes from run to run.
    sides = list(_labelled_sides(result, graph))
    fields["sets"] = [[label for label, side in sides if side == sign] for sign in (1, -1)]
    return json.dumps(_without_nonfinite(fields), allow_nan=False)


def _labelled_sides(result: CutResult, graph: CSRGraph) -> Iterator[tuple[Any, int]]:
    """Pairs (label, +1 or -1) in the graph's order; the labels of files are ints or strings."""
    labels = range(graph.n_vertices) if graph.labels is None else graph.labels
    return zip(labels, result.partition.tolist(), strict=True)


def _without_nonfinite(value: Any) -> Any:
    """Replace numbers that JSON does not know (infinity, not a number) by None."""
    if isinstance(value, dict):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write_cut(path: Path, result: CutResult, graph: CSRGraph) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# cut {result.cut_value!r}\n")
        file.writelines(f"{label}\t{side:+d}\n" for label, side in _labelled_sides(result, graph))


def _write_file(path: Path, write: Callable[[Path], object]) -> bool:
    """Write under another name and put it in place, so that no half-written file is ever seen.

    What is no regular file (a device, a pipe, a symbolic link) is written through instead.
    """
    try:
        if not _is_replaceable(path):
            write(path)
            return True
        with _temporary_beside(path) as temporary:
            write(temporary)
            if path.exists():
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            temporary.replace(path)
    except OSError as error:
        _complain(f"error: cannot write {path}: {_reason(error)}")
        return False
    return True


def _is_replaceable(path: Path) -> bool:
    # os.path, not pathlib: names that the file system refuses count as missing here.
    return not os.path.islink(path) and (os.path.isfile(path) or not os.path.exists(path))


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{_PROGRAM}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------
# Messages
# --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line, whatever filter the process came with."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def _complain(message: str) -> None:
    """Print one line to standard error; if that is closed, there is nobody to tell."""
    if sys.stderr is None:  # print would take standard output instead
        return
    with contextlib.suppress(OSError):
        print(f"{_PROGRAM}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
