"""Students as plain arrays."""

import math

import numpy as np
import pytest

from derand_fast.networks import Network, random_network

SCALAR = {
    "smooth_relu": lambda x, iota: math.log1p(math.exp(iota * x)) / iota,
    "smooth_relu_squared": lambda x, iota: (math.log1p(math.exp(iota * x)) / iota) ** 2,
    "smooth_relu_cubed": lambda x, iota: (math.log1p(math.exp(iota * x)) / iota) ** 3,
    "tanh": lambda x, iota: math.tanh(x),
    "erf": lambda x, iota: math.erf(x),
    "quadratic": lambda x, iota: x * x,
    "linear": lambda x, iota: x,
}


def by_hand(network, x):
    """Output at one point, one unit after the other."""
    act = SCALAR[network.activation]
    layers = list(zip(network.weights, network.biases, strict=True))
    for w, b in layers[:-1]:
        x = [
            act(sum(wi * xi for wi, xi in zip(row, x, strict=True)) + bi, network.iota)
            for row, bi in zip(w, b, strict=True)
        ]
    (row,), (bias,) = layers[-1]
    return sum(wi * xi for wi, xi in zip(row, x, strict=True)) + bias


@pytest.mark.parametrize("activation", list(SCALAR))
@pytest.mark.parametrize("hidden", [[4], [3, 5], [2, 3, 4]])
def test_predict(activation, hidden):
    network = random_network(
        3, hidden, depth=len(hidden) + 1, activation=activation, iota=1.5, seed=3
    )
    network = network.with_parameters(
        network.flat() + 0.1 * np.random.default_rng(0).standard_normal(network.flat().size)
    )
    X = np.random.default_rng(1).standard_normal((6, 3))
    # A few dozen roundings of numbers of size 1.
    np.testing.assert_allclose(
        network.predict(X), [by_hand(network, x) for x in X], rtol=1e-12, atol=1e-13
    )


def test_flat_and_back():
    network = random_network(4, [3, 2], depth=3, seed=1)
    flat = network.flat()
    again = network.with_parameters(flat)
    assert flat.size == 4 * 3 + 3 + 3 * 2 + 2 + 2 + 1
    assert all(map(np.array_equal, again.weights, network.weights))
    assert all(map(np.array_equal, again.biases, network.biases))
    assert flat[:4].tolist() == network.weights[0][0].tolist()
    with pytest.raises(ValueError, match=r"flat must have shape \(26,\), got \(25,\)"):
        network.with_parameters(flat[:-1])


def test_random_network_has_the_stated_scale():
    network = random_network(50, 4000, seed=2)
    # Standard deviations of 200,000 and 4,000 normal numbers: five standard errors.
    assert network.weights[0].std() * math.sqrt(50) == pytest.approx(1.0, abs=0.008)
    assert network.weights[1].std() * math.sqrt(4000) == pytest.approx(1.0, abs=0.06)
    assert not network.biases[0].any()
    assert np.array_equal(network.flat(), random_network(50, 4000, seed=2).flat())
    assert not np.array_equal(network.flat(), random_network(50, 4000, seed=3).flat())


def test_arrays_are_copies_that_nobody_can_change():
    w = np.ones((1, 1))
    network = Network((w, w), ([0.0], [0.0]))
    w[0, 0] = 7.0
    assert network.weights[0][0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        network.weights[0][0, 0] = 2.0


@pytest.mark.parametrize(
    ("weights", "biases", "options", "error", "message"),
    [
        (([[1.0]],), ([0.0],), {}, ValueError, "at least two; got 1 and 1"),
        (([[1.0]], [[1.0]]), ([0.0],), {}, ValueError, "got 2 and 1"),
        (([[1.0]], [[1.0, 2.0]]), ([0.0], [0.0]), {}, ValueError, r"weights\[1\] must have 1 col"),
        (([[1.0]], [[1.0], [2.0]]), ([0.0], [0, 0]), {}, ValueError, "one output, got 2"),
        (([[1.0]], [[1.0]]), ([0.0, 1.0], [0.0]), {}, ValueError, r"biases\[0\] must have shape"),
        (([1.0], [[1.0]]), ([0.0], [0.0]), {}, ValueError, r"weights\[0\] must have 2 axes"),
        ((np.empty((1, 0)), [[1.0]]), ([0.0], [0.0]), {}, ValueError, "must not be empty"),
        (([["a"]], [[1.0]]), ([0.0], [0.0]), {}, TypeError, r"weights\[0\] must hold real"),
        (([[1.0]], [[math.inf]]), ([0], [0]), {}, ValueError, r"weights\[1\] must be finite"),
        (([[1.0]], [[1.0]]), ([0], [0]), {"activation": "relu"}, ValueError, "activation must be"),
        (([[1.0]], [[1.0]]), ([0], [0]), {"iota": 0.0}, ValueError, "iota must be positive"),
        (([[1.0]], [[1.0]]), ([0], [0]), {"iota": -1.0}, ValueError, "iota must be finite"),
    ],
)
def test_bad_networks(weights, biases, options, error, message):
    with pytest.raises(error, match=message):
        Network(weights, biases, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 3), {}, "d must be at least 1, got 0"),
        ((3, 0), {}, "hidden must be at least 1, got 0"),
        ((3, 4), {"depth": 1}, "depth must be at least 2, got 1"),
        ((3, [4, 5]), {}, "hidden must name 1 layers"),
        ((3, 4), {"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_random_networks(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        random_network(*arguments, **options)


def test_predict_refuses_other_dimensions():
    with pytest.raises(ValueError, match=r"X must have shape \(N, 3\), got \(2, 2\)"):
        random_network(3, 2).predict(np.zeros((2, 2)))
