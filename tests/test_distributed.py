"""Shards, restarts and row blocks: here, in threads and processes, and on a Dask cluster."""

import dataclasses
import os
import pickle
import signal
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import derand_fast
from derand_fast import JLEmbedding, NetworkRisk, Teacher, certify, newton_cg, pgd
from derand_fast.distributed import ShardedObjective, max_cut, shard, sharded
from derand_fast.distributed import embedding as blocks
from derand_fast.distributed.ordered_sum import OrderedSum
from derand_fast.distributed.pools import as_pool
from derand_fast.generators import random_graph
from derand_fast.networks import random_network
from derand_fast.objectives import Block, GaussianExpectation, JLObjective, MaxCutObjective
from derand_fast.objectives.node_risk import NodeRisk

GRAPH = random_graph(60, 200, seed=1)


@pytest.fixture(scope="module")
def client():
    """Two worker processes of one thread; a new one replaces one that dies."""
    distributed = pytest.importorskip("distributed", reason="needs the extra distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(processes=True, **options) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made


def kill_one_worker(client):
    os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)


# --------------------------------------------------------------------------------------------------
# Sums in a fixed order
# --------------------------------------------------------------------------------------------------


def tree_sum(terms):
    """Slow twin: add neighbours, level by level."""
    while len(terms) > 1:
        pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
        terms = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return terms[0]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13, 100])
def test_ordered_sum_does_not_depend_on_the_holders(count):
    random = np.random.default_rng(count)
    terms = (random.standard_normal(count) * 10.0 ** random.integers(-9, 9, count)).tolist()
    expected = tree_sum(terms)
    for holders in (1, 2, 3, 5):
        cuts = np.linspace(0, count, holders + 1).astype(int)
        total = OrderedSum(count)
        for holder in random.permutation(holders):
            part = OrderedSum(count)
            for place in random.permutation(np.arange(cuts[holder], cuts[holder + 1])):
                part.add(int(place), terms[place])
            assert len(part.nodes) <= 2 * np.log2(count + 1) + 1
            total.absorb(part.nodes)
        assert total.total == expected


# --------------------------------------------------------------------------------------------------
# The package's objectives in shards
# --------------------------------------------------------------------------------------------------


def cut_objective():
    return MaxCutObjective(GRAPH, 3, tau=0.3, lam=0.5)


def node_risk(loss="squared"):
    X = np.random.default_rng(1).standard_normal((50, 3))
    y = np.column_stack((np.sign(X[:, 0]), -np.ones(50)))
    return NodeRisk((3, 4, 1), "tanh", X, np.full((50, 2), 0.02), y, loss=loss)


def network_risk():
    teacher = Teacher("tanh", d=3, noise=0.3)
    return NetworkRisk(
        random_network(3, 4), teacher, lam=0.01, rule="tensor", n_nodes=1000, n_inside=12
    )


def distortion(**options):
    X = np.random.default_rng(2).standard_normal((40, 6))
    X[5], X[30] = X[4], X[4]
    return JLObjective(X, 3, eps=0.5, lam=0.01, **options)


OBJECTIVES = {
    "cut": cut_objective,
    "nodes": node_risk,
    "logistic": partial(node_risk, "logistic"),
    "network": network_risk,
    "pairs": distortion,
    "norms": partial(distortion, pairs="norms"),
    "rows": partial(distortion, sigma="rows", loss="moment2"),
}


def point_of(objective, seed=0):
    return np.random.default_rng(seed).standard_normal((2, objective.n_params))


def close(actual, expected):
    """Equal but for the rounding of other orders of addition (some hundred terms)."""
    scale = np.abs(expected).max() + 1e-300
    return np.abs(np.asarray(actual) - expected).max() <= 1e-12 * scale


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("n_shards", [1, 5])
def test_shards_sum_up_to_the_objective(name, n_shards):
    whole = OBJECTIVES[name]()
    parts = shard(whole, n_shards)
    x, v = point_of(whole)
    assert parts.n_params == whole.n_params
    assert getattr(parts, "lam", 0.0) == getattr(whole, "lam", 0.0)
    value, gradient = whole.value_and_grad(x)
    assert close(parts.value(x), value)
    assert close(parts.value_and_grad(x)[0], value)
    assert close(parts.value_and_grad(x)[1], gradient)
    assert close(parts.hvp(x, v), whole.hvp(x, v))


