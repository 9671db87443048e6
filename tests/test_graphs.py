"""Every kind of input must give the same CSR arrays, and bad input a message that says why."""

import contextlib
import copy
import doctest
import gzip
import pickle
import warnings
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from derand_fast import graphs, readers
from derand_fast.graphs import CSRGraph, as_graph

# A triangle 0-1-2 with a pendant path to 3; vertex 4 is isolated.
N = 5
EDGES = [(0, 1), (2, 0), (1, 2), (2, 3)]
WEIGHTS = [1.5, -2.0, 3.0, 0.25]
INDPTR = [0, 2, 4, 7, 8, 8]
INDICES = [1, 2, 0, 2, 0, 1, 3, 2]
STORED = [1.5, -2.0, 1.5, 3.0, -2.0, 3.0, 0.25, 0.25]


def assert_invariants(graph):
    assert graph.indices.dtype == np.int32
    assert graph.indptr.dtype == np.int32
    assert graph.weights.dtype == np.float64
    for array in (graph.indptr, graph.indices, graph.weights):
        assert array.flags.c_contiguous
        assert not array.flags.writeable
    assert np.all(graph.weights != 0)
    for row in range(graph.n_vertices):
        neighbours = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
        assert np.all(np.diff(neighbours) > 0)
        assert row not in neighbours
    matrix = graph.to_scipy()
    assert (matrix != matrix.T).nnz == 0


def assert_same(graph, other):
    assert np.array_equal(graph.indptr, other.indptr)
    assert np.array_equal(graph.indices, other.indices)
    assert np.array_equal(graph.weights, other.weights)


def assert_example(graph):
    assert_invariants(graph)
    assert graph.indptr.tolist() == INDPTR
    assert graph.indices.tolist() == INDICES
    assert graph.weights.tolist() == STORED


def naive_weights(n, edges, weights):
    """Slow twin: a dictionary of the summed edge weights."""
    total = {}
    for (u, v), w in zip(edges, weights, strict=True):
        if u != v and w != 0:
            key = (min(u, v), max(u, v))
            total[key] = total.get(key, 0.0) + w
    return {key: w for key, w in total.items() if w != 0}


def example_networkx():
    graph = nx.Graph()
    graph.add_nodes_from(range(N))
    graph.add_weighted_edges_from([(u, v, w) for (u, v), w in zip(EDGES, WEIGHTS, strict=True)])
    return graph


def example_matrix():
    matrix = np.zeros((N, N))
    for (u, v), w in zip(EDGES, WEIGHTS, strict=True):
        matrix[u, v] = matrix[v, u] = w
    return matrix


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rudy_text():
    rows = [f"{u + 1} {v + 1} {w}" for (u, v), w in zip(EDGES, WEIGHTS, strict=True)]
    return "\n".join([f"{N} {len(EDGES)}", *rows]) + "\n"


# --------------------------------------------------------------------------------------------------
# One graph, all kinds of input
# --------------------------------------------------------------------------------------------------


def test_tuple_by_hand():
    graph = as_graph((N, EDGES, WEIGHTS))
    assert_example(graph)
    assert (graph.n_vertices, graph.n_edges, graph.total_weight) == (5, 4, 2.75)
    assert graph.labels is None
    assert not graph.integral
    assert "n_vertices=5" in repr(graph)


def test_edges_come_once_in_row_order():
    tails, heads, weights = as_graph((N, EDGES, WEIGHTS)).edges()
    assert tails.tolist() == [0, 0, 1, 2]
    assert heads.tolist() == [1, 2, 2, 3]
    assert weights.tolist() == [1.5, -2.0, 3.0, 0.25]


