"""Make of a file of ``run`` one HTML page, which needs no network, and Markdown tables beside it.

All numbers are those of the file. Where a rival wins, a section near the top says so.
"""

import argparse
from pathlib import Path
from typing import Any

from harness import figures, results
from harness.numbers import shown
from harness.page import Section, Table, Text, to_html, to_markdown

Result = dict[str, Any]
TITLE = "derand_fast beside its rivals"
# Tables with more rows are closed at first.
_LONG = 30
_READING = (
    "A ratio is ours / rival of what should be small (seconds, distortion), rival / ours of what "
    "should be large: below 1 ours is ahead. Rows of one case ran in one process, one after the "
    "other, compiled beforehand; times are the least of all rounds. Errors and counts stand beside "
    "the times."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("file", type=Path, metavar="FILE.json")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: beside the file")


def run(arguments: argparse.Namespace) -> int:
    """Write FILE.html and FILE.md."""
    result = results.read(arguments.file)
    folder = arguments.output or arguments.file.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    sections = make_sections(result)
    for suffix, write in ((".html", to_html), (".md", to_markdown)):
        path = folder / f"{arguments.file.stem}{suffix}"
        path.write_text(write(TITLE, sections), encoding="utf-8")
        print(path)
    return 0


def make_sections(result: Result) -> list[Section]:
    """Return the whole report."""
    return [
        _overview(result),
        _behind(result),
        *(_topic(result, topic) for topic in result["topics"]),
        _not_run(result),
        _machine(result),
    ]


def _overview(result: Result) -> Section:
    main = [row for row in result["comparisons"] if row["main"]]
    lost = sum(row["rival_wins"] for row in main)
    section = Section("overview", "Overview")
    machine = result["machine"]
    section.blocks.append(
        Text(
            f"{len(main)} comparisons, a rival wins {lost}. Budget {result['budget']}, "
            f"{result['data']}, made by `{result['command']}` on {machine['started'][:10]}: "
            f"{machine['line']}."
        )
    )
    if (machine["load_start"] or 0.0) > machine["cores"]:
        section.blocks.append(
            Text("The machine was busy when the run began: times here are worth little.")
        )
    section.blocks.append(Text(_READING))
    if not figures.available():
        section.blocks.append(Text("No figures: matplotlib is not installed."))
    elif (figure := figures.of_summary(result["summary"])) is not None:
        section.blocks.append(figure)
    names = ("topic", "rival", "mean", "best", "worst", "cases", "rival_wins", "quantity")
    columns = ("topic", "rival", "mean ratio", "best", "worst", "cases", "rival wins", "quantity")
    rows = [[shown(line[name]) for name in names] for line in result["summary"]]
    note = "Mean: geometric; a dash where a ratio is 0 or somebody never got there."
    section.blocks.append(Table("Ratio to each rival", columns, rows, note=note))
    return section


def _behind(result: Result) -> Section:
    section = Section("behind", "Where a rival wins")
    lost = [row for row in result["comparisons"] if row["main"] and row["rival_wins"]]
    if not lost:
        section.blocks.append(Text("In no comparison of this run."))
        return section
    lost.sort(key=lambda row: float("inf") if row["ratio"] is None else row["ratio"], reverse=True)
    section.blocks.append(_comparisons("All of them, the largest ratio first", lost, topic=True))
    return section


def _topic(result: Result, topic: dict[str, Any]) -> Section:
    section = Section(topic["name"], topic["title"], [Text(topic["rivals"])])
    rows = [row for row in result["comparisons"] if row["topic"] == topic["name"]]
    if figures.available():
        section.blocks += figures.of_topic(topic)
    main = [row for row in rows if row["main"]]
    if main:
        section.blocks.append(_comparisons("Beside each rival", main, folded=len(main) > _LONG))
    for table in topic["tables"]:
        title = f"{table['title'] or table['script']}"
        note = f"`{table['command']}`"
        block = Table(
            title,
            table["columns"],
            table["rows"],
            folded=len(table["rows"]) > _LONG or table["compared"] > 0,
            note=note,
        )
        section.blocks.append(block)
    others = [row for row in rows if not row["main"]]
    if others:
        section.blocks.append(_comparisons("Other variants of ours", others, folded=True))
    if topic["rows"]:
        section.blocks.append(_rows(topic["rows"]))
    if len(section.blocks) == 1:
        section.blocks.append(Text("Nothing ran; see below for the reasons."))
    return section


def _comparisons(
    title: str, rows: list[dict[str, Any]], *, topic: bool = False, folded: bool = False
) -> Table:
    columns = ["case", "ours", "rival", "ratio", "value", "its value", "quantity"]
    columns += ["ours: beside it", "rival: beside it"]
    names = ["case", "ours", "rival", "ratio", "our_value", "rival_value", "quantity"]
    lines = [
        [
            *([row["topic"]] if topic else []),
            *(shown(row[name]) for name in names),
            _details(row.get("our_details")),
            _details(row.get("rival_details")),
        ]
        for row in rows
    ]
    head = [*(["topic"] if topic else []), *columns]
    # Columns with nothing in them only take width.
    filled = [place for place in range(len(head)) if any(line[place] for line in lines)]
    lines = [[line[place] for place in filled] for line in lines]
    return Table(title, [head[place] for place in filled], lines, folded=folded, ratio="ratio")


def _details(details: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in (details or {}).items())


def _rows(rows: list[dict[str, Any]]) -> Table:
    columns = ("case", "who", "kind", "seconds", "median", "rounds", "threads", "beside it")
    lines = [[*(shown(row[name]) for name in columns[:-1]), _details(row["extra"])] for row in rows]
    return Table("All timed rows", columns, lines, folded=True)


def _not_run(result: Result) -> Section:
    section = Section("left-out", "What did not run")
    if not result["not_run"]:
        section.blocks.append(Text("Everything ran."))
        return section
    reasons: dict[str, list[str]] = {}
    for left in result["not_run"]:
        reasons.setdefault(left["why"], []).append(left["what"])
    rows = [[why, ", ".join(names)] for why, names in reasons.items()]
    section.blocks.append(Table("Reasons", ("why", "what"), rows))
    return section


def _machine(result: Result) -> Section:
    machine = result["machine"]
    versions = ", ".join(
        f"{name} {found or 'not installed'}" for name, found in machine["versions"].items()
    )
    threads = ", ".join(f"{name}={value or 'unset'}" for name, value in machine["threads"].items())
    before, after = machine["cache_start"]["files"], machine["cache_end"]["files"]
    rows = [
        ["machine", machine["line"]],
        ["system", machine["system"]],
        ["versions", versions],
        ["threads", threads],
        ["load of the last minute, start", shown(machine["load_start"])],
        ["load of the last minute, end", shown(machine["load_end"])],
        ["compiled kernels on disk, start", shown(before)],
        ["compiled kernels on disk, end", shown(after)],
        ["begun", machine["started"]],
        ["seconds in all", shown(result["seconds"])],
        ["command", result["command"]],
    ]
    parts = [
        [topic["name"], part["file"], shown(part["seconds"]), shown(part["processor"])]
        for topic in result["topics"]
        for part in topic["parts"]
    ]
    columns = ("topic", "file", "seconds", "processor seconds")
    tables = [
        Table("As the run found it", ("what", "state"), rows),
        Table("What took how long", columns, parts, folded=True),
    ]
    return Section("machine", "Machine and state", tables)
