"""Value, gradient and Hessian products of network risks: three problems, against autodiff.

A: two layers, 1,000 units, 64 x 64 Gauss-Hermite nodes in 2 dimensions (4.1 M unit evaluations).
B: two layers, 256 units, 16,384 Sobol nodes in 10 dimensions (4.2 M).
C: three layers 10-256-256-1 on the nodes of B (8.4 M, and 256 x 256 products).

Squared loss, all parameters, smooth ReLU with iota = 2, float64 unless said. Rivals, where they are
installed: JAX (jit; Hessian products forward over reverse, and ``jax.linearize`` of the gradient,
made beforehand and not counted, which keeps all of it in memory) and PyTorch (eager and
torch.compile). "floor": log1p, exp and a division for each unit evaluation by numpy, in cache.
Our products are timed at a point that alternates ("new point"), where the loss is evaluated anew,
and at one point, as Lanczos and conjugate gradients ask for them.

``extra_info``: nanoseconds per unit evaluation, the largest relative deviation from our result, and
memory in MB: ours is the peak of all arrays, nodes included, XLA's its temporaries, or what the
linearisation holds. Peak memory of PyTorch is not known here. One thread: pinned to one core; on a
busy machine add ``--benchmark-timer=time.process_time``, which counts the time on it.
"""

import contextlib
import itertools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from derand_fast.kernels.quadrature import gauss_hermite
from derand_fast.objectives.node_risk import NodeRisk

IOTA = 2.0
# PyTorch warns of its own use of torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
# No rival, but what nobody can pass, for `harness.cases`.
LIMITS = ("floor",)
WIDTHS = {"A": (2, 1000, 1), "B": (10, 256, 1), "C": (10, 256, 256, 1)}
GRADIENT = ["ours", "ours float32", "ours W1, b1", "JAX", "PyTorch", "torch.compile", "floor"]
PRODUCT = [
    *("ours, new point", "ours", "ours float32", "ours W1, b1"),
    *("JAX", "JAX linearized", "PyTorch", "torch.compile"),
]


class Problem:
    def __init__(self, name):
        self.widths = WIDTHS[name]
        if name == "A":
            x, w = gauss_hermite(64)
            self.X = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
            self.weights = np.outer(w, w).ravel()
        else:
            points = scipy.stats.qmc.Sobol(10, rng=0).random(2**14)
            self.X = scipy.stats.norm.ppf(points)
            self.weights = np.full(2**14, 2.0**-14)
        self.y = np.sin(self.X[:, 0])
        self.units = len(self.X) * sum(self.widths[1:-1])
        rng = np.random.default_rng(0)
        self.shapes = [
            s for below, h in itertools.pairwise(self.widths) for s in ((h, below), (h,))
        ]
        scales = [shape[1] ** -0.5 if len(shape) == 2 else 0.1 for shape in self.shapes]
        parts = zip(self.shapes, scales, strict=True)
        self.p = np.concatenate([scale * rng.normal(size=s).ravel() for s, scale in parts])
        self.v = rng.normal(size=self.p.size)

    def risk(self, n_threads, active=None, dtype=np.float64):
        nodes = self.X, self.weights, self.y
        options = {"iota": IOTA, "active": active, "n_threads": n_threads, "dtype": dtype}
        return NodeRisk(self.widths, "smooth_relu", *nodes, **options)

    def parts(self, flat):
        """W_1, b_1, ... of a flat vector."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        pieces = np.split(flat, ends)
        return [a.reshape(s) for a, s in zip(pieces, self.shapes, strict=True)]

    def value(self, parts, X, weights, y, softplus):
        """The risk in terms of any array package."""
        a = X
        for W, b in zip(parts[:-2:2], parts[1:-2:2], strict=True):
            a = softplus(a @ W.T + b)
        return (weights * ((a @ parts[-2].T + parts[-1])[:, 0] - y) ** 2).sum()


def _pin(n_threads):
    """Keep all threads of the process on so many cores (Linux only)."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(_ALL_CORES)[:n_threads]
        for task in Path("/proc/self/task").iterdir():
            # Threads of our own passes may end in between.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


_ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


@pytest.fixture(autouse=True)
def _all_cores_afterwards():
    yield
    _pin(len(_ALL_CORES))


def _flat(parts):
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def _ours(problem, who, quantity, n_threads):
    """Return our call."""
    single = "float32" in who
    active = None
    if "W1" in who:
        active = (True, True) + (False,) * (len(problem.shapes) - 2)
    risk = problem.risk(n_threads, active, np.float32 if single else np.float64)
    if quantity == "gradient":
        return lambda: risk.value_and_grad(problem.p)[1]
    if "new point" in who:
        points = itertools.cycle([problem.p, problem.p + 1e-9])
        return lambda: risk.hvp(next(points), problem.v)
    return lambda: risk.hvp(problem.p, problem.v)


