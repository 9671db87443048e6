"""Stress: solvers in two threads, in new processes, and interrupted at random times.

    python bench/stress.py threads --calls 200     # two threads, so many mixed calls each
    python bench/stress.py processes               # fork, spawn, forkserver and loky workers
    python bench/stress.py interrupts --rounds 100 # KeyboardInterrupt at a random moment
    python bench/stress.py                         # all of it

Each prints a Markdown table of what was done and what went wrong: results that differ from those
of a quiet call, threads, files and processes left behind, settings not restored. The exit status is
1 if anything did. A call that is interrupted may raise KeyboardInterrupt or return its best so far,
which is checked; the same call made again must give the quiet result.
"""

import argparse
import functools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import networkx as nx
import numba
import numpy as np
from machine import describe

from derand_fast import (
    GaussianExpectation,
    JLEmbedding,
    discover_structure,
    max_cut,
    networkx_backend,
    newton_cg,
)
from derand_fast.generators import random_graph
from derand_fast.objectives import MaxCutObjective

# --------------------------------------------------------------------------------------------------
# The calls: each returns plain bytes and numbers, and takes some hundredths of a second
# --------------------------------------------------------------------------------------------------


@functools.cache
def graph():
    """Graph of the cuts."""
    return random_graph(300, 1200, seed=1)


def cut():
    """Anneal, with a bound."""
    result = max_cut(graph(), sweeps=2000, n_threads=2, seed=3)
    check_cut(result)
    return result.message, result.partition.tobytes(), result.cut_value, result.upper_bound


def descended_cut():
    """Descend to a second-order stationary point of the smoothed cut."""
    result = max_cut(random_graph(40, 90, seed=2), method="newton-cg", n_threads=2, seed=3)
    return result.message, result.partition.tobytes(), result.cut_value, result.upper_bound


def check_cut(result):
    """Raise unless a cut, finished or not, has the value it says, and the bound is above."""
    tails, heads, weights = graph().edges()
    value = weights[result.partition[tails] != result.partition[heads]].sum()
    assert value == result.cut_value
    assert result.upper_bound is None or value <= result.upper_bound


def structure():
    """Train a network."""
    result = discover_structure("tanh", d=2, hidden=20, lam=1e-2, rho=1e-4, seed=1, n_threads=2)
    return result.certificate.x.tobytes(), result.collapse


def embedding():
    """Search for a linear map."""
    rows = np.random.default_rng(0).standard_normal((60, 30))
    fitted = JLEmbedding(5, max_iter=200, n_jobs=2, random_state=0).fit(rows)
    return fitted.components_.tobytes(), fitted.max_distortion_


@numba.njit
def _value(z, theta):
    return (z[0] ** 2 - 1.0) ** 2 + z[0] * z[1] + z[1] ** 2


@numba.njit
def _gradient(z, theta, out_z, out_theta):
    out_z[0] = 4.0 * z[0] * (z[0] ** 2 - 1.0) + z[1]
    out_z[1] = z[0] + 2.0 * z[1]


@functools.cache
def gaussian():
    """Return the expectation that all threads share."""
    return GaussianExpectation((_value, _gradient), (2, 3), lam=0.1, level=20, n_threads=2)


def expectation():
    """Minimise E[g(W x + b)]."""
    result = newton_cg(gaussian(), np.linspace(0.5, 1.0, gaussian().n_params), rho=1e-4)
    return result.x.tobytes(), result.lambda_min_lower


@functools.cache
def smoothed():
    """Return the smoothed cut that all threads share."""
    return MaxCutObjective(random_graph(2000, 12_000, seed=1), 4, tau=0.5, lam=0.1, n_threads=2)


def smoothed_cut():
    """Evaluate it in parallel kernels."""
    point = np.random.default_rng(1).standard_normal(smoothed().n_params)
    value, gradient = smoothed().value_and_grad(point)
    return value, gradient.tobytes(), smoothed().hvp(point, gradient).tobytes()


@functools.cache
def network():
    """Graph for networkx, converted."""
    return networkx_backend.convert_from_nx(nx.gnm_random_graph(1000, 5000, seed=1))


def exchange():
    """Search as networkx does."""
    value, (side, _) = networkx_backend.one_exchange(network(), seed=random.Random(2))
    return value, tuple(side)


CALLS = (cut, descended_cut, structure, embedding, expectation, smoothed_cut, exchange)


def quiet_results():
    """Results of calls that nothing disturbs, and seconds of second calls."""
    expected, seconds = {}, {}
    for call in CALLS:
        call()
        begin = time.perf_counter()
        expected[call.__name__] = call()
        seconds[call.__name__] = time.perf_counter() - begin
    return expected, seconds


def footprint():
    """Threads, open files, child processes, and numbers of threads set in the libraries."""
    from threadpoolctl import threadpool_info

    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return {
        "threads": threading.active_count(),
        "files": files,
        "processes": len(multiprocessing.active_children()),
        "numba threads": numba.get_num_threads(),
        "BLAS threads": [library["num_threads"] for library in threadpool_info()],
    }


