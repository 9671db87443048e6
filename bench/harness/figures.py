"""Figures of a report as SVG that takes the colour of the page's text, for light and dark alike."""

import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness.markdown import number_in

# Stands for the colour of the text; no other element has it.
_INK = "#010203"
# For bands behind data: readable on white and on black.
_PALE = "#8a94a6"
_OURS = "#3b82f6"
_OTHERS = ("#e8853a", "#3fa66b", "#a06be0", "#d6556a", "#b59a2e", "#38a3b5", "#8d6e5a")
_MARKERS = "osD^vPX"
_WIDTH = 7.2
_STYLE = {
    "svg.fonttype": "path",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _PALE,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.formatter.use_mathtext": True,
}


class Figure(NamedTuple):
    """A picture, what it shows, and how to read it."""

    title: str
    svg: str
    caption: str


def available() -> bool:
    """Whether matplotlib is here."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def of_summary(summary: list[dict[str, Any]]) -> Figure | None:
    """Geometric mean and range of the ratios to each rival."""
    lines = [line for line in summary if line["best"] and line["worst"]]
    if not lines:
        return None

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.axvline(1.0, color=_INK, linewidth=1.0)
        for place, line in enumerate(reversed(lines)):
            color = _OTHERS[3] if line["rival_wins"] else _OURS
            ends = [line["best"], line["worst"]]
            axes.plot(ends, [place, place], color=color, alpha=0.45, linewidth=5.0)
            middle = line["mean"] or math.sqrt(ends[0] * ends[1])
            axes.plot(middle, place, "o", color=color, markersize=6)
        names = [f"{line['topic']}: {line['rival']}" for line in lines]
        labels = [
            _short(f"{line['rival']}, {line['quantity']}" if names.count(name) > 1 else name)
            for name, line in zip(names, lines, strict=True)
        ]
        axes.set_yticks(range(len(lines)), labels[::-1], fontsize=8.5)
        axes.set_ylim(-0.7, len(lines) - 0.3)
        axes.set_xscale("log")
        axes.set_xlabel("ours / rival: left of 1 ours is ahead")
        axes.grid(visible=False, axis="y")

    height = 1.0 + 0.24 * len(lines)
    caption = "Bars: best to worst case. Dots: geometric mean. Red: the rival wins a case."
    return Figure("Ratio to each rival", _svg("summary", height, draw), caption)


def of_targets(topic: dict[str, Any]) -> Iterator[Figure]:
    """Time-to-target curves and performance profiles, for the hardest target that ours reaches."""
    if "targets" not in topic:
        return
    targets = topic["targets"]
    solvers = list(dict.fromkeys(row["solver"] for row in targets["times"]))

    def steps(curves: dict[str, dict[str, list]], label: str) -> Callable[[Any], None]:
        def draw(figure: Any) -> None:
            panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
            for axes, (share, found) in zip(panels, curves.items(), strict=True):
                _step_curves(axes, found, solvers)
                axes.set_title(f"{share} of the best cut", fontsize=10)
                axes.set_xlabel(label)
            panels[0].set_ylabel("share of graphs and seeds")
            _legend_above(figure, panels[0])

        return draw

    seeds = len({row["seed"] for row in targets["times"]})
    graphs = ", ".join(dict.fromkeys(row["graph"] for row in targets["times"]))
    caption = (
        f"Graphs: {graphs}; {seeds} seeds each. Best cut: found by anybody here, or published."
    )
    draw = steps(targets["curves"], "seconds")
    yield Figure("Time to a target cut", _svg("targets", 3.6, draw), caption)
    draw = steps(targets["profiles"], "time / least time")
    caption = (
        "Share of graphs and seeds on which a solver needs at most so many times the least time."
    )
    yield Figure("Performance profile", _svg("profiles", 3.6, draw), caption)


def _step_curves(axes: Any, found: dict[str, list[list[float]]], solvers: list[str]) -> None:
    ends = [point[0] for points in found.values() for point in points] or [1.0]
    left, right = min(ends) / 1.15, max(ends) * 1.15
    for place, solver in enumerate(solvers):
        points = found.get(solver, [])
        x = [left, *(point[0] for point in points), right]
        y = [0.0, *(point[1] for point in points)]
        axes.step(x, [*y, y[-1]], where="post", **_look(solver, place))
    _logarithmic(axes.xaxis)
    axes.set_ylim(-0.03, 1.05)


def _logarithmic(axis: Any, subdivisions: tuple[int, ...] = (1, 3)) -> None:
    """Make an axis logarithmic, with plain numbers that do not run into each other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(subs=subdivisions))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def of_distortion(topic: dict[str, Any]) -> Iterator[Figure]:
    """Distortion against the number of dimensions, one figure for each data set."""
    for table in topic["tables"]:
        columns = table["columns"]
        if columns[:2] != ["data", "k"] or "ours" not in columns:
            continue
        for data in dict.fromkeys(row[0] for row in table["rows"]):
            rows = [row for row in table["rows"] if row[0] == data]
            if len(rows) > 1:
                yield _distortion(data, columns, rows)