def test_networkx_and_dense():
    graph = as_graph(example_networkx())
    assert_example(graph)
    assert graph.labels is None
    assert_example(as_graph(example_matrix()))
    assert_example(as_graph(np.asfortranarray(example_matrix())))
    assert_example(as_graph(example_matrix().astype(np.float32)))


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok", "dia", "bsr"])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
def test_sparse_formats(layout, kind):
    matrix = kind(example_matrix()).asformat(layout)
    before = matrix.toarray()
    assert_example(as_graph(matrix))
    assert np.array_equal(matrix.toarray(), before)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_rudy_file(tmp_path, ending, kind):
    path = write(tmp_path / f"graph.txt{ending}", rudy_text())
    graph = as_graph(kind(path))
    assert_example(graph)
    assert graph.labels is None


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("symmetry", ["symmetric", "general"])
@pytest.mark.parametrize("dense", [False, True])
def test_matrix_market_file(tmp_path, ending, symmetry, dense):
    target = tmp_path / "graph.mtx"
    matrix = example_matrix()
    scipy.io.mmwrite(target, matrix if dense else scipy.sparse.coo_array(matrix), symmetry=symmetry)
    assert_example(as_graph(write(tmp_path / f"copy.MTX{ending}", target.read_bytes())))
    # The banner decides where the suffix does not.
    assert_example(as_graph(write(tmp_path / f"copy.txt{ending}", target.read_bytes())))


def test_matrix_market_pattern(tmp_path):
    text = "%%MatrixMarket matrix coordinate pattern symmetric\n% a note\n3 3 2\n2 1\n3 2\n"
    assert_same(as_graph(write(tmp_path / "p.mtx", text)), as_graph(nx.path_graph(3)))


@pytest.mark.parametrize(
    ("suffix", "delimiter"),
    [(".edges", " "), (".edgelist", "\t"), (".edges", ","), (".csv", ", "), (".tsv", "\t")],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_edge_list_file(tmp_path, suffix, delimiter, ending, newline):
    rows = [
        delimiter.join((str(u), str(v), str(w))) for (u, v), w in zip(EDGES, WEIGHTS, strict=True)
    ]
    text = newline.join(["# comment", *rows[:2], "", "% comment", *rows[2:]])
    graph = as_graph(write(tmp_path / f"graph{suffix}{ending}", text))
    assert graph.labels is None
    # The isolated vertex does not occur in a list of edges.
    assert_same(graph, as_graph((N - 1, EDGES, WEIGHTS)))


def test_csr_graph_passes_through():
    graph = as_graph((N, EDGES, WEIGHTS))
    assert as_graph(graph) is graph


# --------------------------------------------------------------------------------------------------
# networkx particulars
# --------------------------------------------------------------------------------------------------


def test_mixed_labels_keep_their_order():
    graph = nx.Graph()
    graph.add_nodes_from([(2, 3), "a", 1, frozenset({5})])
    graph.add_edge("a", 1, weight=7)
    graph.add_edge(frozenset({5}), (2, 3))
    converted = as_graph(graph)
    assert converted.labels == ((2, 3), "a", 1, frozenset({5}))
    tails, heads, weights = converted.edges()
    assert tails.tolist() == [0, 1]
    assert heads.tolist() == [3, 2]
    assert weights.tolist() == [1.0, 7.0]


@pytest.mark.parametrize("nodes", [[1, 0], [1, 2], [False, True], [0.0, 1.0], ["0", "1"]])
def test_labels_other_than_the_identity_are_kept(nodes):
    graph = nx.Graph()
    graph.add_nodes_from(nodes)
    labels = as_graph(graph).labels
    assert list(labels) == nodes
    assert list(map(type, labels)) == list(map(type, nodes))


def test_weight_attribute():
    graph = nx.Graph()
    graph.add_edge(0, 1, weight=3, cost=5)
    graph.add_edge(1, 2)
    assert as_graph(graph).total_weight == 4
    assert as_graph(graph, weight="cost").total_weight == 6
    assert as_graph(graph, weight=None).total_weight == 2


def test_multigraph_edges_add_up():
    graph = nx.MultiGraph()
    graph.add_edge("a", "b", weight=2)
    graph.add_edge("b", "a", weight=3)
    graph.add_edge("b", "c", weight=1)
    graph.add_edge("c", "b", weight=-1)
    converted = as_graph(graph)
    assert converted.labels == ("a", "b", "c")
    assert converted.n_edges == 1
    assert converted.total_weight == 5
    assert as_graph(graph, weight=None).weights.tolist() == [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, np.int8(1), np.float32(1), np.bool_(True), Fraction(1, 1)]
)
def test_real_weight_types(value):
    graph = nx.Graph()
    graph.add_edge(0, 1, weight=value)
    assert as_graph(graph).weights.tolist() == [1.0, 1.0]


def test_graph_views():
    graph = nx.complete_graph(6).subgraph([0, 1, 2])
    assert as_graph(graph).n_edges == 3