def dense(matrix):
    size = matrix.shape[0]
    if isinstance(matrix, np.ndarray):
        return matrix
    return matrix @ np.eye(size)


@pytest.mark.parametrize("name", ["cut", "network", "pairs", "rows"])
def test_optional_members_are_those_of_the_objective(name):
    whole = OBJECTIVES[name]()
    parts = shard(whole, 4)
    x, _ = point_of(whole)
    assert dict(parts.blocks) == dict(whole.blocks)
    assert close(dense(parts.bias_hessian(x)), dense(whole.bias_hessian(x)))
    if name in ("pairs", "rows"):
        assert parts.collapse_step is None
        assert close(parts.weight_curvature(x), whole.weight_curvature(x))
    else:
        assert getattr(parts, "weight_curvature", None) is None
        np.testing.assert_array_equal(parts.collapse_step(x), whole.collapse_step(x))


def test_a_risk_that_has_collapsed_is_the_same():
    """At W_perp = 0 the risk needs its k-dimensional nodes alone, which are not cut up."""
    whole = network_risk()
    parts = shard(whole, 3)
    x, v = point_of(whole)
    x[whole.blocks["W"].slice] = 0.0
    assert parts.value(x) == whole.value(x)
    np.testing.assert_array_equal(parts.hvp(x, v), whole.hvp(x, v))


def test_shards_of_nothing():
    """No edges; equal rows: blocks without a pair that counts."""
    empty = shard(MaxCutObjective((3, [], None), 2, tau=0.1, lam=0.5), 4)
    x, v = point_of(empty)
    assert empty.value(x) == 0.5 * np.square(x[:6]).sum()
    np.testing.assert_array_equal(empty.hvp(x, v), np.concatenate((v[:6], np.zeros(3))))
    rows = np.repeat(np.eye(3), 10, axis=0)
    whole = JLObjective(rows, 2, eps=0.5, lam=0.01, loss="moment2")
    x, v = point_of(whole)
    parts = shard(whole, 6)
    assert close(parts.value(x), whole.value(x))
    assert close(parts.hvp(x, v), whole.hvp(x, v))
    assert close(parts.weight_curvature(x), whole.weight_curvature(x))


def test_pickles_hold_no_client_and_the_same_bits():
    for name in ("cut", "network", "pairs"):
        parts = shard(OBJECTIVES[name](), 3)
        copy = pickle.loads(pickle.dumps(parts))
        x, v = point_of(parts)
        assert copy.value(x) == parts.value(x)
        np.testing.assert_array_equal(copy.hvp(x, v), parts.hvp(x, v))


def test_minimisers_take_shards():
    whole = cut_objective()
    parts = shard(whole, 4)
    x, _ = point_of(whole)
    found = newton_cg(parts, x, rho=1e-3)
    assert found.success
    assert found.collapse_bound <= found.rho
    assert certify(whole, found.x, rho=1e-3).certified
    risk = shard(node_risk(), 3)
    assert pgd(risk, point_of(risk)[0], rho=1e-3, max_iter=5).nit == 5


# --------------------------------------------------------------------------------------------------
# Shards of the user's own
# --------------------------------------------------------------------------------------------------


class Quartic:
    """sum (x - centre)^4."""

    def __init__(self, centre):
        self.centre = np.asarray(centre, dtype=float)
        self.n_params = self.centre.size

    def value(self, x):
        return float(((x - self.centre) ** 4).sum())

    def value_and_grad(self, x):
        return self.value(x), 4.0 * (x - self.centre) ** 3

    def hvp(self, x, v):
        return 12.0 * (x - self.centre) ** 2 * v


