"""``derand-fast jl``: what files it reads, what it hands to the estimator, says and writes."""

import io
import re
import sys
import types

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from command_line import assert_error, parse_strictly, run_command

from derand_fast.cli.matrix_files import read_matrix

pytest.importorskip("sklearn")
from derand_fast.distortion_search import HistoryRow
from derand_fast.embedding import DistortionCertificate

POINTS = np.random.default_rng(7).standard_normal((12, 5))


class FakeEstimator:
    """Stands for `JLEmbedding`: a record of the call, and results made beforehand."""

    def __init__(self):
        self.X = None
        self.options = None
        self.error = None
        self.n_equal_pairs = 0
        self.interrupted = False

    def __call__(self, n_components, **options):
        self.options = {"n_components": n_components} | options
        self.pairs, self.random_state = options["pairs"], options["random_state"]
        return self

    def fit(self, X):
        self.X = X
        if self.options["verbose"]:
            print("a stage")
        if self.error is not None:
            raise self.error
        self.components_ = 0.5 * np.eye(2, X.shape[1])
        self.n_components_ = 2
        self.max_distortion_, self.lower_bound_ = 0.75, 0.125
        self.worst_pair_ = (3, 3) if self.pairs == "norms" else (3, 8)
        pair = self.worst_pair_
        self.certificate_ = DistortionCertificate(
            0.75, 0.25, 1.5, pair, (1, 2), 66, self.n_equal_pairs, 7
        )
        self.history_ = [
            HistoryRow(0.1, 2, 30, 4.0, 0.8, "PCA"),
            HistoryRow(0.2, 2, 50, 6.0, 0.75, "PCA"),
        ]
        self.n_iter_ = 50
        self.interrupted_ = self.interrupted
        return self


@pytest.fixture
def estimator(monkeypatch):
    fake = FakeEstimator()
    module = types.ModuleType("derand_fast.embedding")
    module.JLEmbedding = fake
    monkeypatch.setitem(sys.modules, "derand_fast.embedding", module)
    return fake


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.npy"
    np.save(path, POINTS)
    return path


@pytest.fixture
def run(capsys):
    return lambda *arguments: run_command(capsys, "jl", *arguments)


def stretched(X, A, pairs="all"):
    """Slow twin: ||A (x_i - x_j)||^2 / ||x_i - x_j||^2 by pair (i, j), or of rows by (i, i)."""
    n = len(X)
    differences = {(i, j): X[i] - X[j] for i in range(n) for j in range(i + 1, n)}
    if pairs == "norms":
        differences = {(i, i): X[i] for i in range(n)}
    return {pair: np.sum((A @ x) ** 2) / np.sum(x**2) for pair, x in differences.items()}


# --------------------------------------------------------------------------------------------------
# What goes in
# --------------------------------------------------------------------------------------------------


def test_default_options(run, estimator, points):
    assert run(points, "--threads", "2")[0] == 0
    assert np.array_equal(estimator.X, POINTS)
    assert estimator.options == {
        "n_components": "auto",
        "eps": 0.1,
        "pairs": "all",
        "time_limit": None,
        "random_state": 0,
        "n_jobs": 2,
        "verbose": False,
    }


def test_all_options(run, estimator, points):
    arguments = "-k 3 --pairs norms --time-limit 2.5 --seed 4 --threads 1 --progress"
    assert run(points, *arguments.split())[0] == 0
    assert estimator.options == {
        "n_components": 3,
        "eps": 0.1,
        "pairs": "norms",
        "time_limit": 2.5,
        "random_state": 4,
        "n_jobs": 1,
        "verbose": True,
    }


def test_eps(run, estimator, points):
    assert run(points, "--eps", "0.25")[0] == 0
    assert (estimator.options["n_components"], estimator.options["eps"]) == ("auto", 0.25)


