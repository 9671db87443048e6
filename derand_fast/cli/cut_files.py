"""Files that say on which side vertices are: what --output writes, and --fixed and --initial read.

A line for each vertex, its label and +1 or -1; lines that begin with # are comments.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from derand_fast.cli.messages import CommandError, reason

__all__ = ["read_sides", "write_cut"]

_SIDES = {"+1": 1, "1": 1, "-1": -1}


def read_sides(path: Path, labels: Iterable[Any]) -> dict[Any, int]:
    """Return the vertices of a file, by the graph's own labels, and their sides."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "not UTF-8 text"
        raise CommandError(f"cannot read {path}: {why}") from error
    by_text = {str(label): label for label in labels}
    sides: dict[Any, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        text, _, side = line.strip().replace("\t", " ").rpartition(" ")
        text = text.strip()
        if not text or side not in _SIDES:
            raise CommandError(f"{path}, line {number}: not 'label +1' or 'label -1': {line!r}")
        if text not in by_text:
            raise CommandError(f"{path}, line {number}: the graph has no vertex {text!r}")
        label = by_text[text]
        if sides.setdefault(label, _SIDES[side]) != _SIDES[side]:
            raise CommandError(f"{path}, line {number}: vertex {text!r} is on both sides")
    if not sides:
        raise CommandError(f"{path} names no vertex")
    return sides


def write_cut(path: Path, cut_value: float, sides: Iterable[tuple[Any, int]]) -> None:
    """Write a cut: its value in a comment, then the vertices."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# cut {cut_value!r}\n")
        file.writelines(f"{label}\t{side:+d}\n" for label, side in sides)
