"""Kernels ahead of their use: the right ones, kept where it says, and the command that does it."""

import subprocess
import sys

import numpy as np
import pytest
from command_line import assert_error, parse_strictly, run_command, run_process

from derand_fast import precompile
from derand_fast.cli.warmup import EPILOG
from derand_fast.generators import random_graph
from derand_fast.kernels import _cache
from derand_fast.kernels._cache import KernelCache, Recorder, Specialisation
from derand_fast.precompile import SOLVERS, WarmupReport, warmup

GRAPH = random_graph(40, 120, seed=1)


def kernels_of(call):
    """Names of the kernels that a call has to compile or load."""
    with Recorder() as recorder:
        call()
    return [kernel.kernel for kernel in recorder.found]


# --------------------------------------------------------------------------------------------------
# Completeness: afterwards nothing is left to do
# --------------------------------------------------------------------------------------------------


def test_max_cut():
    from derand_fast import max_cut

    warmup(["max-cut"])
    weights = {"weights": "signs", "seed": 2}
    signs = random_graph(60, 150, **weights)
    assert kernels_of(lambda: max_cut(GRAPH, effort=0.01, n_threads=2)) == []
    assert kernels_of(lambda: max_cut(signs, effort=0.01, bound="proof", n_solutions=3)) == []
    assert kernels_of(lambda: max_cut(signs, time_limit=0.05, fixed={0: 1, 1: -1})) == []
    assert kernels_of(lambda: max_cut(signs, effort=0.01, bound=False, initial={0, 1})) == []


def test_descent():
    from derand_fast import MaxCutObjective, newton_cg

    warmup(["descent"])
    small = MaxCutObjective(GRAPH, 3, tau=0.5, lam=0.1, n_threads=1)
    x = np.random.default_rng(0).standard_normal(small.n_params)
    assert kernels_of(lambda: newton_cg(small, x, rho=1e-2, max_iter=20)) == []
    # Enough work for the parallel kernels, which must be ready as well.
    large = MaxCutObjective(random_graph(4000, 40_000, seed=0), 4, tau=0.5, lam=0.1, n_threads=2)
    x = np.random.default_rng(0).standard_normal(large.n_params)

    def evaluate():
        large.value(x)
        large.value_and_grad(x)
        large.hvp(x, x)

    assert kernels_of(evaluate) == []


def test_structure():
    from derand_fast import discover_structure

    warmup(["structure"])
    common = {"d": 3, "hidden": 5, "lam": 0.1, "rho": 1e-3, "max_iter": 3, "n_threads": 1}
    for options in (
        {"teacher": "smooth_relu"},
        {"teacher": "tanh", "rule": "sobol", "n_nodes": 64, "loss": "pseudo_huber"},
        {"teacher": "tanh", "activation": "tanh", "rule": "spherical", "train": "all"},
        {"teacher": "cubic", "activation": "erf", "depth": 3, "inputs": "uniform"},
        {"teacher": "sum_of_tanh", "n_indices": 2, "rule": "mehler"},
    ):
        assert kernels_of(lambda o=options: discover_structure(**o, **common)) == [], options


def test_embedding():
    pytest.importorskip("sklearn")
    import scipy.sparse

    from derand_fast import JLEmbedding

    warmup(["jl-embedding"])
    X = np.random.default_rng(0).standard_normal((30, 12))
    for data, options in (
        (X, {"eps": 0.9}),
        (X.astype(np.float32), {"n_components": 3}),
        (scipy.sparse.csr_array(X), {"n_components": 3, "pairs": "norms"}),
        (X, {"n_components": 3, "pairs": np.array([[0, 1], [2, 3], [4, 5]])}),
    ):
        fit = JLEmbedding(max_iter=30, n_jobs=1, **options).fit
        assert kernels_of(lambda fit=fit, data=data: fit(data)) == [], options


def test_jl_objective():
    """In other sizes and with other options than the warm-up itself has used."""
    from derand_fast.objectives import JLObjective

    warmup(["jl-objective"])
    X = np.random.default_rng(0).standard_normal((9, 4))
    for options in (
        {"loss": "tail", "pairs": (np.arange(3), np.arange(3, 6))},
        {"loss": "moment2", "pairs": "norms"},
        {"loss": "moment6", "sigma": "rows"},
    ):
        objective = JLObjective(X, 2, eps=0.3, lam=0.2, n_threads=2, **options)
        x = objective.gaussian_start()

        def evaluate(objective=objective, x=x):
            objective.value(x)
            objective.value_and_grad(x)
            objective.hvp(x, x)

        assert kernels_of(evaluate) == [], options


# --------------------------------------------------------------------------------------------------
# The report
# --------------------------------------------------------------------------------------------------


def specialisation(**changes):
    return Specialisation("maxcut.sweep", "(int64,)", 0.5, False, True, 2**20)._replace(**changes)


def report_of(*kernels, folder="/cache", skipped=None):
    return WarmupReport(kernels, folder, 1.25, ("max-cut",), skipped or {})


def test_complete_means_that_all_is_kept():
    assert report_of().complete
    assert report_of(specialisation()).complete
    assert not report_of(specialisation(), specialisation(kept=False)).complete


