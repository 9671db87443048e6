"""What is run for each topic: files of pytest-benchmark and scripts that print tables.

In arguments ``{data}`` stands for the folder of published graphs (one that does not exist, without
``--data``) and ``{scratch}`` for a folder of the run.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Columns of a printed table that hold the same quantity for us and for rivals."""

    case: tuple[str, ...]
    ours: str
    # Column and the name, with its settings, that the rival has in the report.
    rivals: dict[str, str]
    quantity: str
    higher_is_better: bool = False
    # What a number of ours is multiplied by to have the unit of the rivals.
    factor: float = 1.0


@dataclass(frozen=True)
class Lines:
    """Lines of a printed table, one a method; its title, to the first semicolon, is the case."""

    who: str
    ours: str
    # How the names of rivals begin.
    rivals: str
    value: str
    quantity: str
    higher_is_better: bool = False


@dataclass(frozen=True)
class Suite:
    """A file of pytest-benchmark; `quick` selects its rows as ``-k`` does, None leaves it out."""

    file: str
    quick: str | None
    # Seconds of a quick run.
    limit: float
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Script:
    """A script that prints Markdown tables, its arguments, and which cells are compared."""

    file: str
    quick: str | None
    full: str
    # Seconds of a quick run.
    limit: float
    needs: tuple[str, ...] = ()
    # Modules of a rival, and the option that does without it.
    rival: tuple[str, ...] = ()
    without_rival: str = ""
    compared: tuple[Columns | Lines, ...] = ()


@dataclass(frozen=True)
class Topic:
    """A heading of the report, and which rivals run with which settings."""

    title: str
    rivals: str
    parts: tuple[Suite | Script, ...]


_TIMED = ("pytest", "pytest_benchmark")
_DWAVE = ("dwave.samplers", "dimod")

