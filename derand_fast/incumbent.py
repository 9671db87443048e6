"""The best cut and bound found so far, their history, and whoever watches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget
from derand_fast.results import HistoryRow

__all__ = ["Incumbent", "SearchState"]


class SearchState(NamedTuple):
    """What a callback sees; ``partition`` is read-only and valid during the call."""

    seconds: float
    phase: str
    sweeps: int
    cut_value: float
    upper_bound: float | None
    partition: NDArray[np.int8]


class Incumbent:
    """Best cut and bound of one call.

    One assignment replaces the cut, so an interrupt finds it whole.

    Parameters
    ----------
    signs : (n,) int8 array
        A first cut, copied.
    value : float
        Its value.
    upper_bound : float or None
        A first upper bound.
    integral : bool
        Whether all cut values are integers, so that bounds may be rounded down.
    budget : Budget
    callback : callable or None
        Called with a `SearchState` after each step; a true result or StopIteration stops the call.
    progress : tqdm bar or None
        Advanced in sweeps, or in seconds where it has a unit of ``"s"``.
    """

    def __init__(
        self,
        signs: NDArray[np.int8],
        value: float,
        upper_bound: float | None,
        integral: bool,
        budget: Budget,
        callback: Callable[[SearchState], object] | None,
        progress: Any | None,
    ) -> None:
        self._budget = budget
        self._integral = integral
        self._callback = callback
        self.progress = progress
        self._best = (signs.copy(), value)
        self.upper_bound = upper_bound
        self.sweeps = 0
        self.history = [HistoryRow(budget.elapsed(), value, upper_bound)]

    @property
    def signs(self) -> NDArray[np.int8]:
        """The best cut."""
        return self._best[0]

    @property
    def value(self) -> float:
        """Its value."""
        return self._best[1]

    def offer(self, signs: NDArray[np.int8], value: float) -> None:
        """Keep a cut if it is better; stop the search if the bound shows it optimal."""
        if value > self.value:
            self._best = (signs.copy(), value)
            self._record()
        if self.upper_bound is not None and self.value >= self.upper_bound:
            self._budget.stop("optimal: the cut equals its upper bound")

    def offer_bound(self, bound: float) -> bool:
        """Keep an upper bound if it is lower; returns whether it was."""
        if self._integral:
            bound = float(np.floor(bound))
        if self.upper_bound is not None and bound >= self.upper_bound:
            return False
        self.upper_bound = bound
        self._record()
        return True

    def report(self, phase: str) -> None:
        """Move the progress bar and ask the callback whether to go on."""
        self._show()
        if self._callback is None or self._budget.stop_reason is not None:
            return
        partition = self.signs.view()
        partition.flags.writeable = False
        state = SearchState(
            self._budget.elapsed(), phase, self.sweeps, self.value, self.upper_bound, partition
        )
        try:
            stop = self._callback(state)
        except StopIteration:
            stop = True
        if stop:
            self._budget.stop("stopped by the callback")

    def _record(self) -> None:
        self.history.append(HistoryRow(self._budget.elapsed(), self.value, self.upper_bound))

    def _show(self) -> None:
        bar = self.progress
        if bar is None:
            return
        reached = self._budget.elapsed() if bar.unit == "s" else self.sweeps
        bar.update(max(0, min(reached, bar.total) - bar.n))
        note = {"cut": f"{self.value:.10g}"}
        if self.upper_bound is not None:
            note["bound"] = f"{self.upper_bound:.10g}"
        bar.set_postfix(note)