# --------------------------------------------------------------------------------------------------
# Small, empty, merged, dropped
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_no_edges(n, tmp_path):
    kinds = [
        (n, [], None),
        (n, np.zeros((0, 2)), []),
        nx.empty_graph(n),
        np.zeros((n, n)),
        scipy.sparse.csr_array((n, n)),
        write(tmp_path / "empty.txt", f"{n} 0\n"),
        write(tmp_path / "m.mtx", f"%%MatrixMarket matrix coordinate real general\n{n} {n} 0\n"),
    ]
    for kind in kinds:
        graph = as_graph(kind)
        assert_invariants(graph)
        assert graph.indptr.tolist() == [0] * (n + 1)
        assert (graph.n_vertices, graph.n_edges, graph.total_weight) == (n, 0, 0.0)
        assert graph.integral
        assert graph.to_scipy().shape == (n, n)


def test_zero_weights_and_cancelling_edges_are_dropped():
    graph = as_graph((4, [(0, 1), (1, 2), (2, 1), (2, 3)], [0.0, 2.0, -2.0, -0.0]))
    assert_invariants(graph)
    assert graph.n_edges == 0


def test_parallel_edges_add_in_the_given_order():
    # 1e16 + 1 + 1 and 1 + 1 + 1e16 differ in float64, so the order shows.
    assert as_graph((2, [(0, 1), (1, 0), (0, 1)], [1e16, 1, 1])).total_weight == 1e16
    assert as_graph((2, [(0, 1), (1, 0), (0, 1)], [1, 1, 1e16])).total_weight == 1e16 + 2


def test_integral():
    assert as_graph((3, [(0, 1), (1, 2)], [2, -3])).integral
    assert not as_graph((3, [(0, 1), (1, 2)], [2, -3.5])).integral
    assert as_graph((3, [(0, 1), (1, 2)], [2.0**52, -(2.0**52) + 1])).integral
    assert not as_graph((3, [(0, 1), (1, 2)], [2.0**52, -(2.0**52)])).integral


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array, scipy.sparse.coo_matrix])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_matrix_dtypes(make, dtype):
    matrix = nx.to_numpy_array(nx.cycle_graph(5)).astype(dtype)
    assert_same(as_graph(make(matrix)), as_graph(nx.cycle_graph(5)))


def test_repeated_sparse_entries():
    row, column = [0, 0, 1, 1], [1, 1, 0, 0]
    counts = scipy.sparse.coo_array((np.full(4, 200, np.uint8), (row, column)), shape=(2, 2))
    assert as_graph(counts).total_weight == 400
    flags = scipy.sparse.coo_array((np.ones(4, bool), (row, column)), shape=(2, 2))
    assert as_graph(flags).total_weight == 1


def test_explicit_zeros_do_not_make_a_matrix_asymmetric():
    matrix = scipy.sparse.csr_array(
        (np.array([0.0, 1.0, 1.0]), np.array([1, 2, 1]), np.array([0, 1, 2, 3])), shape=(3, 3)
    )
    assert as_graph(matrix).edges()[2].tolist() == [1.0]


def test_unsorted_rows():
    matrix = scipy.sparse.csr_array(
        (np.array([2.0, 1.0, 1.0, 2.0]), np.array([2, 1, 0, 0]), np.array([0, 2, 3, 4])),
        shape=(3, 3),
    )
    assert as_graph(matrix).indices.tolist() == [1, 2, 0, 0]
    assert matrix.indices.tolist() == [2, 1, 0, 0]


def test_self_loops_are_ignored_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"ignored 2 self-loops: no cut") as caught:
        graph = as_graph((3, [(0, 0), (0, 1), (2, 2), (1, 1)], [1, 1, 1, 0]))
    assert caught[0].filename == __file__
    assert graph.n_edges == 1
    looped = nx.Graph([(0, 1), (1, 1)])
    for kind in (
        looped,
        nx.to_numpy_array(looped),
        nx.to_scipy_sparse_array(looped),
        write(tmp_path / "g.txt", "2 2\n1 2\n2 2\n"),
        write(tmp_path / "g.edges", "0 1\n1 1\n"),
    ):
        with pytest.warns(UserWarning, match="ignored 1 self-loop: "):
            assert as_graph(kind).n_edges == 1