def test_built_in_data(run, estimator):
    status, _, err = run()
    assert status == 0
    assert err == (
        "derand-fast: no DATA given: embedding the built-in example, 150 points on a curved "
        "surface of dimension 3 in 40 dimensions\n"
    )
    assert estimator.X.shape == (150, 40)
    assert np.abs(estimator.X).max() <= 1.0


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["-k", "2", "--eps", "0.1"], "argument --eps: not allowed with argument -k"),
        (["-k", "few"], "argument -k: invalid int value: 'few'"),
        (["--pairs", "some"], "argument --pairs: invalid choice: 'some'"),
        (["a.npy", "b.npy"], "unrecognized arguments: b.npy"),
    ],
)
def test_wrong_usage(run, estimator, arguments, pattern):
    assert_error(run(*arguments), pattern)
    assert estimator.X is None


def test_bad_value(run, estimator, points):
    estimator.error = ValueError("eps must be finite,\n at least 0")
    assert_error(run(points), "error: eps must be finite, at least 0\n")
    assert_error(run(points, "--threads", "0"), "n_threads must be at least 1, got 0")


def test_not_enough_memory(run, estimator, points):
    estimator.error = MemoryError()
    assert_error(run(points), "the search failed: not enough memory for the data")


def test_interrupted(run, estimator, points):
    estimator.error = KeyboardInterrupt()
    assert run(points) == (130, "", "derand-fast: interrupted\n")


def test_missing_scikit_learn(run, points, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert_error(run(points), r'jl needs scikit-learn: pip install "derand-fast\[embedding\]"')


def test_old_scikit_learn(run, points, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.utils.validation", None)
    monkeypatch.delitem(sys.modules, "derand_fast.embedding")
    assert_error(run(points), "JLEmbedding needs scikit-learn .* or later")


# --------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------

MATRIX = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "u1", "?"])
def test_read_npy(tmp_path, dtype):
    path = tmp_path / "a.npy"
    matrix = MATRIX.astype(dtype)
    np.save(path, np.asfortranarray(matrix))
    read = read_matrix(str(path))
    assert read.dtype == (np.float32 if dtype == "f4" else np.float64)
    assert read.flags.c_contiguous
    assert np.array_equal(read, matrix)


def test_read_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, anything=MATRIX)
    assert np.array_equal(read_matrix(str(path)), MATRIX)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_read_sparse_npz(tmp_path, kind):
    path = tmp_path / "a.npz"
    matrix = scipy.sparse.random_array((7, 9), density=0.3, format=kind, random_state=0)
    scipy.sparse.save_npz(path, matrix)
    read = read_matrix(str(path))
    assert read.format == "csr"
    assert np.array_equal(read.toarray(), matrix.toarray())


@pytest.mark.parametrize("sparse", [False, True])
def test_read_matrix_market(tmp_path, sparse):
    path = tmp_path / "a.mtx"
    scipy.io.mmwrite(path, scipy.sparse.coo_array(MATRIX) if sparse else MATRIX)
    read = read_matrix(str(path))
    assert scipy.sparse.issparse(read) == sparse
    assert np.array_equal(read.toarray() if sparse else read, MATRIX)


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3\n4,5,6.5\n",
        "1,2,3\r\n4,5,6.5\r\n",
        "a,b,c\n1,2,3\n4,5,6.5",
        "a,b\n1,2,3\n4,5,6.5",  # as R writes it
        '\ufeff"a, b",2,"c"\n"1", 2,3e0\n\n4,5,6.5\n\n',
        "# made by hand\n1,2,3\n4,5,6.5\n",
    ],
)
def test_read_csv(tmp_path, text):
    path = tmp_path / "a.CSV"
    path.write_bytes(text.encode())
    assert np.array_equal(read_matrix(str(path)), MATRIX)


def test_one_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n2\n")
    assert np.array_equal(read_matrix(str(path)), [[1.0], [2.0]])


def saved(save, *arguments, **arrays):
    file = io.BytesIO()
    save(file, *arguments, **arrays)
    return file.getvalue()


