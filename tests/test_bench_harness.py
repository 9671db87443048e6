"""The benchmark harness: cases, ratios, reports that hold only measured numbers, comparisons."""

import argparse
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))

import compare
import report
from harness import figures, results
from harness.cases import Case, Collected, texts_of
from harness.compared import comparison, of_rows, of_table, summary
from harness.markdown import number_in, read_tables, write_table
from harness.numbers import shown
from harness.targets import SHARES, curves, of_gaps, of_targets, profiles, times_to_targets
from harness.topics import TOPICS, Columns, Lines, Script, Suite, Topic
from run import Runner

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"

# --- which rows are compared ----------------------------------------------------------------------


def collected(tests, **options):
    """A file with these tests: (function, parameters)."""
    found = Collected(**options)
    for function, parameters in tests:
        found.add(function, texts_of(parameters))
    return found


def test_a_parameter_names_who_does_the_work():
    tests = [("test_exp", {"who": who, "n": n}) for who in ("ours", "numpy") for n in (1, 10)]
    file = collected(tests)
    assert file.case("test_exp", {"who": "numpy", "n": "10"}, "exp") == Case(
        "exp, n = 10", "numpy", "rival"
    )
    assert file.case("test_exp", {"who": "ours", "n": "1"}, None).kind == "ours"
    # A group that tells the number already, or another number.
    assert file.case("test_exp", {"who": "ours", "n": "10"}, "exp, n = 10").case == "exp, n = 10"
    assert file.case("test_exp", {"who": "ours", "n": "1"}, "1 exp").case == "1 exp, n = 1"


def test_the_file_says_who_is_ours_and_what_nobody_can_pass():
    tests = [("test_pass", {"kind": kind}) for kind in ("serial", "numpy", "floor")]
    file = collected(tests, ours=("serial",), limits=("floor",))
    kinds = {kind: file.case("test_pass", {"kind": kind}, None).kind for (_, p) in tests
             for kind in p.values()}  # fmt: skip
    assert kinds == {"serial": "ours", "numpy": "rival", "floor": "limit"}


def test_functions_with_one_stem_are_compared():
    tests = [
        ("test_find_ours", {"matrix": "cut", "kind": "csr"}),
        ("test_find_eigsh", {"matrix": "cut", "tol": 0.5}),
        ("test_other", {"matrix": "cut"}),
    ]
    file = collected(tests)
    ours, rival, other = (file.case(name, texts_of(values), None) for name, values in tests)
    assert ours == Case("find, cut", "ours, csr", "ours")
    assert rival == Case("find, cut", "eigsh, tol = 0.5", "rival")
    assert other == Case("other, cut", "ours", "ours")


def test_the_stem_itself_may_be_ours():
    tests = [("test_step", {"kind": "c"}), ("test_step_eigsh", {})]
    file = collected(tests)
    assert file.case("test_step", {"kind": "c"}, "steps") == Case("steps", "ours, c", "ours")
    assert file.case("test_step_eigsh", {}, "steps") == Case("steps", "eigsh", "rival")


# --- ratios ---------------------------------------------------------------------------------------


def row(who, seconds, kind="rival", case="a", **extra):
    """A timed row as `run` keeps it."""
    kind = "ours" if who.startswith("ours") else kind
    return {
        "file": "f.py", "test": "t", "case": case, "who": who, "kind": kind, "parameters": {},
        "seconds": seconds, "median": seconds, "rounds": 3, "threads": "1", "extra": extra,
    }  # fmt: skip


def test_every_row_of_ours_meets_every_rival_of_its_case():
    rows = [row("ours", 1.0), row("ours float32", 0.5), row("numpy", 2.0), row("scipy", 0.8)]
    rows += [row("floor", 0.1, kind="limit"), row("ours", 1.0, case="alone")]
    found = {(one["ours"], one["rival"]): one for one in of_rows(rows)}
    assert {key: one["ratio"] for key, one in found.items()} == {
        ("ours", "numpy"): 0.5,
        ("ours", "scipy"): 1.25,
        ("ours float32", "numpy"): 0.25,
        ("ours float32", "scipy"): 0.625,
    }
    assert [one["rival_wins"] for one in found.values()] == [False, True, False, False]
    assert [one["main"] for one in found.values()] == [True, True, False, False]


def test_the_noise_is_that_of_the_noisier_side():
    (found,) = of_rows([row("ours", 1.0) | {"median": 1.5}, row("numpy", 2.0) | {"median": 2.5}])
    assert found["noise"] == 1.5


