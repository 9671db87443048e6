"""``derand-fast structure``: what it hands to the solver, says, writes, and how it ends."""

import dataclasses
import importlib.util
import sys
import types

import numpy as np
import pytest
from command_line import assert_error, parse_strictly, run_command
from fake_results import make_certificate, make_structure_result

from derand_fast.cli import structure as command
from derand_fast.kernels.activations import ACTIVATIONS
from derand_fast.objectives.network import INPUTS
from derand_fast.structure import METHODS, StructureResult
from derand_fast.teachers import LINKS

NAN, INF = float("nan"), float("inf")


class FakeSolver:
    """Stands for `discover_structure`: a record of the call, and a result made beforehand."""

    def __init__(self):
        self.teacher = None
        self.options = None
        self.error = None
        self.result = make_structure_result()

    def __call__(self, teacher, **options):
        self.teacher, self.options = teacher, options
        if self.error is not None:
            raise self.error
        return self.result


@pytest.fixture
def solver(monkeypatch):
    fake = FakeSolver()
    module = types.ModuleType("derand_fast.structure")
    module.discover_structure = fake
    monkeypatch.setitem(sys.modules, "derand_fast.structure", module)
    return fake


@pytest.fixture
def run(capsys):
    return lambda *arguments: run_command(capsys, "structure", *arguments)


# --------------------------------------------------------------------------------------------------
# What goes in
# --------------------------------------------------------------------------------------------------


def test_default_options(run, solver):
    status, out, err = run()
    assert (status, out, err) == (0, f"{solver.result}\n", "")
    assert solver.teacher == "tanh"
    assert solver.options == {
        "d": 10,
        "hidden": 100,
        "depth": 2,
        "activation": "smooth_relu",
        "iota": 2.0,
        "n_indices": 1,
        "loss": "squared",
        "lam": 1e-4,
        "train": "first",
        "inputs": "gaussian",
        "method": "newton_cg",
        "rho": 1e-6,
        "seed": 0,
        "time_limit": None,
        "n_threads": None,
    }


def test_all_options(run, solver):
    # Hyphens as in the other commands' words, and underscores as in Python.
    arguments = (
        "--d 7 --hidden 20,30 --depth 3 --activation smooth-relu-squared --iota 3.5 "
        "--teacher sum_of_tanh --indices 2 --lam 0.01 --train W1,b1,W3 --loss pseudo-huber "
        "--inputs student_t --method hessian-descent --rho 1e-8 --seed 5 --time-limit 2.5 "
        "--threads 2 --progress"
    )
    assert run(*arguments.split())[0] == 0
    assert solver.teacher == "sum_of_tanh"
    assert solver.options == {
        "d": 7,
        "hidden": [20, 30],
        "depth": 3,
        "activation": "smooth_relu_squared",
        "iota": 3.5,
        "n_indices": 2,
        "loss": "pseudo_huber",
        "lam": 0.01,
        "train": ["W1", "b1", "W3"],
        "inputs": "student_t",
        "method": "hessian_descent",
        "rho": 1e-8,
        "seed": 5,
        "time_limit": 2.5,
        "n_threads": 2,
        "progress": True,
    }


def test_train_all(run, solver):
    run("--train", "all")
    assert solver.options["train"] == "all"


def test_choices_are_those_of_the_solver():
    assert set(command._TEACHERS) == set(LINKS)
    assert set(command._ACTIVATIONS) == set(ACTIVATIONS)
    assert set(command._INPUTS) == set(INPUTS)
    assert set(command._METHODS) == {*METHODS, "sgd"}


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--teacher", "sine"], r"argument --teacher: invalid choice: 'sine' .*tanh"),
        (["--hidden", "many"], r"argument --hidden: one number or several .*, not 'many'"),
        (["--rho", "small"], r"argument --rho: invalid float value: 'small'"),
        (["--method", "sgd", "--progress"], "--progress is not for --method sgd"),
        (["a.npz"], "unrecognized arguments: a.npz"),
    ],
)
def test_wrong_usage(run, solver, arguments, pattern):
    assert_error(run(*arguments), pattern)
    assert solver.teacher is None


@pytest.mark.parametrize("kind", [ValueError, TypeError])
def test_bad_value(run, solver, kind):
    solver.error = kind("lam must be finite,\n  at least 0; got -1.0")
    assert_error(run("--lam", "-1"), "error: lam must be finite, at least 0; got -1.0\n")


def test_not_enough_memory(run, solver):
    solver.error = MemoryError()
    assert_error(run(), "the descent failed: not enough memory for the network")


# --------------------------------------------------------------------------------------------------
# What comes out
# --------------------------------------------------------------------------------------------------


def test_json_is_one_strict_line(run, solver):
    status, out, err = run("--json")
    assert (status, err) == (0, "")
    assert out.count("\n") == 1
    fields = parse_strictly(out)
    # Every field but the two networks, which are in --output, and the derived collapse.
    names = {field.name for field in dataclasses.fields(StructureResult)}
    assert set(fields) == (names - {"network", "initial_network"}) | {"student", "collapse"}
    assert fields["W_perp_norm"] == 0.5
    assert fields["W_perp_norm_initial"] == 2.0
    assert fields["collapse"] == 0.25
    assert fields["W_par_norm"] == 1.5
    assert fields["singular_values"] == [1.5, 0.5, 0.0]
    assert fields["angle"] == 0.125
    assert fields["stein_violation"] is None
    assert fields["rule_error"] == {"value": 1e-12, "gradient": 1e-11}
    assert fields["teacher"] == {"link": "sum_of_tanh", "d": 3, "n_indices": 2}
    assert fields["student"]["widths"] == [3, 4, 4, 1]
    assert fields["history"] == [[0, 0.0, 1.0, 2.0, 1.0], [1, 0.25, 0.25, 0.5, 1.5]]


