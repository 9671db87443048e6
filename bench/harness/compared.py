"""Ratios to rivals: from rows of pytest-benchmark, from cells of printed tables, from targets.

Every comparison is a dictionary with the topic, the case, who is compared, the quantity, both
values and ``ratio``, which is below 1 where ours is better: ours / rival of what should be small,
rival / ours of what should be large. None: one of them never got there.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.markdown import number_in
from harness.topics import Columns, Lines

Comparison = dict[str, Any]
Row = dict[str, Any]
# Keys of extra_info with one figure for each who, of which more is better.
_RATES = "GFLOP/s"


def comparison(
    case: str,
    names: tuple[str, str],
    values: tuple[float | None, float | None],
    quantity: str,
    *,
    higher_is_better: bool = False,
    **more: Any,
) -> Comparison:
    """Return one comparison; more: details of both sides."""
    ours, rival = values
    return {
        "case": case,
        "ours": names[0],
        "rival": names[1],
        "quantity": quantity,
        "our_value": ours,
        "rival_value": rival,
        "ratio": _ratio(rival, ours) if higher_is_better else _ratio(ours, rival),
        "rival_wins": _is_behind(ours, rival, higher_is_better),
        **more,
    }


def _ratio(small: float | None, large: float | None) -> float | None:
    if small is None or not large:
        return None
    ratio = small / large
    return ratio if math.isfinite(ratio) else None


def _is_behind(ours: float | None, rival: float | None, higher_is_better: bool) -> bool:
    if ours is None or rival is None:
        return rival is not None
    return rival > ours if higher_is_better else rival < ours


def of_rows(rows: Sequence[Row]) -> Iterator[Comparison]:
    """Compare each of our rows with each rival of its case; the first of ours is the main one."""
    for case in dict.fromkeys(row["case"] for row in rows):
        same = [row for row in rows if row["case"] == case]
        ours = [row for row in same if row["kind"] == "ours"]
        for row in ours:
            for rival in same:
                if rival["kind"] == "rival":
                    yield _of_pair(row, rival, main=row is ours[0])
            yield from _of_rates(row)


def _of_pair(ours: Row, rival: Row, *, main: bool) -> Comparison:
    """Compare times, per unit of work where both rows state them."""
    unit = next((key for key in ours["extra"] if key[:2] == "ns" and key in rival["extra"]), None)
    values = ours["seconds"], rival["seconds"]
    if unit is not None:
        values = ours["extra"][unit], rival["extra"][unit]
    return comparison(
        ours["case"],
        (ours["who"], rival["who"]),
        values,
        unit or "seconds",
        main=main,
        noise=max(_noise(ours), _noise(rival)),
        our_details=_details(ours),
        rival_details=_details(rival),
    )


def _noise(row: Row) -> float:
    """Return how far the median of the rounds is above the least: other load, mostly."""
    return float(row["median"] / row["seconds"])


def _details(row: Row) -> dict[str, Any]:
    """Errors, counts and settings: what a time alone does not say."""
    return {name: value for name, value in row["extra"].items() if not name.startswith("ns")}


def _of_rates(row: Row) -> Iterator[Comparison]:
    """Compare figures that one row has measured for all."""
    extra = row["extra"]
    if isinstance(extra.get("ours"), (int, float)):
        for name, value in extra.items():
            if name != "ours" and isinstance(value, (int, float)):
                values = extra["ours"], value
                yield comparison(
                    row["case"], ("ours", name), values, _RATES, higher_is_better=True, main=True
                )


def of_table(table: dict[str, Any], rules: Iterable[Columns | Lines]) -> Iterator[Comparison]:
    """Compare the cells of a printed table that the rules name."""
    for rule in rules:
        if isinstance(rule, Columns):
            yield from _of_columns(table, rule)
        else:
            yield from _of_lines(table, rule)


def _of_columns(table: dict[str, Any], rule: Columns) -> Iterator[Comparison]:
    if not {*rule.case, rule.ours, *rule.rivals} <= set(table["columns"]):
        return
    for line in table["rows"]:
        cells = dict(zip(table["columns"], line, strict=True))
        ours = number_in(cells[rule.ours])
        if ours is None:
            continue
        case = ", ".join(
            cells[name] if number_in(cells[name]) is None else f"{name} = {cells[name]}"
            for name in rule.case
        )
        for column, rival in rule.rivals.items():
            value = number_in(cells[column])
            if value is not None and math.isfinite(value):
                yield comparison(
                    case,
                    ("ours", rival),
                    (ours * rule.factor, value),
                    rule.quantity,
                    higher_is_better=rule.higher_is_better,
                    main=True,
                )


def _of_lines(table: dict[str, Any], rule: Lines) -> Iterator[Comparison]:
    if not {rule.who, rule.value} <= set(table["columns"]):
        return
    who, value = table["columns"].index(rule.who), table["columns"].index(rule.value)
    found = {line[who]: number_in(line[value]) for line in table["rows"]}
    if found.get(rule.ours) is None:
        return
    for rival in found:
        if rival.startswith(rule.rivals):
            yield comparison(
                table["title"].split(";")[0],
                (rule.ours, rival),
                (found[rule.ours], found[rival]),
                rule.quantity,
                higher_is_better=rule.higher_is_better,
                main=True,
            )


def summary(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return a line for each topic, quantity and rival: geometric mean and extremes of the ratios.

    Only the main rows of ours count.
    """
    keys = ("topic", "quantity", "rival")
    main = [found for found in comparisons if found["main"]]
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for found in main:
        groups.setdefault(tuple(found[key] for key in keys), []).append(found)
    return [dict(zip(keys, key, strict=True)) | _statistics(group) for key, group in groups.items()]


def _statistics(group: Sequence[Comparison]) -> dict[str, Any]:
    ratios = [found["ratio"] for found in group if found["ratio"] is not None]
    positive = [ratio for ratio in ratios if ratio > 0.0]
    return {
        "cases": len(group),
        "mean": statistics.geometric_mean(positive) if len(positive) == len(group) else None,
        "best": min(ratios, default=None),
        "worst": max(ratios, default=None),
        "rival_wins": sum(found["rival_wins"] for found in group),
    }