def test_parts_and_recipes():
    x, v = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 3.0])
    f = ShardedObjective(
        [Quartic([0.0, 1.0]), partial(Quartic, [2.0]), Quartic([])][:2],
        parts=[[2, 0], [1]],
        n_params=3,
        lam=0.25,
        blocks={"W": Block(slice(1, 3), (2, 1))},
    )
    expected = 0.5**4 + 0.0 + 4.0**4 + 0.25 * (4.0 + 0.25)
    assert f.value(x) == expected
    assert f.value_and_grad(x)[0] == expected
    np.testing.assert_array_equal(
        f.value_and_grad(x)[1], [0.0, 4.0 * -64.0 - 1.0, 4.0 * 0.125 + 0.25]
    )
    np.testing.assert_array_equal(f.hvp(x, v), [0.0, 12 * 16 * 2.0 + 1.0, 12 * 0.25 * 3.0 + 1.5])
    assert f.bias_hessian is None
    assert f.collapse_step is None
    assert repr(f) == "ShardedObjective(n_params=3, n_shards=2, lam=0.25, on this process)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shards": []}, ValueError, "shards must hold at least one"),
        ({"shards": "abc"}, TypeError, "shards must be a sequence"),
        ({"shards": [3]}, TypeError, r"shards\[0\] must be an objective or a function"),
        ({"shards": [dict]}, TypeError, r"shards\[0\]: dict is no objective: it lacks n_params"),
        ({"shards": [Quartic([0]), Quartic([0, 1])]}, ValueError, r"shards\[1\].n_params must be"),
        ({"lam": -1.0}, ValueError, "lam must be finite"),
        ({"lam": 1.0}, ValueError, 'blocks must name "W"'),
        ({"collapses": True}, ValueError, 'blocks must name "W"'),
        ({"blocks": {"W": Block(slice(0, 3), (3, 1))}}, ValueError, "blocks"),
        ({"parts": [[0, 1]]}, ValueError, "parts need n_params"),
        ({"parts": [], "n_params": 2}, ValueError, "parts must be as many as shards, 1, got 0"),
        ({"parts": [[0, 2]], "n_params": 2}, ValueError, "must be entries of x, 0 to 1; got 0 to"),
        ({"parts": [[1, 1]], "n_params": 2}, ValueError, "must name no entry twice"),
        ({"parts": [[0.5, 1]], "n_params": 2}, TypeError, "must be a vector of integers"),
        ({"parts": [[0]], "n_params": 2}, ValueError, r"shards\[0\].n_params must be 1, got 2"),
        ({"n_params": 3}, ValueError, r"shards\[0\].n_params must be 3, got 2"),
        ({"n_params": 0}, ValueError, "n_params must be at least 1"),
        ({"client": 5}, (TypeError, ImportError), "client"),
    ],
)
def test_bad_shards(arguments, error, message):
    with pytest.raises(error, match=message):
        ShardedObjective(**{"shards": [Quartic([0.0, 1.0])], **arguments})


def test_bad_objectives_and_points():
    with pytest.raises(TypeError, match="make a ShardedObjective of shards of your own"):
        shard(Quartic([0.0]), 2)
    g = (lambda z, t: 0.0, lambda z, t, out_z, out_t: None)
    expectation = GaussianExpectation(g, (1, 1), lam=0.0)
    with pytest.raises(TypeError, match="not GaussianExpectation"):
        shard(expectation, 2)
    with pytest.raises(ValueError, match="has no nodes to cut into shards"):
        shard(NetworkRisk(random_network(3, 4), Teacher("tanh", d=3), lam=0.01), 2)
    with pytest.raises(ValueError, match="n_shards must be at least 1, got 0"):
        shard(cut_objective(), 0)
    f = shard(cut_objective(), 2)
    with pytest.raises(ValueError, match=r"x must have shape \(240,\), got \(3,\)"):
        f.value(np.zeros(3))
    with pytest.raises(ValueError, match=r"v\[0\] is nan"):
        f.hvp(np.zeros(240), np.full(240, np.nan))