# --------------------------------------------------------------------------------------------------
# Properties against scipy and against a slow twin
# --------------------------------------------------------------------------------------------------


@st.composite
def edge_lists(draw):
    n = draw(st.integers(1, 9))
    vertex = st.integers(0, n - 1)
    edges = draw(st.lists(st.tuples(vertex, vertex), max_size=40))
    weights = draw(st.lists(st.integers(-3, 3), min_size=len(edges), max_size=len(edges)))
    return n, edges, [w / 4 for w in weights]


def convert_quietly(graph):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return as_graph(graph)


@settings(deadline=None)
@given(edge_lists())
def test_equals_scipy_and_the_slow_twin(case):
    n, edges, weights = case
    graph = convert_quietly(case)
    assert_invariants(graph)
    tails, heads, values = graph.edges()
    found = {(int(u), int(v)): w for u, v, w in zip(tails, heads, values.tolist(), strict=True)}
    assert found == naive_weights(n, edges, weights)

    kept = [(u, v, w) for (u, v), w in zip(edges, weights, strict=True) if u != v]
    rows, columns, data = map(list, zip(*kept, strict=True)) if kept else ([], [], [])
    reference = scipy.sparse.coo_array(
        (np.array(data + data, dtype=float), (rows + columns, columns + rows)), shape=(n, n)
    ).tocsr()
    reference.eliminate_zeros()
    assert np.array_equal(graph.indptr, reference.indptr)
    assert np.array_equal(graph.indices, reference.indices)
    assert np.array_equal(graph.weights, reference.data)


@settings(deadline=None)
@given(edge_lists())
def test_all_kinds_agree(case):
    n, edges, weights = case
    graph = convert_quietly(case)
    multigraph = nx.MultiGraph()
    multigraph.add_nodes_from(range(n))
    multigraph.add_weighted_edges_from(
        [(u, v, w) for (u, v), w in zip(edges, weights, strict=True)]
    )
    assert_same(convert_quietly(multigraph), graph)
    assert_same(as_graph(graph.to_scipy()), graph)
    assert_same(as_graph(graph.to_scipy().tocoo()), graph)
    assert_same(as_graph(graph.to_scipy().toarray()), graph)
    assert_same(as_graph((n, np.column_stack(graph.edges()[:2]), graph.edges()[2])), graph)


@settings(deadline=None)
@given(edge_lists(), st.booleans())
def test_quick_and_slow_rudy_readers_agree(case, weighted):
    n, edges, weights = case
    rows = [
        f"{u + 1} {v + 1}" + (f" {w}" if weighted else "")
        for (u, v), w in zip(edges, weights, strict=True)
    ]
    lines = [f"{n} {len(rows)}", *rows, ""]
    quick = readers._read_rudy(lines, "name")
    slow = readers._scan_rudy(lines, 1, n, len(rows), "name")
    for one, other in zip(quick[:4], slow[:4], strict=True):
        assert np.array_equal(one, other)


@settings(deadline=None)
@given(edge_lists(), st.booleans())
def test_quick_and_slow_edge_list_readers_agree(case, weighted):
    _, edges, weights = case
    if not edges:
        return
    lines = [
        f"{3 * u - 7} {3 * v - 7}" + (f" {w}" if weighted else "")
        for (u, v), w in zip(edges, weights, strict=True)
    ]
    quick = readers._read_edge_list(lines, "name", ".edges")
    slow = readers._scan_edge_list(lines, None, "name")
    for one, other in zip(quick, slow, strict=True):
        assert np.array_equal(one, other)
    assert list(quick.labels) == sorted({3 * v - 7 for edge in edges for v in edge})


# --------------------------------------------------------------------------------------------------
# File particulars
# --------------------------------------------------------------------------------------------------


def test_rudy_leniences(tmp_path):
    text = "\ufeff# a comment\n\n 3 3 \n1 2\n% another\n2  3\t-2\n\n3 1 1e1\n"
    graph = as_graph(write(tmp_path / "graph", text))
    assert graph.edges()[2].tolist() == [1.0, 10.0, -2.0]


def test_string_labels_in_order_of_first_appearance(tmp_path):
    graph = as_graph(write(tmp_path / "names.csv", "zoë,bob,2\nbob, ann lee\nann lee,7,1.5"))
    assert graph.labels == ("zoë", "bob", "ann lee", "7")
    assert graph.edges()[2].tolist() == [2.0, 1.0, 1.5]


