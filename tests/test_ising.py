"""Ising and QUBO problems, and dimod's models, as cuts: energies, samples, bounds, bad input."""

import copy
import itertools
import json
import math
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from derand_fast import max_cut
from derand_fast.graphs import as_graph
from derand_fast.ising import FIELD, IsingProblem, as_problem, from_dimod, from_ising, from_qubo

NAN, INF = math.nan, math.inf
SWEEPS = 100


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Whichever test comes first must not be the one that waits for the compiler."""
    max_cut((3, [(0, 1), (1, 2), (0, 2)], None))


def solve(problem, **options):
    options.setdefault("sweeps", SWEEPS)
    return max_cut(problem, n_threads=1, **options)


def energy_of(linear, quadratic, offset, sample):
    """Slow twin: the definition, as a fraction."""
    single = sum(Fraction(float(value)) * sample[i] for i, value in linear.items())
    double = sum(Fraction(float(v)) * sample[i] * sample[j] for (i, j), v in quadratic.items())
    return Fraction(float(offset)) + single + double


def every_sample(variables, values):
    for choice in itertools.product(values, repeat=len(variables)):
        yield dict(zip(variables, choice, strict=True))


def least_energy(linear, quadratic, offset, variables, values):
    return min(
        energy_of(linear, quadratic, offset, sample) for sample in every_sample(variables, values)
    )


DRAWS = {
    "integers": lambda rng: int(rng.integers(-9, 10)),
    "odd": lambda rng: int(2 * rng.integers(-4, 4) + 1),
    "signs": lambda rng: int(rng.choice([-1, 1])),
    "normal": lambda rng: float(rng.normal()),
    "tenths": lambda rng: int(rng.integers(-9, 10)) / 10,
}
LABELS = ["a", 7, (1, 2), 2.5, frozenset([1]), "b", -1, b"x", None]


def random_terms(n, seed, kind, *, fields):
    """Coefficients with both orders of some pairs, couplings of a variable to itself, and zeros."""
    rng = np.random.default_rng(seed)
    labels = LABELS[:n]
    pairs = [pair for pair in itertools.product(labels, repeat=2) if rng.random() < 0.5]
    quadratic = {pair: DRAWS[kind](rng) for pair in pairs}
    linear = {label: DRAWS[kind](rng) for label in labels if fields and rng.random() < 0.7}
    return linear, quadratic, DRAWS[kind](rng)


def assert_solved(result, problem, linear, quadratic, offset, values):
    """Whatever holds for a small problem that was solved to optimality."""
    variables = problem.variables
    best = least_energy(linear, quadratic, offset, variables, values)
    assert tuple(result.sample) == variables
    assert set(result.sample.values()) <= set(values)
    # Correctly rounded: the float next to the exact value.
    assert result.energy == float(energy_of(linear, quadratic, offset, result.sample))
    assert result.energy == problem.energy(result.sample)
    # No tolerance: the bound must hold to the last bit.
    assert Fraction(result.energy_lower_bound) <= best
    # Two samples whose energies differ by rounding: the search may take either.
    total = sum(abs(v) for v in [*linear.values(), *quadratic.values(), offset])
    assert abs(Fraction(result.energy) - best) <= 1e-14 * total
    spins = [result.sample[label] for label in variables]
    assert result.spins.tolist() == [1 if value == 1 else -1 for value in spins]
    assert result.spins.dtype == np.int8
    assert problem.partition(result.sample).tolist() == result.partition.tolist()
    assert problem.sample(result.partition) == result.sample


# --------------------------------------------------------------------------------------------------
# Against brute force
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("fields", [True, False])
def test_ising_against_brute_force(kind, fields):
    for n in range(1, 10):
        h, J, offset = random_terms(n, n, kind, fields=fields)
        problem = from_ising(h, J, offset)
        result = solve(problem, seed=n, bound="proof" if n % 2 else True)
        assert_solved(result, problem, h, J, offset, (-1, 1))


@pytest.mark.parametrize("kind", DRAWS)
def test_qubo_against_brute_force(kind):
    for n in range(1, 10):
        _, Q, offset = random_terms(n, 50 + n, kind, fields=False)
        problem = from_qubo(Q, offset)
        result = solve(problem, seed=n)
        assert_solved(result, problem, {}, Q, offset, (0, 1))


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_twelve_variables(vartype):
    rng = np.random.default_rng(3)
    matrix = rng.integers(-5, 6, (12, 12))
    problem = from_qubo(matrix) if vartype == "BINARY" else from_ising(np.zeros(12), matrix)
    codes = np.arange(2**12)[:, None] >> np.arange(12) & 1
    values = codes if vartype == "BINARY" else 2 * codes - 1
    energies = np.einsum("si,ij,sj->s", values, matrix, values)
    result = solve(problem, sweeps=1000)
    assert result.energy == energies.min()
    assert result.energy_lower_bound <= energies.min()


def test_every_cut_is_a_sample_of_its_energy():
    """Integers: E = E(all up) - 2 cut for spins, - cut / 2 for bits, without rounding."""
    for seed, (vartype, values) in enumerate({"SPIN": (1, -1), "BINARY": (1, 0)}.items()):
        h, J, offset = random_terms(6, seed, "integers", fields=vartype == "SPIN")
        problem = from_ising(h, J, offset) if vartype == "SPIN" else from_qubo(J, offset)
        matrix = problem.graph.to_scipy().toarray()
        factor = 2 if vartype == "SPIN" else Fraction(1, 2)
        top = energy_of(h, J, offset, dict.fromkeys(problem.variables, 1))
        for sample in every_sample(problem.variables, values):
            signs = problem.partition(sample).astype(int)
            cut = Fraction(float((matrix * (1 - np.outer(signs, signs))).sum() / 4))
            assert energy_of(h, J, offset, sample) == top - factor * cut
            assert problem.sample(problem.partition(sample)) == sample
            assert problem.sample(-problem.partition(sample)) == (
                sample if FIELD in problem.graph.labels else {k: -v for k, v in sample.items()}
            )


COEFFICIENTS = st.one_of(
    st.integers(-9, 9),
    st.integers(-9, 9).map(lambda k: k / 10),
    st.integers(-9, 9).map(lambda k: k / 10 * 2.0**40),
)


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), COEFFICIENTS, max_size=12),
    st.dictionaries(st.integers(0, 4), COEFFICIENTS),
    COEFFICIENTS,
    st.booleans(),
)
def test_energies_are_enclosed(quadratic, linear, offset, spins):
    values = (-1, 1) if spins else (0, 1)
    if spins:
        problem = from_ising(linear, quadratic, offset)
    else:
        linear, problem = {}, from_qubo(quadratic, offset)
    result = solve(problem, sweeps=20)
    best = least_energy(linear, quadratic, offset, problem.variables, values)
    assert Fraction(result.energy_lower_bound) <= best
    assert float(best) <= result.energy
    assert result.energy == float(energy_of(linear, quadratic, offset, result.sample))


def test_rounding_term_of_the_energy_bound_is_needed():
    """The bound of the graph itself, carried over by plain arithmetic, is too high at times."""
    needed = 0
    for a, b, c in itertools.product((0.1, 0.3, 0.7, 1e-17), repeat=3):
        Q = {(0, 0): -a, (0, 1): -b, (1, 0): -c, (1, 1): -0.1}
        problem = from_qubo(Q, 0.1)
        best = least_energy({}, Q, 0.1, problem.variables, (0, 1))
        # All weights are positive or all edges can be cut: the largest cut, in plain floats.
        graph = problem.graph
        tails, heads, weights = graph.edges()
        cuts = [
            math.fsum(w for i, j, w in zip(tails, heads, weights, strict=True) if s[i] != s[j])
            for s in itertools.product((1, -1), repeat=graph.n_vertices)
        ]
        plain = math.fsum([0.1, *Q.values()]) - 0.5 * max(cuts)
        needed += Fraction(plain) > best
        assert Fraction(problem.lower_bound(max(cuts))) <= best
    assert needed > 0


def test_bound_knows_of_coefficients_that_cancel():
    """0.3 x_0 x_1 is lost between large terms: the graph has no edge, the energies differ."""
    terms = scipy.sparse.coo_array(([1e16, 0.3, -1e16], ([0, 0, 0], [1, 1, 1])), shape=(2, 2))
    problem = from_qubo(terms)
    assert problem.graph.n_edges == 0
    assert (problem.energy([1, 1]), problem.energy([0, 1])) == (0.3, 0.0)
    assert solve(problem).energy_lower_bound <= 0.0


def test_bound_of_integers_is_rounded_up():
    problem = from_qubo({(0, 0): -1, (0, 1): 3})
    assert problem.lower_bound(2.0) == -1.0 + 3.0 - 1.0
    assert problem.lower_bound(1.0) == 2.0  # half of an odd cut makes no energy: not 1.5
    # An offset only shifts, and its rounding goes down.
    for offset in (0.1, 0.3, 1e-17, -0.7, 2.0**60):
        shifted = from_qubo({(0, 0): -1, (0, 1): 3}, offset)
        least = Fraction(offset) + 2
        assert Fraction(shifted.lower_bound(1.0)) <= least
        assert Fraction(math.nextafter(shifted.lower_bound(1.0), INF)) > least


# --------------------------------------------------------------------------------------------------
# Where there is a vertex of the fields, and where not
# --------------------------------------------------------------------------------------------------


def test_fields_take_one_more_vertex():
    problem = from_ising({"a": 1.0}, {("a", "b"): -2.0})
    assert problem.graph.labels == (FIELD, "a", "b")
    result = solve(problem)
    assert (result.energy, result.sample) == (-3.0, {"a": -1, "b": -1})
    assert result.sets == (frozenset([FIELD]), frozenset(["a", "b"]))
    assert result.partition.tolist() == [1, -1, -1]


@pytest.mark.parametrize("h", [{}, {"a": 0.0, "b": 0}])
def test_without_fields_there_is_none(h):
    problem = from_ising(h, {("a", "b"): -2.0})
    assert problem.graph.labels == ("a", "b")
    result = solve(problem)
    assert (result.energy, result.sample) == (-2.0, {"a": 1, "b": 1})


def test_fields_of_a_qubo_that_cancel():
    # x_0 + x_1 - 2 x_0 x_1 = 1 where the bits differ: no bit prefers a side.
    problem = from_qubo({(0, 0): 1, (1, 1): 1, (0, 1): -2})
    assert problem.graph.n_vertices == 2
    assert problem.graph.labels is None
    result = solve(problem)
    assert result.energy == result.energy_lower_bound == 0.0
    assert result.sample[0] == result.sample[1]


def test_fields_alone():
    result = solve(from_ising([1.0, -2.0, 0.0], {}))
    assert (result.energy, result.energy_lower_bound) == (-3.0, -3.0)
    assert result.sample[0] == -1
    assert result.sample[1] == 1


# --------------------------------------------------------------------------------------------------
# Forms of input
# --------------------------------------------------------------------------------------------------


def terms_of(problem):
    """All that determines the energies and the search."""
    graph = problem.graph
    return (
        problem.vartype,
        problem.variables,
        problem.linear.tolist(),
        problem.offset,
        graph.indptr.tolist(),
        graph.indices.tolist(),
        graph.weights.tolist(),
        graph.labels,
    )


def test_same_problem_from_every_form_of_couplings():
    h, J = [1, 0, -2], [[0, 1, 2], [0, 0, 3], [4, 0, 0]]
    as_dict = {(0, 1): 1, (2, 0): 4, (1, 2): 3, (0, 2): 2}
    forms = [
        from_ising(h, J),
        from_ising(np.array(h), np.array(J)),
        from_ising(np.array(h, np.int8), np.array(J, np.float32)),
        from_ising({0: 1, 2: -2}, np.array(J)),
        from_ising(h, scipy.sparse.csr_array(J)),
        from_ising(h, scipy.sparse.coo_matrix(J)),
        from_ising(h, scipy.sparse.dok_array(np.array(J))),
        from_ising(h, as_dict),
        from_ising({0: 1, 1: 0, 2: -2}, as_dict),
    ]
    assert all(terms_of(form) == terms_of(forms[0]) for form in forms)
    assert forms[0].energy([1, 1, -1]) == 1 + 2 + 1 - 2 - 3 - 4


def test_same_problem_from_every_form_of_a_qubo():
    Q = [[-1, 2, 0], [1, 5, 0], [0, -3, 0]]
    entries = {(i, j): Q[i][j] for i, j in itertools.product(range(3), repeat=2)}
    forms = [
        from_qubo(Q),
        from_qubo(np.array(Q)),
        from_qubo(scipy.sparse.csc_array(Q)),
        from_qubo(entries),
    ]
    assert all(terms_of(form) == terms_of(forms[0]) for form in forms)
    assert forms[0].energy([1, 1, 0]) == -1 + 5 + 2 + 1


def test_sparse_matrix_with_repeated_entries():
    twice = scipy.sparse.coo_array(([1.5, 2.0], ([0, 0], [1, 1])), shape=(2, 2))
    assert from_qubo(twice).energy([1, 1]) == 3.5


def test_asymmetric_and_symmetric_matrices():
    """All entries count, so only the sum of both orders matters."""
    upper = from_qubo([[1, 4], [0, 1]])
    assert terms_of(upper) == terms_of(from_qubo([[1, 2], [2, 1]]))
    assert terms_of(upper) == terms_of(from_qubo([[1, 1], [3, 1]]))
    assert from_ising([0, 0], [[0, 1], [1, 0]]).energy([1, 1]) == 2.0


def test_couplings_of_a_spin_to_itself_are_constants():
    problem = from_ising({}, {("a", "a"): 5.0, ("a", "b"): 1.0}, 0.5)
    assert problem.graph.n_edges == 1
    assert solve(problem).energy == 4.5
    assert {problem.energy([1, s]) for s in (1, -1)} == {6.5, 4.5}


def test_order_of_variables():
    problem = from_ising({"z": 1, "y": 2}, {("x", "y"): 1, ("z", "w"): 1})
    assert problem.variables == ("z", "y", "x", "w")
    assert from_qubo({(2, 1): 1, (0, 0): 1}).variables == (2, 1, 0)


@pytest.mark.parametrize(
    "problem",
    [
        from_ising({}, {}, 2.5),
        from_ising([], np.zeros((0, 0)), 2.5),
        from_qubo({}, 2.5),
        from_qubo(np.zeros((0, 0)), 2.5),
    ],
)
def test_empty_problems(problem):
    result = solve(problem)
    assert (result.energy, result.energy_lower_bound, result.sample) == (2.5, 2.5, {})
    assert result.spins.size == 0
    assert solve(problem, bound=False).energy_lower_bound is None


@pytest.mark.parametrize("problem", [from_ising([0, 0], {}, -1), from_qubo(np.zeros((2, 2)), -1)])
def test_problems_without_coefficients(problem):
    result = solve(problem)
    assert (result.energy, result.energy_lower_bound) == (-1.0, -1.0)
    assert len(result.sample) == 2


def test_one_variable():
    assert solve(from_qubo({("x", "x"): -3})).sample == {"x": 1}
    assert solve(from_qubo({("x", "x"): 3})).sample == {"x": 0}
    assert solve(from_ising({"x": 3}, {})).sample == {"x": -1}


def test_problems_are_copied_and_shown():
    problem = from_ising({"a": 1.0}, {("a", "b"): -2.0}, 3)
    assert repr(problem) == "IsingProblem(SPIN, n_variables=2, n_couplings=1, offset=3.0)"
    for twin in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert terms_of(twin) == terms_of(problem)
        assert twin.graph.labels[0] is FIELD
    assert str(FIELD) == repr(FIELD) == "FIELD"


# --------------------------------------------------------------------------------------------------
# dimod
# --------------------------------------------------------------------------------------------------


def fake_model(vartype, linear, quadratic, offset):
    return SimpleNamespace(
        vartype=SimpleNamespace(name=vartype), linear=linear, quadratic=quadratic, offset=offset
    )


@pytest.mark.parametrize(("vartype", "values"), [("SPIN", (-1, 1)), ("BINARY", (0, 1))])
def test_what_looks_like_a_dimod_model(vartype, values):
    rng = np.random.default_rng(4)
    linear = {label: int(rng.integers(-5, 6)) for label in "abcdef"}
    quadratic = {pair: float(rng.normal()) for pair in itertools.combinations("abcdef", 2)}
    model = fake_model(vartype, linear, quadratic, 1.5)
    assert_solved(solve(model), from_dimod(model), linear, quadratic, 1.5, values)


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, object])
def test_dimod_models(vartype, dtype):
    dimod = pytest.importorskip("dimod")
    rng = np.random.default_rng(5)
    model = dimod.BinaryQuadraticModel(vartype, dtype=dtype)
    for label in ("a", 3, (0, 1), "b", "c"):
        model.add_variable(label, float(rng.integers(-5, 6)))
    for one, other in itertools.combinations(list(model.variables), 2):
        model.add_interaction(one, other, float(rng.integers(-5, 6)))
    model.offset = 2.0
    result = solve(model)
    best = dimod.ExactSolver().sample(model).first
    assert result.energy == best.energy == model.energy(result.sample)
    assert result.energy_lower_bound <= best.energy
    assert from_dimod(model).variables == tuple(model.variables)
    assert solve(model, initial=best.sample, fixed={"a": best.sample["a"]}).energy == best.energy


@pytest.mark.parametrize(
    "model",
    [
        3,
        "SPIN",
        fake_model("INTEGER", {}, {}, 0.0),
        SimpleNamespace(vartype=SimpleNamespace(name="SPIN"), linear={}),
    ],
)
def test_what_does_not(model):
    with pytest.raises(TypeError, match="expected a dimod BinaryQuadraticModel, not"):
        from_dimod(model)
    assert as_problem(model) is None


def test_other_dimod_models_are_refused():
    dimod = pytest.importorskip("dimod")
    for model in (dimod.QuadraticModel(), dimod.ConstrainedQuadraticModel()):
        with pytest.raises(TypeError, match=r"expected a CSRGraph, .* not"):
            max_cut(model)


# --------------------------------------------------------------------------------------------------
# Options of max_cut in the problem's terms
# --------------------------------------------------------------------------------------------------


def example(vartype, *, n=9, kind="integers", seed=0):
    rng = np.random.default_rng(seed)
    draw = DRAWS[kind]
    quadratic = {pair: draw(rng) for pair in itertools.combinations(range(n), 2)}
    linear = {i: draw(rng) for i in range(n)}
    if vartype == "SPIN":
        return from_ising(linear, quadratic, 1), linear, quadratic
    return from_qubo(quadratic | {(i, i): v for i, v in linear.items()}, 1), linear, quadratic


@pytest.mark.parametrize(("vartype", "values"), [("SPIN", (-1, 1)), ("BINARY", (0, 1))])
def test_fixed_variables(vartype, values):
    problem, linear, quadratic = example(vartype)
    for fixed in ({2: 1}, {0: values[0], 4: 1, 8: values[0]}):
        result = solve(problem, fixed=fixed)
        allowed = [
            energy_of(linear, quadratic, 1, sample)
            for sample in every_sample(range(9), values)
            if all(sample[i] == value for i, value in fixed.items())
        ]
        assert all(result.sample[i] == value for i, value in fixed.items())
        assert result.energy == min(allowed)
        assert result.energy_lower_bound <= min(allowed)
        assert result.partition[0] == 1  # the vertex of the fields
    everything = solve(problem, fixed=dict.fromkeys(range(9), values[0]))
    down = energy_of(linear, quadratic, 1, dict.fromkeys(range(9), values[0]))
    assert everything.energy == everything.energy_lower_bound == down


def test_fixed_variables_without_fields():
    result = solve(from_ising({}, {("a", "b"): 1, ("b", "c"): 1}), fixed={"b": -1})
    assert result.sample == {"a": 1, "b": -1, "c": 1}


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("kind", ["integers", "normal"])
def test_target_is_an_energy(vartype, kind):
    problem, _, _ = example(vartype, n=40, kind=kind)
    best = solve(problem, sweeps=400)
    reached = solve(problem, sweeps=400, target=best.energy)
    assert reached.message == "target reached"
    # Reached to rounding: coefficients are added up where they belong to one weight.
    assert reached.energy <= best.energy + 1e-12 * abs(best.energy)
    assert reached.sweeps <= best.sweeps
    beyond = solve(problem, sweeps=400, target=best.energy - 0.25)
    assert beyond.message == "all 400 sweeps done"


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_initial_is_a_sample(vartype):
    problem, _, _ = example(vartype, n=60, kind="signs")
    best = solve(problem, sweeps=1000)
    values = list(best.sample.values())
    for initial in (best.sample, values, np.array(values), tuple(values)):
        again = solve(problem, initial=initial, sweeps=None, time_limit=1e-9, bound=False)
        assert again.energy <= best.energy


def test_solutions_as_samples():
    problem, linear, quadratic = example("BINARY", n=5)
    result = solve(problem, n_solutions=100)
    samples = [problem.sample(partition) for _, partition in result.solutions]
    energies = [problem.energy(sample) for sample in samples]
    everything = [energy_of(linear, quadratic, 1, s) for s in every_sample(range(5), (0, 1))]
    # With fields, samples that differ everywhere are two samples.
    assert energies == sorted(map(float, everything))
    assert len({tuple(sample.items()) for sample in samples}) == 32


def test_report_and_json():
    problem = from_ising({"a": 1.0}, {("a", "b"): -2.0})
    result = solve(problem)
    assert "energy   -3  (no less than -3)\n" in str(result)
    answer = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert answer["sample"] == [["a", -1], ["b", -1]]
    assert (answer["energy"], answer["energy_lower_bound"]) == (-3.0, -3.0)
    assert answer["sets"] == [["FIELD"], ["a", "b"]]
    assert "energy   -3\n" in str(solve(problem, bound=False))


def test_graphs_have_no_energy():
    result = max_cut(as_graph((2, [(0, 1)], None)))
    assert result.energy is result.energy_lower_bound is result.sample is result.spins is None


def test_same_bits_for_any_number_of_threads():
    problem, _, _ = example("SPIN", n=40, kind="normal")
    runs = [max_cut(problem, sweeps=200, n_threads=threads) for threads in (1, 2, 3)]
    numbers = {(run.energy, run.energy_lower_bound, tuple(run.sample.items())) for run in runs}
    assert len(numbers) == 1


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: from_ising({"a": NAN}, {}), ValueError, r"h\['a'\] is nan; it must be finite"),
        (lambda: from_ising([0, INF], {}), ValueError, r"h\[1\] is inf; it must be finite"),
        (lambda: from_ising({}, {(0, 1): -INF}), ValueError, r"J\[\(0, 1\)\] is -inf"),
        (lambda: from_qubo([[0, NAN], [0, 0]]), ValueError, r"Q\[\(0, 1\)\] is nan"),
        (lambda: from_qubo(np.zeros((2, 3))), ValueError, r"Q must be .* shape is \(2, 3\)"),
        (lambda: from_qubo([1, 2]), ValueError, r"Q must be a mapping or a square matrix"),
        (lambda: from_qubo(scipy.sparse.csr_array((2, 3))), ValueError, r"shape is \(2, 3\)"),
        (lambda: from_qubo([[1, 2], [3]]), ValueError, r"Q is no array"),
        (lambda: from_qubo(3), ValueError, r"Q must be a mapping or a square matrix"),
        (lambda: from_qubo("Q"), ValueError, r"Q must be a mapping or a square matrix"),
        (lambda: from_ising([[1]], {}), ValueError, r"h must be a mapping or one row"),
        (lambda: from_ising(None, {}), ValueError, r"h must be a mapping or one row"),
        (lambda: from_ising([1], np.zeros((2, 2))), ValueError, r"h has 1 entries, but J is 2 x 2"),
        (lambda: from_ising({5: 1}, np.zeros((2, 2))), ValueError, r"h holds 5, which is no var"),
        (lambda: from_ising([1], {(0, 1): 1}), ValueError, r"J holds 1, which is no variable"),
        (lambda: from_ising({}, {"ab": 1}), ValueError, r"J holds 'ab', which is no pair"),
        (lambda: from_ising({}, {("a", "b", "c"): 1}), ValueError, r"J holds .* no pair"),
        (lambda: from_qubo({0: 1}), ValueError, r"Q holds 0, which is no pair of variables"),
        (lambda: from_qubo({(0, 1): 1j}), TypeError, r"Q must hold real numbers, not complex128"),
        (lambda: from_qubo({(0, 1): "1"}), TypeError, r"Q must hold real numbers"),
        (lambda: from_ising({0: None}, {}), TypeError, r"h must hold real numbers, not object"),
        (lambda: from_qubo(np.eye(2) * 1j), TypeError, r"Q must hold real numbers"),
        (lambda: from_qubo(np.ma.array(np.eye(2))), TypeError, r"Q is a masked array"),
        (lambda: from_qubo({}, NAN), ValueError, r"offset must be finite.* got nan"),
        (lambda: from_qubo({}, "1"), TypeError, r"offset must be a real number, not '1'"),
        (lambda: from_qubo({(0, 1): 1e308}), ValueError, r"coefficients are too large"),
        (lambda: from_ising({}, {(0, 0): 1.7e308, (1, 1): 1.7e308}), ValueError, r"too large"),
    ],
)
def test_bad_coefficients(build, error, message):
    with pytest.raises(error, match=message):
        build()


PROBLEM = from_ising({"a": 1}, {("a", "b"): 1})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fixed": {"c": 1}}, ValueError, r"fixed holds 'c', which is no variable"),
        ({"fixed": {FIELD: 1}}, ValueError, r"fixed holds FIELD, which is no variable"),
        ({"fixed": {"a": 0}}, ValueError, r"fixed\['a'\] is 0; it must be 1 or -1"),
        ({"fixed": ["a"]}, TypeError, r"fixed must be a mapping from variables to values"),
        ({"fixed": []}, TypeError, r"fixed must be a mapping from variables to values"),
        ({"initial": {"a": 1}}, ValueError, r"sample holds no value for 'b'"),
        ({"initial": {"a": 1, "b": 1, "c": 1}}, ValueError, r"sample holds 'c', which is no var"),
        ({"initial": [1, 1, 1]}, ValueError, r"sample holds 3 values; one for each of the 2"),
        ({"initial": [1, 0]}, ValueError, r"sample\['b'\] is 0; it must be 1 or -1"),
        ({"initial": [1, NAN]}, ValueError, r"sample\['b'\] is nan; it must be 1 or -1"),
        ({"weight": "w"}, ValueError, r"weight='w' names a networkx edge attribute"),
        (
            {"fixed": {"a": 1, "b": 1}, "initial": [1, -1]},
            ValueError,
            r"does not have FIELD and 'b' on one side, where fixed puts them",
        ),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        solve(PROBLEM, **options)


def test_bits_are_not_spins():
    problem = from_qubo({("a", "b"): 1})
    with pytest.raises(ValueError, match=r"fixed\['a'\] is -1; it must be 1 or 0"):
        solve(problem, fixed={"a": -1})
    with pytest.raises(ValueError, match=r"sample\['b'\] is -1; it must be 1 or 0"):
        problem.energy({"a": 1, "b": -1})
    with pytest.raises(ValueError, match=r"partition has shape \(2,\); one sign for each of the 3"):
        problem.sample(np.ones(2, np.int8))


def test_is_what_it_says():
    assert isinstance(PROBLEM, IsingProblem)
    assert as_problem(PROBLEM) is PROBLEM
