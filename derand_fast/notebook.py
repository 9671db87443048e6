"""Results in a notebook: the printed report as a small table."""

from __future__ import annotations

from html import escape

__all__ = ["report_as_html"]


def report_as_html(title: str, report: str) -> str:
    """Return a report of lines 'label  text' as an HTML table.

    Lines that are indented belong to the part above them; their labels are indented too.
    """
    rows = "".join(_row(line) for line in report.splitlines())
    return (
        f'<div class="derand-fast"><strong>{escape(title)}</strong>'
        f'<table style="text-align: left">{rows}</table></div>'
    )


def _row(line: str) -> str:
    text = line.lstrip()
    indent = len(line) - len(text)
    label, _, content = text.partition(" ")
    return (
        f'<tr><th style="text-align: left; padding-left: {indent}em">{escape(label)}</th>'
        f'<td style="text-align: left">{escape(content.strip())}</td></tr>'
    )