def left_behind(before):
    """Return what differs from an earlier footprint, once threads had a moment to end."""
    for _ in range(100):
        after = footprint()
        if after == before:
            return {}
        time.sleep(0.02)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def print_row(*cells):
    """Print one row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


# --------------------------------------------------------------------------------------------------
# Threads
# --------------------------------------------------------------------------------------------------


def threads(arguments):
    """Make mixed calls in two threads; return the number of failures."""
    expected, _ = quiet_results()
    before = footprint()
    wrong, errors, done = Counter(), Counter(), Counter()

    def work(seed):
        r = random.Random(seed)
        for _ in range(arguments.calls):
            call = r.choice(CALLS)
            try:
                if call() != expected[call.__name__]:
                    wrong[call.__name__] += 1
            except Exception as error:
                errors[f"{call.__name__}: {error!r}"] += 1
            done[call.__name__] += 1

    begin = time.perf_counter()
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begin
    left = left_behind(before)
    print("| call | times | wrong |")
    print("|---|---:|---:|")
    for call in CALLS:
        print_row(call.__name__, done[call.__name__], wrong[call.__name__])
    print(f"\n2 threads, {arguments.calls} calls each, {seconds:.1f} s; errors: {dict(errors)}; ")
    print(f"left behind: {left or 'nothing'}\n")
    return sum(wrong.values()) + sum(errors.values()) + len(left)


# --------------------------------------------------------------------------------------------------
# Processes
# --------------------------------------------------------------------------------------------------


def send_results(connection):
    """Make each call once and send the results."""
    connection.send({call.__name__: call() for call in CALLS})
    connection.close()


def answer_of_process(method):
    """Results of a process started by a method, or what it ended with."""
    context = multiprocessing.get_context(method)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=send_results, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(300) else "no answer"
    except EOFError:
        process.join()
        return f"exit status {process.exitcode}"
    finally:
        process.kill()
        process.join()
        here.close()


def answer_of_loky():
    """Results of joblib's workers."""
    import joblib

    # Workers find functions by the name of their module, which __main__ is not for them.
    import stress
    from joblib.externals.loky import get_reusable_executor

    found = joblib.Parallel(2)(joblib.delayed(call)() for call in stress.CALLS)
    get_reusable_executor().shutdown(wait=True)
    return dict(zip((call.__name__ for call in CALLS), found, strict=True))


def processes(_arguments):
    """Start processes by all methods after the solvers ran here; return the failures."""
    expected, _ = quiet_results()
    print("| workers | seconds | results |")
    print("|---|---:|---|")
    failures = 0
    for method in (*multiprocessing.get_all_start_methods(), "loky"):
        begin = time.perf_counter()
        found = answer_of_loky() if method == "loky" else answer_of_process(method)
        seconds = time.perf_counter() - begin
        if found == expected:
            verdict = "equal bit by bit"
        elif isinstance(found, str):
            verdict = found
        else:
            verdict = f"differ: {[name for name in expected if found[name] != expected[name]]}"
        failures += found != expected
        print_row(method, f"{seconds:.1f}", verdict)
    print()
    return failures


# --------------------------------------------------------------------------------------------------
# Interrupts
# --------------------------------------------------------------------------------------------------


def interrupted(call, delay):
    """Make a call that a KeyboardInterrupt hits after a delay, unless it is done before.

    Returns "raised", or "returned" and the result.
    """
    result = None
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        result = call()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    except KeyboardInterrupt:
        return "raised", None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return "returned", result


def interrupts(arguments):
    """Interrupt calls at random moments; return the failures."""
    # The handler of SIGINT, at the moments of a timer.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    expected, seconds = quiet_results()
    before = footprint()
    r = random.Random(arguments.seed)
    counts = {call.__name__: Counter() for call in CALLS}
    lefts = []
    for k in range(arguments.rounds):
        call = CALLS[k % len(CALLS)]
        name = call.__name__
        count = counts[name]
        try:
            outcome, result = interrupted(call, r.uniform(1e-4, seconds[name]))
            if outcome == "returned" and result != expected[name]:
                outcome = "best so far"
            count[outcome] += 1
        except Exception as error:
            count["error"] += 1
            print(f"{name}: {error!r}", file=sys.stderr)
        left = left_behind(before)
        if left:
            lefts.append((name, left))
            before = footprint()
        count["wrong after"] += call() != expected[name]
    kinds = ("raised", "best so far", "returned", "error", "wrong after")
    print(f"| call | {' | '.join(kinds)} |")
    print("|---|" + "---:|" * len(kinds))
    for name, count in counts.items():
        print_row(name, *(count[kind] for kind in kinds))
    print(f"\n{arguments.rounds} interrupts; left behind: {lefts or 'nothing'}\n")
    bad = sum(count["error"] + count["wrong after"] for count in counts.values())
    return bad + len(lefts)


def in_a_subprocess(name, arguments):
    """Run one part in a process of its own, so that a crash shows as an exit status."""
    command = [sys.executable, __file__, name, "--calls", str(arguments.calls)]
    command += ["--rounds", str(arguments.rounds), "--seed", str(arguments.seed)]
    status = subprocess.run(command, check=False).returncode
    if status not in (0, 1):
        print(f"{name}: exit status {status}", flush=True)
    return status != 0


def main():
    """Read the command line and run the parts."""
    parts = {"threads": threads, "processes": processes, "interrupts": interrupts}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=parts)
    parser.add_argument("--calls", type=int, default=200, help="calls of each thread")
    parser.add_argument("--rounds", type=int, default=100, help="interrupts")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.part:
        return int(parts[arguments.part](arguments) > 0)
    print(f"{describe()}\n", flush=True)
    return int(sum(in_a_subprocess(name, arguments) for name in parts) > 0)


if __name__ == "__main__":
    sys.exit(main())
