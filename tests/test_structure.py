"""discover_structure: what is claimed of a student holds."""

import math

import numpy as np
import pytest
import scipy.linalg

from derand_fast import discover_structure
from derand_fast.networks import random_network
from derand_fast.objectives import NetworkRisk
from derand_fast.teachers import Teacher


def check(result):
    """Everything a result says can be computed again from its network."""
    W = result.network.weights[0]
    projector = result.teacher.basis.T @ result.teacher.basis
    assert result.W_perp_norm == pytest.approx(np.linalg.norm(W - W @ projector), abs=1e-13)
    assert result.W_par_norm == pytest.approx(np.linalg.norm(W @ projector), rel=1e-12)
    start = result.initial_network.weights[0]
    assert result.W_perp_norm_initial == pytest.approx(
        np.linalg.norm(start - start @ projector), rel=1e-12
    )
    np.testing.assert_allclose(
        result.singular_values, scipy.linalg.svdvals(W), rtol=1e-10, atol=1e-13
    )
    k = result.teacher.n_indices
    leading = scipy.linalg.svd(W, full_matrices=False)[2][:k]
    if np.linalg.matrix_rank(W) >= k:
        angles = scipy.linalg.subspace_angles(leading.T, result.teacher.basis.T)
        assert result.angle == pytest.approx(angles.max(), abs=1e-9)
    X = np.random.default_rng(0).standard_normal((7, result.teacher.d))
    assert np.array_equal(result.predict(X), result.network.predict(X))
    assert result.history[0].W_perp_norm == result.W_perp_norm_initial
    assert result.history[-1].W_perp_norm == result.W_perp_norm
    certificate = result.certificate
    if certificate.collapse_bound is not None:
        assert result.W_perp_norm <= certificate.collapse_bound
    assert certificate.success == certificate.certified


@pytest.mark.parametrize(
    ("depth", "k", "d", "loss"),
    [
        (2, 1, 2, "squared"),
        (2, 2, 6, "squared"),
        (2, 3, 5, "squared"),
        (2, 1, 30, "squared"),
        (3, 1, 5, "squared"),
        (3, 2, 5, "squared"),
        (4, 1, 3, "squared"),
        (2, 1, 4, "logistic"),
        (2, 1, 4, "pseudo_huber"),
    ],
)
def test_collapse(depth, k, d, loss):
    result = discover_structure(
        "sum_of_tanh", d=d, n_indices=k, hidden=8, depth=depth, loss=loss, lam=1e-2, seed=1
    )
    check(result)
    assert result.certificate.certified
    assert result.collapse <= 1e-6
    assert result.lemma_applies
    assert result.certificate.collapse_bound <= 1e-2 * result.W_perp_norm_initial


def test_methods_agree_on_the_collapse():
    for method in ("newton_cg", "hessian_descent", "pgd"):
        result = discover_structure(
            "tanh", d=3, hidden=4, lam=5e-2, method=method, rho=1e-3, seed=2
        )
        check(result)
        assert result.method == method
        assert result.certificate.certified
        assert result.W_perp_norm <= result.certificate.collapse_bound
        assert result.collapse <= 1e-2


def test_sgd_is_reported_as_it_is():
    result = discover_structure(
        "tanh", d=3, hidden=5, lam=1e-3, method="sgd", steps=50, batch_size=8, seed=2
    )
    check(result)
    assert result.method == "sgd"
    assert not result.certificate.certified
    assert result.certificate.grad_norm > 1e-6
    assert result.collapse > 0.1
    # Rows are of the population risk, not of samples.
    assert result.history[-1].iteration == 50
    assert result.history[-1].fun == pytest.approx(result.certificate.fun, rel=1e-12)


def test_sgd_shows_a_bar_if_asked_for(capsys):
    pytest.importorskip("tqdm")
    discover_structure("tanh", d=3, hidden=5, method="sgd", steps=20, progress=True)
    assert "20/20" in capsys.readouterr().err


def test_all_parameters_of_a_deep_network():
    result = discover_structure("tanh", d=4, hidden=(5, 4), depth=3, train="all", lam=1e-2, seed=2)
    check(result)
    assert result.certificate.certified
    assert result.collapse <= 1e-6


def test_frozen_biases_are_reported_as_they_are():
    result = discover_structure("tanh", d=2, hidden=10, lam=1e-3, train=("W1",), seed=1)
    check(result)
    assert result.certificate.certified
    assert result.certificate.collapse_bound is None
    # The lemma asks for trained biases, and here it shows.
    assert result.collapse > 0.01
    assert not result.network.biases[0].any()


