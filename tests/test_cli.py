"""The command: what it prints where, what it writes, and with which status it ends."""

import contextlib
import gzip
import io
import json
import os
import re
import stat
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_error, parse_strictly, run_command, run_process

from derand_fast import cli
from derand_fast.cli import maxcut as command
from derand_fast.generators import demo_graph
from derand_fast.graphs import as_graph
from derand_fast.results import CutResult, HistoryRow

INF = float("inf")
RUDY = "4 4\n1 2 1\n2 3 1\n3 4 1\n1 4 1\n"
MATRIX = "%%MatrixMarket matrix coordinate pattern symmetric\n4 4 4\n2 1\n3 2\n4 3\n4 1\n"


class FakeSolver:
    """Stands for `derand_fast.maxcut.max_cut`: alternating sides, and a record of the call."""

    def __init__(self):
        self.graph = None
        self.options = None
        self.message = "all sweeps done"
        self.error = None
        self.changes = {}

    def __call__(self, graph, **options):
        self.graph, self.options = graph, options
        if self.error is not None:
            raise self.error
        n = graph.n_vertices
        partition = np.where(np.arange(n) % 2, -1, 1).astype(np.int8)
        names = range(n) if graph.labels is None else graph.labels
        sides = [
            frozenset(x for x, side in zip(names, partition, strict=True) if side == sign)
            for sign in (1, -1)
        ]
        tails, heads, weights = graph.edges()
        cut = float(weights[partition[tails] != partition[heads]].sum())
        fields = {
            "cut_value": cut,
            "partition": partition,
            "sets": tuple(sides),
            "upper_bound": cut + 1.0,
            "sdp_value": cut + 0.5,
            "expected_cut": cut - 1.0,
            "history": (HistoryRow(0.1, cut, INF), HistoryRow(0.2, cut, cut + 1.0)),
            "seconds": {"anneal": 0.1, "total": 0.25},
            "seed": options["seed"],
            "method": "anneal",
            "message": self.message,
            "sweeps": 10,
            "bound_certificate": "probability 1 - 1e-9",
        }
        return CutResult(**(fields | self.changes))


@pytest.fixture
def solver(monkeypatch):
    fake = FakeSolver()
    module = types.ModuleType("derand_fast.maxcut")
    module.max_cut = fake
    monkeypatch.setitem(sys.modules, "derand_fast.maxcut", module)
    return fake


@pytest.fixture
def rudy(tmp_path):
    path = tmp_path / "square.txt"
    path.write_text(RUDY)
    return path


@pytest.fixture
def run(capsys):
    def call(*arguments):
        return run_command(capsys, "maxcut", *arguments)

    return call


# --------------------------------------------------------------------------------------------------
# What goes in
# --------------------------------------------------------------------------------------------------


def test_report_is_that_of_the_result(run, solver, rudy):
    status, out, err = run(rudy)
    assert (status, err) == (0, "")
    assert out.startswith("cut      4\n")
    assert "bound    5  (gap 20.000%)" in out
    assert out == f"{solver(solver.graph, seed=0)}\n"


def test_default_options(run, solver, rudy):
    run(rudy)
    assert solver.options == {
        "time_limit": None,
        "method": "anneal",
        "effort": None,
        "sweeps": None,
        "target": None,
        "fixed": None,
        "initial": None,
        "n_solutions": 1,
        "min_distance": 1,
        "seed": 0,
        "n_threads": None,
        "bound": True,
        "progress": False,
    }