@pytest.mark.parametrize("ending", ["", " 1.5"])
def test_integer_labels_in_increasing_order(tmp_path, ending):
    text = f"30 10{ending}\n+7 30{ending}\n-5 7{ending}\n"
    graph = as_graph(write(tmp_path / "g.edges", text))
    assert graph.labels == (-5, 7, 10, 30)
    assert graph.edges()[0].tolist() == [0, 1, 2]


def test_integer_labels_of_any_length(tmp_path):
    big = 10**30
    graph = as_graph(write(tmp_path / "g.edges", f"{big} 2\n{2**62 + 1} {2**62}\n"))
    assert graph.labels == (2, 2**62, 2**62 + 1, big)


def test_float_labels_stay_text(tmp_path):
    assert as_graph(write(tmp_path / "g.edges", "1.0 1.5\n")).labels == ("1.0", "1.5")


def test_old_numpy_leaves_floats_to_the_slow_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_LOADTXT_TRUNCATES", True)
    assert as_graph(write(tmp_path / "a.edges", "1.0 1.5\n")).labels == ("1.0", "1.5")
    assert as_graph(write(tmp_path / "b.edges", "0 1\n")).labels is None


# --------------------------------------------------------------------------------------------------
# Bad input
# --------------------------------------------------------------------------------------------------


def edge_with(value, graph_class=nx.Graph):
    graph = graph_class()
    graph.add_edge("x", "y", weight=1)
    graph.add_edge("a", "b", weight=value)
    return graph


def matrix_with(entry, value):
    matrix = example_matrix()
    matrix[entry] = value
    return matrix


BAD_INPUT = [
    (edge_with(1, nx.DiGraph), TypeError, r"DiGraph is directed.*to_undirected"),
    (edge_with(1, nx.MultiDiGraph), TypeError, r"MultiDiGraph is directed.*to_undirected"),
    (edge_with("heavy"), TypeError, r"edge \('a', 'b'\) has weight 'heavy' of type str"),
    (edge_with(None), TypeError, r"edge \('a', 'b'\) has weight None.*must be real numbers"),
    (edge_with(1j), TypeError, r"weight 1j of type complex"),
    (edge_with(float("nan")), ValueError, r"edge \('a', 'b'\) has weight nan.*must be finite"),
    (edge_with(-np.inf), ValueError, r"edge \('a', 'b'\) has weight -inf"),
    (edge_with(10**400), ValueError, r"edge \('a', 'b'\) has weight 1000.*range of float64"),
    (matrix_with((1, 3), 9.0), ValueError, r"entry \(1, 3\) is 9.0 but entry \(3, 1\) is 0.0"),
    (matrix_with((3, 1), 9.0), ValueError, r"entry \(1, 3\) is 0.0 but entry \(3, 1\) is 9.0"),
    (matrix_with((2, 4), np.nan), ValueError, r"entry \(2, 4\) of the matrix has weight nan"),
    (matrix_with((4, 4), np.inf), ValueError, r"entry \(4, 4\) of the matrix has weight inf"),
    (np.eye(2, dtype=complex), TypeError, r"real numbers.*complex128"),
    (np.eye(2, dtype=object), TypeError, r"real numbers.*object"),
    (np.array([["0", "1"], ["1", "0"]]), TypeError, r"real numbers.*<U1"),
    (np.zeros((2, 3)), ValueError, r"square and 2-D, got shape \(2, 3\)"),
    (np.zeros(4), ValueError, r"square and 2-D, got shape \(4,\)"),
    (np.ma.masked_equal(np.eye(2), 1), TypeError, r"masked array"),
    ((3, [(0, 1)]), ValueError, r"\(n, edges, weights\), got 2 items"),
    ((-1, [], None), ValueError, r"must not be negative, got -1"),
    ((2**31, [], None), ValueError, r"fit int32.*got 2147483648"),
    ((2.0, [], None), TypeError, r"must be an integer, not 2.0"),
    ((True, [], None), TypeError, r"must be an integer, not True"),
    ((3, [(0, 1), (1, 3)], None), ValueError, r"edge 1 is \(1, 3\).*0..n-1 with n = 3"),
    ((3, [(0, -1)], None), ValueError, r"edge 0 is \(0, -1\)"),
    ((3, np.array([[0, 2**63]], np.uint64), None), ValueError, r"9223372036854775808"),
    ((3, [(0.0, 1.0)], None), TypeError, r"edges must be integers, not dtype float64"),
    ((3, [("a", "b")], None), TypeError, r"edges must be integers, not dtype <U1"),
    ((3, [(0, 1, 2)], None), ValueError, r"shape \(m, 2\), got \(1, 3\)"),
    ((3, [0, 1], None), ValueError, r"shape \(m, 2\), got \(2,\)"),
    ((3, [(0, 1), (2,)], None), ValueError, r"edges must be an array-like of shape \(m, 2\)"),
    ((3, [(0, 1)], [1, 2]), ValueError, r"shape \(1,\) for 1 edges, got \(2,\)"),
    ((3, [(0, 1)], 1.0), ValueError, r"shape \(1,\) for 1 edges, got \(\)"),
    ((3, [(0, 1)], ["1"]), TypeError, r"weights must hold real numbers.*<U1"),
    ((3, [(0, 1)], [1j]), TypeError, r"complex128"),
    ((3, [(0, 1)], [None]), TypeError, r"object"),
    ((3, [(0, 1), (1, 2)], [1, np.nan]), ValueError, r"edge 1 \(1, 2\) has weight nan"),
    ((3, [(0, 0)], [np.inf]), ValueError, r"edge 0 \(0, 0\) has weight inf"),
    ((3, [(0, 1), (1, 2)], [1e308, 1e308]), ValueError, r"too large.*1e\+308"),
    ([[0, 1], [1, 0]], TypeError, r"expected a CSRGraph.*not list"),
    (None, TypeError, r"not NoneType"),
    (b"graph.txt", TypeError, r"not bytes"),
]


