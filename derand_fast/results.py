"""What the solvers return."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from derand_fast.notebook import report_as_html

if TYPE_CHECKING:
    from derand_fast.optimize.result import SOSPResult

__all__ = ["CutResult", "HistoryRow", "Solution"]


# Of a second-order certificate, what goes into JSON.
_CERTIFICATE_FIELDS = (
    *("certified", "message", "fun", "rho", "grad_norm", "curvature_tol", "lambda_min"),
    *("lambda_min_lower", "delta", "n_escapes", "W_norm", "collapse_bound", "nit", "nhev"),
)


class HistoryRow(NamedTuple):
    """One improvement: seconds since the call began, best cut then, best upper bound then."""

    seconds: float
    cut_value: float
    upper_bound: float | None


class Solution(NamedTuple):
    """A cut: its value, and +1 or -1 for each vertex (int8, read-only)."""

    cut_value: float
    partition: NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class CutResult:
    """A cut, and how far from optimal it can be at most.

    Attributes
    ----------
    cut_value : float
        Sum of the weights of the edges between the two sides.
    partition : (n,) int8 array
        +1 or -1 for each vertex, in the order of the graph's vertices; read-only. The first
        vertex is on side +1, unless vertices are fixed: then these are where they were fixed to.
    sets : tuple of two frozensets
        The caller's own vertex labels on side +1 and on side -1.
    upper_bound : float or None
        No cut of the graph, with the fixed vertices where they are, is larger (`bound_certificate`
        says in which sense); None if not asked for.
    sdp_value : float or None
        Value of the Goemans-Williamson relaxation at the vectors found: at most its optimum. Where
        vertices are fixed, that of the graph with these merged, and the constant added.
    expected_cut : float or None
        Expected cut of random hyperplane rounding at these vectors, in closed form:
        sum of w_ij arccos(v_i . v_j) / pi over the edges. ``cut_value`` is never below it.
    history : tuple of HistoryRow
        Each improvement of the cut or of the bound.
    seconds : mapping
        Wall-clock seconds by phase, and ``"total"``.
    seed, method, message
        The seed used, the method, and in words how the call ended.
    sweeps : int
        Annealing sweeps of sixteen replicas, all searchers together; those of clusters, where the
        replicas agree, are not counted.
    bound_certificate : str or None
        What is proven about ``upper_bound``, and with which probability.
    certificate : SOSPResult or None
        Of the descents to second-order stationary points: where they ended, and what is certified
        there. None for method "anneal".
    solutions : tuple of Solution
        The best different cuts found, as many as ``n_solutions`` at most, best first; the first is
        this result's own.
    energy : float or None
        Of an Ising or QUBO problem: the energy of ``sample``, correctly rounded. The attributes
        from here on are None for a graph.
    energy_lower_bound : float or None
        No sample of the problem has a lower energy, in the sense of ``upper_bound``.
    sample : dict or None
        The problem's own variables with their spins +1 and -1, or their bits 0 and 1.
    """

    cut_value: float
    partition: NDArray[np.int8]
    sets: tuple[frozenset[Any], frozenset[Any]]
    upper_bound: float | None
    sdp_value: float | None
    expected_cut: float | None
    history: tuple[HistoryRow, ...]
    seconds: Mapping[str, float]
    seed: int
    method: str
    message: str
    sweeps: int
    bound_certificate: str | None = field(default=None)
    certificate: SOSPResult | None = field(default=None)
    solutions: tuple[Solution, ...] = field(default=())
    energy: float | None = field(default=None)
    energy_lower_bound: float | None = field(default=None)
    sample: Mapping[Any, int] | None = field(default=None)

    @property
    def spins(self) -> NDArray[np.int8] | None:
        """Spins of an Ising or QUBO problem in the order of its variables; bit 1 is spin +1."""
        if self.sample is None:
            return None
        # The vertex of the fields, where there is one, comes first, and is on side +1.
        return self.partition[self.partition.size - len(self.sample) :]

    @property
    def gap(self) -> float | None:
        """Relative gap (upper_bound - cut_value) / |upper_bound|; 0 proves the cut optimal.

        None without a bound. Where the bound is 0 the gap is 0 if the cut is 0 too, else infinite.
        """
        if self.upper_bound is None:
            return None
        difference = self.upper_bound - self.cut_value
        if difference == 0.0:
            return 0.0
        # Fixed vertices may leave negative cuts only.
        return difference / abs(self.upper_bound) if self.upper_bound else math.inf

    def __str__(self) -> str:
        """Return a short report for people."""
        lines = [
            f"cut      {self.cut_value:.12g}",
            f"sides    {len(self.sets[0])} + {len(self.sets[1])} vertices",
        ]
        if self.upper_bound is None:
            lines.append("bound    none")
        else:
            lines.append(f"bound    {self.upper_bound:.12g}  (gap {self.gap:.3%})")
        if self.energy is not None:
            lines.append(self._energy_line(self.energy))
        if len(self.solutions) > 1:
            others = len(self.solutions) - 1
            least = self.solutions[-1].cut_value
            lines.append(f"others   {others} different, down to {least:.12g}")
        if self.sdp_value is not None:
            lines.append(
                f"SDP      {self.sdp_value:.12g}  (random rounding: {self.expected_cut:.12g})"
            )
        lines.append(f"time     {self.seconds['total']:.3f} s, {self.sweeps} sweeps")
        lines.append(f"method   {self.method}, seed {self.seed}: {self.message}")
        if self.bound_certificate is not None:
            lines.append(f"proven   {self.bound_certificate}")
        if self.certificate is not None:
            lines.extend(f"  {line}" for line in str(self.certificate).splitlines())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the report for notebooks."""
        return report_as_html("Maximum cut", str(self))

    def _energy_line(self, energy: float) -> str:
        if self.energy_lower_bound is None:
            return f"energy   {energy:.12g}"
        return f"energy   {energy:.12g}  (no less than {self.energy_lower_bound:.12g})"

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain JSON types.

        ``sets`` become sorted lists, ``solutions`` lists [cut value, partition], ``sample`` a list
        of [variable, value], an infinite gap None.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["partition"] = self.partition.tolist()
        fields["solutions"] = [[value, signs.tolist()] for value, signs in self.solutions]
        if self.sample is not None:
            fields["sample"] = [[_plain(label), value] for label, value in self.sample.items()]
        fields["sets"] = [_sorted([_plain(label) for label in side]) for side in self.sets]
        fields["history"] = [list(row) for row in self.history]
        fields["seconds"] = dict(self.seconds)
        fields["gap"] = None if self.gap == math.inf else self.gap
        if self.certificate is not None:
            fields["certificate"] = {
                name: _plain(self.certificate[name]) for name in _CERTIFICATE_FIELDS
            }
        return fields

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot cut and bound over time; save to ``path`` if given. Needs the ``plot`` extra."""
        from derand_fast.plot import plot_history

        return plot_history(self, path)


def _plain(label: Any) -> Any:
    """Return a label as JSON can hold it."""
    value = label.item() if isinstance(label, np.generic) else label
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float)) or value is None:
        return value
    return str(label)


def _sorted(labels: list[Any]) -> list[Any]:
    """Sort labels; mixed kinds by their text. Sets have no order of their own."""
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=repr)