# --------------------------------------------------------------------------------------------------
# On a cluster
# --------------------------------------------------------------------------------------------------


def assert_same_bits(here, there, x, v):
    assert here.value(x) == there.value(x)
    for one, other in zip(here.value_and_grad(x), there.value_and_grad(x), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(here.hvp(x, v), there.hvp(x, v))


@pytest.mark.parametrize("name", ["cut", "network", "pairs"])
def test_workers_give_the_same_bits(client, name):
    whole = OBJECTIVES[name]()
    here, there = shard(whole, 5), shard(whole, 5, client=client)
    x, v = point_of(whole)
    assert_same_bits(here, there, x, v)
    np.testing.assert_array_equal(dense(here.bias_hessian(x)), dense(there.bias_hessian(x)))


def test_a_minimiser_on_workers_takes_the_same_steps(client):
    whole = node_risk()
    start, _ = point_of(whole)
    here = newton_cg(shard(whole, 3), start, rho=1e-2, max_iter=6)
    there = newton_cg(shard(whole, 3, client=client), start, rho=1e-2, max_iter=6)
    np.testing.assert_array_equal(here.x, there.x)
    assert (here.nit, here.lambda_min) == (there.nit, there.lambda_min)


def test_large_points_go_from_worker_to_worker(client, monkeypatch):
    whole = cut_objective()
    monkeypatch.setattr(sharded, "_INLINE_BYTES", 0)
    assert_same_bits(shard(whole, 4), shard(whole, 4, client=client), *point_of(whole))


def test_a_killed_worker_changes_nothing(client):
    """It dies in the middle of evaluations; its shards are built again."""
    whole = cut_objective()
    here, there = shard(whole, 5), shard(whole, 5, client=client)
    x, v = point_of(whole)
    value, gradient = here.value_and_grad(x)
    killer = threading.Timer(0.05, kill_one_worker, [client])
    killer.start()
    evaluations = 0
    while killer.is_alive() or evaluations < 5:
        found = there.value_and_grad(x)
        assert found[0] == value
        np.testing.assert_array_equal(found[1], gradient)
        evaluations += 1
    np.testing.assert_array_equal(there.hvp(x, v), here.hvp(x, v))


def test_what_a_recipe_raises_comes_through(client, monkeypatch):
    """Also where a worker lacks the module of a recipe."""
    with pytest.raises(ZeroDivisionError):
        ShardedObjective([partial(divmod, 1, 0)], client=client)
    with pytest.raises(TypeError, match=r"shards\[0\]: dict is no objective"):
        ShardedObjective([dict], client=client)
    elsewhere = types.ModuleType("only_in_this_process")

    def make():
        return Quartic([0.0])

    make.__module__, make.__qualname__ = elsewhere.__name__, "make"
    elsewhere.make = make
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        ShardedObjective([make], client=client)


# --------------------------------------------------------------------------------------------------
# Restarts
# --------------------------------------------------------------------------------------------------


def signature(result):
    """What must not depend on workers or time."""
    return (
        *(result.cut_value, result.upper_bound, result.sweeps, result.message, result.seed),
        *(result.partition.tobytes(), [cut.partition.tobytes() for cut in result.solutions]),
    )


RESTARTS = {"restarts": 3, "sweeps": 60, "n_solutions": 3, "seed": 5}


@pytest.fixture(scope="module")
def restarted():
    return max_cut(GRAPH, **RESTARTS)


def test_restarts_are_never_worse_than_one(restarted):
    tails, heads, weights = GRAPH.edges()
    signs = restarted.partition
    assert restarted.cut_value == weights[signs[tails] != signs[heads]].sum()
    assert restarted.cut_value <= restarted.upper_bound
    assert restarted.expected_cut <= restarted.cut_value
    assert restarted.history[-1].cut_value == restarted.cut_value
    values = [solution.cut_value for solution in restarted.solutions]
    assert values == sorted(values, reverse=True)
    assert values[0] == restarted.cut_value
    assert len({solution.partition.tobytes() for solution in restarted.solutions}) == 3
    # One sweep budget, all searches together: 3 restarts of 60, and what checks and bounds take.
    assert 3 * 58 <= restarted.sweeps <= 3 * 60 + 8


def test_restarts_in_threads_and_joblib(restarted):
    expected = signature(restarted)
    with ThreadPoolExecutor(2) as pool:
        assert signature(max_cut(GRAPH, client=pool, **RESTARTS)) == expected
    joblib = pytest.importorskip("joblib", reason="needs joblib")
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert signature(max_cut(GRAPH, client="joblib", **RESTARTS)) == expected
    with joblib.Parallel(n_jobs=2, backend="threading", return_as="generator") as parallel:
        assert signature(max_cut(GRAPH, client=parallel, **RESTARTS)) == expected


def test_restarts_on_workers(client, restarted):
    assert signature(max_cut(GRAPH, client=client, **RESTARTS)) == signature(restarted)


def test_restarts_survive_a_killed_worker(client, restarted):
    killer = threading.Timer(0.1, kill_one_worker, [client])
    killer.start()
    result = max_cut(GRAPH, client=client, **RESTARTS)
    killer.join()
    assert signature(result) == signature(restarted)


def test_restarts_of_problems_and_fixed_vertices():
    problem = derand_fast.from_qubo({(0, 0): -1.0, (0, 1): 2.0, (1, 1): -1.0})
    result = max_cut(problem, restarts=2, effort="quick")
    assert (result.energy, result.energy_lower_bound) == (-1.0, -1.0)
    assert sorted(result.sample.values()) == [0, 1]
    fixed = max_cut(GRAPH, restarts=2, sweeps=20, fixed={0: +1, 1: -1})
    assert (fixed.partition[0], fixed.partition[1]) == (1, -1)
    apart = max_cut(GRAPH, restarts=2, sweeps=20, n_solutions=3, min_distance=4)
    for one in apart.solutions:
        for other in apart.solutions:
            moved = np.count_nonzero(one.partition != other.partition)
            assert one is other or min(moved, 60 - moved) >= 4


def test_restarts_end_early():
    bipartite = (40, [(i, 20 + j) for i in range(20) for j in range(20)], None)
    assert max_cut(bipartite, restarts=2).message == "optimal: the cut reaches its upper bound"
    result = max_cut(GRAPH, restarts=4, effort=0.1, callback=lambda state: state.sweeps > 0)
    assert result.message == "stopped by the callback"

    def interrupt(state):
        raise KeyboardInterrupt

    result = max_cut(GRAPH, restarts=4, effort=0.1, callback=interrupt)
    assert result.message == "interrupted"
    assert result.cut_value > 0.0
    limited = max_cut(GRAPH, restarts=2, rounds=2, time_limit=0.2, bound=False)
    assert limited.message == "time limit reached"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"restarts": 0}, ValueError, "restarts must be at least 1"),
        ({"rounds": 1.5}, TypeError, "rounds must be an integer"),
        ({"client": 3}, TypeError, "client must be a distributed.Client, a concurrent.futures"),
        ({"method": "guess"}, ValueError, "unknown method"),
        ({"effort": "lazy"}, ValueError, "unknown effort"),
        ({"effort": 1.0, "sweeps": 3}, ValueError, "give one of them"),
    ],
)
def test_bad_restarts(arguments, error, message):
    with pytest.raises(error, match=message):
        max_cut(GRAPH, **arguments)