def _distortion(data: str, columns: list[str], rows: list[list[str]]) -> Figure:
    names = [name for name in columns[2:] if name not in ("s", "CPU s")]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, name in enumerate(sorted(names, key=lambda name: name != "ours")):
            # 0 has no place on a logarithmic axis.
            values = [number_in(row[columns.index(name)]) or math.nan for row in rows]
            k = [number_in(row[1]) for row in rows]
            bound = name == "lower bound"
            style = _look(name, place) | {"marker": _MARKERS[place % len(_MARKERS)]}
            if bound:
                style = {"color": _INK, "linestyle": "--", "label": name}
            axes.plot(k, values, **style)
        axes.set_xlabel("dimensions k")
        axes.set_ylabel("largest distortion of all pairs")
        _logarithmic(axes.yaxis)
        _legend_above(figure, axes)

    caption = "Lower is better. Dashed: no linear map can be below, as proven in the same run."
    return Figure(f"Distortion against dimension: {data}", _svg(f"k {data}", 3.8, draw), caption)


def of_roof(topic: dict[str, Any]) -> Figure | None:
    """The kernels under the measured roof."""
    tables = {table["columns"][0]: table for table in topic["tables"]}
    if (
        "roof" not in tables
        or "flops a byte" not in tables.get("kernel", {"columns": []})["columns"]
    ):
        return None
    roof = {row[0]: float(row[1]) for row in tables["roof"]["rows"]}
    bandwidth = roof["bandwidth of a triad"]
    peaks = {name.removeprefix("peak, "): value for name, value in roof.items() if "peak" in name}
    columns = tables["kernel"]["columns"]
    points = [dict(zip(columns, row, strict=True)) for row in tables["kernel"]["rows"]]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, (precision, peak) in enumerate(peaks.items()):
            x = [2.0**-4, peak / bandwidth, 2.0**8]
            line = "-" if place == 0 else "--"
            y = [min(peak, bandwidth * value) for value in x]
            axes.plot(x, y, color=_INK, linestyle=line, linewidth=1.2, label=f"roof, {precision}")
        for place, point in enumerate(points):
            color = (_OURS, *_OTHERS)[place % (1 + len(_OTHERS))]
            axes.plot(
                float(point["flops a byte"]),
                float(point["GFLOP/s"]),
                _MARKERS[place % len(_MARKERS)],
                color=color,
                linestyle="none",
                label=f"{point['kernel']}, {point['precision']}",
            )
        axes.set_xscale("log", base=2)
        _logarithmic(axes.yaxis)
        axes.set_xlabel("flops a byte")
        axes.set_ylabel("GFLOP/s")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)

    caption = (
        "Slope: bandwidth of a triad; ceilings: the best matrix product; one thread, same run. "
        "Above the slope data came from a cache."
    )
    return Figure("Kernels under the roof", _svg("roof", 4.2, draw), caption)


def of_scaling(topic: dict[str, Any]) -> Figure | None:
    """Time per stored edge against the number of vertices, with the fitted exponents."""
    table = next((t for t in topic["tables"] if t["columns"][0] == "ns a stored edge"), None)
    if table is None:
        return None
    sizes = [row for row in table["rows"] if row[0].isdigit()]
    fits = next((row for row in table["rows"] if row[0] == "exponent"), None)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, name in enumerate(table["columns"][1:]):
            fit = f": exponent {fits[place + 1]}" if fits else ""
            axes.plot(
                [float(row[0]) for row in sizes],
                [float(row[place + 1]) for row in sizes],
                label=f"{name}{fit}",
                marker=_MARKERS[place % len(_MARKERS)],
                color=(_OURS, *_OTHERS)[place % (1 + len(_OTHERS))],
            )
        _logarithmic(axes.xaxis)
        _logarithmic(axes.yaxis, (1, 2, 5))
        axes.set_xlabel("vertices, five edges each")
        axes.set_ylabel("ns a stored edge")
        _legend_above(figure, axes)

    caption = "Flat: time grows like the edges. The exponent is that of time against edges."
    return Figure("Scaling", _svg("scaling", 3.8, draw), caption)


def of_topic(topic: dict[str, Any]) -> list[Figure]:
    """Return all figures that the results of a topic allow."""
    single = (of_roof(topic), of_scaling(topic))
    found = [*of_targets(topic), *of_distortion(topic)]
    return found + [figure for figure in single if figure is not None]


def _look(name: str, place: int) -> dict[str, Any]:
    """Return colour and name; blue is ours, and dashed where it does more."""
    if name.startswith("ours"):
        return {"color": _OURS, "linestyle": "-" if name == "ours" else "--", "label": name}
    return {"color": _OTHERS[(place - 1) % len(_OTHERS)], "label": name}


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip(' ,:')}\u2026"


def _svg(name: str, height: float, draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    # Identifiers are the same in every run and differ between the figures of a page.
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Canvas(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    prefix = re.sub(r"\W", "_", name)
    svg = re.sub(r'\bid="', f'id="{prefix}_', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{prefix}_", svg)
    # The width is that of the page.
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    )
