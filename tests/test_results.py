"""What a result says of itself: the report for people, the JSON for programs, the gap."""

import copy
import dataclasses
import datetime
import json
import math

import numpy as np
import pytest

from derand_fast.results import CutResult, HistoryRow, Solution

INF = math.inf


def make_result(**changes):
    fields = {
        "cut_value": 12.0,
        "partition": np.array([1, -1, 1], dtype=np.int8),
        "sets": (frozenset(["a", "c"]), frozenset(["b"])),
        "upper_bound": 16.0,
        "sdp_value": 15.5,
        "expected_cut": 11.25,
        "history": (HistoryRow(0.1, 10.0, None), HistoryRow(0.5, 12.0, 16.0)),
        "seconds": {"read": 0.25, "total": 1.5},
        "seed": 7,
        "method": "anneal",
        "message": "all 1234 sweeps done",
        "sweeps": 1234,
        "bound_certificate": "proven: by hand",
        "certificate": None,
        "solutions": (
            Solution(12.0, np.array([1, -1, 1], dtype=np.int8)),
            Solution(10.0, np.array([1, 1, -1], dtype=np.int8)),
        ),
    }
    return CutResult(**(fields | changes))


def strict_json(result):
    """Through text and back; infinity and NaN are no JSON and raise."""
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))


# --------------------------------------------------------------------------------------------------
# The record
# --------------------------------------------------------------------------------------------------


def test_is_frozen():
    result = make_result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.cut_value = 13.0
    with pytest.raises((AttributeError, TypeError)):  # slots: there is no room for new names
        result.note = "x"


def test_compares_by_identity_and_can_be_hashed():
    # Arrays have no single truth value, so == by fields would raise.
    result = make_result()
    assert result == result
    assert result != make_result()
    assert len({result, result}) == 1


def test_copies():
    twin = copy.deepcopy(make_result())
    assert str(twin) == str(make_result())
    assert np.array_equal(twin.partition, [1, -1, 1])


def test_every_field_is_documented():
    for field in dataclasses.fields(CutResult):
        assert field.name in CutResult.__doc__, field.name


def test_solutions_have_names():
    value, partition = solution = make_result().solutions[1]
    assert (solution.cut_value, solution.partition.tolist()) == (value, partition.tolist())


def test_spins_are_the_end_of_the_partition():
    assert make_result().spins is None
    problem = make_result(energy=0.0, sample={"a": 0, "b": 1})
    assert problem.spins.tolist() == [-1, 1]
    assert make_result(sample={}).spins.size == 0


def test_history_rows_have_names():
    row = HistoryRow(0.5, 12.0, None)
    assert (row.seconds, row.cut_value, row.upper_bound) == (0.5, 12.0, None)
    assert tuple(row) == (0.5, 12.0, None)


# --------------------------------------------------------------------------------------------------
# The gap
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "bound", "gap"),
    [
        (12.0, 16.0, 0.25),
        (12.0, 12.0, 0.0),
        (0.0, 0.0, 0.0),
        (0.0, 3.0, 1.0),
        (-1.0, 0.0, INF),
        (-1.0, 3.0, 4.0 / 3.0),
        (12.0, None, None),
        (5e-324, 1e-323, 0.5),  # the two smallest numbers there are
        (1e308, 1.6e308, 0.375),
        (0.0, 5e-324, 1.0),
        (-16.0, -12.0, 1.0 / 3.0),  # of fixed vertices: relative to |bound|
        (-16.0, -16.0, 0.0),
    ],
)
def test_gap(cut, bound, gap):
    result = make_result(cut_value=cut, upper_bound=bound)
    if gap is None:
        assert result.gap is None
    else:
        # One subtraction and one division: within two roundings of the quotient.
        assert result.gap == pytest.approx(gap, rel=2**-51, abs=0.0)


# --------------------------------------------------------------------------------------------------
# For people
# --------------------------------------------------------------------------------------------------


def test_report():
    assert str(make_result()) == (
        "cut      12\n"
        "sides    2 + 1 vertices\n"
        "bound    16  (gap 25.000%)\n"
        "others   1 different, down to 10\n"
        "SDP      15.5  (random rounding: 11.25)\n"
        "time     1.500 s, 1234 sweeps\n"
        "method   anneal, seed 7: all 1234 sweeps done\n"
        "proven   proven: by hand"
    )


def test_report_without_bound():
    text = str(
        make_result(
            upper_bound=None,
            sdp_value=None,
            expected_cut=None,
            bound_certificate=None,
            solutions=(),
        )
    )
    assert text == (
        "cut      12\n"
        "sides    2 + 1 vertices\n"
        "bound    none\n"
        "time     1.500 s, 1234 sweeps\n"
        "method   anneal, seed 7: all 1234 sweeps done"
    )