def test_pools_hand_on_what_jobs_raise():
    for client in (None, ThreadPoolExecutor(1)):
        pool = as_pool(client)
        assert sorted(pool.run([partial(int, "3"), partial(int, "4")])) == [(0, 3), (1, 4)]
        with pytest.raises(ValueError, match="invalid literal"):
            list(pool.run([partial(int, "three")]))


# --------------------------------------------------------------------------------------------------
# Row blocks
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows():
    """150 rows of rank 20, some of them equal, in uneven blocks."""
    array = pytest.importorskip("dask.array", reason="needs the extra distributed")
    random = np.random.default_rng(3)
    X = random.standard_normal((150, 20)) * np.linspace(2.0, 0.1, 20) + 5.0
    X[5], X[7], X[120] = X[100], X[101], X[7]
    return X, array.from_array(X, chunks=((70, 50, 30), (13, 7)))


def test_blocks_are_certified_as_all_rows_are(rows):
    X, blocked = rows
    fitted = blocks.fit_blocks(JLEmbedding(5, max_iter=60), blocked)
    assert fitted.components_.shape == (5, 20)
    assert fitted.max_distortion_ == fitted.distortion(X)
    certificate = fitted.certificate_
    assert certificate.n_equal_pairs == 4
    assert certificate.n_pairs == 150 * 149 // 2 - 4
    for (i, j), ratio in (
        (certificate.lowest_pair, certificate.lowest_ratio),
        (certificate.highest_pair, certificate.highest_ratio),
    ):
        difference = X[i] - X[j]
        image = fitted.components_ @ difference
        # Two sums of squares, each to some 20 roundings.
        assert image @ image / (difference @ difference) == pytest.approx(ratio, rel=1e-13)
    assert 0.0 < fitted.lower_bound_ < fitted.max_distortion_
    assert blocks.distortion_of_blocks(fitted, blocked) == fitted.max_distortion_
    images = blocks.transform_blocks(fitted, blocked)
    np.testing.assert_allclose(images.compute(), fitted.transform(X), rtol=1e-12, atol=1e-12)
    # Few rows are all searched at once: the same search, but for the rounding of the reduction.
    whole = JLEmbedding(5, max_iter=60).fit(X)
    assert fitted.max_distortion_ == pytest.approx(whole.max_distortion_, rel=1e-2)


