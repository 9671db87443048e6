"""The command ``derand-fast``: read the arguments, run a subcommand, end with its status.

A subcommand is one module of this package with `SUMMARY`, `DESCRIPTION`, `EPILOG`,
``add_options(parser)`` and ``run(arguments)``, and one line in `_COMMANDS`.

Nothing heavy is imported before the arguments are read, so that ``--help`` and ``--version`` answer
at once. Whatever the user can get wrong is checked before the long work and ends in one line on
standard error; the report comes before the files, so that no failure to write loses the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from derand_fast.cli.messages import (
    INTERRUPTED,
    PROGRAM,
    CommandError,
    complain,
    warnings_as_lines,
)
from derand_fast.cli.options import Parser, add_version

__all__ = ["main"]

_COMMANDS = (
    "maxcut",
    "structure",
    "jl",
    "warmup",
)


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
        with warnings_as_lines():
            status: int = arguments.run(arguments)
    except CommandError as error:
        complain(f"error: {error}")
        return error.status
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return status


def _make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description="Deterministic search for structure.")
    add_version(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in _COMMANDS:
        module = import_module(f"derand_fast.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(command)
        add_version(command)
        command.set_defaults(run=module.run)
    return parser
