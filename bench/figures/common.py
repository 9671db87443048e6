"""What the figure scripts share."""

import argparse
import csv
import math
from pathlib import Path

from matplotlib.figure import Figure


def parse(doc, **defaults):
    """Read the arguments that every figure takes."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for PNG and CSV")
    parser.add_argument("--time-limit", type=float, default=20.0, help="seconds for each run")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def colors():
    """Return one color for each line, in order."""
    return ("tab:blue", "tab:orange", "tab:green", "tab:red")


def figure(n_axes):
    """Return a figure and its axes, side by side."""
    fig = Figure(figsize=(6.4 * n_axes, 4.2), layout="constrained")
    return fig, fig.subplots(1, n_axes, squeeze=False)[0]


def zero_at_foot(axes, foot):
    """Make the vertical axis logarithmic, with 0 at ``foot``, below all decades that are shown."""
    axes.set_yscale("log")
    top = max(axes.get_ylim()[1], 2.0)
    axes.set_ylim(foot / 3.0, top)
    first, last = math.ceil(math.log10(foot)) + 1, math.floor(math.log10(top))
    exponents = range(last, first - 1, -max(1, (last - first) // 5))
    labels = [f"$10^{{{exponent}}}$" if exponent else "1" for exponent in exponents]
    axes.set_yticks([*(10.0**exponent for exponent in exponents), foot], [*labels, "0"])
    axes.set_yticks([], minor=True)


def legend_above(fig, columns):
    """Put the labels of the first axes above all axes, off the data."""
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def save(folder, name, fig, rows):
    """Write the figure and the numbers behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    for axes in fig.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(folder / f"{name}.png", dpi=150)
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{folder / name}.png, {folder / name}.csv ({len(rows)} rows)")
