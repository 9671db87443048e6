"""Markdown tables: read those that a script has printed, write those of a report."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_RULE = re.compile(r"\|?(\s*:?-{3,}:?\s*\|)*\s*:?-{3,}:?\s*\|?")


def read_tables(text: str) -> list[dict[str, Any]]:
    """Return title, columns and rows of every table; the title is the last line of text above."""
    tables: list[dict[str, Any]] = []
    title, lines = "", text.splitlines()
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        if "|" in line and place + 1 < len(lines) and _RULE.fullmatch(lines[place + 1].strip()):
            columns = _cells(line)
            rows = list(_rows(lines[place + 2 :]))
            whole = [row for row in rows if len(row) == len(columns)]
            tables.append({"title": title, "columns": columns, "rows": whole})
            place += 2 + len(rows)
            continue
        title = line.lstrip("# ") or title
        place += 1
    return tables


def _rows(lines: Iterable[str]) -> Iterator[list[str]]:
    for line in lines:
        if "|" not in line:
            return
        yield _cells(line)


def _cells(line: str) -> list[str]:
    # A bar at both ends is a frame; without it the first cell begins at the margin.
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("**", "") for cell in inner.split("|")]


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns of numbers are set to the right."""
    rows = [[_escaped(cell) for cell in row] for row in rows]
    rules = ["---:" if _numeric(row[i] for row in rows) else "---" for i in range(len(columns))]
    lines = [[_escaped(column) for column in columns], rules, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _numeric(cells: Iterable[str]) -> bool:
    filled = [cell for cell in cells if cell not in ("", "-")]
    return bool(filled) and all(number_in(cell) is not None for cell in filled)


def number_in(cell: str) -> float | None:
    """Return the number of a cell: plain, with thousands, with a sign of per cent, or a share."""
    text = cell.strip().removeprefix("~").removesuffix("%").strip().replace(",", "")
    over = re.fullmatch(r"(\d+)\s*(?:/|of)\s*(\d+)", text)
    if over is not None:
        return int(over[1]) / int(over[2]) if int(over[2]) else None
    try:
        return float(text)
    except ValueError:
        return None