def test_all_options(run, solver, rudy, tmp_path):
    fixed, initial = tmp_path / "fixed.txt", tmp_path / "initial.txt"
    fixed.write_text("# a comment\n\n2 +1\n4\t1\n3 -1\n")
    initial.write_text("1\t-1\n2\t+1\n3\t-1\n4\t+1\n")
    arguments = (
        "--time-limit 2.5 --method pgd --sweeps 7 --seed 3 --threads 2 --bound proof --progress "
        f"--target 3.5 --solutions 4 --min-distance 2 --fixed {fixed} --initial {initial}"
    )
    assert run(rudy, *arguments.split())[0] == 0
    assert solver.options == {
        "time_limit": 2.5,
        "method": "pgd",
        "effort": None,
        "sweeps": 7,
        "target": 3.5,
        "fixed": {2: 1, 4: 1, 3: -1},
        "initial": {2, 4},
        "n_solutions": 4,
        "min_distance": 2,
        "seed": 3,
        "n_threads": 2,
        "bound": "proof",
        "progress": True,
    }


@pytest.mark.parametrize(
    ("word", "effort"), [("quick", "quick"), ("thorough", "thorough"), ("0.5", 0.5)]
)
def test_effort(run, solver, rudy, word, effort):
    run(rudy, "--effort", word)
    assert solver.options["effort"] == effort


@pytest.mark.parametrize("option", ["--fixed", "--initial"])
@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("1 +1\n2 0\n", "sides.txt, line 2: not 'label [+]1' or 'label -1': '2 0'"),
        ("1\n", "line 1: not 'label"),
        ("9 +1\n", "line 1: the graph has no vertex '9'"),
        ("1 +1\n1 -1\n", "line 2: vertex '1' is on both sides"),
        ("# nothing\n", "names no vertex"),
        (b"\xff\xfe 1\n", "not UTF-8 text"),
    ],
)
def test_bad_sides(run, solver, rudy, tmp_path, option, text, pattern):
    path = tmp_path / "sides.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_error(run(rudy, option, path), pattern)
    assert solver.options is None


def test_initial_cut_must_be_whole(run, solver, rudy, tmp_path):
    path = tmp_path / "part.txt"
    path.write_text("1 +1\n2 -1\n3 -1\n")
    assert_error(run(rudy, "--initial", path), "says nothing of vertex '4'")


def test_output_can_be_read_again(run, solver, rudy, tmp_path):
    path = tmp_path / "cut.txt"
    run(rudy, "--output", path)
    assert run(rudy, "--initial", path, "--fixed", tmp_path / "absent.txt")[0] == 2
    assert run(rudy, "--initial", path)[0] == 0
    assert solver.options["initial"] == {1, 3}


@pytest.mark.parametrize(
    ("word", "value"), [("on", True), ("off", False), ("proof", "proof"), ("tight", "tight")]
)
def test_bound(run, solver, rudy, word, value):
    assert run(rudy, "--bound", word)[0] == 0
    assert solver.options["bound"] is value or solver.options["bound"] == value


def test_built_in_graph(run, solver):
    status, out, err = run("--json")
    assert status == 0
    assert err == (
        "derand-fast: no FILE given: solving the built-in example, a random graph of "
        "800 vertices and 19,176 edges\n"
    )
    assert np.array_equal(solver.graph.indices, demo_graph().indices)
    assert json.loads(out)["sets"][0][:3] == [0, 2, 4]


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("g.txt", RUDY, (1, 2, 3, 4)),
        ("g", RUDY, (1, 2, 3, 4)),
        ("g.txt.gz", RUDY, (1, 2, 3, 4)),
        ("g.mtx", MATRIX, (1, 2, 3, 4)),
        ("g.txt", MATRIX, (1, 2, 3, 4)),
        ("g.edges", MATRIX, (1, 2, 3, 4)),  # the banner comes before the suffix
        ("g.edges.gz", "\ufeff" + MATRIX, (1, 2, 3, 4)),
        ("g.edges", "0 1\n1 2\n2 3\n0 3\n", (0, 1, 2, 3)),
        ("g.tsv.gz", "1\t2\n2\t3\n3\t4\n1\t4\n", (1, 2, 3, 4)),
        ("g.csv", "a,b\nb,é é\né é,7\n7,a\n", ("a", "b", "é é", "7")),
    ],
)
def test_labels_are_those_of_the_file(run, solver, tmp_path, name, text, labels):
    path = tmp_path / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    target = tmp_path / "cut"
    status, out, _ = run(path, "--output", target, "--json")
    assert status == 0
    rows = [f"{label}\t{side}\n" for label, side in zip(labels, ["+1", "-1"] * 2, strict=True)]
    assert target.read_text(encoding="utf-8") == "# cut 4.0\n" + "".join(rows)
    assert json.loads(out)["sets"] == [list(labels[::2]), list(labels[1::2])]


