"""Options of max_cut: fixed vertices, a target, effort, several solutions; alone and together."""

import itertools
import json
import math
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derand_fast import max_cut
from derand_fast.contraction import Contraction, exact_cut_value
from derand_fast.generators import random_graph, torus_grid
from derand_fast.graphs import as_graph
from derand_fast.incumbent import DiversePool

SWEEPS = 200
TRIANGLE = (3, [(0, 1), (1, 2), (0, 2)], None)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Whichever test comes first must not be the one that waits for the compiler."""
    max_cut(TRIANGLE)


def solve(graph, **options):
    """One thread and few sweeps, unless told otherwise."""
    if not {"time_limit", "effort"} & set(options):
        options.setdefault("sweeps", SWEEPS)
    return max_cut(graph, **({"n_threads": 1} | options))


def weighted(n, density, seed, draw):
    rng = np.random.default_rng(seed)
    edges = [pair for pair in itertools.combinations(range(n), 2) if rng.random() < density]
    return as_graph((n, edges or np.zeros((0, 2), int), [float(draw(rng)) for _ in edges]))


DRAWS = {
    "ones": lambda rng: 1,
    "signs": lambda rng: rng.choice([-1, 1]),
    "integers": lambda rng: rng.integers(-9, 10),
    "normal": lambda rng: rng.normal(),
    "tenths": lambda rng: rng.integers(-9, 10) / 10,
}


def exact(graph, signs):
    """Value of a cut as a fraction: no rounding at all."""
    edges = zip(*graph.edges(), strict=True)
    return sum((Fraction(float(w)) for i, j, w in edges if signs[i] != signs[j]), Fraction(0))


def every_cut(n, fixed):
    """All cuts that have the fixed vertices where they are; the first on +1 if none is fixed."""
    fixed = fixed or ({0: 1} if n else {})
    free = [v for v in range(n) if v not in fixed]
    for code in itertools.product((1, -1), repeat=len(free)):
        signs = np.empty(n, np.int8)
        signs[list(fixed)] = list(fixed.values())
        signs[free] = code
        yield signs


def optimum(graph, fixed):
    return max(exact(graph, signs) for signs in every_cut(graph.n_vertices, fixed))


def rounding_of(graph):
    """What summing the weights in another order may change: m roundings of sums up to sum |w|."""
    weights = graph.edges()[2]
    return 2.0 * weights.size * 2.0**-53 * float(np.abs(weights).sum())


def bits_of(result):
    """All that must not depend on time or threads."""
    return (
        result.partition.tobytes(),
        result.cut_value,
        result.upper_bound,
        result.sdp_value,
        result.expected_cut,
        result.sweeps,
        result.message,
        [row[1:] for row in result.history],
        [(value, signs.tobytes()) for value, signs in result.solutions],
    )


# --------------------------------------------------------------------------------------------------
# The contraction by itself
# --------------------------------------------------------------------------------------------------


@st.composite
def graphs_with_fixed_vertices(draw, weights):
    n = draw(st.integers(1, 6))
    pairs = list(itertools.combinations(range(n), 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    values = draw(st.lists(weights, min_size=len(edges), max_size=len(edges)))
    graph = as_graph((n, np.reshape(edges, (-1, 2)).astype(int), values))
    sides = draw(st.lists(st.sampled_from([0, 1, -1]), min_size=n, max_size=n))
    return graph, {vertex: side for vertex, side in enumerate(sides) if side}


@settings(deadline=None, max_examples=100)
@given(graphs_with_fixed_vertices(st.integers(-20, 20)))
def test_contraction_is_the_same_problem(problem):
    """Integers: every cut of either graph belongs to one of the other, of the same value."""
    graph, fixed = problem
    contraction = Contraction.of(graph, fixed)
    assert contraction.exact
    small = contraction.graph
    assert small.n_vertices == graph.n_vertices - max(len(fixed) - 1, 0)
    for signs in every_cut(small.n_vertices, {}):
        partition = contraction.partition(signs)
        assert partition.dtype == np.int8
        assert all(partition[vertex] == side for vertex, side in fixed.items())
        value = contraction.value(exact_cut_value(small, signs))
        assert value == exact(graph, partition) == exact_cut_value(graph, partition)
        back = contraction.contract(partition)
        assert (back * back[0] == signs * signs[0]).all()
    count = len({contraction.partition(s).tobytes() for s in every_cut(small.n_vertices, {})})
    assert count == sum(1 for _ in every_cut(graph.n_vertices, fixed))


# Weights whose sums round: of one scale, of two, and next to the smallest and the largest there is.
ROUNDING = st.one_of(
    st.integers(-9, 9).map(lambda k: k / 10),
    st.integers(-9, 9).map(lambda k: k / 10 * 2.0**60),
    st.floats(-1e-3, 1e-3),
    st.sampled_from([5e-324, -5e-324, 1e300, -1e300]),
)


def smallest_float_above(value):
    bound = float(value)
    return bound if Fraction(bound) >= value else math.nextafter(bound, math.inf)


@settings(deadline=None, max_examples=100)
@given(graphs_with_fixed_vertices(ROUNDING))
def test_bounds_of_the_contraction_hold_to_the_last_bit(problem):
    graph, fixed = problem
    contraction = Contraction.of(graph, fixed)
    small = contraction.graph
    bound, best = contraction.bound(smallest_float_above(optimum(small, {}))), optimum(graph, fixed)
    # Where all is decided the bound is the value of the cut, which is rounded like all values.
    assert Fraction(bound) >= best or (small.n_edges == 0 and bound == float(best))


def test_the_rounding_term_of_the_bound_is_needed():
    # Three tenths are more than the float 0.1 + 0.2 + 0.3 in some orders, less in others.
    needed = 0
    for weights in itertools.product((0.1, 0.2, 0.3, 0.7, 1e-17), repeat=3):
        graph = as_graph((4, [(0, 3), (1, 3), (2, 3)], weights))
        contraction = Contraction.of(graph, {0: 1, 1: 1, 2: 1})
        tight = smallest_float_above(optimum(contraction.graph, {}))
        needed += Fraction(tight + contraction.constant) < optimum(graph, {0: 1, 1: 1, 2: 1})
        assert Fraction(contraction.bound(tight)) >= optimum(graph, {0: 1, 1: 1, 2: 1})
    assert needed > 0


def test_one_fixed_vertex_leaves_the_graph_alone():
    graph = random_graph(40, 100, seed=1, weights="signs")
    assert Contraction.of(graph, {7: -1}).graph is graph
    assert Contraction.of(graph, {}).graph is Contraction.of(graph).graph is graph


# --------------------------------------------------------------------------------------------------
# Fixed vertices
# --------------------------------------------------------------------------------------------------


def assert_solves(graph, fixed, **options):
    result = solve(graph, fixed=fixed, **options)
    best = optimum(graph, fixed)
    assert all(result.partition[vertex] == side for vertex, side in fixed.items())
    assert result.cut_value == exact_cut_value(graph, result.partition)
    # No tolerance: the bound must hold to the last bit for values rounded correctly.
    assert result.upper_bound >= float(best)
    # Two best cuts whose values differ by rounding: brute force may pick the other one.
    assert abs(result.cut_value - best) <= rounding_of(graph)
    assert result.upper_bound >= result.cut_value >= result.expected_cut
    if graph.integral:
        assert result.upper_bound == math.floor(result.upper_bound)
    rows = result.history
    assert all(row.cut_value <= result.cut_value for row in rows)
    assert all(row.upper_bound >= result.upper_bound for row in rows)
    if rows:
        assert (rows[-1].cut_value, rows[-1].upper_bound) == (result.cut_value, result.upper_bound)
    return result


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("density", [0.3, 0.9])
def test_fixed_vertices_against_brute_force(kind, density):
    rng = np.random.default_rng(1)
    for n in range(2, 11):
        graph = weighted(n, density, n, DRAWS[kind])
        for count in {1, 2, n // 2, n - 1, n} - {0}:
            vertices = rng.permutation(n)[:count].tolist()
            fixed = {vertex: int(rng.choice([-1, 1])) for vertex in vertices}
            assert_solves(graph, fixed, sweeps=60, bound="proof" if n % 2 else True)


def test_fixing_makes_a_difference():
    """Both ends of an edge on one side: the edge is lost, and the bound knows."""
    path = nx.path_graph(6)
    result = solve(path, fixed={2: 1, 3: 1})
    assert (result.cut_value, result.upper_bound) == (4.0, 4.0)
    assert {2, 3} <= result.sets[0]
    assert solve(path, fixed={2: 1, 3: -1}).cut_value == 5.0


def test_fixed_labels_and_sides():
    graph = nx.Graph([("a", "b"), ("b", (1, 2)), ((1, 2), 2.5)])
    for side in (-1, np.int8(-1), -1.0):
        result = solve(graph, fixed={"b": side, 2.5: 1})
        assert "b" in result.sets[1]
        assert 2.5 in result.sets[0]
        assert result.cut_value == 2.0


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("vertex", [0, 5])
def test_one_fixed_vertex_only_turns_the_cut_round(vertex, side):
    graph = torus_grid(12, 12, seed=1, weights="gaussian")
    free, held = solve(graph), solve(graph, fixed={vertex: side})
    assert (held.partition == free.partition * free.partition[vertex] * side).all()
    assert (held.cut_value, held.upper_bound) == (free.cut_value, free.upper_bound)
    assert held.partition[vertex] == side


def test_nothing_fixed_changes_nothing():
    graph = torus_grid(12, 12, seed=1, weights="gaussian")
    assert bits_of(solve(graph, fixed={})) == bits_of(solve(graph))


@pytest.mark.parametrize("kind", DRAWS)
def test_all_vertices_fixed_returns_at_once(monkeypatch, kind):
    forbid_work(monkeypatch)
    graph = weighted(8, 0.7, 3, DRAWS[kind])
    signs = np.random.default_rng(2).choice([-1, 1], 8).tolist()
    result = max_cut(graph, fixed=dict(enumerate(signs)), target=1e9, n_solutions=3)
    assert result.partition.tolist() == signs
    assert result.cut_value == result.upper_bound == exact_cut_value(graph, signs_array(signs))
    assert result.gap == 0.0
    assert result.message == "optimal: the fixed vertices decide every edge"
    assert len(result.solutions) == 1
    without = max_cut(graph, fixed=dict(enumerate(signs)), bound=False)
    assert without.upper_bound is without.bound_certificate is None


def signs_array(signs):
    return np.array(signs, dtype=np.int8)


def test_negative_cuts():
    """All that may be cut is negative: so are the best cut and its bound, and the gap is not."""
    graph = (3, [(0, 1), (1, 2), (0, 2)], [-5.0, -1.5, -2.25])
    result = solve(graph, fixed={0: 1, 1: -1})
    assert result.cut_value == -6.5
    assert -6.5 <= result.upper_bound <= -6.5 * (1.0 - 1e-14)
    assert 0.0 <= result.gap <= 1e-14
    assert result.message == "optimal but for rounding: the cut equals its upper bound"
    assert all(row.cut_value <= -6.5 for row in result.history)


def test_large_graphs_keep_fixed_vertices_and_a_valid_bound():
    graph = random_graph(1000, 4000, seed=1)
    free = solve(graph, sweeps=60)
    # Half the vertices where a good cut has them: it is still among those asked for.
    fixed = dict(enumerate(free.partition[:500].tolist()))
    held = solve(graph, sweeps=60, fixed=fixed)
    assert (held.partition[:500] == free.partition[:500]).all()
    assert held.upper_bound >= free.cut_value
    assert held.upper_bound < free.upper_bound
    assert held.cut_value >= held.expected_cut > 0.0
    # On the same side all of a clique: none of its edges is cut.
    clique = solve(nx.complete_graph(60), fixed=dict.fromkeys(range(50), -1), sweeps=60)
    assert (clique.cut_value, clique.upper_bound) == (500.0, 500.0)


def test_fixed_same_bits_for_any_number_of_threads():
    graph = torus_grid(20, 20, seed=4, weights="gaussian")
    fixed = {vertex: 1 if vertex % 3 else -1 for vertex in range(0, 400, 7)}
    runs = [
        bits_of(solve(graph, fixed=fixed, n_threads=threads, n_solutions=4))
        for threads in (1, 2, 3)
    ]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("method", ["newton-cg", "pgd"])
def test_fixed_vertices_of_a_descent(method):
    graph = random_graph(30, 90, seed=2)
    result = max_cut(graph, method=method, fixed={0: 1, 1: 1, 2: -1}, n_threads=1)
    assert result.partition[:3].tolist() == [1, 1, -1]
    assert result.cut_value == exact_cut_value(graph, result.partition)
    assert result.upper_bound >= result.cut_value >= result.expected_cut


def test_callback_and_history_see_the_callers_cuts():
    graph = torus_grid(12, 12, seed=1, weights="signs")
    fixed = {0: -1, 1: -1, 2: 1, 77: 1}
    states = []

    def watch(state):
        assert all(state.partition[vertex] == side for vertex, side in fixed.items())
        assert not state.partition.flags.writeable
        assert state.cut_value == exact_cut_value(graph, state.partition)
        states.append(state)

    result = solve(graph, fixed=fixed, callback=watch)
    assert states[-1].upper_bound == result.upper_bound
    # The cut and the bound of the merged graph are other numbers.
    assert Contraction.of(graph, fixed).constant != 0.0


def test_progress_shows_the_callers_cut(capsys):
    pytest.importorskip("tqdm")
    graph = torus_grid(12, 12, seed=1, weights="signs")
    fixed = {0: -1, 1: -1, 2: 1, 77: 1}
    # A search that finds nothing better: what is shown last is what is returned.
    best = solve(graph, fixed=fixed, sweeps=1000)
    result = solve(graph, fixed=fixed, initial=best.partition, progress=True)
    assert f"cut={result.cut_value:.0f}, bound={result.upper_bound:.0f}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fixed", "error", "message"),
    [
        ({7: 1}, ValueError, r"fixed holds 7, which is no vertex"),
        ({"a": 1}, ValueError, r"fixed holds 'a', which is no vertex"),
        ({0: 1, 1: 0}, ValueError, r"fixed\[1\] is 0; a side must be \+1 or -1"),
        ({0: 2}, ValueError, r"fixed\[0\] is 2; a side must be \+1 or -1"),
        ({0: True}, ValueError, r"fixed\[0\] is True; a side must be \+1 or -1"),
        ({0: "+1"}, ValueError, r"fixed\[0\] is '\+1'; a side must be \+1 or -1"),
        ({0: None}, ValueError, r"fixed\[0\] is None; a side must be \+1 or -1"),
        ({0: math.nan}, ValueError, r"fixed\[0\] is nan; a side must be \+1 or -1"),
        ([0, 1], TypeError, r"fixed must be a mapping from vertices to \+1 or -1, not \[0, 1\]"),
        ({0}, TypeError, r"fixed must be a mapping from vertices to \+1 or -1, not \{0\}"),
    ],
    ids=str,
)
def test_bad_fixed(monkeypatch, fixed, error, message):
    forbid_work(monkeypatch)
    with pytest.raises(error, match=message):
        max_cut(TRIANGLE, fixed=fixed)


def forbid_work(monkeypatch):
    """Whatever is refused must be refused before the solver starts."""

    def fail(*_):
        raise AssertionError("work began")

    monkeypatch.setattr("derand_fast.maxcut._Solver.__init__", fail)
    monkeypatch.setattr("derand_fast.maxcut._compile_kernels", fail)


# --------------------------------------------------------------------------------------------------
# An initial cut beside fixed vertices
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("form", ["array", "set"])
def test_initial_cut_that_agrees_is_never_lost(turn, form):
    graph = torus_grid(16, 16, seed=3, weights="signs")
    fixed = {0: 1, 1: 1, 40: -1}
    best = solve(graph, fixed=fixed, sweeps=1000)
    signs = turn * best.partition
    initial = signs if form == "array" else set(np.flatnonzero(signs == 1).tolist())
    again = solve(graph, fixed=fixed, initial=initial, bound=False, time_limit=1e-9)
    assert again.cut_value >= best.cut_value
    assert all(again.partition[vertex] == side for vertex, side in fixed.items())


def test_initial_cut_that_contradicts(monkeypatch):
    forbid_work(monkeypatch)
    graph = nx.path_graph(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="does not have 'b' and 'd' on one side, where fixed puts"):
        max_cut(graph, fixed={"d": 1, "b": 1}, initial=[1, 1, 1, -1])
    with pytest.raises(ValueError, match="does not have 'a' and 'c' on two sides, where fixed"):
        max_cut(graph, fixed={"c": 1, "a": -1}, initial={"a", "c"})


# --------------------------------------------------------------------------------------------------
# Target
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["signs", "gaussian"])
def test_target_stops_the_search_as_soon_as_it_is_reached(weights):
    graph = torus_grid(20, 20, seed=5, weights=weights)
    best = solve(graph, sweeps=2000)
    # To the last bit, though the search sums in another order.
    result = solve(graph, sweeps=2000, target=best.cut_value)
    assert result.message == "target reached"
    assert result.cut_value == best.cut_value
    assert result.sweeps <= best.sweeps
    below = solve(graph, sweeps=2000, target=0.9 * best.cut_value)
    assert below.message == "target reached"
    assert 0.9 * best.cut_value <= below.cut_value
    assert below.sweeps < best.sweeps
    # Found before the first sweep, in whichever phase: then nothing is annealed.
    assert solve(graph, sweeps=2000, target=0.0).sweeps == 0


@pytest.mark.parametrize("weights", ["signs", "gaussian"])
def test_target_that_is_not_reached(weights):
    graph = torus_grid(20, 20, seed=5, weights=weights)
    best = solve(graph)
    missed = solve(graph, target=math.nextafter(best.cut_value, math.inf))
    assert missed.message == f"all {SWEEPS} sweeps done"
    assert bits_of(missed) == bits_of(best)


def test_target_same_bits_for_any_number_of_threads():
    graph = torus_grid(20, 20, seed=5, weights="gaussian")
    target = 0.99 * solve(graph, sweeps=2000).cut_value
    runs = [bits_of(solve(graph, sweeps=2000, target=target, n_threads=k)) for k in (1, 2, 3)]
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][1] >= target


def test_target_of_a_descent():
    graph = random_graph(60, 240, seed=1)
    best = max_cut(graph, method="newton-cg", n_threads=1)
    result = max_cut(graph, method="newton-cg", n_threads=1, target=best.cut_value)
    assert result.cut_value >= best.cut_value
    assert result.message == "target reached"


def test_target_counts_the_constant_of_fixed_vertices():
    graph = torus_grid(12, 12, seed=1, weights="gaussian")
    fixed = {0: -1, 1: -1, 2: 1, 77: 1}
    best = solve(graph, fixed=fixed)
    assert solve(graph, fixed=fixed, target=best.cut_value).message == "target reached"
    above = math.nextafter(best.cut_value, math.inf)
    assert solve(graph, fixed=fixed, target=above).message == f"all {SWEEPS} sweeps done"


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (math.nan, ValueError, "target must be finite.* got nan"),
        (math.inf, ValueError, "target must be finite.* got inf"),
        (-math.inf, ValueError, "target must be finite.* got -inf"),
        ("7", TypeError, "target must be a real number, not '7'"),
        (True, TypeError, "target must be a real number, not True"),
        (1j, TypeError, "target must be a real number, not 1j"),
    ],
    ids=str,
)
def test_bad_target(monkeypatch, target, error, message):
    forbid_work(monkeypatch)
    with pytest.raises(error, match=message):
        max_cut(TRIANGLE, target=target)


# --------------------------------------------------------------------------------------------------
# Effort
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effort", "sweeps"),
    [
        ("quick", 6000),
        ("normal", 30_000),
        ("thorough", 300_000),
        (1, 30_000),
        (0.5, 15_000),
        (np.float64(0.01), 300),
        (1e-9, 1),
    ],
)
def test_effort_is_a_number_of_sweeps(effort, sweeps):
    graph = nx.complete_graph(5)
    result = max_cut(graph, effort=effort, bound=False, n_threads=1)
    # Two searchers share the plan; an odd last sweep is left over.
    assert sweeps - 1 <= result.sweeps <= sweeps
    assert bits_of(result) == bits_of(max_cut(graph, sweeps=sweeps, bound=False, n_threads=2))


def test_effort_depends_on_the_size_of_the_graph(monkeypatch):
    # 5e9 updates of stored edges would take seconds: the same rule, a hundred-thousandth of it.
    monkeypatch.setattr("derand_fast.maxcut._NORMAL_EDGE_UPDATES", 1.2e4)
    monkeypatch.setattr("derand_fast.maxcut._NORMAL_SWEEPS", (2, 60))
    for n_edges, sweeps in ((20, 60), (500, 12), (1000, 6), (4000, 2)):
        graph = random_graph(100, n_edges, seed=1)
        assert solve(graph, effort="normal", bound=False).sweeps == sweeps
        assert solve(graph, effort="thorough", bound=False).sweeps == 10 * sweeps
        assert solve(graph, effort=2, bound=False).sweeps == 2 * sweeps
    assert solve(graph, sweeps=None, bound=False).sweeps == 2


def test_time_limit_ends_an_effort_early():
    graph = random_graph(1000, 4000, seed=1)
    assert solve(graph, effort=1e6, time_limit=0.1).message == "time limit reached"
    assert solve(graph, effort=0.001, time_limit=60.0).message == "all 30 sweeps done"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"effort": "fast"}, ValueError, "unknown effort 'fast'; choose one of quick, normal, th"),
        ({"effort": 0}, ValueError, "effort is 0; it must be positive and finite"),
        ({"effort": -1.0}, ValueError, r"effort is -1\.0; it must be positive and finite"),
        ({"effort": math.nan}, ValueError, "effort is nan; it must be positive and finite"),
        ({"effort": math.inf}, ValueError, "effort is inf; it must be positive and finite"),
        ({"effort": True}, TypeError, "effort must be one of .* or a number, not True"),
        ({"effort": []}, TypeError, r"effort must be one of .* or a number, not \[\]"),
        ({"effort": 1, "sweeps": 5}, ValueError, "effort is 1 and sweeps is 5; give one of them"),
        ({"effort": 1, "method": "pgd"}, ValueError, "effort is 1, but method 'pgd' has no ann"),
    ],
    ids=str,
)
def test_bad_effort(monkeypatch, options, error, message):
    forbid_work(monkeypatch)
    with pytest.raises(error, match=message):
        max_cut(TRIANGLE, **options)


# --------------------------------------------------------------------------------------------------
# The pool of different cuts
# --------------------------------------------------------------------------------------------------


class SlowPool:
    """Twin of DiversePool on plain lists."""

    def __init__(self, size, min_distance, anchor, symmetric):
        self.size, self.min_distance = size, min_distance
        self.anchor, self.symmetric = anchor, symmetric
        self.members = []

    def distance(self, one, other):
        moved = sum(a * one[self.anchor] != b * other[self.anchor] for a, b in zip(one, other))  # noqa: B905
        return min(moved, len(one) - moved) if self.symmetric else moved

    def offer(self, signs, value):
        if len(self.members) == self.size and value <= self.members[-1][0]:
            return
        near = [m for m in self.members if self.distance(signs, m[1]) < self.min_distance]
        if any(other >= value for other, _ in near):
            return
        members = [m for m in self.members if not any(m is other for other in near)]
        position = sum(other >= value for other, _ in members)
        members.insert(position, (value, [s * signs[self.anchor] for s in signs]))
        self.members = members[: self.size]


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 10).flatmap(
        lambda n: st.tuples(
            st.lists(
                st.tuples(
                    st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n), st.integers(0, 6)
                ),
                max_size=30,
            ),
            st.integers(0, n - 1),
        )
    ),
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
)
def test_pool_against_its_slow_twin(offers_and_anchor, size, min_distance, symmetric):
    offers, anchor = offers_and_anchor
    pool = DiversePool(size, min_distance, anchor, symmetric)
    twin = SlowPool(size, min_distance, anchor, symmetric)
    for signs, value in offers:
        wanted = len(twin.members) < size or value > twin.members[-1][0]
        assert pool.offer(signs_array(signs), float(value)) == wanted
        twin.offer(signs, value)
        assert [cut.tolist() for cut in pool.cuts()] == [signs for _, signs in twin.members]
        assert pool.full == (len(twin.members) == size)
        for level in range(7):
            full_of = pool.full and all(other >= level for other, _ in twin.members)
            assert pool.holds_only(float(level)) == full_of


# --------------------------------------------------------------------------------------------------
# Several solutions
# --------------------------------------------------------------------------------------------------


def moved(one, other):
    """Vertices to move from one cut to the other, whichever way round they are."""
    different = int((one != other).sum())
    return min(different, one.size - different)


def assert_solutions(result, graph, count, min_distance=1, distance=moved):
    assert 1 <= len(result.solutions) <= count
    first = result.solutions[0]
    assert first.cut_value == result.cut_value
    assert (first.partition == result.partition).all()
    values = [value for value, _ in result.solutions]
    assert values == sorted(values, reverse=True)
    for value, signs in result.solutions:
        assert value == exact_cut_value(graph, signs)
        assert signs.dtype == np.int8
        assert not signs.flags.writeable
    for one, other in itertools.combinations(result.solutions, 2):
        assert distance(one.partition, other.partition) >= min_distance


@pytest.mark.parametrize("min_distance", [1, 2, 5, 40])
@pytest.mark.parametrize("weights", ["signs", "gaussian"])
def test_solutions_are_good_and_different(weights, min_distance):
    graph = torus_grid(20, 20, seed=2, weights=weights)
    result = solve(graph, sweeps=1000, n_solutions=6, min_distance=min_distance)
    assert_solutions(result, graph, 6, min_distance)
    assert len(result.solutions) == 6
    # They come from anneals: far better than random cuts, whose mean is half of the total weight.
    half = graph.total_weight / 2
    assert result.solutions[-1].cut_value - half > 0.8 * (result.cut_value - half)


def test_one_solution_is_the_result():
    graph = torus_grid(8, 8, seed=2, weights="signs")
    result = solve(graph)
    assert len(result.solutions) == 1
    assert_solutions(result, graph, 1)
    assert solve(nx.empty_graph(3), n_solutions=4).solutions[0].cut_value == 0.0


@pytest.mark.parametrize("name", ["complete", "cycle", "tree", "weighted"])
def test_all_cuts_of_a_small_graph_if_so_many_are_asked_for(name):
    graph = as_graph(
        {
            "complete": nx.complete_graph(6),
            "cycle": nx.cycle_graph(6),
            "tree": nx.random_labeled_tree(6, seed=1),
            "weighted": (6, list(itertools.combinations(range(6), 2)), np.arange(-7.3, 7.0)),
        }[name]
    )
    result = solve(graph, n_solutions=40)
    assert_solutions(result, graph, 32)
    expected = sorted((float(exact(graph, signs)) for signs in every_cut(6, {})), reverse=True)
    assert [value for value, _ in result.solutions] == expected


def test_best_cuts_of_a_path_come_first():
    """Next to the one best cut of a path are those that lose one edge, then two."""
    values = [value for value, _ in solve(nx.path_graph(9), n_solutions=12).solutions]
    assert values == [8.0] + 8 * [7.0] + 3 * [6.0]


def test_search_goes_on_past_an_optimal_cut():
    """With one solution all is over before the first sweep."""
    one, six = (solve(nx.cycle_graph(6), n_solutions=k) for k in (1, 6))
    assert one.sweeps == 0
    assert one.message == "optimal: the cut equals its upper bound"
    # One best cut, and any two of the six edges may be the ones that are lost.
    assert [value for value, _ in six.solutions] == [6.0] + 5 * [4.0]
    assert six.message == "optimal: the cut equals its upper bound"
    assert six.sweeps == SWEEPS
    # Full of optimal cuts: it may end.
    full = solve(nx.disjoint_union_all([nx.path_graph(2)] * 12), n_solutions=5, sweeps=10**7)
    assert [value for value, _ in full.solutions] == 5 * [12.0]
    assert full.sweeps < 10**7


@pytest.mark.parametrize("weights", ["signs", "gaussian"])
def test_more_solutions_do_not_change_the_best(weights):
    graph = torus_grid(20, 20, seed=2, weights=weights)
    one, many = (solve(graph, n_solutions=k) for k in (1, 8))
    assert bits_of(one)[:-1] == bits_of(many)[:-1]
    assert len(many.solutions) == 8


@pytest.mark.parametrize("min_distance", [1, 3])
def test_solutions_same_bits_for_any_number_of_threads(min_distance):
    graph = random_graph(300, 900, seed=3)
    runs = [
        bits_of(solve(graph, n_solutions=20, min_distance=min_distance, n_threads=threads))
        for threads in (1, 2, 3)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_solutions_with_fixed_vertices():
    """Where a side is fixed, the cut with both sides exchanged is another one."""
    graph = weighted(6, 0.9, 1, DRAWS["integers"])
    fixed = {1: -1, 4: 1}
    result = solve(graph, fixed=fixed, n_solutions=16)
    assert_solutions(result, graph, 16, 1, distance=lambda one, other: (one != other).sum())
    expected = sorted((float(exact(graph, s)) for s in every_cut(6, fixed)), reverse=True)
    assert [value for value, _ in result.solutions] == expected
    for _, signs in result.solutions:
        assert all(signs[vertex] == side for vertex, side in fixed.items())


def test_distance_where_a_vertex_is_fixed():
    """Both ways round beside a fixed vertex without edges: five vertices apart, not one."""
    graph = as_graph((6, [(0, 1), (1, 2), (2, 3), (3, 4)], None))
    result = solve(graph, fixed={5: 1}, n_solutions=2, min_distance=5)
    assert [value for value, _ in result.solutions] == [4.0, 4.0]
    one, other = (signs for _, signs in result.solutions)
    assert one[5] == other[5] == 1
    assert (one[:5] == -other[:5]).all()
    # Where nothing is fixed it is one vertex indeed.
    assert len(solve(graph, n_solutions=2, min_distance=5).solutions) == 1


def test_far_apart_solutions_are_fewer():
    # Cuts of 6 vertices differ in 3 at most.
    result = solve(nx.complete_graph(6), n_solutions=10, min_distance=4)
    assert len(result.solutions) == 1
    assert result.cut_value == 9.0


def test_solutions_under_a_time_limit():
    graph = torus_grid(30, 30, seed=2, weights="signs")
    result = max_cut(graph, n_solutions=5, time_limit=0.3, n_threads=2)
    assert_solutions(result, as_graph(graph), 5)
    assert max_cut(graph, n_solutions=5, time_limit=1e-9).solutions


def test_target_ends_the_search_for_more_solutions():
    graph = torus_grid(20, 20, seed=2, weights="signs")
    result = solve(graph, n_solutions=50, target=1.0, sweeps=10**7)
    assert result.message == "target reached"
    assert result.sweeps < 10**7


def test_solutions_of_a_descent():
    graph = random_graph(40, 120, seed=1)
    result = max_cut(graph, method="pgd", n_solutions=3, n_threads=1)
    assert_solutions(result, graph, 3)
    assert len(result.solutions) == 3


def test_solutions_in_report_and_json():
    graph = torus_grid(8, 8, seed=2, weights="signs")
    result = solve(graph, n_solutions=3)
    answer = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert answer["solutions"] == [[value, signs.tolist()] for value, signs in result.solutions]
    assert f"others   2 different, down to {result.solutions[-1].cut_value:.0f}" in str(result)


@pytest.mark.parametrize("name", ["n_solutions", "min_distance"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "must be at least 1, got 0"),
        (-2, ValueError, "must be at least 1, got -2"),
        (1.5, TypeError, r"must be an integer, not 1\.5"),
        (True, TypeError, "must be an integer, not True"),
        (None, TypeError, "must be an integer, not None"),
    ],
)
def test_bad_counts(monkeypatch, name, value, error, message):
    forbid_work(monkeypatch)
    with pytest.raises(error, match=f"{name} {message}"):
        max_cut(TRIANGLE, **{name: value})


def test_balanced_cuts_are_not_offered():
    with pytest.raises(TypeError, match="balanced"):
        max_cut(TRIANGLE, balanced=True)
    assert "no balanced cuts" in max_cut.__doc__


def test_solutions_of_a_graph_that_is_eliminated():
    """A tree of 600 vertices leaves nothing to search; the other solutions are still made."""
    result = max_cut(nx.path_graph(600), n_solutions=20, sweeps=10)
    assert [solution.cut_value for solution in result.solutions[:2]] == [599.0, 598.0]
    assert len(result.solutions) == 20
