"""The parser, and the options that all commands have."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any, NoReturn

from derand_fast.cli.messages import BAD_INPUT, PROGRAM, CommandError, complain

__all__ = [
    "Parser",
    "add_output_options",
    "add_progress_bar",
    "add_seed",
    "add_threads",
    "add_version",
    "check_plot",
    "check_progress_bar",
]


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with the status of bad input."""
        complain(f"error: {message} (see {self.prog} --help)")
        raise SystemExit(BAD_INPUT)


class _ShowVersion(argparse.Action):
    """Like argparse's own, but the version is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"{PROGRAM} {version('derand-fast')}")
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add --version."""
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version")


def add_seed(parser: argparse.ArgumentParser, subject: str) -> None:
    """Add --seed; the subject says what it is the seed of."""
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help=f"seed of {subject} (default: 0)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add --threads."""
    parser.add_argument(
        "--threads", metavar="N", type=int, help="threads at work (default: all usable cores)"
    )


def add_output_options(
    parser: argparse.ArgumentParser, *, output: str, output_help: str, plot_help: str
) -> None:
    """Add --output, --plot and --json."""
    add = parser.add_argument
    add("--output", metavar=output, type=Path, help=output_help)
    add(
        "--plot",
        metavar="OUT.png",
        type=Path,
        help=f"plot {plot_help}; the suffix decides the format (needs the plot extra)",
    )
    add("--json", action="store_true", help="print one line of JSON instead of the report")


def add_progress_bar(parser: argparse.ArgumentParser) -> None:
    """Add --progress."""
    parser.add_argument(
        "--progress",
        action="store_true",
        help="show a progress bar on standard error (needs the progress extra)",
    )


def check_progress_bar(arguments: argparse.Namespace) -> None:
    """Check that --progress can be had, before the long work."""
    if arguments.progress and importlib.util.find_spec("tqdm") is None:
        raise CommandError('--progress needs tqdm: pip install "derand-fast[progress]"')


def check_plot(arguments: argparse.Namespace) -> None:
    """Check that --plot can be had, before the long work."""
    if arguments.plot is not None:
        from derand_fast.plot import check_plot_path

        try:
            check_plot_path(arguments.plot)
        except (ImportError, ValueError) as error:
            raise CommandError(f"--plot: {error}") from error