# --------------------------------------------------------------------------------------------------
# JSON
# --------------------------------------------------------------------------------------------------


def test_json_is_one_strict_line(run, solver, rudy):
    status, out, err = run(rudy, "--json", "--seed", "5")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    fields = parse_strictly(out)
    assert list(fields) == list(solver(solver.graph, seed=5).to_dict())
    assert fields["cut_value"] == 4.0
    assert fields["partition"] == [1, -1, 1, -1]
    assert fields["history"] == [[0.1, 4.0, None], [0.2, 4.0, 5.0]]
    assert fields["seconds"] == {"anneal": 0.1, "total": 0.25}
    assert fields["gap"] == 0.2
    assert fields["seed"] == 5


def test_json_without_numbers_beyond_json(run, solver, rudy):
    solver.changes = {"upper_bound": 0.0, "sdp_value": float("nan"), "expected_cut": None}
    fields = parse_strictly(run(rudy, "--json")[1])
    assert (fields["gap"], fields["sdp_value"], fields["expected_cut"]) == (None, None, None)
    solver.changes = {"upper_bound": None}
    assert parse_strictly(run(rudy, "--json")[1])["gap"] is None


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--seed", "x"], r"argument --seed: invalid int value: 'x' \(see derand-fast maxcut --h"),
        (["--time-limit", "soon"], r"argument --time-limit: invalid float value: 'soon'"),
        (["--bound", "maybe"], r"argument --bound: invalid choice: 'maybe'"),
        (["--speed"], r"unrecognized arguments: --speed"),
        (["a.txt", "b.txt"], r"unrecognized arguments: b.txt"),
    ],
)
def test_wrong_usage(run, solver, arguments, pattern):
    assert_error(run(*arguments), pattern)
    assert solver.graph is None


def test_no_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert_error((stop.value.code, *capsys.readouterr()), "required: COMMAND")


def test_missing_file(run, solver, tmp_path):
    path = tmp_path / "none.txt"
    assert_error(run(path), rf"cannot read {re.escape(str(path))}: No such file or directory")
    assert_error(run(tmp_path), r"cannot read .*: Is a directory")
    assert_error(run("x" * 5000), r"cannot read x+: File name too long")


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("g.txt", "3 2\n1 2\n1 9\n", r"g\.txt, line 3: vertex 9 is outside 1\.\.n"),
        ("g.edges", "a b nan\n", r"g\.edges, line 1: weight nan"),
        ("g.mtx", "nothing\n", r"g\.mtx: not a readable Matrix Market file"),
        ("g.txt.gz", "plain", r"g\.txt\.gz: not a valid gzip file"),
        (
            "g.mtx",
            "%%MatrixMarket matrix coordinate complex symmetric\n1 1 1\n1 1 1 1\n",
            "real numbers",
        ),
    ],
)
def test_bad_file(run, solver, tmp_path, name, text, pattern):
    path = tmp_path / name
    path.write_text(text)
    assert_error(run(path), pattern)
    assert solver.graph is None


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_bad_value(run, solver, rudy, kind):
    solver.error = kind("sweeps must be at least 1,\n  got 0")
    assert_error(run(rudy, "--sweeps", "0"), r"error: sweeps must be at least 1, got 0\n")


def test_not_enough_memory(run, solver, rudy):
    solver.error = MemoryError()
    assert_error(run(rudy), "not enough memory")