BAD_FILES = {
    "ragged": ("a.csv", b"x,y\n1,2\n\n3\n", r"line 4 and those above differ in columns: 1, 2"),
    "word": ("a.csv", b"1,2\n3,ten\n", r"not a readable \.csv file: line 2: 'ten' is not a num"),
    "empty field": ("a.csv", b"1,2\n3,\n", r"line 2: '' is not a number"),
    "nan in csv": ("a.csv", b"x,y\n1,2\nnan,3\n", r"finite; that in row 2, column 1 is nan"),
    "empty csv": ("a.csv", b"", "it holds no numbers"),
    "names only": ("a.csv", b"x,y\n", "it holds no numbers"),
    "not text": ("a.csv", b"1,2\n\xff,3\n", "not a readable .csv file: 'utf-8'"),
    "nan": ("a.npy", saved(np.save, np.diag([1.0, np.inf])), "row 2, column 2 is inf"),
    "vector": ("a.npy", saved(np.save, np.ones(3)), r"a matrix is needed, .* shape \(3,\)"),
    "complex": ("a.npy", saved(np.save, np.ones((2, 2), complex)), "real numbers, not complex128"),
    "words": ("a.npy", saved(np.save, np.array([["a"]])), "real numbers, not <U1"),
    "objects": (
        "a.npy",
        saved(np.save, np.array([[None]]), allow_pickle=True),
        "not a readable .npy file: Object arrays cannot be loaded",
    ),
    "not npy": ("a.npy", b"1 2\n3 4\n5 6\n", "not a readable .npy file: the magic string"),
    "cut short": ("a.npy", saved(np.save, MATRIX)[:-3], "not a readable .npy file"),
    "empty npy": ("a.npy", b"", "not a readable .npy file"),
    "not zip": ("a.npz", b"PK or not", "not a readable .npz file: it is no zip archive"),
    "two arrays": ("a.npz", saved(np.savez, a=MATRIX, b=MATRIX), "it holds 2 arrays, .* a, b"),
    "not mtx": ("a.mtx", b"1 2\n", "not a readable .mtx file"),
    "no such kind": ("a.txt", b"1 2\n", r"suffix must be one of \.npy, \.npz, \.csv, \.mtx"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(run, estimator, tmp_path, case):
    name, content, pattern = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    outcome = run(path)
    assert_error(outcome, pattern)
    assert str(path) in outcome[2]
    assert estimator.X is None


def test_sparse_nan(run, estimator, tmp_path):
    path = tmp_path / "a.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array([[0.0, np.nan], [1.0, 0.0]]))
    assert_error(run(path), "every entry must be finite")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".mtx"])