def test_gradient_over_pairs_of_blocks(rows):
    """Against central differences, and against all pairs in one process."""
    _, blocked = rows
    place = blocks._Here()
    reduced = blocks._Rows(blocks._checked(blocked), place)
    reduced.reduce()
    pairs = blocks._AllBlockPairs(reduced, place)
    # Images as long as the rows are, on the average: ratios near 1.
    N = np.random.default_rng(0).standard_normal((20, 4)) / 2.0 * reduced.spreads[:, None]
    found = pairs.evaluate(N, 0.01, 5.0)
    v, step = np.random.default_rng(1).standard_normal(N.shape), 1e-5
    ends = [pairs.evaluate(N + sign * step * v, 0.01, 5.0).total for sign in (1.0, -1.0)]
    slope = (ends[0] - ends[1]) / (2.0 * step) / 0.01
    # Central differences: step^2 and 1e-16 / step of the sum's size, 1e-9 or so.
    assert np.vdot(found.gradient, v) == pytest.approx(slope, rel=1e-6)
    from derand_fast.embedding_pairs import AllPairs

    left = np.concatenate(reduced.left)
    whole = AllPairs(left * reduced.spreads, 1).evaluate(left @ N, 0.01, 5.0)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high), rel=1e-9)
    np.testing.assert_allclose(
        found.gradient, left.T @ whole.gradient, rtol=0.0, atol=1e-9 * np.abs(whole.gradient).max()
    )


def test_search_over_all_pairs_improves_on_the_sample(rows, monkeypatch):
    X, blocked = rows
    monkeypatch.setattr(blocks, "_SAMPLE", 60)
    monkeypatch.setattr(blocks, "_LEAST_PASSES", 0)
    monkeypatch.setattr(blocks, "_FLOPS", 0.0)
    sampled = blocks.fit_blocks(JLEmbedding(5, max_iter=60), blocked)
    monkeypatch.setattr(blocks, "_LEAST_PASSES", 60)
    refined = blocks.fit_blocks(JLEmbedding(5, max_iter=60), blocked)
    assert refined.max_distortion_ < 0.95 * sampled.max_distortion_
    assert refined.max_distortion_ == refined.distortion(X)
    monkeypatch.setattr(blocks, "_KEPT_BYTES", 0)
    again = blocks.fit_blocks(JLEmbedding(5, max_iter=60), blocked)
    np.testing.assert_array_equal(again.components_, refined.components_)
    automatic = blocks.fit_blocks(JLEmbedding("auto", eps=0.5, max_iter=60), blocked)
    assert automatic.max_distortion_ <= 0.5 + 1e-9
    assert automatic.n_components_ < 20


