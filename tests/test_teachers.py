"""Teachers: links, directions, and what is refused."""

import math

import numba
import numpy as np
import pytest

from derand_fast.teachers import LINKS, Teacher


@numba.njit
def difference(u):
    """A link that tells its indices apart."""
    return u[0] - 3.0 * u[1] ** 2


def plain(u):
    """The same link as plain Python."""
    return u[0] - 3.0 * u[1] ** 2


CLOSED_FORMS = {
    "tanh": lambda u: math.tanh(u[0]),
    "smooth_relu": lambda u: math.log1p(math.exp(2.0 * u[0])) / 2.0,
    "linear": lambda u: u[0],
    "quadratic": lambda u: u[0] * u[0] - 1.0,
    "cubic": lambda u: u[0] * (u[0] * u[0] - 3.0),
    "sum_of_tanh": lambda u: sum(math.tanh(index) for index in u),
    "product": lambda u: math.prod(u),
}


def test_every_link_has_a_closed_form():
    assert set(CLOSED_FORMS) == set(LINKS)


@pytest.mark.parametrize("name", list(LINKS))
def test_links(name):
    k = 3 if name in ("sum_of_tanh", "product") else 1
    random = np.random.default_rng(0)
    U, X = random.standard_normal((k, 5)), random.standard_normal((20, 5))
    teacher = Teacher(name, U)
    expected = [CLOSED_FORMS[name]([row @ x for row in U]) for x in X]
    # A dozen roundings in the change of basis.
    np.testing.assert_allclose(teacher.predict(X), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("link", [difference, plain])
def test_own_links_see_the_given_directions(link):
    U = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    X = np.random.default_rng(1).standard_normal((10, 3))
    indices = X @ U.T
    teacher = Teacher(link, U)
    expected = indices[:, 0] - 3.0 * indices[:, 1] ** 2
    np.testing.assert_allclose(teacher.predict(X), expected, rtol=1e-12, atol=1e-12)
    assert teacher.name == link.__name__


def test_basis_is_orthonormal_and_spans_the_directions():
    U = np.random.default_rng(2).standard_normal((3, 7))
    basis = Teacher("product", U).basis
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(U @ basis.T @ basis, U, atol=1e-13)


def test_one_direction_keeps_its_sign():
    assert Teacher("tanh", [0.0, -3.0]).basis.tolist() == [[0.0, -1.0]]


def test_random_directions():
    teacher = Teacher("product", d=6, n_indices=2, seed=5)
    np.testing.assert_allclose(teacher.U @ teacher.U.T, np.eye(2), atol=1e-14)
    assert np.array_equal(teacher.U, Teacher("product", d=6, n_indices=2, seed=5).U)
    assert not np.array_equal(teacher.U, Teacher("product", d=6, n_indices=2, seed=6).U)


def test_smooth_relu_far_out():
    teacher = Teacher("smooth_relu", [1.0])
    assert teacher.predict([[1e4], [-1e4]]).tolist() == [1e4, 0.0]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("sine",), {"d": 2}, ValueError, "link must be one of tanh, .*got 'sine'"),
        ((7,), {"d": 2}, TypeError, "link must be a name or a function, not 7"),
        (("tanh",), {}, ValueError, "give U, or the dimension d"),
        (("tanh",), {"d": 0}, ValueError, "d must be at least 1, got 0"),
        (("product",), {"d": 2, "n_indices": 3}, ValueError, "n_indices must be at most d = 2"),
        (("tanh",), {"d": 3, "n_indices": 2}, ValueError, "takes one index, got 2"),
        (("tanh", [[1.0, 0.0]]), {"d": 3}, ValueError, "U has 2 columns, but d is 3"),
        (("tanh", [["a"]]), {}, TypeError, "U must hold real numbers"),
        (("tanh", [[math.nan, 1.0]]), {}, ValueError, "U must be finite"),
        (("tanh", [[0.0, 0.0]]), {}, ValueError, "U must have full rank 1"),
        (("product", [[1.0, 2.0], [2.0, 4.0]]), {}, ValueError, "U must have full rank 2"),
        (("product", [[1.0], [2.0]]), {}, ValueError, "U must have full rank 2"),
        (("tanh", np.empty((1, 0))), {}, ValueError, "U must have shape"),
        (("tanh", [1.0]), {"noise": -1.0}, ValueError, "noise must be finite, at least 0"),
    ],
)
def test_bad_input(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Teacher(*arguments, **options)


def test_link_that_is_not_finite_names_the_place():
    teacher = Teacher(lambda u: math.nan if u[0] > 1.0 else 0.0, [2.0, 0.0])
    assert teacher.predict([[0.25, 9.0]]).tolist() == [0.0]
    with pytest.raises(ValueError, match=r"is nan at indices \[4\.0\]; it must be finite"):
        teacher.predict([[0.0, 0.0], [2.0, 0.0]])


@pytest.mark.parametrize("X", [[1.0, 2.0], [[1.0]], [[[1.0, 2.0]]]])
def test_points_of_a_wrong_shape(X):
    with pytest.raises(ValueError, match=r"X must have shape \(N, 2\)"):
        Teacher("tanh", [1.0, 0.0]).predict(X)