@pytest.mark.parametrize(("graph", "error", "message"), BAD_INPUT)
def test_bad_input(graph, error, message):
    with pytest.raises(error, match=message):
        as_graph(graph)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok", "bsr"])
def test_bad_sparse_input(layout):
    def sparse(entry, value):
        return scipy.sparse.csr_array(matrix_with(entry, value)).asformat(layout)

    with pytest.raises(ValueError, match=r"entry \(1, 3\) is 9.0 but entry \(3, 1\) is 0.0"):
        as_graph(sparse((1, 3), 9.0))
    with pytest.raises(ValueError, match=r"entry \(1, 3\) is 0.0 but entry \(3, 1\) is 9.0"):
        as_graph(sparse((3, 1), 9.0))
    with pytest.raises(ValueError, match=r"entry \(2, 4\) of the matrix has weight nan"):
        as_graph(sparse((2, 4), np.nan))
    with pytest.raises(TypeError, match=r"real numbers.*complex128"):
        as_graph(sparse((0, 0), 1.0).astype(complex))
    with pytest.raises(ValueError, match=r"square and 2-D, got shape \(2, 3\)"):
        as_graph(scipy.sparse.csr_array((2, 3)).asformat(layout))


def test_sparse_indices_out_of_range():
    matrix = scipy.sparse.csr_array(np.ones((2, 2)) - np.eye(2))
    matrix.indices[0] = 5
    with pytest.raises(ValueError, match="indices"):
        as_graph(matrix)


def test_sparse_vector_is_not_square():
    with pytest.raises(ValueError, match=r"square and 2-D, got shape \(3,\)"):
        as_graph(scipy.sparse.coo_array(np.ones(3)))


@pytest.mark.parametrize("weight", [None, "cost"])
def test_weight_name_needs_networkx(weight):
    with pytest.raises(ValueError, match=r"names a networkx edge attribute.*tuple has none"):
        as_graph((2, [], None), weight=weight)


def test_weight_name_must_be_text():
    with pytest.raises(TypeError, match=r"name of an edge attribute or None, not True"):
        as_graph(nx.path_graph(2), weight=True)


