"""Where results go: checks before the long work, then the report, JSON and files put in place."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from derand_fast.cli.messages import NOT_WRITTEN, PROGRAM, CommandError, complain, reason

__all__ = ["check_outputs", "print_report", "to_json", "write_everything"]


def check_outputs(arguments: argparse.Namespace, **inputs: str | Path | None) -> None:
    """Check that --output and --plot can be written, and that no file is named twice.

    Raises
    ------
    CommandError
        With the status of bad input or of an output that cannot be written.
    """
    paths = {name: file and Path(file) for name, file in inputs.items()}
    paths |= {"--output": arguments.output, "--plot": arguments.plot}
    seen: dict[str, str] = {}
    for name, path in paths.items():
        if not path or not _is_replaceable(path):
            continue
        first = seen.setdefault(os.path.realpath(path), name)
        if first != name:
            raise CommandError(f"{first} and {name} are the same file: {path}")
    for path in (arguments.output, arguments.plot):
        if path is not None:
            _check_writable(path)


def write_everything(
    report: str,
    arguments: argparse.Namespace,
    *,
    output: Callable[[Path], object],
    plot: Callable[[Path], object],
) -> bool:
    """Print the report and write the files asked for, each whether or not the others fail."""
    written = print_report(report)
    if arguments.output is not None:
        written &= _write_file(arguments.output, output)
    if arguments.plot is not None:
        written &= _write_file(arguments.plot, plot)
    return written


def to_json(fields: dict[str, Any]) -> str:
    """Return one line; numbers that JSON does not know (infinity, not a number) become null."""
    return json.dumps(_without_nonfinite(fields), allow_nan=False)


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
        raise CommandError(f"cannot write {path}: {reason(error)}", NOT_WRITTEN) from error


def print_report(text: str) -> bool:
    """Print to standard output; return whether all of it was taken."""
    try:
        print(text, flush=True)
    except OSError as error:
        _silence_standard_output()
        if not isinstance(error, BrokenPipeError):  # the reader left: nobody to tell
            complain(f"error: cannot write to standard output: {reason(error)}")
        return False
    return True


def _silence_standard_output() -> None:
    """Let the flush at the end of the process go nowhere instead of failing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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
        complain(f"error: cannot write {path}: {reason(error)}")
        return False
    return True


def _is_replaceable(path: Path) -> bool:
    # os.path, not pathlib: names that the file system refuses count as missing here.
    return not os.path.islink(path) and (os.path.isfile(path) or not os.path.exists(path))


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{PROGRAM}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