def test_times_are_compared_by_unit_of_work_where_both_state_it():
    rows = [row("ours", 8.0, **{"ns each": 4.0}), row("scipy", 1.0, **{"ns each": 100.0})]
    (found,) = of_rows(rows)
    assert (found["ratio"], found["quantity"], found["rival_wins"]) == (0.04, "ns each", False)


def test_rates_that_one_row_has_for_all():
    (found,) = of_rows([row("ours", 1.0, ours=20.0, numpy=25.0)])
    assert (found["ratio"], found["rival_wins"]) == (1.25, True)


def test_columns_and_lines_of_printed_tables():
    text = "## digits\n\n| k | **ours** | PCA |\n| --- | --- | --- |\n| 10 | **0.2** | 0.8 |\n"
    (table,) = read_tables(text)
    (found,) = of_table(table, [Columns(("k",), "ours", {"PCA": "PCA"}, "distortion")])
    assert (found["case"], found["ratio"]) == ("k = 10", 0.25)
    text = "saddle\n\nmethod | certified\n---|---\npgd | 3/4\nscipy CG | 0/4\n"
    (table,) = read_tables(text)
    rule = Lines("method", "pgd", "scipy", "certified", "share", higher_is_better=True)
    (found,) = of_table(table, [rule])
    assert (found["our_value"], found["ratio"], found["rival_wins"]) == (0.75, 0.0, False)
    assert list(of_table(table, [Columns(("k",), "ours", {}, "distortion")])) == []


def test_summary_takes_the_geometric_mean_of_main_rows():
    rows = [
        {"topic": "t", "main": main} | comparison("a", ("ours", "numpy"), values, "seconds")
        for main, values in ((True, (1.0, 2.0)), (True, (8.0, 1.0)), (False, (99.0, 1.0)))
    ]
    (line,) = summary(rows)
    assert (line["cases"], line["best"], line["worst"]) == (2, 0.5, 8.0)
    # Logarithms round.
    assert line["mean"] == pytest.approx(2.0, rel=1e-14)
    assert line["rival_wins"] == 1


def test_whoever_never_gets_there_loses():
    never = comparison("a", ("ours", "SA"), (None, 1.0), "seconds")
    alone = comparison("a", ("ours", "SA"), (1.0, None), "seconds")
    assert (never["ratio"], never["rival_wins"]) == (None, True)
    assert (alone["ratio"], alone["rival_wins"]) == (None, False)


# --- targets --------------------------------------------------------------------------------------

RUNS = [
    {"graph": "g", "solver": solver, "seed": seed, "limit": limit, "seconds": limit, "cut": cut,
     "best_known": ""}
    for solver, seed, limit, cut in (
        ("ours", "0", "0.1", "990"), ("ours", "0", "1.0", "1000"),
        ("ours", "1", "0.1", "1000"), ("ours", "1", "1.1", "1000"),
        ("SA", "0", "0.2", "900"), ("SA", "0", "2.0", "999"),
        ("SA", "1", "0.2", "991"), ("SA", "1", "2.0", "994"),
    )
]  # fmt: skip


def test_times_to_targets():
    times = times_to_targets(RUNS)
    found = {(row["solver"], row["seed"]): row["seconds"] for row in times if row["share"] == 0.999}
    expected = {("ours", "0"): 1.0, ("ours", "1"): 0.1, ("SA", "0"): 2.0, ("SA", "1"): None}
    assert found == expected
    # A published cut that nobody reached moves the target.
    known = times_to_targets([run | {"best_known": "1100"} for run in RUNS])
    assert {row["seconds"] for row in known} == {None}


def test_a_run_that_keeps_its_limit_is_as_long_as_its_limit():
    run = RUNS[0] | {"limit": "1.0", "best_known": "990"}
    lengths = [
        times_to_targets([run | {"seconds": seconds}])[0]["seconds"]
        for seconds in ("0.95", "1.05", "1.3", "0.2")
    ]
    assert lengths == [1.0, 1.0, 1.3, 0.2]


def test_curves_and_profiles():
    times = times_to_targets(RUNS)
    assert curves(times, 0.999) == {"ours": [[0.1, 0.5], [1.0, 1.0]], "SA": [[2.0, 0.5]]}
    assert profiles(times, 0.999) == {"ours": [[1.0, 0.5], [1.0, 1.0]], "SA": [[2.0, 0.5]]}
    assert profiles(times, 0.99)["SA"] == [[2.0, 0.5], [20.0, 1.0]]