BANNER = "%%MatrixMarket matrix coordinate real "
BAD_FILES = [
    ("g.txt", "", r"g.txt: the file is empty"),
    ("g.txt", " \n\n", r"g.txt: the file is empty"),
    ("g.txt", "# only\n", r"g.txt: the file has comments only"),
    ("g.txt", "a b\n", r"g.txt, line 1: expected the rudy header 'n m'.*got 'a b'.*\.edges"),
    ("g.txt", "# x\n3 2 1\n1 2\n2 3\n", r"line 2: expected the rudy header.*got '3 2 1'"),
    ("g.txt", "-3 2\n", r"line 1: the header '-3 2' must have 0 <= n"),
    ("g.txt", "3 -2\n", r"line 1: the header '3 -2' must have"),
    ("g.txt", "3 2\n1 2 1\n", r"line 2: the file ends after 1 edges; its rudy header says m = 2"),
    ("g.txt", "3 2\n", r"line 1: the file ends after 0 edges; its rudy header says m = 2"),
    ("g.txt", "3 1\n1 2 1\n\n2 3 1\n", r"line 4: more edges than the m = 1 of the rudy header"),
    ("g.txt", "3 0\n1 2 1\n", r"line 2: more edges than the m = 0"),
    ("g.txt", "3 2\n1 2 1\n2 x 1\n", r"line 3: vertex 'x' is not an integer"),
    ("g.txt", "3 2\n1 2 1\n2 1.5 1\n", r"line 3: vertex '1.5' is not an integer"),
    ("g.txt", "3 2\n1 2 1\n2 4 1\n", r"line 3: vertex 4 is outside 1..n, n = 3"),
    ("g.txt", "3 2\n0 2 1\n2 3 1\n", r"line 2: vertex 0 is outside 1..n, n = 3"),
    ("g.txt", f"3 1\n1 {10**30} 1\n", r"line 2: vertex 1000.* is outside 1..n"),
    ("g.txt", "3 2\n1 2 1\n2 3 y\n", r"line 3: weight 'y' is not a number"),
    ("g.txt", "3 2\n1 2 1\n2 3 1_0\n", r"line 3: weight '1_0' is not a number"),
    ("g.txt", "3 2\n1 2 1\n2 3 nan\n", r"line 3: weight nan; weights must be finite"),
    ("g.txt", "3 2\n1 2 1\n2 3 -1e999\n", r"line 3: weight -inf; weights must be finite"),
    ("g.txt", "3 2\n1 2 1\n2 3 1 7\n", r"line 3: expected 'i j \[w\]', got '2 3 1 7'"),
    ("g.txt", "3 2\n1 2 1\n2\n", r"line 3: expected 'i j \[w\]', got '2'"),
    ("g.txt", b"3 1\n1 \xff\n", r"g.txt, line 2: not UTF-8 text"),
    ("g.edges", "# only\n", r"g.edges: the file has comments only"),
    ("g.edges", "1 2\n3\n", r"line 2: expected 'u v \[w\]' split at blanks, got '3'"),
    ("g.edges", "1 2 3 4\n", r"line 1: expected 'u v \[w\]' split at blanks, got '1 2 3 4'"),
    ("g.edges", "1 2 3\n1 2 {}\n", r"line 2: weight '{}' is not a number"),
    ("g.edges", "1 2 3\n\n1 3 inf\n", r"line 3: weight inf; weights must be finite"),
    ("g.csv", "u,v,w\n1,2,3\n", r"line 1: weight 'w' is not a number"),
    ("g.csv", "1 2\n", r"line 1: expected 'u v \[w\]' split at commas"),
    ("g.csv", "1,2\n,2\n", r"line 2: expected 'u v \[w\]' split at commas, got ',2'"),
    ("g.tsv", "1 2\n", r"line 1: expected 'u v \[w\]' split at tabs"),
    ("g.mtx", "3 1\n1 2\n", r"g.mtx: not a readable Matrix Market file: Line 1"),
    ("g.mtx", BANNER + "symmetric\n3 3 2\n2 1 1\n", r"g.mtx: not a readable.*Truncated"),
    ("g.mtx", BANNER + "symmetric\n3 3 1\n2 1 x\n", r"g.mtx: not a readable.*Line 3"),
    ("g.mtx", BANNER + "symmetric\n3 3 1\n2 4 1\n", r"g.mtx: not a readable.*Line 3"),
    ("g.mtx", BANNER + "general\n3 3 1\n2 1 1\n", r"g.mtx must be symmetric: entry \(0, 1\)"),
    ("g.mtx", BANNER + "general\n3 4 1\n2 1 1\n", r"g.mtx must be square.*\(3, 4\)"),
    ("g.mtx", BANNER + "symmetric\n3 3 1\n2 1 nan\n", r"of .*g.mtx has weight nan"),
    (
        "g.mtx",
        "%%MatrixMarket matrix coordinate integer symmetric\n2 2 1\n2 1 " + "9" * 30,
        r"g.mtx: not a readable.*Line 3",
    ),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_bad_files(tmp_path, name, text, message, ending):
    path = write(tmp_path / (name + ending), text)
    # The messages below spell the plain name.
    expected = message.replace(name, name + ending)
    with pytest.raises(ValueError, match=expected):
        as_graph(path)


def test_complex_matrix_market(tmp_path):
    text = "%%MatrixMarket matrix coordinate complex symmetric\n2 2 1\n2 1 1 0\n"
    with pytest.raises(TypeError, match=r"g.mtx must hold real numbers.*complex128"):
        as_graph(write(tmp_path / "g.mtx", text))


def test_missing_file(tmp_path):
    for name in ("none.txt", "none.mtx", "none.edges.gz"):
        with pytest.raises(FileNotFoundError):
            as_graph(tmp_path / name)


def test_corrupt_gzip(tmp_path):
    packed = gzip.compress(rudy_text().encode() * 50)
    for number, data in enumerate([b"plain text", packed[:-20], packed[:20] + b"\0" * 30, b""]):
        path = tmp_path / f"{number}.txt.gz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{number}.txt.gz: (not a valid gzip|the file is)"):
            as_graph(path)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="0123 456.-+e\n\t,#%x_", max_size=60))
