"""The picture of a student's units must show where they are, and the norms as they were."""

import doctest

import numpy as np
import pytest
from fake_results import make_certificate, make_structure_result

from derand_fast.networks import Network, random_network
from derand_fast.plot import plot_structure, structure
from derand_fast.structure import StructureRow
from derand_fast.teachers import Teacher


def line_of(axes, gid):
    return next((line for line in axes.get_lines() if line.get_gid() == gid), None)


def lines_of(axes, gid):
    return [line for line in axes.get_lines() if line.get_gid() == gid]


def network_of(first):
    """A student with this first layer; what follows does not show in the picture."""
    units = len(first)
    return Network((first, np.ones((1, units))), (np.zeros(units), [0.0]))


def axis_result(**changes):
    """Teacher along the first axis of three; units spread most along the third, then flattened."""
    before = np.array([[1.0, 0.1, 3.0], [2.0, -0.1, -2.0], [-1.0, 0.0, 1.0], [0.5, 0.2, 0.0]])
    after = before * [1.5, 0.0, 0.0]
    return make_structure_result(
        **(
            {
                "teacher": Teacher("tanh", [[2.0, 0.0, 0.0]]),
                "initial_network": network_of(before),
                "network": network_of(after),
            }
            | changes
        )
    )


def test_units_lie_in_the_plane_of_teacher_and_leading_direction():
    result = axis_result()
    units = plot_structure(result).axes[0]
    before = result.initial_network.weights[0]
    outside = before * [0.0, 1.0, 1.0]
    # The leading direction outside, by another road: the eigenvector of the scatter matrix.
    leading = np.linalg.eigh(outside.T @ outside)[1][:, -1]
    leading *= np.sign(leading[2])
    start, end = line_of(units, "before"), line_of(units, "after")
    np.testing.assert_allclose(start.get_xdata(), before[:, 0], rtol=1e-14)
    np.testing.assert_allclose(start.get_ydata(), outside @ leading, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(end.get_xdata(), 1.5 * before[:, 0], rtol=1e-14)
    np.testing.assert_array_equal(end.get_ydata(), 0.0)
    # Each way leads from a unit's start to its end.
    ways = units.collections[0].get_segments()
    for way, *ends in zip(
        ways, zip(*start.get_data(), strict=True), zip(*end.get_data(), strict=True), strict=True
    ):
        np.testing.assert_array_equal(way, ends)
    assert line_of(units, "teacher").get_ydata() == [0.0, 0.0]


def test_plane_of_a_teacher_with_two_directions():
    teacher = Teacher("product", d=6, n_indices=2, seed=5)
    student = random_network(6, 20, seed=6)
    result = make_structure_result(teacher=teacher, initial_network=student, network=student)
    along, across = structure._plane(result)
    np.testing.assert_array_equal(along, teacher.basis[0])
    # Orthonormal, and outside the whole subspace of the teacher.
    np.testing.assert_allclose(teacher.basis @ across, 0.0, atol=1e-14)
    assert np.linalg.norm(across) == pytest.approx(1.0, rel=1e-13)
    # No unit vector outside gathers more of the weights.
    outside = student.weights[0] @ (np.eye(6) - teacher.basis.T @ teacher.basis)
    assert np.linalg.norm(outside @ across) == pytest.approx(np.linalg.norm(outside, 2), rel=1e-12)


def test_nothing_outside_the_teacher(tmp_path):
    teacher = Teacher("product", d=2, n_indices=2, seed=5)
    student = random_network(2, 5, seed=6)
    result = make_structure_result(
        teacher=teacher,
        initial_network=student,
        network=student,
        W_perp_norm=0.0,
        W_perp_norm_initial=0.0,
        history=(StructureRow(0, 0.0, 1.0, 0.0, 1.0),),
    )
    figure = plot_structure(result, tmp_path / "a.png")
    np.testing.assert_array_equal(line_of(figure.axes[0], "before").get_ydata(), 0.0)


def test_norms_are_those_of_the_history():
    norms = plot_structure(make_structure_result()).axes[1]
    outside, inside = line_of(norms, "W_perp"), line_of(norms, "W_par")
    assert list(outside.get_xdata()) == list(inside.get_xdata()) == [0, 1]
    assert list(outside.get_ydata()) == [2.0, 0.5]
    assert list(inside.get_ydata()) == [1.0, 1.5]
    assert norms.get_yscale() == "log"


def test_zero_can_be_seen():
    history = (StructureRow(0, 0.0, 1.0, 2.0, 1.0), StructureRow(1, 0.1, 0.5, 0.0, 3e-5))
    figure = plot_structure(make_structure_result(history=history))
    norms = figure.axes[1]
    figure.draw_without_rendering()
    heights = norms.transData.transform([(0.0, value) for value in (0.0, 3e-5, 1.0, 2.0)])[:, 1]
    assert (np.diff(heights) > 0.0).all()
    box = norms.get_window_extent()
    assert box.y0 <= heights[0] + 0.5  # half a pixel: the axis begins there
    assert heights[-1] < box.y1


def test_all_zero(tmp_path):
    history = (StructureRow(0, 0.0, 1.0, 0.0, 0.0),)
    certificate = make_certificate(collapse_bound=0.0)
    result = make_structure_result(history=history, certificate=certificate)
    figure = plot_structure(result, tmp_path / "a.png")
    assert figure.axes[1].get_yscale() == "linear"
    assert not lines_of(figure.axes[1], "bound")


@pytest.mark.parametrize(
    ("own", "apriori", "lemma", "heights"),
    [
        (0.75, None, True, [0.75]),
        (0.75, 0.5, True, [0.75, 0.5]),
        (None, 0.5, True, [0.5]),
        (None, None, True, []),
        (float("inf"), None, True, []),
        # What holds at any certified point holds for Gaussian inputs only.
        (0.75, 0.5, False, [0.75]),
    ],
)
def test_bounds(own, apriori, lemma, heights):
    certificate = make_certificate(collapse_bound=own, collapse_bound_apriori=apriori)
    result = make_structure_result(certificate=certificate, lemma_applies=lemma)
    lines = lines_of(plot_structure(result).axes[1], "bound")
    assert [line.get_ydata()[0] for line in lines] == heights
    for line, height in zip(lines, heights, strict=True):
        assert f"({height:.3g})" in line.get_label()


def test_words():
    figure = plot_structure(make_structure_result())
    units, norms = figure.axes
    assert units.get_title(loc="left") == "||W_perp|| 0.5, from 2: certified"
    assert units.texts[0].get_text() == (
        "Teacher('sum_of_tanh', d=3, n_indices=2), lam 0.0001, newton_cg, seed 0, 0.75 s"
    )
    assert units.get_xlabel() == "Weight along the teacher's first direction"
    assert norms.get_xlabel() == "Iteration"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:5] == [
        "teacher's direction",
        "units at the start",
        "units at the end",
        "||W_par||",
        "||W_perp||",
    ]
    not_certified = make_structure_result(certificate=make_certificate(certified=False))
    title = plot_structure(not_certified).axes[0].get_title(loc="left")
    assert title.endswith(": not certified")


def test_method_of_the_result(tmp_path):
    figure = make_structure_result().plot(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match=r"a\.foo': the suffix decides the format"):
        make_structure_result().plot(tmp_path / "a.foo")


def test_docstring_examples():
    outcome = doctest.testmod(structure)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