def test_missing_file(run, estimator, tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    assert_error(run(path), rf"cannot read {re.escape(str(path))}: No such file or directory")
    path.mkdir()
    assert_error(run(path), "cannot read .*: Is a directory")


# --------------------------------------------------------------------------------------------------
# What comes out
# --------------------------------------------------------------------------------------------------


def test_report(run, estimator, points):
    estimator.n_equal_pairs = 3
    status, out, err = run(points)
    assert (status, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["data"] == "12 rows in 5 dimensions"
    assert lines["map"] == "into 2 dimensions"
    assert lines["distortion"] == "0.75, exact over 66 pairs"
    assert lines["worst"] == "rows 3 and 8"
    assert lines["bound"] == "no linear map into 2 dimensions has less than 0.125"
    assert lines["left"] == "out    3 pairs of equal rows"
    assert lines["time"].endswith(" s, 50 passes")
    estimator.n_equal_pairs = 0
    assert "left out" not in run(points)[1]


def test_report_of_norms(run, estimator, points):
    out = run(points, "--pairs", "norms")[1]
    assert "exact over 66 rows" in out
    assert "worst       row 3\n" in out
    assert "bound" not in out


def test_an_interrupted_search_is_reported(run, estimator, points):
    estimator.interrupted = True
    status, out, _ = run(points)
    assert status == 130
    assert out.splitlines()[-1].endswith(" s, 50 passes until interrupted")
    assert parse_strictly(run(points, "--json")[1])["interrupted"] is True


def test_json_is_one_strict_line(run, estimator, points):
    status, out, err = run(points, "--json", "--seed", "9")
    assert (status, err, out.count("\n")) == (0, "", 1)
    fields = parse_strictly(out)
    assert fields["n_rows"] == 12
    assert (fields["n_features"], fields["n_components"]) == (5, 2)
    assert (fields["max_distortion"], fields["lower_bound"]) == (0.75, 0.125)
    assert fields["worst_pair"] == [3, 8]
    assert fields["certificate"]["n_pairs"] == 66
    assert fields["certificate"]["highest_pair"] == [1, 2]
    assert fields["history"][1] == {
        "seconds": 0.2,
        "n_components": 2,
        "passes": 50,
        "sharpness": 6.0,
        "distortion": 0.75,
        "start": "PCA",
        "sigma": None,
    }
    assert (fields["n_iter"], fields["seed"], fields["pairs"]) == (50, 9, "all")
    assert fields["interrupted"] is False
    assert 0.0 <= fields["seconds"] < 60.0


def test_principal_components_beside_it(run, estimator, points):
    others = parse_strictly(run(points, "--json")[1])["others"]
    A = np.linalg.svd(POINTS - POINTS.mean(axis=0))[2][:2]
    ratios = stretched(POINTS, A).values()
    expected = (max(ratios) - min(ratios)) / (max(ratios) + min(ratios))  # at the best scale
    # Ratios from norms and products lose up to four digits where images are close.
    assert others["PCA"] == pytest.approx(expected, rel=1e-10)
    assert 0.0 < others["Gaussian"] <= 1.0


def test_progress_is_not_in_the_report(run, estimator, points):
    status, out, err = run(points, "--json", "--progress")
    assert (status, err) == (0, "a stage\n")
    assert parse_strictly(out)["n_rows"] == 12


def test_output_and_plot(run, estimator, points, tmp_path):
    target = tmp_path / "map"  # numpy.save would add a suffix to a name
    status, _, err = run(points, "--output", target, "--plot", tmp_path / "p.png")
    assert (status, err) == (0, "")
    assert np.array_equal(np.load(target), estimator.components_)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map", "p.png", "points.npy"]


def test_targets_are_checked_before_the_work(run, estimator, points, tmp_path):
    target = tmp_path / "no" / "a.npy"
    assert_error(run(points, "--output", target), r"cannot write .*: No such file or direc", 3)
    assert_error(run(points, "--output", points), "DATA and --output are the same file")
    assert_error(run(points, "--plot", "a.foo"), r"--plot: cannot plot to 'a\.foo'.*\.png")
    assert estimator.X is None


def test_help_tells_what_one_must_know(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for option in ("eps", "pairs", "time-limit", "seed", "threads", "output", "plot", "json"):
        assert f"--{option}" in out
    for words in ("-k K", "--progress", "save_npz", ".csv", ".mtx", "130", "counted from 0"):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


# --------------------------------------------------------------------------------------------------
# With the estimator itself
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_real_estimator(run, points, tmp_path, pairs):
    target = tmp_path / "a.npy"
    status, out, err = run(points, "-k", "2", "--pairs", pairs, "--json", "--output", target)
    assert (status, err) == (0, "")
    fields = parse_strictly(out)
    A = np.load(target)
    assert A.shape == (2, 5)
    ratios = stretched(POINTS, A, pairs)
    worst = max(ratios, key=lambda pair: abs(ratios[pair] - 1.0))
    assert tuple(fields["worst_pair"]) == worst
    # A few roundings per operation, 1e-16 each.
    assert fields["max_distortion"] == pytest.approx(abs(ratios[worst] - 1.0), rel=1e-12)
    assert fields["certificate"]["n_pairs"] == len(ratios)
    assert fields["lower_bound"] <= fields["max_distortion"]
    # The search starts from both kinds of maps and returns none that is worse.
    assert fields["max_distortion"] <= min(fields["others"].values())


def test_real_bad_value(run, points):
    assert_error(run(points, "-k", "6"), "n_components=6 must not exceed the number of features")


def test_sparse_and_dense_data_agree(run, tmp_path):
    matrix = scipy.sparse.random_array((15, 6), density=0.6, format="csr", random_state=0)
    np.save(tmp_path / "dense.npy", matrix.toarray())
    scipy.sparse.save_npz(tmp_path / "sparse.npz", matrix)
    dense, sparse = (
        parse_strictly(run(tmp_path / name, "-k", "6", "--json")[1])
        for name in ("dense.npy", "sparse.npz")
    )
    # All six dimensions: exact up to rounding, and, for the sparse one, up to its Gram matrix.
    assert dense["max_distortion"] < 1e-12
    assert sparse["max_distortion"] < 1e-6
    assert dense["others"]["PCA"] < 1e-12
    assert dense["others"]["Gaussian"] > 0.1