def test_our_own_bugs_keep_their_traceback(solver, rudy):
    solver.error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        cli.main(["maxcut", str(rudy)])


def test_self_loops_give_one_line(run, solver, tmp_path):
    path = tmp_path / "g.edges"
    path.write_text("a b\na a\n")
    filters = list(warnings.filters)
    status, out, err = run(path)
    assert status == 0
    assert out.startswith("cut      1\n")
    assert err == "derand-fast: warning: ignored 1 self-loop: no cut contains one\n"
    assert warnings.filters == filters


# --------------------------------------------------------------------------------------------------
# Missing extras
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("matplotlib.figure", ["--plot", "a.png"], r"derand-fast\[plot\]"),
        ("tqdm", ["--progress"], r"derand-fast\[progress\]"),
    ],
)
def test_missing_extra(run, solver, rudy, monkeypatch, module, arguments, extra):
    monkeypatch.setitem(sys.modules, module, None)
    assert_error(run(rudy, *arguments), rf'pip install "{extra}"')
    assert solver.graph is None


# --------------------------------------------------------------------------------------------------
# Output files
# --------------------------------------------------------------------------------------------------


def test_plot(run, solver, rudy, tmp_path):
    status, out, err = run(rudy, "--plot", tmp_path / "p.png", "--output", tmp_path / "cut.txt")
    assert (status, err) == (0, "")
    assert out.startswith("cut      4\n")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.txt", "p.png", "square.txt"]


def test_plot_of_unknown_suffix(run, solver, rudy):
    assert_error(run(rudy, "--plot", "a.foo"), r"--plot: cannot plot to 'a\.foo'.*\.png")
    assert solver.graph is None


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_folder_that_is_not_there(run, solver, rudy, tmp_path, option):
    path = tmp_path / "no" / "a.png"
    assert_error(run(rudy, option, path), r"cannot write .*a\.png: No such file or directory", 3)
    assert solver.graph is None


def test_targets_that_cannot_be_written(run, solver, rudy, tmp_path, monkeypatch):
    assert_error(run(rudy, "--output", tmp_path), "cannot write .*: it is a directory", 3)
    assert_error(run(rudy, "--output", "x" * 5000), "cannot write x+: .*too long", 3)
    target = tmp_path / "old"
    target.write_text("kept")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_error(run(rudy, "--output", target), "cannot write .*old: it is read-only", 3)
    assert target.read_text() == "kept"
    assert solver.graph is None


def test_one_file_for_two_purposes(run, solver, rudy, tmp_path):
    assert_error(run(rudy, "--output", rudy), "FILE and --output are the same file")
    twice = tmp_path / "a.png"
    assert_error(
        run(rudy, "--output", twice, "--plot", twice), "--output and --plot are the same file"
    )
    assert rudy.read_text() == RUDY
    assert solver.graph is None


