"""What the user is told: one line on standard error for each error or warning; exit statuses."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "NOT_WRITTEN",
    "OK",
    "PROGRAM",
    "CommandError",
    "complain",
    "input_errors",
    "reason",
    "warnings_as_lines",
]

PROGRAM = "derand-fast"
OK, BAD_INPUT, NOT_WRITTEN, INTERRUPTED = 0, 2, 3, 130


class CommandError(Exception):
    """What the user is told in one line, and the exit status."""

    def __init__(self, message: str, status: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.status = status


@contextlib.contextmanager
def input_errors(action: str, subject: str) -> Iterator[None]:
    """Turn what bad input raises into the one line for the user."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{action}: {reason(error)}") from error
    except MemoryError as error:
        raise CommandError(f"{action}: not enough memory for {subject}") from error
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show each warning as one line, whatever filter the process came with."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


def complain(message: str) -> None:
    """Print one line to standard error; if that is closed, there is nobody to tell."""
    if sys.stderr is None:  # print would take standard output instead
        return
    with contextlib.suppress(OSError):
        print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def reason(error: OSError) -> str:
    """Return what the system says, without number and path."""
    return error.strerror or str(error)
