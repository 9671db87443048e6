"""The picture must show what the result says, and saving it must say what goes wrong."""

import doctest
import gc
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest

from derand_fast.plot import check_plot_path, cut, optimization, plot_history
from derand_fast.results import CutResult, HistoryRow

INF = float("inf")


def make_result(**changes):
    fields = {
        "cut_value": 12.0,
        "partition": np.array([1, -1], dtype=np.int8),
        "sets": (frozenset([0]), frozenset([1])),
        "upper_bound": 16.0,
        "sdp_value": 15.5,
        "expected_cut": 11.5,
        "history": (
            HistoryRow(0.1, 10.0, INF),
            HistoryRow(0.2, 11.0, INF),
            HistoryRow(0.4, 11.0, 20.0),
            HistoryRow(0.5, 12.0, 16.0),
        ),
        "seconds": {"total": 1.0},
        "seed": 7,
        "method": "anneal",
        "message": "all sweeps done",
        "sweeps": 1234,
    }
    return CutResult(**(fields | changes))


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def points(line):
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def by_gid(figure, gid):
    return next((line for line in figure.axes[0].get_lines() if line.get_gid() == gid), None)


def test_staircases_hold_the_history_up_to_the_end():
    figure = plot_history(make_result())
    cut, bound = by_gid(figure, "cut"), by_gid(figure, "bound")
    assert points(cut) == [(0.1, 10.0), (0.2, 11.0), (0.4, 11.0), (0.5, 12.0), (1.0, 12.0)]
    assert points(bound) == [(0.4, 20.0), (0.5, 16.0), (1.0, 16.0)]
    assert cut.get_drawstyle() == bound.get_drawstyle() == "steps-post"
    assert figure.axes[0].get_xlim() == (0.0, 1.0)


def test_levels_gap_and_words():
    figure = plot_history(make_result())
    axes = figure.axes[0]
    lines = lines_of(figure)
    assert lines["SDP relaxation at the vectors found (15.5)"].get_ydata() == [15.5, 15.5]
    rounding = lines["random rounding, expected cut (11.5)"]
    assert rounding.get_ydata() == [11.5, 11.5]
    assert rounding.get_linestyle() == ":"
    assert len(axes.collections) == 1
    shade = axes.collections[0].get_paths()[0].get_extents()
    assert (shade.x0, shade.x1, shade.y0, shade.y1) == (0.4, 1.0, 11.0, 20.0)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["gap\n25%", "anneal, seed 7: 1,234 sweeps in 1 s"]
    assert axes.get_title(loc="left") == "Cut 12, upper bound 16"
    assert axes.get_xlabel() == "Time since the call began (s)"
    assert axes.get_ylabel() == "Cut value (sum of edge weights)"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["best cut", "upper bound"]
    assert len(legend) == 4


@pytest.mark.parametrize("missing", [None, INF])
def test_one_row_without_bound(tmp_path, missing):
    result = make_result(
        history=(HistoryRow(0.5, 12.0, missing),),
        upper_bound=None,
        sdp_value=None,
        expected_cut=None,
    )
    figure = plot_history(result, tmp_path / "one.png")
    assert points(by_gid(figure, "cut")) == [(0.5, 12.0), (1.0, 12.0)]
    assert by_gid(figure, "bound") is None
    assert not figure.axes[0].collections
    assert figure.axes[0].get_title(loc="left") == "Cut 12, no upper bound"
    assert len(figure.axes[0].texts) == 1


def test_bound_certified_after_the_last_row():
    figure = plot_history(make_result(history=(HistoryRow(0.5, 12.0, INF),)))
    assert points(by_gid(figure, "bound")) == [(1.0, 16.0)]


def test_empty_history_of_no_time(tmp_path):
    result = make_result(history=(), seconds={"total": 0.0}, cut_value=0.0, upper_bound=0.0)
    figure = plot_history(result, tmp_path / "empty.png")
    assert points(by_gid(figure, "cut")) == [(0.0, 0.0)]
    assert figure.axes[0].texts[0].get_text() == "gap\n0%"


@pytest.mark.parametrize("optimal", [False, True])
def test_far_off_first_values_do_not_squeeze_the_rest(tmp_path, optimal):
    first = HistoryRow(0.1, -500.0, 900.0)
    changes = {"history": (first, HistoryRow(0.5, 12.0, 12.0 if optimal else 16.0))}
    if optimal:
        changes |= {"upper_bound": 12.0, "sdp_value": 12.0 + 1e-9, "expected_cut": 12.0 - 1e-9}
    low, high = plot_history(make_result(**changes), tmp_path / "a.png").axes[0].get_ylim()
    assert 11.5 < low < 12.0 if optimal else 5.0 < low < 11.5
    assert 12.0 < high < 12.5 if optimal else 16.0 < high < 20.0


def test_infinite_gap_is_not_written():
    figure = plot_history(make_result(cut_value=-1.0, upper_bound=0.0))
    assert len(figure.axes[0].texts) == 1


@pytest.mark.parametrize(
    ("name", "magic"),
    [
        ("a.png", b"\x89PNG"),
        ("a.PNG", b"\x89PNG"),
        ("a.pdf", b"%PDF"),
        ("a.svg", b"<?xml"),
    ],
)
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_saved_file(tmp_path, name, magic, kind):
    figure = plot_history(make_result(), kind(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert isinstance(figure, matplotlib.figure.Figure)


@pytest.mark.parametrize("name", ["a.foo", "a", "png", "a.png.gz"])
def test_unknown_suffix(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ValueError, match=rf"{name}': the suffix decides the format.*\.png"):
        plot_history(make_result(), path)
    with pytest.raises(ValueError, match="the suffix decides"):
        check_plot_path(path)
    assert not path.exists()


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        plot_history(make_result(), tmp_path / "no" / "a.png")


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "derand-fast\[plot\]"'):
        plot_history(make_result())
    with pytest.raises(ImportError, match=r'pip install "derand-fast\[plot\]"'):
        check_plot_path("a.png")


def test_method_of_the_result(tmp_path):
    figure = make_result().plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert by_gid(figure, "cut") is not None


def test_nothing_is_kept_alive():
    def count():
        gc.collect()
        return sum(issubclass(type(item), matplotlib.figure.Figure) for item in gc.get_objects())

    before = count()
    for _ in range(3):
        plot_history(make_result())
    assert count() <= before


def test_pyplot_and_matplotlib_stay_out():
    code = (
        "import sys, derand_fast.plot as plot; assert 'matplotlib' not in sys.modules; "
        "plot.check_plot_path('a.png'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("module", [cut, optimization])
def test_docstring_examples(module):
    outcome = doctest.testmod(module)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