def test_report_of_a_problem():
    sample = {"a": 1, "b": -1, "c": 1}
    text = str(make_result(energy=-3.5, energy_lower_bound=-4.0, sample=sample))
    assert "  (gap 25.000%)\nenergy   -3.5  (no less than -4)\nothers " in text
    text = str(make_result(energy=-3.5, upper_bound=None, sample=sample))
    assert "bound    none\nenergy   -3.5\nothers " in text


def test_report_of_large_and_tiny_values():
    text = str(make_result(cut_value=123456789012.0, upper_bound=123456789012.5))
    assert "cut      123456789012\n" in text
    assert "cut      1e-300\n" in str(make_result(cut_value=1e-300, upper_bound=1e-300))
    assert "(gap inf%)" in str(make_result(cut_value=-1.0, upper_bound=0.0))


# --------------------------------------------------------------------------------------------------
# For programs
# --------------------------------------------------------------------------------------------------


def test_to_dict():
    assert strict_json(make_result()) == {
        "cut_value": 12.0,
        "partition": [1, -1, 1],
        "sets": [["a", "c"], ["b"]],
        "upper_bound": 16.0,
        "gap": 0.25,
        "sdp_value": 15.5,
        "expected_cut": 11.25,
        "history": [[0.1, 10.0, None], [0.5, 12.0, 16.0]],
        "seconds": {"read": 0.25, "total": 1.5},
        "seed": 7,
        "method": "anneal",
        "message": "all 1234 sweeps done",
        "sweeps": 1234,
        "bound_certificate": "proven: by hand",
        "certificate": None,
        "solutions": [[12.0, [1, -1, 1]], [10.0, [1, 1, -1]]],
        "energy": None,
        "energy_lower_bound": None,
        "sample": None,
    }


def test_to_dict_of_a_problem():
    problem = make_result(
        energy=-3.5,
        energy_lower_bound=-4.0,
        sample={"a": 1, (0, 1): 0, np.int64(3): 1},
    )
    fields = strict_json(problem)
    assert (fields["energy"], fields["energy_lower_bound"]) == (-3.5, -4.0)
    assert fields["sample"] == [["a", 1], ["(0, 1)", 0], [3, 1]]


def test_to_dict_without_bound():
    fields = strict_json(
        make_result(upper_bound=None, sdp_value=None, expected_cut=None, bound_certificate=None)
    )
    for name in ("upper_bound", "gap", "sdp_value", "expected_cut", "bound_certificate"):
        assert fields[name] is None


def test_to_dict_has_no_infinite_gap():
    result = make_result(cut_value=-1.0, upper_bound=0.0)
    assert result.gap == INF
    assert strict_json(result)["gap"] is None


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("name", "name"),
        ("ü", "ü"),
        (3, 3),
        (2**70, 2**70),
        (2.5, 2.5),
        (True, True),
        (None, None),
        (INF, "inf"),
        (math.nan, "nan"),
        (np.int64(3), 3),
        (np.float64(2.5), 2.5),
        (np.float32(-INF), "-inf"),
        (np.bool_(True), True),
        (np.str_("name"), "name"),
        ((0, 1), "(0, 1)"),
        (frozenset([1]), "frozenset({1})"),
        (b"x", "b'x'"),
        (1 + 2j, "(1+2j)"),
        (np.complex128(1 + 2j), "(1+2j)"),
        (np.datetime64("2024-01-02"), "2024-01-02"),
        (np.longdouble(0.5), "0.5"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_labels_in_json(label, kept):
    fields = strict_json(make_result(sets=(frozenset([label]), frozenset())))
    assert fields["sets"] == [[kept], []]
    assert type(fields["sets"][0][0]) is type(kept)


def test_sets_are_sorted_also_when_mixed():
    numbers = make_result(sets=(frozenset([10, 9, 100]), frozenset(["b", "a"])))
    assert strict_json(numbers)["sets"] == [[9, 10, 100], ["a", "b"]]
    mixed = make_result(sets=(frozenset([2, "a", (0, 1), None, 1.5]), frozenset()))
    # Text order of the plain forms: quotes before digits before letters.
    assert strict_json(mixed)["sets"] == [["(0, 1)", "a", 1.5, 2, None], []]


def test_to_dict_shares_nothing():
    result = make_result()
    fields = result.to_dict()
    fields["seconds"]["total"] = 0.0
    fields["partition"][0] = 0
    assert result.seconds["total"] == 1.5
    assert result.partition[0] == 1
