"""Time and interruption of one solver call: one clock, one deadline, one reason to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

__all__ = ["Budget"]


class Budget:
    """Clock of one call. Work asks `expired` between steps and stops where it is.

    Parameters
    ----------
    time_limit : float or None
        Seconds from now until the deadline; None means no deadline.
    """

    def __init__(self, time_limit: float | None) -> None:
        self._start = perf_counter()
        self._deadline = math.inf if time_limit is None else self._start + time_limit
        self._reserve = 0.0
        self.time_limit = time_limit
        self.stop_reason: str | None = None
        self.phases: dict[str, float] = {}

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return perf_counter() - self._start

    def remaining(self) -> float:
        """Seconds of work left before the deadline, less what finishing needs; may be negative."""
        return self._deadline - self._reserve - perf_counter()

    def reserve(self, seconds: float) -> None:
        """Keep at least so many seconds before the deadline for finishing."""
        self._reserve = max(self._reserve, seconds)

    def stop(self, reason: str) -> None:
        """Ask all work to end; the first reason is kept."""
        if self.stop_reason is None:
            self.stop_reason = reason

    @property
    def expired(self) -> bool:
        """Whether work should end: told to stop, or no time left."""
        return self.stop_reason is not None or self.remaining() <= 0.0

    def share(self, fraction: float) -> float:
        """Return the elapsed() at which ``fraction`` of the whole time limit will be spent."""
        return math.inf if self.time_limit is None else fraction * self.time_limit

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the named phase."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + perf_counter() - begin