def test_any_text_gives_a_graph_or_a_value_error(text):
    lines = text.split("\n")
    if next(readers._content_lines(lines), None) is None:
        return
    with contextlib.suppress(ValueError):
        readers._read_rudy(lines, "name")
    for suffix in (".edges", ".csv", ".tsv"):
        with contextlib.suppress(ValueError):
            edges = readers._read_edge_list(lines, "name", suffix)
            assert np.isfinite(edges.weights).all()
            assert edges.weights.size == edges.tails.size == edges.heads.size


# --------------------------------------------------------------------------------------------------
# CSRGraph itself
# --------------------------------------------------------------------------------------------------


def test_constructor_does_not_touch_the_callers_arrays():
    indptr, indices, weights = np.array([0, 1, 2]), np.array([1, 0]), np.array([2.0, 2.0])
    graph = CSRGraph(indptr, indices, weights, labels=["a", "b"])
    assert weights.flags.writeable
    assert graph.labels == ("a", "b")
    assert_invariants(graph)


@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))]
)
def test_copies(twin):
    graph = as_graph(edge_with(2))
    other = twin(graph)
    assert_same(graph, other)
    assert_invariants(other)
    assert other.labels == graph.labels


def test_graph_is_frozen():
    graph = as_graph((2, [(0, 1)], None))
    with pytest.raises(AttributeError):
        graph.weights = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        graph.weights[0] = 3.0


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        (([0.0, 1.0], [0], [1.0]), TypeError, "indptr must be integers, not float64"),
        (([0, 1], [0.0], [1.0]), TypeError, "indices must be integers"),
        (([0, 1], [0], [1j]), TypeError, "weights must be real numbers, not complex128"),
        (([0, 1], [0], [1.0, 2.0]), ValueError, r"got shapes \(2,\), \(1,\), \(2,\)"),
        (([[0, 1]], [0], [1.0]), ValueError, r"got shapes \(1, 2\)"),
        (([0, 2], [0], [1.0]), ValueError, "must rise from 0 to the 1 entries"),
        (([0, 2, 1], [0], [1.0]), ValueError, "without falling"),
        (([0, 1], [1], [1.0]), ValueError, r"indices must lie in 0..0"),
        (([0, 1], [-1], [1.0]), ValueError, r"indices must lie in 0..0"),
        (([0, 1], [0], [1.0], ["a", "b"]), ValueError, "got 2 labels for 1 vertices"),
    ],
)
def test_constructor_checks(arrays, error, message):
    with pytest.raises(error, match=message):
        CSRGraph(*arrays)


def test_docstring_examples():
    assert doctest.testmod(graphs).failed == 0
