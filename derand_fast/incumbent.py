"""The best cuts and the best bound found so far, their history, and whoever watches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget
from derand_fast.contraction import Contraction, exact_cut_value
from derand_fast.results import HistoryRow

__all__ = ["DiversePool", "Incumbent", "SearchState"]


class SearchState(NamedTuple):
    """What a callback sees; ``partition`` is read-only and valid during the call."""

    seconds: float
    phase: str
    sweeps: int
    cut_value: float
    upper_bound: float | None
    partition: NDArray[np.int8]


class _Member(NamedTuple):
    """A cut of the pool: its value, and a bit for each vertex."""

    value: float
    bits: int


class DiversePool:
    """The best cuts found, each in at least ``min_distance`` vertices different from the others.

    A new cut displaces all worse ones that are too near, and stays out if one that is as good is
    too near. Cuts are kept as integers of n bits, so a distance is one exclusive or and a count of
    bits. What the pool holds depends on the order of the offers, not on their time.

    Parameters
    ----------
    size : int
        Cuts to keep.
    min_distance : int
        Least number of vertices to move from one cut to another.
    anchor : int
        Vertex that turns cuts the same way round: all are kept with it on one side.
    symmetric : bool
        Whether a cut and the one with the sides exchanged count as the same.
    """

    def __init__(self, size: int, min_distance: int, anchor: int, symmetric: bool) -> None:
        self._size = size
        self._min_distance = min_distance
        self._anchor = anchor
        self._symmetric = symmetric
        self._members: list[_Member] = []
        self._n_vertices = 0

    def offer(self, signs: NDArray[np.int8], value: float) -> bool:
        """Take in a cut if it is unlike those that are as good; False if none so bad is wanted."""
        members = self._members
        if self.full and value <= members[-1].value:
            return False
        self._n_vertices = signs.size
        bits = self._pack(signs)
        near = {
            member.bits: member.value
            for member in members
            if self._distance(bits, member.bits) < self._min_distance
        }
        if all(value > other for other in near.values()):
            # Stable: among equal values the first found comes first.
            kept = [member for member in members if member.bits not in near]
            ranked = sorted([*kept, _Member(value, bits)], key=lambda member: -member.value)
            self._members = ranked[: self._size]
        return True

    @property
    def full(self) -> bool:
        """Whether a cut can only come in if another goes."""
        return len(self._members) == self._size

    def holds_only(self, value: float) -> bool:
        """Whether the pool is full of cuts of at least this value."""
        return self.full and self._members[-1].value >= value

    def cuts(self) -> list[NDArray[np.int8]]:
        """Return the cuts as signs, best first."""
        return [self._unpack(member.bits) for member in self._members]

    def _pack(self, signs: NDArray[np.int8]) -> int:
        packed = np.packbits(signs == signs[self._anchor])
        return int.from_bytes(packed.tobytes(), "big")

    def _unpack(self, bits: int) -> NDArray[np.int8]:
        width = (self._n_vertices + 7) // 8
        packed = np.frombuffer(bits.to_bytes(width, "big"), np.uint8)
        present = np.unpackbits(packed, count=self._n_vertices)
        return np.where(present == 1, 1, -1).astype(np.int8)

    def _distance(self, one: int, other: int) -> int:
        distance = (one ^ other).bit_count()
        return min(distance, self._n_vertices - distance) if self._symmetric else distance


class Incumbent:
    """Best cut and bound of one call.

    One assignment replaces the cut, so an interrupt finds it whole. Cuts come in as those of the
    contracted graph; history, callback and progress bar get them as the caller's.

    Parameters
    ----------
    signs : (n,) int8 array
        A first cut, copied.
    value : float
        Its value.
    upper_bound : float or None
        A first upper bound.
    contraction : Contraction
        How the cuts belong to the caller's graph.
    budget : Budget
    callback : callable or None
        Called with a `SearchState` after each step; a true result or StopIteration stops the call.
    progress : tqdm bar or None
        Advanced in sweeps, or in seconds where it has a unit of ``"s"``.
    target : float or None
        Stop at a cut of the caller's graph of at least this value.
    pool : DiversePool or None
        Gets every cut offered. The search goes on past an optimal cut until the pool is full of
        such.
    """

    def __init__(
        self,
        signs: NDArray[np.int8],
        value: float,
        upper_bound: float | None,
        *,
        contraction: Contraction,
        budget: Budget,
        callback: Callable[[SearchState], object] | None,
        progress: Any | None,
        target: float | None,
        pool: DiversePool | None,
    ) -> None:
        self._contraction = contraction
        self._integral = contraction.graph.integral
        self._budget = budget
        self._callback = callback
        self.progress = progress
        self._pool = pool
        self._target = target
        self._best = (signs.copy(), value)
        self.upper_bound = upper_bound
        self.sweeps = 0
        self.history: list[HistoryRow] = []
        self._record()
        self._look_at_target()
        self.offer(signs, value)

    @property
    def signs(self) -> NDArray[np.int8]:
        """The best cut."""
        return self._best[0]

    @property
    def value(self) -> float:
        """Its value."""
        return self._best[1]

    @property
    def optimal(self) -> str | None:
        """In words that the best cut equals its upper bound; None if it does not."""
        if self.upper_bound is None or self.value < self.upper_bound:
            return None
        but = "" if self._contraction.exact else " but for rounding"
        return f"optimal{but}: the cut equals its upper bound"

    def offer(self, signs: NDArray[np.int8], value: float) -> None:
        """Keep a cut if it is better; stop the search at the target, or if it is optimal."""
        if self._pool is not None:
            self._pool.offer(signs, value)
        if value > self.value:
            self._best = (signs.copy(), value)
            self._record()
            self._look_at_target()
        optimal = self.optimal
        if optimal and (self._pool is None or self._pool.holds_only(self.value)):
            self._budget.stop(optimal)

    @property
    def wants_others(self) -> bool:
        """Whether cuts are wanted that are not better than the best."""
        return self._pool is not None

    def offer_other(self, signs: NDArray[np.int8], value: float) -> None:
        """Keep a cut besides the best, if it is unlike those that are as good."""
        if self._pool is not None and value <= self.value:
            self._pool.offer(signs, value)

    def offer_bound(self, bound: float) -> bool:
        """Keep an upper bound if it is lower; returns whether it was."""
        if self._integral:
            bound = float(np.floor(bound))
        if self.upper_bound is not None and bound >= self.upper_bound:
            return False
        self.upper_bound = bound
        self._record()
        return True

    def cuts(self) -> list[NDArray[np.int8]]:
        """Return the cuts to hand out, as the caller's, best first."""
        cuts = [self.signs] if self._pool is None else self._pool.cuts()
        return [self._contraction.partition(signs) for signs in cuts]

    def report(self, phase: str) -> None:
        """Move the progress bar and ask the callback whether to go on."""
        self._show()
        if self._callback is None or self._budget.stop_reason is not None:
            return
        partition = self._contraction.partition(self.signs)
        partition.flags.writeable = False
        row = self._row()
        state = SearchState(row.seconds, phase, self.sweeps, *row[1:], partition)
        try:
            stop = self._callback(state)
        except StopIteration:
            stop = True
        if stop:
            self._budget.stop("stopped by the callback")

    def _look_at_target(self) -> None:
        """Stop if the caller's cut reaches the target, exactly."""
        if self._target is None:
            return
        contraction = self._contraction
        weights = contraction.original.weights
        # A plain sum of m weights may be off by gamma_m of their magnitudes: only then look closer.
        unsure = (weights.size + 4) * 2.0**-53 * float(np.abs(weights).sum()) + contraction.rounding
        if contraction.value(self.value) < self._target - unsure:
            return
        partition = contraction.partition(self.signs)
        if exact_cut_value(contraction.original, partition) >= self._target:
            self._budget.stop("target reached")

    def _row(self) -> HistoryRow:
        """Return where the search stands, in the caller's terms."""
        contraction = self._contraction
        bound = None if self.upper_bound is None else contraction.bound(self.upper_bound)
        return HistoryRow(self._budget.elapsed(), contraction.value(self.value), bound)

    def _record(self) -> None:
        self.history.append(self._row())

    def _show(self) -> None:
        bar = self.progress
        if bar is None:
            return
        reached = self._budget.elapsed() if bar.unit == "s" else self.sweeps
        bar.update(max(0, min(reached, bar.total) - bar.n))
        row = self._row()
        note = {"cut": f"{row.cut_value:.10g}"}
        if row.upper_bound is not None:
            note["bound"] = f"{row.upper_bound:.10g}"
        bar.set_postfix(note)