def test_medians_to_targets_are_compared():
    found = {one["quantity"]: one for one in of_targets(times_to_targets(RUNS))}
    hardest = found["median seconds to 99.9% of the best cut"]
    # The upper of two: a median that half of the seeds reach.
    assert (hardest["our_value"], hardest["rival_value"]) == (1.0, None)
    assert found["median seconds to 99.0% of the best cut"]["ratio"] == 0.05


def test_gaps_after_the_same_seconds_are_compared():
    cuts = {"ours": ("1000", "990"), "SA": ("980", "980")}
    runs = [
        RUNS[0] | {"solver": solver, "seed": str(seed), "cut": cut}
        for solver, found in cuts.items()
        for seed, cut in enumerate(found)
    ]
    (one,) = of_gaps(runs)
    assert (one["quantity"], one["main"]) == ("gap to the best cut in % after 0.1 s", True)
    # Medians of 995 and 980, the best being 1000; differences of doubles round.
    assert (one["our_value"], one["rival_value"]) == pytest.approx((0.5, 2.0), rel=1e-12)
    assert one["ratio"] == pytest.approx(0.25, rel=1e-12)


# --- tables ---------------------------------------------------------------------------------------


def test_tables_are_read_as_they_were_written():
    columns, rows = ["case", "s"], [["a", "1.5"], ["b", "-"]]
    (table,) = read_tables(f"Title\n\n{write_table(columns, rows)}\nthe end\n")
    assert table == {"title": "Title", "columns": columns, "rows": rows}


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1.5", 1.5), ("~2e-3", 2e-3), ("12 %", 12.0), ("1,234", 1234.0), ("3/4", 0.75),
     ("9 of 10", 0.9), ("-", None), ("n^1.02", None), ("0/0", None)],
)  # fmt: skip
def test_numbers_in_cells(cell, number):
    assert number_in(cell) == number


# --- a whole result, its report, two results compared ---------------------------------------------


@pytest.fixture(scope="module")
def result():
    """A small result with every kind of content."""
    rows = [row("ours", 1.25e-3, error=2.5e-13), row("numpy", 3.75e-3, error=3e-12)]
    rows += [row("ours", 2.0, case="b"), row("scipy", 1.0, case="b", products=31.0)]
    tables = read_tables(
        "roof\n\n| roof | value | unit |\n|---|---:|---|\n| bandwidth of a triad | 11.5 | GB/s |\n"
        "| peak, float64 | 40.5 | GFLOP/s |\n\n"
        "| kernel | precision | flops a byte | GFLOP/s |\n|---|---|---:|---:|\n"
        "| sweep | float64 | 0.5 | 3.25 |\n\n"
        "ns a stored edge | anneal (1 threads)\n---|---:\n1000 | 3.5\n10000 | 4.5\n"
        "exponent | 1.11\n\n"
        "| data | k | PCA | ours | lower bound | s |\n|---|---|---|---|---|---|\n"
        "| digits | 10 | 0.9 | 0.35 | 0.1 | 2.1 |\n| digits | 20 | 0.8 | 0.25 | 0.05 | 2.2 |\n"
    )
    for table in tables:
        table |= {"command": "python bench/x.py", "script": "x.py", "compared": 0}
    times = times_to_targets(RUNS)
    targets = {
        "runs": RUNS,
        "times": times,
        "curves": {f"{share:.1%}": curves(times, share) for share in SHARES},
        "profiles": {f"{share:.1%}": profiles(times, share) for share in SHARES},
    }
    topic = {
        "name": "maxcut",
        "title": "Cuts",
        "rivals": "SA",
        "rows": rows,
        "tables": tables,
        "seconds": 3.0,
    }
    topic["parts"] = [{"file": "x.py", "seconds": 2.5, "processor": 1.75}]
    topic["targets"] = targets
    compared = [{"topic": "maxcut"} | one for one in (*of_rows(rows), *of_targets(times))]
    machine = {
        "line": "a processor, 2 cores", "cores": 2, "python": "3.12", "system": "Linux",
        "versions": {"numpy": "2.4", "jax": None}, "threads": {"OMP_NUM_THREADS": "1"},
        "started": "2026-01-02T03:04:05", "load_start": 0.25, "load_end": 1.5,
        "cache_start": {"folders": [], "files": 7}, "cache_end": {"folders": [], "files": 9},
    }  # fmt: skip
    return {
        "format": results.FORMAT, "command": "python -m bench run", "budget": "quick",
        "data": "generated graphs", "seconds": 12.5, "machine": machine, "topics": [topic],
        "comparisons": compared, "summary": summary(compared),
        "not_run": [{"what": "jax", "why": "not installed"}],
    }  # fmt: skip


