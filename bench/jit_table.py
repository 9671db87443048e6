"""What compiling costs: the first call of each solver, cold and from the disk cache, by kernel.

Every solver runs in processes of its own: cold with an empty cache folder, warm with the folder
that the cold process has filled. Seconds of processor time, so that other work on the machine
counts little (``wall`` is beside them); imports and a second, compiled call are told apart.

    python bench/jit_table.py                        # all solvers
    python bench/jit_table.py max_cut jl --kernels 20    # and the 20 dearest kernels of each
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import describe

Call = Callable[[], object]


def _graph() -> Any:
    """A graph whose relaxation leaves a gap, so that every phase runs."""
    from derand_fast.generators import random_graph

    return random_graph(60, 200, seed=0)


def _max_cut(**options: Any) -> Call:
    from derand_fast import max_cut

    return lambda: max_cut(_graph(), n_threads=1, **options)


def _descend(name: str) -> Call:
    import numpy as np

    import derand_fast

    objective = derand_fast.MaxCutObjective(_graph(), rank=3, tau=0.5, lam=0.1)
    x = np.random.default_rng(0).standard_normal(objective.n_params)
    return lambda: getattr(derand_fast, name)(objective, x, rho=1e-2, max_iter=30)


def _expectation() -> Call:
    import numba
    import numpy as np

    from derand_fast import GaussianExpectation, GaussianFunction, newton_cg

    @numba.njit
    def value(z: Any, theta: Any) -> float:
        return (z[0] ** 2 + z[1] ** 2 - 1.0) ** 2

    @numba.njit
    def gradient(z: Any, theta: Any, out_z: Any, out_theta: Any) -> None:
        factor = 4.0 * (z[0] ** 2 + z[1] ** 2 - 1.0)
        out_z[0] = factor * z[0]
        out_z[1] = factor * z[1]

    x = np.random.default_rng(0).standard_normal(8)

    def call() -> object:
        f = GaussianExpectation(GaussianFunction(value, gradient), (2, 3), lam=0.1, level=3)
        return newton_cg(f, x, rho=1e-3)

    return call


def _structure(rule: str, **options: Any) -> Call:
    from derand_fast import discover_structure

    return lambda: discover_structure(
        "tanh", d=4, hidden=12, lam=1e-2, rho=1e-5, seed=1, rule=rule, n_threads=1, **options
    )


def _embedding(**options: Any) -> Call:
    import numpy as np

    from derand_fast import JLEmbedding

    X = np.random.default_rng(0).standard_normal((60, 20))
    return lambda: JLEmbedding(5, max_iter=200, n_jobs=1, random_state=0, **options).fit(X)


def _jl_objective() -> Call:
    import numpy as np

    from derand_fast.objectives import JLObjective

    X = np.random.default_rng(0).standard_normal((60, 20))

    def call() -> object:
        objective = JLObjective(X, 5, eps=0.5, lam=0.1, n_threads=1)
        x = objective.gaussian_start()
        return objective.value_and_grad(x), objective.hvp(x, x)

    return call


def _lanczos() -> Call:
    import numpy as np

    from derand_fast.kernels.lanczos import leftmost_eigenpair

    matrix = np.diag(np.linspace(-1.0, 9.0, 500))
    return lambda: leftmost_eigenpair(matrix, threshold=-0.5)


SOLVERS: dict[str, Callable[[], Call]] = {
    "max_cut": lambda: _max_cut(sweeps=60),
    "max_cut no bound": lambda: _max_cut(sweeps=60, bound=False),
    "max_cut proof": lambda: _max_cut(sweeps=60, bound="proof"),
    "max_cut newton-cg": lambda: _max_cut(method="newton-cg"),
    "newton_cg": lambda: _descend("newton_cg"),
    "hessian_descent": lambda: _descend("hessian_descent"),
    "pgd": lambda: _descend("pgd"),
    "expectation": _expectation,
    "structure mehler": lambda: _structure("mehler"),
    "structure tensor": lambda: _structure("tensor"),
    "structure sparse": lambda: _structure("sparse"),
    "structure spherical": lambda: _structure("spherical"),
    "structure sobol": lambda: _structure("sobol", n_nodes=512),
    "structure logistic": lambda: _structure("tensor", loss="logistic"),
    "jl": _embedding,
    "jl norms": lambda: _embedding(pairs="norms"),
    "jl objective": _jl_objective,
    "lanczos": _lanczos,
}


class Recorder:
    """What was compiled and what was loaded, with seconds of its own (nested ones taken off)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._inner: list[float] = []

    @contextmanager
    def timed(self, kind: str, kernel: str) -> Iterator[dict[str, Any]]:
        """Add a row unless the block clears its kind."""
        start = time.thread_time()
        self._inner.append(0.0)
        row = {"kind": kind, "kernel": kernel, "bytes": 0}
        try:
            yield row
        finally:
            seconds = time.thread_time() - start
            row["seconds"] = seconds - self._inner.pop()
            if row["kind"]:
                self.rows.append(row)
                if self._inner:
                    self._inner[-1] += seconds

    def install(self) -> None:
        """Watch Numba's compiler and cache."""
        from numba.core.dispatcher import _FunctionCompiler

        from derand_fast.kernels._cache import KernelCache

        compile_ = _FunctionCompiler.compile
        load, save = KernelCache.load_overload, KernelCache.save_overload

        def compiled(compiler: Any, args: Any, return_type: Any) -> Any:
            with self.timed("compile", _name_of(compiler.py_func)) as row:
                row["signature"] = str(args)
                result = compile_(compiler, args, return_type)
                row["bytes"] = _object_bytes(result)
                return result

        def loaded(cache: Any, sig: Any, context: Any) -> Any:
            with self.timed("load", cache._name) as row:
                result = load(cache, sig, context)
                row["kind"] = "load" if result is not None else ""
                return result

        def saved(cache: Any, sig: Any, data: Any) -> None:
            with self.timed("save", cache._name):
                save(cache, sig, data)

        _FunctionCompiler.compile = compiled
        KernelCache.load_overload, KernelCache.save_overload = loaded, saved


