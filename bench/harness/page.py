"""A report as blocks, and as an HTML page that refers to nothing outside it, or as Markdown."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.figures import Figure
from harness.markdown import number_in, write_table


@dataclass(frozen=True)
class Text:
    """A paragraph; code between backticks."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table with a title; `folded` ones are closed at first."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False
    note: str = ""
    # The column whose numbers above 1 are marked.
    ratio: str = ""


@dataclass
class Section:
    """A heading and what is under it."""

    name: str
    title: str
    blocks: list[Text | Table | Figure] = field(default_factory=list)


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report without its figures."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        for block in section.blocks:
            if isinstance(block, Text):
                parts.append(f"{block.text}\n")
            elif isinstance(block, Table):
                parts.append(f"### {block.title}\n")
                parts.append(write_table(block.columns, block.rows))
                if block.note:
                    parts.append(f"{block.note}\n")
    return "\n".join(parts)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Return the page."""
    links = "".join(
        f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections
    )
    body = "".join(_section(section) for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1><nav>{links}</nav></header><main>{body}</main>"
        "</body></html>\n"
    )


def _section(section: Section) -> str:
    blocks = "".join(_block(block) for block in section.blocks)
    return f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>{blocks}</section>\n'


def _block(block: Text | Table | Figure) -> str:
    if isinstance(block, Text):
        return f"<p>{_with_code(block.text)}</p>"
    if isinstance(block, Figure):
        return (
            f'<figure role="img" aria-label="{html.escape(block.title)}"><h3>'
            f"{html.escape(block.title)}</h3>{block.svg}"
            f"<figcaption>{html.escape(block.caption)}</figcaption></figure>"
        )
    return _table(block)


def _table(table: Table) -> str:
    numeric = [_is_numeric([row[i] for row in table.rows]) for i in range(len(table.columns))]
    head = "".join(
        f"<th{_class(right)}>{html.escape(name)}</th>"
        for name, right in zip(table.columns, numeric, strict=True)
    )
    lines = "".join(f"<tr>{_cells(table, row, numeric)}</tr>" for row in table.rows)
    title = html.escape(table.title)
    note = f'<p class="note">{_with_code(table.note)}</p>' if table.note else ""
    body = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>{note}"
    )
    if table.folded:
        return f"<details><summary>{title} ({len(table.rows)})</summary>{body}</details>"
    return f"<h3>{title}</h3>{body}"


def _cells(table: Table, row: Sequence[str], numeric: Sequence[bool]) -> str:
    cells = []
    for name, cell, right in zip(table.columns, row, numeric, strict=True):
        value = number_in(cell) if name == table.ratio else None
        mark = "" if value is None else "behind" if value > 1.0 else "ahead"
        cells.append(f"<td{_class(right, mark)}>{html.escape(cell)}</td>")
    return "".join(cells)


def _class(right: bool, mark: str = "") -> str:
    names = " ".join(name for name in ("number" if right else "", mark) if name)
    return f' class="{names}"' if names else ""


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell not in ("", "-")]
    return bool(filled) and all(number_in(cell) is not None for cell in filled)


def _with_code(text: str) -> str:
    pieces = html.escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces)
    )


_CSS = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--quiet:#5b6470;--rule:#d9dee5;
--shade:#f5f7f9;--link:#0b5cad;--ahead:#14703c;--behind:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e7eb;--quiet:#9aa4b1;
--rule:#313842;--shade:#1c2127;--link:#7ab8ff;--ahead:#6fd199;--behind:#ff8f85}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:68rem;margin:0 auto;padding:0 1.1rem}
header{padding-top:2rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .8rem}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .4rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;font-size:.92rem}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
p{max-width:46rem;margin:.6rem 0}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--shade);
padding:.1em .3em;border-radius:3px;overflow-wrap:anywhere}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:.86rem;line-height:1.35}
th,td{padding:.38rem .65rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
tbody tr:last-child td{border-bottom:0}
th{background:var(--shade);font-weight:600}
td:not(.number){min-width:5rem}td:first-child:not(.number){min-width:9rem}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.ahead{color:var(--ahead);font-weight:600}.behind{color:var(--behind);font-weight:600}
.note,figcaption{color:var(--quiet);font-size:.86rem}
figure{margin:1.4rem 0}figure svg{display:block;width:100%;max-width:54rem;height:auto}
details{margin:1rem 0}summary{cursor:pointer;font-weight:600;padding:.2rem 0}
@media(max-width:40rem){body{font-size:15px}header{padding-top:1.2rem}
td:not(.number),td:first-child:not(.number){min-width:6.5rem}th,td{padding:.32rem .5rem}}
@media print{nav{display:none}.scroll{overflow:visible}}
"""