@pytest.fixture
def file(result, tmp_path):
    path = tmp_path / "result.json"
    results.write(path, result)
    return path


def made_report(path):
    arguments = argparse.Namespace(file=path, output=path.parent)
    assert report.run(arguments) == 0
    return path.with_suffix(".md").read_text(encoding="utf-8"), path.with_suffix(".html")


@pytest.fixture(scope="module")
def reported(result, tmp_path_factory):
    """The report of the small result: Markdown, and the path of the page."""
    path = tmp_path_factory.mktemp("report") / "result.json"
    results.write(path, result)
    return made_report(path)


def numbers_of(value):
    """Every number in a result as reports show it, and those inside texts."""
    if isinstance(value, dict):
        return numbers_of(list(value)) | numbers_of(list(value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_of, value))
    return set(NUMBER.findall(shown(value)))


NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


def unmeasured(text, result):
    """Numbers of the tables that the result does not hold; heads are ours, not measured."""
    known = numbers_of(result)
    cells = [cell for table in read_tables(text) for line in table["rows"] for cell in line]
    found = {number for cell in cells for number in NUMBER.findall(cell)}
    assert found
    return found - known


def test_tables_hold_no_number_that_was_not_measured(reported, file):
    text, _ = reported
    assert unmeasured(text, results.read(file)) == set()
    # The check sees a number that is not there.
    assert unmeasured(text.replace("| 3.25 |", "| 3.27 |"), results.read(file)) == {"3.27"}


def test_the_report_says_where_a_rival_wins(reported):
    text, _ = reported
    lost = text[text.index("## Where a rival wins") : text.index("## Cuts")]
    assert "scipy" in lost
    assert "numpy" not in lost
    assert text.index("## Where a rival wins") < text.index("## Cuts")
    assert "not installed" in text[text.index("## What did not run") :]


class Page(html.parser.HTMLParser):
    """What a page refers to, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.ids, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.targets += [values[name] for name in ("href", "src", "xlink:href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_outside(reported):
    if not figures.available():
        pytest.skip("matplotlib is not installed")
    text = reported[1].read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    # References stay inside the page, and what they name exists.
    assert {target[0] for target in page.targets} == {"#"}
    assert {target[1:] for target in page.targets} <= set(page.ids)
    assert "url(http" not in text
    assert "@import" not in text
    assert "<script" not in text
    titles = ("Ratio to each rival", "Time to a target cut", "Performance profile", "digits")
    for title in (*titles, "Kernels under the roof", "Scaling"):
        assert re.search(f"<figure[^>]*{title}", text), title


def test_same_result_same_page(reported, file):
    assert made_report(file)[1].read_bytes() == reported[1].read_bytes()


def compared(before, after, **options):
    return compare.compared(before["comparisons"], after["comparisons"], options.get("limit", 1.15))


def changed(result, factor):
    """The result with our times of one case multiplied."""
    copy = json.loads(json.dumps(result))
    for one in copy["comparisons"]:
        if one["case"] == "b":
            one["ratio"] *= factor
    return copy


def test_a_result_is_as_good_as_itself(result):
    verdict = compared(result, result)
    assert (verdict.worse, verdict.better, verdict.gone, verdict.new) == ([], [], [], [])
    assert len(verdict.same) == len(result["comparisons"])


def test_regressions_are_flagged_by_ratio(result):
    verdict = compared(result, changed(result, 1.5))
    (worse,) = verdict.worse
    assert (worse.key[1], worse.before, worse.after, worse.factor) == ("b", 2.0, 3.0, 1.5)
    assert compared(result, changed(result, 1.1)).worse == []
    assert len(compared(result, changed(result, 0.5)).better) == 1
    assert compared(result, changed(result, 1.5), limit=2.0).worse == []


def test_what_the_rounds_differ_by_is_no_regression(result):
    after = changed(result, 1.5)
    for one in after["comparisons"]:
        one["noise"] = 1.6
    assert compared(result, after).worse == []
    assert compared(after, result).better == []
    assert len(compared(result, changed(after, 1.2)).worse) == 1


def test_rows_may_appear_and_vanish(result):
    fewer = result | {"comparisons": result["comparisons"][1:]}
    assert [key[4] for key in compared(result, fewer).gone] == ["numpy"]
    assert [key[4] for key in compared(fewer, result).new] == ["numpy"]
    assert compared(result, fewer).worse == []


def test_to_get_there_no_more_is_worse(result):
    def target(ours):
        one = comparison("g", ("ours", "SA"), (ours, 1.0), "seconds", main=True)
        return {"comparisons": [{"topic": "maxcut"} | one]}

    assert len(compared(target(0.5), target(None)).worse) == 1
    assert len(compared(target(None), target(0.5)).better) == 1


def test_compare_states_by_its_exit_status(result, file, tmp_path, capsys):
    worse = tmp_path / "worse.json"
    results.write(worse, changed(result, 1.5))
    arguments = argparse.Namespace(before=file, after=worse, ratio=1.15)
    assert compare.run(arguments) == 1
    assert "1 worse" in capsys.readouterr().out
    assert compare.run(argparse.Namespace(before=worse, after=file, ratio=1.15)) == 0
    with pytest.raises(SystemExit, match=r"0\.5; it must be at least 1"):
        compare.run(argparse.Namespace(before=file, after=file, ratio=0.5))


# --- the commands ---------------------------------------------------------------------------------


def bench(*arguments):
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("no json", "not JSON"), ("{}", "not a result"),
     (json.dumps({"format": results.FORMAT}), "without command")],
)  # fmt: skip
def test_files_that_are_no_results(tmp_path, content, reason):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match=reason):
        results.read(path)


def test_bad_arguments_are_named(tmp_path):
    unknown = bench("run", "maxcuts", "--output", tmp_path / "x.json")
    assert unknown.returncode == 1
    assert "no topic maxcuts; there are network" in unknown.stderr
    missing = bench("report", tmp_path / "missing.json")
    assert missing.returncode == 1
    assert "missing.json: No such file" in missing.stderr


def test_parts_of_all_topics_exist():
    for name, topic in TOPICS.items():
        for part in topic.parts:
            assert (BENCH / part.file).is_file(), (name, part.file)


TOY = """
import pytest

