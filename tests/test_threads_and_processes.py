"""Solvers called from several threads and processes at once: the same bits, nothing left behind."""

import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import solver_calls

from derand_fast import kernels
from derand_fast.generators import random_graph
from derand_fast.kernels.maxcut import anneal_rows, flip_gains, mixing_sweeps
from derand_fast.relaxation import ScaledGraph

# Long enough for a child that has to import everything on a busy machine.
PATIENCE = 120


def results(calls):
    return {call.__name__: call() for call in calls}


# --------------------------------------------------------------------------------------------------
# Threads
# --------------------------------------------------------------------------------------------------


def test_two_threads_call_all_solvers_at_once():
    pytest.importorskip("sklearn")
    expected = results(solver_calls.ALL)
    gate = threading.Barrier(2)

    def work(step):
        found = []
        for k in range(len(solver_calls.ALL)):
            gate.wait(PATIENCE)  # so that each call of one thread meets another of the other
            call = solver_calls.ALL[step * k % len(solver_calls.ALL)]
            found.append((call.__name__, call()))
        return found

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(work, (1, 2)):
            assert len(found) == len(solver_calls.ALL)
            for name, result in found:
                assert result == expected[name], name


@pytest.mark.parametrize("call", solver_calls.ALL, ids=lambda call: call.__name__)
def test_two_threads_in_the_same_solver(call):
    if call is solver_calls.embedding:
        pytest.importorskip("sklearn")
    expected = call()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(call) for _ in range(4)]
    assert [future.result() for future in futures] == [expected] * 4


def test_threads_are_gone_and_settings_restored_after_each_call():
    pytest.importorskip("sklearn")
    from threadpoolctl import threadpool_info

    def settings():
        # Numba's question first: it loads OpenMP, which the other then lists.
        of_numba = numba.get_num_threads()
        blas = [library["num_threads"] for library in threadpool_info()]
        return threading.active_count(), of_numba, blas

    results(solver_calls.ALL)  # loads every library
    for call in solver_calls.ALL:
        before = settings()
        call()
        assert settings() == before, call.__name__


def test_blas_threads_are_restored_when_fits_overlap():
    """The first fit to begin ends first: the other still runs on one BLAS thread."""
    pytest.importorskip("sklearn")
    from threadpoolctl import threadpool_info

    from derand_fast import JLEmbedding

    def blas_threads():
        return [
            library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
        ]

    begun = {"first": threading.Event(), "second": threading.Event()}
    first_ended = threading.Event()
    seen = []

    class Waiting(JLEmbedding):
        def _fit(self, *_):
            if self.verbose == "first":
                begun["first"].set()
                assert begun["second"].wait(PATIENCE)
            else:
                begun["second"].set()
                assert first_ended.wait(PATIENCE)
                seen.extend(blas_threads())

    rows = np.eye(3)
    before = blas_threads()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Waiting(verbose="first").fit, rows)
        assert begun["first"].wait(PATIENCE)
        second = pool.submit(Waiting(verbose="second").fit, rows)
        first.result(PATIENCE)
        first_ended.set()
        second.result(PATIENCE)
    assert set(seen) == {1}
    assert blas_threads() == before


# --------------------------------------------------------------------------------------------------
# The GIL
# --------------------------------------------------------------------------------------------------


def states_seen_from_outside(kernel, array):
    """Run a kernel in a thread; return how many states of its array another thread sees meanwhile.

    With the GIL held there are two at most: before and after.
    """
    started, ended = threading.Event(), threading.Event()

    def work():
        started.set()
        kernel()
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(PATIENCE)
    states = set()
    while not ended.is_set():
        states.add(array.tobytes())
    thread.join()
    return len(states)


def scaled_graph():
    return ScaledGraph.of(random_graph(500, 2000, seed=1))


def test_annealing_releases_the_gil():
    graph = scaled_graph()
    rows = np.random.default_rng(0).standard_normal((graph.n_vertices, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    flat = rows.reshape(-1)
    arguments = (graph.indptr, graph.indices, graph.weights32, flat, 0.3)
    anneal_rows(*arguments, 0.99, 1)
    # Thousands of sweeps, a tenth of a second: the schedule keeps all rows moving.
    assert states_seen_from_outside(lambda: anneal_rows(*arguments, 0.9995, 10_000), flat[:8]) > 2


def test_relaxation_releases_the_gil():
    graph = scaled_graph()
    rows = np.random.default_rng(0).standard_normal((graph.n_vertices, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    arguments = (graph.indptr, graph.indices, graph.weights32, rows)
    mixing_sweeps(*arguments, 1)
    assert states_seen_from_outside(lambda: mixing_sweeps(*arguments, 4_000), rows[0]) > 2


def test_every_kernel_is_compiled_to_release_the_gil():
    import importlib
    import pkgutil

    count = 0
    for module in pkgutil.iter_modules(kernels.__path__):
        loaded = importlib.import_module(f"derand_fast.kernels.{module.name}")
        for name, item in vars(loaded).items():
            if isinstance(item, numba.core.registry.CPUDispatcher):
                assert item.targetoptions.get("nogil"), f"{module.name}.{name}"
                count += 1
    assert count > 50
    assert flip_gains.targetoptions["nogil"]


# --------------------------------------------------------------------------------------------------
# Processes
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_started_after_the_solvers_ran_here(method):
    """The parent has run parallel kernels and threads; what it forks must not stumble over them."""
    expected = solver_calls.quick_results()
    context = multiprocessing.get_context(method)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=solver_calls.send_quick_results, args=(there,))
    process.start()
    there.close()
    try:
        assert here.poll(PATIENCE), "no answer"
        assert here.recv() == expected
        process.join(PATIENCE)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        here.close()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_workers(backend):
    joblib = pytest.importorskip("joblib")
    expected = solver_calls.quick_results()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(call)() for call in solver_calls.QUICK)
    assert found == list(expected.values())
    if backend == "loky":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


def test_import_starts_nothing():
    import subprocess

    code = (
        "import sys, threading, derand_fast;"
        "heavy = {'numba', 'numpy', 'scipy', 'networkx', 'sklearn'} & set(sys.modules);"
        "print(sorted(heavy), threading.active_count())"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.split() == ["[]", "1"]
