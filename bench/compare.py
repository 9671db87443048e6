"""Compare two runs by their ratios to the rivals, not by raw times, which depend on the day.

Rows are joined by topic, case, quantity and both names. Exit status 1 if a ratio has grown by more
than the factor ``--ratio``, and by more than the rounds of a row differ among themselves (median
over least, in either run), so that a busy machine does not raise alarms.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from harness import results
from harness.markdown import write_table
from harness.numbers import shown

_KEY = ("topic", "case", "quantity", "ours", "rival")
Comparison = dict[str, Any]


class Change(NamedTuple):
    """One row of both runs: the ratios, how much worse the second is, and what may be noise."""

    key: tuple[str, ...]
    before: float | None
    after: float | None
    factor: float | None
    noise: float


class Verdict(NamedTuple):
    """Rows that are worse, better or about the same, and those that only one run has."""

    worse: list[Change]
    better: list[Change]
    same: list[Change]
    gone: list[tuple[str, ...]]
    new: list[tuple[str, ...]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument("--ratio", type=float, default=1.15, help="what counts as worse (1.15)")


def run(arguments: argparse.Namespace) -> int:
    """Print the changes; 1 if something is worse."""
    if not arguments.ratio >= 1.0:
        raise SystemExit(f"--ratio is {arguments.ratio:g}; it must be at least 1")
    before, after = results.read(arguments.before), results.read(arguments.after)
    verdict = compared(before["comparisons"], after["comparisons"], arguments.ratio)
    print(_text(verdict))
    return 1 if verdict.worse else 0


def compared(before: list[Comparison], after: list[Comparison], limit: float) -> Verdict:
    """Join the rows and sort them by verdict, the largest change first."""
    old, new = _by_key(before), _by_key(after)
    changes = [_change(key, old[key], new[key]) for key in old if key in new]
    worse = [change for change in changes if _is_worse(change, limit)]
    better = [change for change in changes if _is_worse(_reverse(change), limit)]
    return Verdict(
        sorted(worse, key=_size, reverse=True),
        sorted(better, key=_size),
        [change for change in changes if change not in worse and change not in better],
        [key for key in old if key not in new],
        [key for key in new if key not in old],
    )


def _by_key(rows: list[Comparison]) -> dict[tuple[str, ...], Comparison]:
    return {tuple(row[name] for name in _KEY): row for row in rows}


def _change(key: tuple[str, ...], old: Comparison, new: Comparison) -> Change:
    before, after = _standing(old), _standing(new)
    factor = after / before if before and after is not None else None
    noise = max(old.get("noise", 1.0), new.get("noise", 1.0))
    return Change(key, before, after, factor, noise)


def _standing(row: Comparison) -> float | None:
    """Return the ratio; infinite where only the rival got there, 0 where only we did."""
    if row["ratio"] is not None:
        return float(row["ratio"])
    if row["our_value"] is None and row["rival_value"] is None:
        return None
    return float("inf") if row["rival_wins"] else 0.0


def _is_worse(change: Change, limit: float) -> bool:
    if change.before is None or change.after is None:
        return False
    return change.after > max(limit, change.noise) * change.before


def _reverse(change: Change) -> Change:
    return change._replace(before=change.after, after=change.before)


def _size(change: Change) -> float:
    return float("inf") if change.factor is None else change.factor


def _text(verdict: Verdict) -> str:
    parts = [
        f"{len(verdict.worse)} worse, {len(verdict.better)} better, {len(verdict.same)} about the "
        f"same, {len(verdict.gone)} only in the first run, {len(verdict.new)} only in the second\n"
    ]
    for title, changes in (("Worse", verdict.worse), ("Better", verdict.better)):
        if changes:
            rows = [
                [*change.key, shown(change.before), shown(change.after), shown(change.factor)]
                for change in changes
            ]
            columns = [*_KEY, "ratio before", "ratio after", "change"]
            parts.append(f"{title}\n\n{write_table(columns, rows)}")
    for title, keys in (("Only in the first", verdict.gone), ("Only in the second", verdict.new)):
        if keys:
            parts.append(f"{title}\n\n{write_table(_KEY, keys)}")
    return "\n".join(parts)