def test_blocks_on_workers_give_the_same_bits(client, rows, monkeypatch):
    _, blocked = rows
    monkeypatch.setattr(blocks, "_SAMPLE", 60)
    settings = {"n_components": 5, "max_iter": 15}
    monkeypatch.setattr(blocks, "_place_of", lambda client: blocks._Here())
    here = blocks.fit_blocks(JLEmbedding(**settings), blocked)
    monkeypatch.setattr(blocks, "_place_of", lambda client: blocks._OnWorkers(client))
    monkeypatch.setattr(blocks, "_FLOPS", 0.5 * blocks._FLOPS)  # two workers may do twice as much
    killer = threading.Timer(0.3, kill_one_worker, [client])
    killer.start()
    there = blocks.fit_blocks(JLEmbedding(**settings), blocked, client)
    killer.join()
    np.testing.assert_array_equal(here.components_, there.components_)
    assert here.certificate_ == there.certificate_


def test_exact_and_trivial_blocks(rows):
    X, blocked = rows
    exact = blocks.fit_blocks(JLEmbedding(20), blocked)
    assert exact.max_distortion_ < 1e-12
    equal = blocks.fit_blocks(JLEmbedding(2), blocked[:1].repeat(4, axis=0))
    assert equal.max_distortion_ == 0.0
    assert equal.certificate_.n_equal_pairs == 6
    contraction = blocks.fit_blocks(JLEmbedding(5, max_iter=20, scale="contraction"), blocked)
    assert contraction.certificate_.highest_ratio == pytest.approx(1.0, abs=1e-9)
    single = blocks.fit_blocks(JLEmbedding(5, max_iter=20), blocked.astype(np.float32))
    assert single.components_.dtype == np.float32
    assert single.max_distortion_ == single.distortion(X.astype(np.float32))


def test_bad_blocks(rows):
    _, blocked = rows
    array = pytest.importorskip("dask.array", reason="needs the extra distributed")
    with pytest.raises(ValueError, match='pairs must be "all" for a dask array'):
        blocks.fit_blocks(JLEmbedding(2, pairs="norms"), blocked)
    with pytest.raises(ValueError, match="X has n_samples = 1"):
        blocks.fit_blocks(JLEmbedding(2), blocked[:1])
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        blocks.fit_blocks(JLEmbedding(2), blocked[blocked[:, 0] > 0.0])
    with pytest.raises(TypeError, match="X must be real numbers"):
        blocks.fit_blocks(JLEmbedding(2), blocked.astype(complex))
    with pytest.raises(ValueError, match="infinity or NaN"):
        blocks.fit_blocks(JLEmbedding(2), array.where(blocked > 7.0, np.nan, blocked))
    with pytest.raises(ValueError, match="is expecting 20 features"):
        blocks.transform_blocks(blocks.fit_blocks(JLEmbedding(20), blocked), blocked[:, :5])


def test_an_interrupt_ends_restarts_that_run_here(monkeypatch):
    """The restart at work takes the interrupt for its own; the others must not go on."""
    from derand_fast.distributed import restarts

    calls = []

    def interrupted(graph, **options):
        calls.append(options)
        result = derand_fast.max_cut(graph, **options)
        return dataclasses.replace(result, message="interrupted") if len(calls) == 3 else result

    monkeypatch.setattr(restarts, "max_cut_here", interrupted)
    result = max_cut(GRAPH, restarts=4, rounds=2, sweeps=8, bound=False)
    assert len(calls) == 3
    assert result.message == "interrupted"
    assert result.cut_value > 0.0
