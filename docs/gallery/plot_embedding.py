"""
All distances within a tolerance
================================

Handwritten digits, 8 x 8 pixels each, in 20 dimensions: how far off are the distances between them?
"""

# %%
# Four hundred digits, so that this page builds quickly.

from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection

from derand_fast import JLEmbedding

X = load_digits().data[:400]
embedding = JLEmbedding(n_components=20, time_limit=10).fit(X)
print(f"worst of {400 * 399 // 2:,} pairs: {embedding.max_distortion_:.3f}")
print(f"no linear map does better than {embedding.lower_bound_:.3f}")

# %%
# The ratios of squared distances, after against before, for all pairs.

from derand_fast.plot import plot_embedding

figure = plot_embedding(embedding, X)

# %%
# Beside the maps one would use otherwise, each scaled as well as can be:

from scipy.spatial.distance import pdist

before = pdist(X, "sqeuclidean")


def worst_pair(Y):
    """Return the largest |ratio - 1| over all pairs, at the best scale."""
    ratios = pdist(Y, "sqeuclidean") / before
    return (ratios.max() - ratios.min()) / (ratios.max() + ratios.min())


maps = {
    "Gaussian, best of 5": min(
        worst_pair(GaussianRandomProjection(20, random_state=seed).fit_transform(X))
        for seed in range(5)
    ),
    "PCA": worst_pair(PCA(20).fit_transform(X)),
    "JLEmbedding": worst_pair(embedding.transform(X)),
}
for name, distortion in maps.items():
    print(f"{name:20} {distortion:.3f}")

# %%
# The promise is about the fitted rows. On others:

rest = load_digits().data[400:800]
print(f"new rows: {embedding.distortion(rest):.3f}")
