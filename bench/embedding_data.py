"""Data sets for the tables of embeddings: two from scikit-learn, the others drawn with fixed seeds.

Each function returns an (n, d) array, or a sparse matrix where it says so.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

FloatArray = NDArray[np.float64]


def digits() -> FloatArray:
    """Return 1,797 images of 8 x 8 pixels; raw values 0 to 16. Rank 61."""
    return load_digits().data


def breast_cancer() -> FloatArray:
    """Return 569 x 30 measurements, standardised."""
    X = load_breast_cancer().data
    return (X - X.mean(axis=0)) / X.std(axis=0)


def normalised_uniform() -> FloatArray:
    """Return 100 x 500 uniform numbers, rows of length 1: the setting of arXiv 2510.19382."""
    X = np.random.default_rng(0).random((100, 500))
    return X / np.linalg.norm(X, axis=1)[:, None]


def gaussian() -> FloatArray:
    """Return 1,000 x 10,000 independent normal numbers: nearly a regular simplex."""
    return np.random.default_rng(0).standard_normal((1000, 10000))


def clusters() -> FloatArray:
    """Return 2,000 x 1,000: ten centres drawn from N(0, I), noise 0.3."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((10, 1000))
    return centres[generator.integers(0, 10, 2000)] + 0.3 * generator.standard_normal((2000, 1000))


def manifold() -> FloatArray:
    """Return 2,000 x 1,000: cos(u W + b) for u uniform in [-1, 1]^5, W normal, b uniform."""
    generator = np.random.default_rng(0)
    points = generator.uniform(-1.0, 1.0, (2000, 5))
    weights = generator.standard_normal((5, 1000))
    return np.cos(points @ weights + generator.uniform(0.0, 2.0 * np.pi, 1000))


def text() -> scipy.sparse.csr_array:
    """Return 1,000 x 20,000, sparse: 200 Zipf words a row, (1 + log tf) idf, rows of length 1."""
    n, words, distinct = 1000, 20000, 200
    generator = np.random.default_rng(0)
    frequency = 1.0 / np.arange(1, words + 1)
    frequency /= frequency.sum()
    columns = np.concatenate(
        [generator.choice(words, distinct, replace=False, p=frequency) for _ in range(n)]
    )
    values = 1.0 + np.log(generator.geometric(0.5, n * distinct))
    documents = np.bincount(columns, minlength=words)
    values = values * (np.log((1.0 + n) / (1.0 + documents)) + 1.0)[columns]
    values /= np.repeat(np.linalg.norm(values.reshape(n, distinct), axis=1), distinct)
    return scipy.sparse.csr_array((values, columns, np.arange(n + 1) * distinct), shape=(n, words))


def squares() -> FloatArray:
    """Return 81 images of 16 x 16 pixels: a square of 8 x 8 at each shift from 0 to 8."""
    images = np.zeros((9, 9, 16, 16))
    for i in range(9):
        for j in range(9):
            images[i, j, i : i + 8, j : j + 8] = 1.0
    return images.reshape(81, 256)


def mixture(n: int) -> FloatArray:
    """Return n x 784: ten classes, each a Gaussian of rank 30 about its centre, and some noise."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((10, 784))
    factors = generator.standard_normal((10, 30, 784)) / np.arange(1, 31)[:, None] ** 0.5
    classes = generator.integers(0, 10, n)
    latent = generator.standard_normal((n, 30))
    X = centres[classes] + 0.1 * generator.standard_normal((n, 784))
    for label in range(10):
        X[classes == label] += latent[classes == label] @ factors[label]
    return X


DATA: dict[str, Callable[[], FloatArray | scipy.sparse.csr_array]] = {
    "digits": digits,
    "breast cancer": breast_cancer,
    "normalised uniform": normalised_uniform,
    "gaussian": gaussian,
    "clusters": clusters,
    "manifold": manifold,
    "text": text,
    "squares": squares,
}