def _jax(problem, who, quantity):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    jax.config.update("jax_enable_x64", True)
    X, weights, y = map(jax.numpy.asarray, (problem.X, problem.weights, problem.y))
    p, v = ([jax.numpy.asarray(a) for a in problem.parts(u)] for u in (problem.p, problem.v))

    def value(parts):
        softplus = lambda z: jax.nn.softplus(IOTA * z) / IOTA  # noqa: E731
        return problem.value(parts, X, weights, y, softplus)

    if quantity == "gradient":
        compiled = jax.jit(jax.value_and_grad(value)).lower(p).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        return (lambda: _flat(jax.block_until_ready(compiled(p))[1])), memory
    if who == "JAX":
        product = jax.jit(lambda p, v: jax.jvp(jax.grad(value), (p,), (v,))[1])
        compiled = product.lower(p, v).compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        return (lambda: _flat(jax.block_until_ready(compiled(p, v)))), memory
    _, linear = jax.linearize(jax.jit(jax.grad(value)), p)
    held = sum(np.asarray(c).nbytes for c in jax.make_jaxpr(linear)(v).consts)
    linear = jax.jit(linear)
    return (lambda: _flat(jax.block_until_ready(linear(v)))), held


def _torch(problem, who, quantity, n_threads):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(n_threads)
    X, weights, y = map(torch.as_tensor, (problem.X, problem.weights, problem.y))
    p, v = (tuple(torch.as_tensor(a) for a in problem.parts(u)) for u in (problem.p, problem.v))

    def value(*parts):
        softplus = lambda z: torch.nn.functional.softplus(z, beta=IOTA, threshold=1e9)  # noqa: E731
        return problem.value(parts, X, weights, y, softplus)

    everything = tuple(range(len(p)))
    gradient = torch.func.grad(value, argnums=everything)
    with_value = torch.func.grad_and_value(value, argnums=everything)
    if quantity == "gradient" and who == "PyTorch":

        def eager():
            leaves = [part.clone().requires_grad_() for part in p]
            value(*leaves).backward()
            return _flat([leaf.grad for leaf in leaves])

        return eager
    if quantity == "gradient":
        compiled = torch.compile(lambda *p: with_value(*p))
        return lambda: _flat(compiled(*p)[0])

    def product(p, v):
        return torch.func.jvp(gradient, p, v)[1]

    function = torch.compile(product) if who == "torch.compile" else product
    return lambda: _flat(function(p, v))


def _floor(problem):
    z = np.random.default_rng(0).normal(size=2**14)

    def passes():
        for _ in range(problem.units // z.size):
            e = np.exp(-np.abs(z))
            softplus = np.maximum(z, 0.0) + np.log1p(e)
            sigmoid = 1.0 / (1.0 + e)
        return softplus, sigmoid

    return passes


def _run(benchmark, name, quantity, who, n_threads):
    benchmark.group = f"{name}, {quantity}, threads: {n_threads}"
    if n_threads > len(_ALL_CORES):
        pytest.skip("fewer cores than threads")
    if who == "torch.compile" and benchmark.disabled:
        pytest.skip("torch.compile takes half a minute")
    problem = Problem(name)
    memory = None
    if who == "floor":
        call = _floor(problem)
    elif who.startswith("ours"):
        call = _ours(problem, who, quantity, n_threads)
    elif who.startswith("JAX"):
        call, memory = _jax(problem, who, quantity)
    else:
        call = _torch(problem, who, quantity, n_threads)
    # Threads of the pools exist only after the first call.
    result = call()
    _pin(n_threads)
    if who != "floor":
        expected = _ours(problem, "ours", quantity, n_threads)()
        shared = result != 0.0 if "W1" in who else slice(None)
        if "W1" not in who or quantity == "gradient":
            deviation = np.linalg.norm((result - expected)[shared]) / np.linalg.norm(expected)
            assert deviation < (1e-4 if "float32" in who else 1e-8 if "new" in who else 1e-12)
            benchmark.extra_info["deviation"] = f"{deviation:.1g}"
    if who.startswith("ours"):
        tracemalloc.start()
        again = _ours(problem, who, quantity, n_threads)
        again(), again()
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if memory is not None:
        benchmark.extra_info["MB"] = round(memory / 1e6, 1)
    benchmark.pedantic(call, rounds=10, warmup_rounds=1)
    if benchmark.stats is not None:
        nanoseconds = benchmark.stats["min"] / problem.units * 1e9
        benchmark.extra_info["ns per unit evaluation"] = round(nanoseconds, 2)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("who", GRADIENT)
@pytest.mark.parametrize("name", list(WIDTHS))
def test_value_and_gradient(benchmark, name, who, n_threads):
    if who == "floor" and n_threads == 2:
        pytest.skip("numpy runs on one thread")
    _run(benchmark, name, "gradient", who, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("who", PRODUCT)
@pytest.mark.parametrize("name", list(WIDTHS))
def test_hessian_product(benchmark, name, who, n_threads):
    _run(benchmark, name, "Hessian product", who, n_threads)