def test_replaced_file_keeps_its_mode(run, solver, rudy, tmp_path):
    target = tmp_path / "cut.txt"
    target.write_text("old")
    target.chmod(0o640)
    assert run(rudy, "--output", target)[0] == 0
    assert target.read_text().startswith("# cut 4.0\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_device_and_link_are_written_through(run, solver, rudy, tmp_path):
    assert run(rudy, "--output", os.devnull)[0] == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    assert run(rudy, "--output", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text().startswith("# cut 4.0\n")


def test_failure_after_the_work_keeps_report_and_old_file(run, solver, rudy, tmp_path, monkeypatch):
    def fill_the_disk(path, *_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    target = tmp_path / "cut.txt"
    target.write_text("old")
    monkeypatch.setattr(command, "write_cut", fill_the_disk)
    status, out, err = run(rudy, "--output", target, "--plot", tmp_path / "p.png")
    assert status == 3
    assert out.startswith("cut      4\n")
    assert err == f"derand-fast: error: cannot write {target}: No space left on device\n"
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.txt", "p.png", "square.txt"]


class FullStream(io.StringIO):
    """Standard output that fails on writing."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, _):
        raise self.error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BrokenPipeError(32, "Broken pipe"), ""),
        (
            OSError(28, "No space left on device"),
            "derand-fast: error: cannot write to standard output: No space left on device\n",
        ),
    ],
)
def test_standard_output_that_fails(run, solver, rudy, tmp_path, error, line):
    with contextlib.redirect_stdout(FullStream(error)):
        status, _, err = run(rudy, "--output", tmp_path / "cut.txt")
    assert (status, err) == (3, line)
    assert (tmp_path / "cut.txt").exists()


def test_closed_standard_error_does_not_spill(run, solver, rudy, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["maxcut", str(rudy.parent / "none")]) == 2
    monkeypatch.undo()
    assert run("--help")[1].startswith("usage")  # and nothing before it


# --------------------------------------------------------------------------------------------------
# Ctrl-C
# --------------------------------------------------------------------------------------------------


def test_interrupted_with_a_result(run, solver, rudy, tmp_path):
    solver.message = "interrupted after 10 sweeps"
    status, out, err = run(rudy, "--json", "--output", tmp_path / "cut.txt")
    assert (status, err) == (130, "")
    assert parse_strictly(out)["message"] == solver.message
    assert (tmp_path / "cut.txt").exists()


def test_interrupted_before_any_result(run, solver, rudy):
    solver.error = KeyboardInterrupt()
    assert run(rudy) == (130, "", "derand-fast: interrupted\n")


# --------------------------------------------------------------------------------------------------
# Help, version, processes
# --------------------------------------------------------------------------------------------------


def test_help_tells_what_one_must_know(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for option in ("time-limit", "sweeps", "seed", "threads", "output", "plot", "json", "progress"):
        assert f"--{option}" in out
    for words in ("{on,off,proof,tight}", "FILE", "800", "19,176", "130", "MatrixMarket", ".edges"):
        assert words in out
    assert "1, ..., n in rudy and Matrix" in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_of_the_program(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in ("maxcut", "structure", "jl"):
        assert re.search(rf"^    {name}\s+\w", out, re.MULTILINE), name


@pytest.mark.parametrize("arguments", [["--version"], ["maxcut", "--version"]])
def test_version(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    assert re.fullmatch(r"derand-fast \d+\.\d+\S*\n", capsys.readouterr().out)


def test_command_module_loads_nothing_heavy():
    # An empty package stands in: what the real one imports at once is not this module's doing.
    code = (
        "import sys, types; package = types.ModuleType('derand_fast'); "
        f"package.__path__ = [{str(Path(cli.__file__).parents[1])!r}]; "
        "sys.modules['derand_fast'] = package; import derand_fast.cli as cli; "
        "cli._make_parser().format_help(); "
        "heavy = {'numpy', 'scipy', 'numba', 'networkx', 'matplotlib', 'tqdm'} & set(sys.modules); "
        "sys.exit(' '.join(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.strip() == ""


def test_module_as_process(tmp_path):
    done = run_process(tmp_path, "maxcut", "none.txt", stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "derand-fast: error: cannot read none.txt: No such file or directory\n"


def test_real_solver_as_process(tmp_path, rudy):
    done = run_process(
        tmp_path,
        "maxcut",
        rudy.name,
        "--json",
        "--bound",
        "off",
        "--output",
        "cut.txt",
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    fields = parse_strictly(done.stdout)
    assert fields["cut_value"] == 4.0
    assert fields["sets"] == [[1, 3], [2, 4]]
    lines = (tmp_path / "cut.txt").read_text().splitlines()
    assert lines == ["# cut 4.0", "1\t+1", "2\t-1", "3\t+1", "4\t-1"]
    assert as_graph(rudy).n_vertices == 4


def test_reader_of_standard_output_leaves(tmp_path, rudy):
    read, write = os.pipe()
    os.close(read)
    try:
        done = run_process(tmp_path, "maxcut", rudy.name, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (3, "")
