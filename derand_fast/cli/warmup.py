"""``derand-fast warmup``: compile the kernels ahead of their first use."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from derand_fast.cli.messages import NOT_WRITTEN, OK, CommandError, complain
from derand_fast.cli.outputs import print_report, to_json

if TYPE_CHECKING:
    from derand_fast.precompile import WarmupReport

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_options", "run"]

SUMMARY = "compile the kernels and keep them on disk"
DESCRIPTION = """\
Compile the kernels of the solvers for this processor and keep them on disk, so
that no later process waits for it. Kernels that are there already are loaded.
"""
EPILOG = """\
solvers:
  max-cut, descent, expectation, structure, jl-embedding, jl-objective

Files go to the folder that the environment variable NUMBA_CACHE_DIR names; else
beside the package or, where that cannot be written, to the user's cache folder.

exit status:
  0    done
  2    wrong usage
  3    kernels were compiled but could not be kept
  130  interrupted (Ctrl-C)
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--solver",
        metavar="NAME",
        action="append",
        dest="solvers",
        help="warm up this solver only; may be repeated (default: all)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON instead of the report"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compile; return the exit status."""
    from derand_fast.precompile import warmup

    try:
        report = warmup(arguments.solvers)
    except (ImportError, ValueError) as error:
        raise CommandError(str(error)) from error
    printed = print_report(to_json(_fields(report)) if arguments.json else _table(report))
    if not report.complete:
        complain(
            "error: kernels could not be kept: "
            + (
                "no folder can be written; set NUMBA_CACHE_DIR to one that can"
                if report.folder is None
                else f"writing to {report.folder} failed"
            )
        )
    return OK if printed and report.complete else NOT_WRITTEN


def _table(report: WarmupReport) -> str:
    width = max((len(kernel.kernel) for kernel in report.kernels), default=6)
    lines = [f"{'kernel':<{width}}  seconds"]
    lines += [
        f"{kernel.kernel:<{width}}  {kernel.seconds:7.3f}  {_state(kernel)}"
        for kernel in report.kernels
    ]
    loaded = sum(kernel.loaded for kernel in report.kernels)
    size = sum(kernel.size for kernel in report.kernels)
    lines += [
        f"kernels  {len(report.kernels)}, of which {loaded} were there; "
        f"{size / 2**20:.1f} MiB, {report.seconds:.1f} s",
        f"cache    {report.folder or 'none: no folder can be written'}",
    ]
    lines += [f"left out {name}, which needs {library}" for name, library in report.skipped.items()]
    return "\n".join(lines)


def _state(kernel: Any) -> str:
    if kernel.loaded:
        return "loaded"
    return "compiled" if kernel.kept else "compiled, not kept"


def _fields(report: WarmupReport) -> dict[str, Any]:
    return {
        "kernels": [kernel._asdict() for kernel in report.kernels],
        "folder": report.folder,
        "complete": report.complete,
        "seconds": report.seconds,
        "solvers": report.solvers,
        "skipped": report.skipped,
    }
