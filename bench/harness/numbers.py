"""How numbers are written in tables: one way, so that a report can be checked against its file."""

from typing import Any


def shown(value: Any) -> str:
    """Return a number with four digits or all before the point, a dash, and texts as they are."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:.4g}" if not 1e4 <= abs(value) < 1e10 else f"{value:.0f}"
    return str(value)