def test_json_of_the_certificate(run, solver):
    solver.result = make_structure_result(
        certificate=make_certificate(
            certified=False, lambda_min=NAN, lambda_min_lower=-INF, collapse_bound=None
        )
    )
    certificate = parse_strictly(run("--json")[1])["certificate"]
    assert certificate["certified"] is False
    assert (certificate["lambda_min"], certificate["lambda_min_lower"]) == (None, None)
    assert certificate["collapse_bound"] is None
    assert (certificate["grad_norm"], certificate["nhev"]) == (1e-8, 40)


def test_output_holds_every_layer_and_the_directions(run, solver, tmp_path):
    target = tmp_path / "network"  # numpy.savez would add a suffix to a name
    assert run("--output", target)[0] == 0
    with np.load(target) as arrays:
        assert set(arrays) == {"W1", "b1", "W2", "b2", "W3", "b3", "U"}
        for number, (W, b) in enumerate(
            zip(solver.result.network.weights, solver.result.network.biases, strict=True), 1
        ):
            assert np.array_equal(arrays[f"W{number}"], W)
            assert np.array_equal(arrays[f"b{number}"], b)
        assert np.array_equal(arrays["U"], solver.result.teacher.U)
    assert [path.name for path in tmp_path.iterdir()] == ["network"]


def test_plot(run, solver, tmp_path):
    assert run("--plot", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_targets_are_checked_before_the_work(run, solver, tmp_path):
    target = tmp_path / "no" / "a.npz"
    assert_error(run("--output", target), r"cannot write .*a\.npz: No such file or directory", 3)
    twice = tmp_path / "a.png"
    assert_error(run("--output", twice, "--plot", twice), "--output and --plot are the same file")
    assert_error(run("--plot", tmp_path / "a.foo"), r"--plot: cannot plot to .*\.png")
    assert solver.teacher is None


# --------------------------------------------------------------------------------------------------
# How it ends
# --------------------------------------------------------------------------------------------------


def test_not_certified_is_no_failure(run, solver):
    solver.result = make_structure_result(
        certificate=make_certificate(certified=False, message="the time limit has passed")
    )
    status, out, _ = run()
    assert status == 0
    assert "certified  no: the time limit has passed" in out


def test_interrupted(run, solver, tmp_path):
    solver.result = make_structure_result(
        certificate=make_certificate(certified=False, message="interrupted; the best point so far")
    )
    status, out, err = run("--output", tmp_path / "a.npz")
    assert (status, out, err) == (130, f"{solver.result}\n", "")
    assert (tmp_path / "a.npz").exists()
    solver.error = KeyboardInterrupt()
    assert run() == (130, "", "derand-fast: interrupted\n")


def test_help_tells_what_one_must_know(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for name in solver_options():
        assert f"--{name}" in out, name
    for words in ("W_perp", "numpy.load", "U (indices, d)", "130", "could not be certified"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


def solver_options():
    return (
        *("d", "hidden", "depth", "activation", "iota", "teacher", "indices", "lam", "train"),
        *("loss", "inputs", "method", "rho", "seed", "time-limit", "threads"),
        *("plot", "output", "json", "progress", "version"),
    )


# --------------------------------------------------------------------------------------------------
# With the solver itself
# --------------------------------------------------------------------------------------------------


def test_real_solver(run, tmp_path):
    target = tmp_path / "a.npz"
    arguments = "--d 3 --hidden 5 --lam 0.01 --rho 1e-5 --seed 4 --json"
    status, out, err = run(*arguments.split(), "--output", target)
    assert (status, err) == (0, "")
    fields = parse_strictly(out)
    assert fields["certificate"]["certified"]
    assert fields["collapse"] < 1e-3  # sqrt(rho) = 3.2e-3 < 2 lam: W_perp collapses, by the lemma
    with np.load(target) as arrays:
        W, direction = arrays["W1"], arrays["U"][0] / np.linalg.norm(arrays["U"][0])
    along = np.outer(W @ direction, direction)
    # Sums of 15 squares of numbers of size 1: rounding is far below these tolerances.
    assert np.linalg.norm(along) == pytest.approx(fields["W_par_norm"], rel=1e-12)
    assert np.linalg.norm(W - along) == pytest.approx(fields["W_perp_norm"], abs=1e-13)
    assert fields["history"][0][3] == fields["W_perp_norm_initial"]


@pytest.mark.skipif(importlib.util.find_spec("tqdm") is None, reason="needs tqdm")
@pytest.mark.parametrize("method", ["newton-cg", "hessian-descent", "pgd"])
def test_real_solver_with_a_progress_bar(run, method):
    arguments = f"--d 2 --hidden 2 --lam 0.1 --rho 1e-3 --time-limit 5 --method {method}"
    status, out, err = run(*arguments.split(), "--progress")
    assert status == 0
    assert out.startswith("teacher ")
    assert "error" not in err


def test_real_bad_values(run):
    assert_error(run("--d", "0"), "d must be at least 1, got 0")
    assert_error(run("--indices", "2"), "link='tanh' takes one index, got 2")
    assert_error(run("--train", "W9"), "train may name W1, b1, W2, b2; got 'W9'")