_SMALLEST = "seconds for the smallest eigenvalue of the dual matrix, ours certified"
_EIGSH = "scipy eigsh, one eigenvalue, tol 1e-4 of the size, ncv 60, no bound"
TOPICS = {
    "network": Topic(
        "Network risks: value, gradient, Hessian products",
        "JAX: jit, float64; Hessian products forward over reverse, and linearised beforehand. "
        "PyTorch: eager and torch.compile. All pinned to one core. Sums over nodes and pairs, and"
        " products: numpy with OpenBLAS on one thread. SGD, in the table of collapse, gets the "
        "same seconds.",
        (
            Suite(
                "test_bench_network.py", "[A- and -1] and not compile and not float32", 20, _TIMED
            ),
            Suite(
                "test_bench_mehler.py", "(256 and (value_and or product)) or hundred", 12, _TIMED
            ),
            Suite("test_bench_matmul.py", "float64 and (shape0- or shape4-)", 12, _TIMED),
            Script(
                "structure_table.py",
                "grid --depths 2 --dimensions 10 --indices 1 --seeds 2 --hidden 32 --time-limit 5",
                "paper --time-limit 30",
                10,
            ),
        ),
    ),
    "expectation": Topic(
        "Gaussian expectations and scalar functions",
        "numpy: the same sums on all nodes at once, nodes written out beforehand, one thread of "
        "OpenBLAS. libm: our kernels with math.tanh. scipy: the bivariate normal, one by one.",
        (
            Suite("test_bench_expectation.py", "value_and_gradient or product", 18, _TIMED),
            Suite("test_bench_special.py", "", 10, (*_TIMED, "mpmath")),
        ),
    ),
    "lanczos": Topic(
        "Smallest eigenvalue",
        "scipy's eigsh with the same compiled product and start; it cannot stop at a threshold, "
        "so it gets the loosest tolerances that serve, named with it. Products stand beside the "
        "times.",
        (Suite("test_bench_lanczos.py", "cut-20000", 14, _TIMED),),
    ),
    "descents": Topic(
        "Second-order stationary points",
        "scipy's minimize with exact gradients and Hessian products, default tolerances, started "
        "exactly at a strict saddle; all points are judged by the same certificate.",
        (
            Script(
                "saddles_table.py",
                "--seeds 2 --largest 20 --problems planar octopus phase network matrix-20",
                "--seeds 20",
                12,
                compared=(
                    Lines(
                        *("method", "newton_cg", "scipy"),
                        *("certified", "share of runs certified"),
                        higher_is_better=True,
                    ),
                ),
            ),
            Script(
                "descents_table.py",
                "--vertices 100 --edges 600 --rho 1e-1 1e-2 --time-limit 3",
                "",
                10,
            ),
        ),
    ),
    "maxcut": Topic(
        "Maximum cuts",
        "Simulated annealing of dwave-samplers with its own schedule of temperatures, in one read"
        " and, in full runs, in four; sweeps calibrated to fill the same seconds, model built "
        "before the clock starts, one thread. eigsh: on the matrix shifted so that its tolerance "
        "is relative to the matrix's size; it estimates, ours is certified.",
        (
            Script(
                "target_table.py",
                "--data {data} --seconds 0.03 0.1 0.3 1 --seeds 2 --graphs 3 --reads 1 "
                "--csv {scratch}/targets.csv",
                "--data {data} --seconds 0.03 0.1 0.3 1 3 10 --seeds 5 --csv {scratch}/targets.csv",
                40,
                rival=_DWAVE,
                without_rival="--no-rival",
            ),
            Script(
                "maxcut_table.py",
                None,
                "cuts --data {data} --seconds 5",
                0,
                rival=_DWAVE,
                without_rival="--no-rivals",
            ),
            Script(
                "maxcut_table.py",
                "bounds --data {data} --graphs G1 G22 G32",
                "bounds --data {data}",
                15,
                compared=(Columns(("graph",), "bound alone s", {"eigsh s": _EIGSH}, _SMALLEST),),
            ),
            Suite("test_bench_maxcut.py", "", 18, _TIMED),
            Suite(
                "test_bench_smoothed_cut.py",
                "8-random and not two and (gradient or Hessian)",
                12,
                _TIMED,
            ),
            Script("cut_scaling.py", "--sizes 10000 31623 100000 --threads 1", "", 12),
            Script("roofline_table.py", "--vertices 200000", "", 12),
        ),
    ),
    "jl": Topic(
        "Embeddings",
        "Gaussian and sparse maps of scikit-learn, the best of five seeds; PCA with a full SVD; "
        "all scaled optimally and measured by the same exact pass over pairs. Tails: scipy's "
        "ncx2. Passes: numpy with OpenBLAS on one thread.",
        (
            Script(
                "embedding_table.py",
                "distortion --only digits --all-dimensions --seconds 2",
                "distortion --all-dimensions --seconds 20",
                25,
                needs=("sklearn", "threadpoolctl"),
                compared=(
                    Columns(
                        ("data", "k"),
                        "ours",
                        {
                            "Gaussian, best of 5": "Gaussian map, best of 5 seeds",
                            "sparse, best of 5": "sparse map, best of 5 seeds",
                            "PCA": "principal components",
                        },
                        "largest distortion of all pairs",
                    ),
                ),
            ),
            Suite("test_bench_jl.py", "tails or (gradient and 1000)", 10, _TIMED),
            Suite("test_bench_pairs.py", "", 6, (*_TIMED, "sklearn", "threadpoolctl")),
        ),
    ),
    "overhead": Topic(
        "What compiled callers pay",
        "eigsh with the same LinearOperator and a basis of as many vectors; numba: our own "
        "kernels called from Python; quad: adaptive, so that it takes fewer points.",
        (Suite("test_bench_embedding_overhead.py", "lanczos or call or gauss", 12, _TIMED),),
    ),
    "networkx": Topic(
        "Through networkx",
        "networkx's own functions with the same seed and the same result; where a call would take"
        " long, the table marks its time as estimated (~).",
        (
            Suite("test_bench_networkx.py", "", 8, _TIMED),
            Script(
                "networkx_table.py",
                "exchange --sizes 100 500 2000 --limit 1",
                "exchange",
                8,
                compared=(
                    Columns(
                        ("n", "weights"),
                        "backend ms, conversion included",
                        {"networkx s": "networkx one_exchange"},
                        "seconds of one exchange",
                        factor=1e-3,
                    ),
                ),
            ),
        ),
    ),
    "jit": Topic(
        "Compiling",
        "No rival: what the first call of a solver costs, cache empty and filled.",
        (
            Script(
                "jit_table.py", "max_cut --json {scratch}/jit.json", "--json {scratch}/jit.json", 18
            ),
        ),
    ),
}
