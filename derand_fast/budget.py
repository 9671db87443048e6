"""Time and interruption of one solver call: one clock, one deadline, one reason to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

__all__ = ["Budget", "Pace"]

# Length of one step between two looks at the clock.
_STEP_SECONDS = 0.02
# Steps that seem slower than the one before by more than this factor were held up.
_SLOWDOWN = 1.5


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
        self._work_start = 0.0
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

    def past(self, moment: float) -> bool:
        """Whether ``elapsed()`` has reached a moment, or the budget has expired."""
        return self.elapsed() >= moment or self.expired

    def begin_work(self) -> None:
        """Count shares of the time from here on: reading and compiling are over."""
        self._work_start = self.elapsed()

    def share(self, fraction: float) -> float:
        """Return the elapsed() at which ``fraction`` of the time for work will be spent."""
        if self.time_limit is None:
            return math.inf
        return self._work_start + fraction * (self.time_limit - self._work_start)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the named phase."""
        begin = perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + perf_counter() - begin


class Pace:
    """How many units of some work fit between two looks at the clock: about 20 ms of them."""

    def __init__(self) -> None:
        self.seconds_per_unit = 0.0

    def units(self, most: int) -> int:
        """Return the size of the next step, 1 to ``most``; 1 while the cost is unknown."""
        if self.seconds_per_unit <= 0.0:
            return 1
        return max(1, min(most, int(_STEP_SECONDS / self.seconds_per_unit)))

    @contextmanager
    def measure(self, units: int) -> Iterator[None]:
        """Time a step of so many units."""
        begin = perf_counter()
        yield
        latest = (perf_counter() - begin) / units
        # A step may have waited for the compiler or for other processes: believe it in part.
        known = self.seconds_per_unit
        self.seconds_per_unit = latest if known <= 0.0 else min(latest, _SLOWDOWN * known)