def test_recorder_takes_off_what_callees_took(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 4.0, 9.0, 10.0, 11.0, 13.0])
    monkeypatch.setattr(_cache, "perf_counter", lambda: next(clock))
    with Recorder() as recorder:
        recorder.begin("caller")  # 0
        recorder.begin("failing")  # 1
        recorder.begin("callee")  # 2
        recorder.end("callee", (), False, None)  # 4: 2 s
        recorder.end("caller", (), False, None)  # 9: 9 s; what failed has no row
        recorder.begin("caller")  # 10
        recorder.begin("callee")  # 11
        recorder.end("callee", (), True, None)  # 13: 2 s
    rows = [(row.kernel, row.seconds, row.loaded) for row in recorder.found]
    assert rows == [("callee", 2.0, False), ("caller", 9.0, False), ("callee", 2.0, True)]
    assert not any(row.kept for row in recorder.found)
    assert _cache._recorders == []


def test_recorder_is_told_of_compiled_and_of_loaded_kernels(monkeypatch, tmp_path):
    from derand_fast.kernels.smoothed_cut import sum_in_blocks

    folders = _cache.Folders((tmp_path,), tmp_path)
    monkeypatch.setattr(_cache, "cache_folders", lambda: folders)
    for loaded in (False, True):
        fresh = type(sum_in_blocks)(sum_in_blocks.py_func)
        fresh._cache = KernelCache(sum_in_blocks.py_func)
        with Recorder() as recorder:
            assert fresh(np.arange(3.0)) == 3.0
        (row,) = recorder.found
        assert (row.kernel, row.loaded, row.kept) == ("smoothed_cut.sum_in_blocks", loaded, True)
        assert "float64" in row.signature
        assert row.size == sum(path.stat().st_size for path in tmp_path.iterdir()) > 0
        assert row.seconds > 0.0


@pytest.mark.parametrize("solvers", [["max-cut", "min-cut"], ["Max-cut"]])
def test_unknown_solvers(solvers):
    with pytest.raises(ValueError, match=rf"among max-cut, .*; got '{solvers[-1]}'"):
        warmup(solvers)


def test_a_string_is_no_sequence_of_names():
    with pytest.raises(TypeError, match="sequence of names, got the string 'max-cut'"):
        warmup("max-cut")


def test_missing_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(precompile.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(precompile, "SOLVERS", {"jl-embedding": None})
    assert warmup().skipped == {"jl-embedding": "sklearn"}
    with pytest.raises(ImportError, match="jl-embedding needs sklearn"):
        warmup(["jl-embedding"])


# --------------------------------------------------------------------------------------------------
# The command
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """A warm-up that returns what the test puts there."""
    made = {"report": report_of(specialisation()), "solvers": 0}

    def stand_in(solvers):
        made["solvers"] = solvers
        return made["report"]

    monkeypatch.setattr(precompile, "warmup", stand_in)
    return made


def test_table(fake, capsys):
    fake["report"] = report_of(
        specialisation(), specialisation(kernel="special.erf", loaded=True, seconds=0.004)
    )
    status, out, err = run_command(capsys, "warmup")
    assert (status, err, fake["solvers"]) == (0, "", None)
    assert out.splitlines() == [
        "kernel        seconds",
        "maxcut.sweep    0.500  compiled",
        "special.erf     0.004  loaded",
        "kernels  2, of which 1 were there; 2.0 MiB, 1.2 s",
        "cache    /cache",
    ]


def test_nowhere_to_write(fake, capsys):
    fake["report"] = report_of(specialisation(kept=False, size=0), folder=None)
    status, out, err = run_command(capsys, "warmup", "--solver", "max-cut", "--solver", "descent")
    assert (status, fake["solvers"]) == (3, ["max-cut", "descent"])
    assert "compiled, not kept" in out
    assert "cache    none: no folder can be written" in out
    assert err == (
        "derand-fast: error: kernels could not be kept: no folder can be written; set "
        "NUMBA_CACHE_DIR to one that can\n"
    )
    # What is there, in a folder that cannot be written, is no failure.
    fake["report"] = report_of(specialisation(loaded=True), folder=None)
    assert run_command(capsys, "warmup")[0] == 0
    fake["report"] = report_of(specialisation(kept=False))
    assert "writing to /cache failed" in run_command(capsys, "warmup")[2]


def test_left_out(fake, capsys):
    fake["report"] = report_of(skipped={"jl-embedding": "sklearn"})
    status, out, _ = run_command(capsys, "warmup")
    assert status == 0
    assert "left out jl-embedding, which needs sklearn" in out


def test_json(fake, capsys):
    status, out, _ = run_command(capsys, "warmup", "--json")
    answer = parse_strictly(out)
    assert (status, answer["folder"], answer["complete"]) == (0, "/cache", True)
    assert answer["kernels"] == [specialisation()._asdict()]


def test_wrong_names(capsys):
    assert_error(run_command(capsys, "warmup", "--solver", "min-cut"), "got 'min-cut'")
    for name in SOLVERS:
        assert name in EPILOG


def test_another_process_has_nothing_left_to_compile(tmp_path):
    """The command itself, after the same warm-up here; both use the folder of this test run."""
    here = warmup(["max-cut"])
    if not here.complete:
        pytest.skip("no folder can be written")
    done = run_process(tmp_path, "warmup", "--solver", "max-cut", "--json", stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    answer = parse_strictly(done.stdout)
    assert answer["folder"] == here.folder
    assert len(answer["kernels"]) > 5
    assert all(kernel["loaded"] and kernel["kept"] for kernel in answer["kernels"])