OURS = ("fast",)


@pytest.mark.parametrize("how", ["fast", "slow", "absent"])
@pytest.mark.parametrize("n", [10, 20])
def test_total(benchmark, how, n):
    if how == "absent":
        pytest.skip("the rival is not installed")
    benchmark.extra_info["error"] = "1e-13"
    count = n if how == "fast" else 1000 * n
    assert benchmark(sum, range(count)) == count * (count - 1) // 2


def test_broken(benchmark):
    assert False, "on purpose"
"""
TABLE = """
print("two ways\\n\\n| n | ours s | theirs s |\\n|---|---|---|\\n| 5 | 0.5 | 2.0 |", flush=True)
import time
time.sleep(60)
"""


def test_a_small_run(tmp_path, monkeypatch):
    """A file of pytest-benchmark and a script that is stopped, through to the report."""
    shutil.copy(BENCH / "conftest.py", tmp_path)
    (tmp_path / "test_toy.py").write_text(TOY)
    (tmp_path / "toy_table.py").write_text(TABLE)
    monkeypatch.setenv("PYTHONPATH", str(BENCH))
    # Where these tests are shared among processes, the run must not think that it is, too.
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    rule = Columns(("n",), "ours s", {"theirs s": "theirs"}, "seconds")
    parts = (
        Suite(str(tmp_path / "test_toy.py"), "", 60.0),
        Script(str(tmp_path / "toy_table.py"), "", "", 1.0, compared=(rule,)),
        Script("absent.py", "", "", 1.0, needs=("jax.no_such_module",)),
    )
    monkeypatch.setitem(TOPICS, "toy", Topic("Toys", "slow: a loop", parts))
    monkeypatch.setattr("harness.environment.EXTRAS", {**_extras(), "jax.no_such_module": "nosuch"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = Runner("quick", None, scratch).run(["toy"])
    path = tmp_path / "toy.json"
    results.write(path, result)
    result = results.read(path)
    found = {(one["case"], one["rival"]): one["ratio"] for one in result["comparisons"]}
    assert set(found) == {("total, n = 10", "slow"), ("total, n = 20", "slow"), ("n = 5", "theirs")}
    # A thousand times the work.
    assert max(found.values()) < 1.0
    assert found["n = 5", "theirs"] == 0.25
    why = {left["what"].split("::")[-1]: left["why"] for left in result["not_run"]}
    assert why["test_total[10-absent]"] == "the rival is not installed"
    assert why["test_broken"].startswith("failed: AssertionError: on purpose")
    assert "stopped after 3 s" in why[str(tmp_path / "toy_table.py")]
    assert why["absent.py"] == "not installed: nosuch"
    text, _ = made_report(path)
    assert unmeasured(text, result) == set()
    assert result["machine"]["cache_start"]["files"] >= 0


def _extras():
    from harness.environment import EXTRAS

    return EXTRAS