def test_other_inputs_come_without_the_guarantee():
    result = discover_structure(
        "tanh", d=2, hidden=5, lam=1e-2, inputs="rademacher", rho=1e-5, seed=1
    )
    check(result)
    assert not result.lemma_applies
    assert result.stein_violation > 1e-3
    assert "no guarantee" in str(result)


def test_no_directions_outside():
    result = discover_structure("product", d=2, n_indices=2, hidden=4, lam=1e-2, seed=0)
    assert result.W_perp_norm == 0.0
    assert result.collapse == 0.0
    assert result.angle == pytest.approx(0.0, abs=1e-12)


def test_same_bits():
    runs = [
        discover_structure("tanh", d=4, hidden=6, lam=1e-2, seed=3, n_threads=n) for n in (1, 2)
    ]
    assert runs[0].network.flat().tobytes() == runs[1].network.flat().tobytes()
    other = discover_structure("tanh", d=4, hidden=6, lam=1e-2, seed=4)
    assert runs[0].network.flat().tobytes() != other.network.flat().tobytes()


def test_own_teacher_and_student():
    teacher = Teacher("quadratic", [[1.0, 2.0, 2.0]], noise=0.1)
    student = random_network(3, 7, activation="tanh", seed=9)
    result = discover_structure(teacher, student=student, lam=1e-2)
    check(result)
    assert result.teacher is teacher
    assert result.initial_network is student
    # The noise cannot be learned: its variance is a lower bound of the risk.
    assert result.certificate.fun >= 0.01


def test_interrupted_runs_return_what_they_have():
    result = discover_structure("tanh", d=4, hidden=6, lam=1e-3, max_iter=2, seed=3)
    check(result)
    assert not result.certificate.certified
    assert len(result.history) == 3
    seen = []

    def stop(state):
        seen.append(state.fun)
        return len(seen) == 2

    stopped = discover_structure("tanh", d=4, hidden=6, lam=1e-3, callback=stop, seed=3)
    assert len(seen) == 2
    assert stopped.certificate.fun == seen[-1]
    hurried = discover_structure("tanh", d=20, hidden=60, lam=1e-3, time_limit=1e-3, seed=3)
    check(hurried)
    assert not hurried.certificate.certified
    # Not certified, and why: what the curvature is where time ran out.
    assert "time limit was reached; a direction of curvature" in hurried.certificate.message
    assert hurried.certificate.lambda_min < 0.0


def test_rules_get_finer_as_the_gradient_falls():
    result = discover_structure("sum_of_tanh", d=3, n_indices=2, hidden=6, lam=1e-2, seed=4)
    check(result)
    assert result.certificate.certified
    # The first rule has 20 nodes on an axis; its error at the result would be above the target.
    assert result.rule_error.gradient <= 0.5 * result.certificate.rho
    coarse = NetworkRisk(result.network, result.teacher, lam=1e-2, n_inside=20)
    assert np.linalg.norm(coarse.value_and_grad(result.certificate.x)[1]) > 1e-6
    # Steps and rows of all rules are told.
    history = result.certificate.history
    assert [row.iteration for row in history] == list(range(result.certificate.nit + 1))
    assert len(result.history) == len(history)


def test_report():
    result = discover_structure("tanh", d=3, hidden=4, lam=1e-2, seed=1)
    text = str(result)
    for part in ("||W_perp||", "certified  yes", "Mehler", "angle to the teacher"):
        assert part in text
    assert math.isfinite(result.rule_error.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "adam"}, ValueError, "method must be one of newton_cg, .* got 'adam'"),
        ({"d": None}, ValueError, "give the dimension d, a Teacher or a student"),
        ({"d": 0}, ValueError, "d must be at least 1, got 0"),
        ({"hidden": 0}, ValueError, "hidden must be at least 1, got 0"),
        ({"teacher": "sine"}, ValueError, "link must be one of"),
        ({"rho": 0.0}, ValueError, "rho must be"),
        ({"lam": -1.0}, ValueError, "lam must be finite, at least 0"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"student": "net"}, TypeError, "student must be a Network, not str"),
        ({"teacher": Teacher("tanh", [1.0, 0.0]), "d": 3}, ValueError, "teacher's dimension 2"),
        ({"method": "sgd", "steps": 0}, ValueError, "steps must be at least 1"),
    ],
)
def test_bad_input(options, error, message):
    arguments = {"teacher": "tanh", "d": 3, "hidden": 2, **options}
    with pytest.raises(error, match=message):
        discover_structure(arguments.pop("teacher"), **arguments)