def _name_of(function: Any) -> str:
    return f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"


def _object_bytes(result: Any) -> int:
    """Size of the object file; inlined callees count in every caller."""
    try:
        return len(result.library._get_compiled_object())
    except (AttributeError, RuntimeError):  # a C function is not finished yet
        return 0


def _clocked(call: Call) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = call()
    return answer, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(name: str) -> dict[str, Any]:
    """Run one solver twice in this process."""
    _, numba_import = _clocked(lambda: __import__("numba"))
    recorder = Recorder()
    recorder.install()
    call, package_import = _clocked(SOLVERS[name])
    _, first = _clocked(call)
    rows = list(recorder.rows)
    _, second = _clocked(call)
    return {
        "numba_import": numba_import,
        "import": package_import,
        "first": first,
        "second": second,
        "late": len(recorder.rows) - len(rows),
        "rows": rows,
    }


def _run(name: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-P", __file__, "--child", name]
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _print_kernels(rows: list[dict[str, Any]], count: int) -> None:
    """Print the dearest kernels of one process."""
    kernels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] != "save":
            kernels.setdefault((row["kind"], row["kernel"]), []).append(row)
    dearest = sorted(kernels.items(), key=lambda item: -sum(row["seconds"] for row in item[1]))
    for (kind, kernel), found in dearest[:count]:
        seconds = sum(row["seconds"] for row in found)
        size = sum(row["bytes"] for row in found) / 1024
        print(f"    {kind:<8}{seconds:7.3f} s {len(found):3d} x {size:7.0f} KiB  {kernel}")


def main() -> None:
    """Print one line a solver."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("solvers", nargs="*", metavar="SOLVER", help=", ".join(SOLVERS))
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="list the N dearest")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    print(describe())
    print(
        f"{'solver':<20} {'import':>7} | {'cold cpu':>8} {'wall':>6} {'kernels':>7} {'KiB':>6} | "
        f"{'warm cpu':>8} {'wall':>6} {'loaded':>6} {'compiled':>8} | {'again':>6}"
    )
    everything = {}
    for name in arguments.solvers or SOLVERS:
        with tempfile.TemporaryDirectory() as folder:
            cold, warm = _run(name, folder), _run(name, folder)
        everything[name] = {"cold": cold, "warm": warm}

        def count(report: dict[str, Any], kind: str) -> int:
            return sum(row["kind"] == kind for row in report["rows"])

        size = sum(row["bytes"] for row in cold["rows"]) / 1024
        print(
            f"{name:<20} {warm['import']['cpu']:7.2f} | {cold['first']['cpu']:8.2f} "
            f"{cold['first']['wall']:6.2f} {count(cold, 'compile'):7d} {size:6.0f} | "
            f"{warm['first']['cpu']:8.3f} {warm['first']['wall']:6.3f} {count(warm, 'load'):6d} "
            f"{count(warm, 'compile'):8d} | {warm['second']['cpu']:6.3f}",
            flush=True,
        )
        if arguments.kernels:
            _print_kernels(cold["rows"], arguments.kernels)
            _print_kernels(warm["rows"], arguments.kernels)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(everything), encoding="utf-8")


if __name__ == "__main__":
    main()
