"""Slow, obvious twins of the kernels: the oracles of the tests.

Nothing here shares a formula trick with the kernels: plain definitions, adaptive quadrature, or the
textbook formulas in so many digits that cancellation cannot matter.
"""

import itertools
import math

import mpmath
import numpy as np
from scipy.integrate import quad

# Digits of the exact twins. With tau = 1e-6 the plain 1 - r^2 loses 12 of them, 1 / (1 - r^2)^2 in
# the second derivatives 24 more, and the central difference another 20.
DIGITS = 80


def edges_of(indptr, indices, weights):
    """Each stored pair (i, j, w) with i < j: every undirected edge once."""
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if i < indices[e]:
                yield i, int(indices[e]), float(weights[e])


def csr_from_edges(n, edges):
    """Symmetric CSR arrays from (i, j, w) triples, each edge given once."""
    neighbours = [[] for _ in range(n)]
    for i, j, w in edges:
        neighbours[i].append((j, w))
        neighbours[j].append((i, w))
    indptr = np.zeros(n + 1, dtype=np.int32)
    indptr[1:] = np.cumsum([len(row) for row in neighbours])
    flat = [entry for row in neighbours for entry in sorted(row)]
    indices = np.array([j for j, _ in flat], dtype=np.int32)
    weights = np.array([w for _, w in flat], dtype=np.float64)
    return indptr, indices, weights


def dense_from_csr(indptr, indices, offdiagonal, diagonal):
    """The matrix as a full array."""
    n = len(diagonal)
    H = np.diag(np.asarray(diagonal, dtype=np.float64))
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            H[i, indices[e]] = offdiagonal[e]
    return H


def central_difference(function, step):
    """Fourth-order central difference of ``function(t)`` at t = 0; error O(step^4)."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def integrate(function, left, right):
    """Adaptive quadrature to rounding error (full_output: no warning that it got there)."""
    return quad(function, left, right, epsabs=1e-16, epsrel=1e-14, full_output=1)[0]


# --- correlated signs ---------------------------------------------------------------------------


def sign_correlation(h, k, r):
    """E[sign(x + h) sign(y + k)] by adaptive quadrature over x of E[sign(y + k) | x], |r| < 1.

    The integrand jumps at x = -h and has a step of width sqrt(1 - r^2) / |r|; the range is cut
    there so that the quadrature reaches 1e-14.
    """
    spread = math.sqrt((1 - r) * (1 + r))

    def integrand(x):
        density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return density * math.erf((k + r * x) / (spread * math.sqrt(2)))

    cuts = {-12.0, 12.0, -h}
    if r != 0:
        width = spread / abs(r)
        cuts |= {-k / r + step * width for step in (-9, -5, -2, 0, 2, 5, 9)}
    cuts = sorted(cut for cut in cuts if -12 <= cut <= 12)
    parts = []
    for left, right in itertools.pairwise(cuts):
        side = 1.0 if (left + right) / 2 > -h else -1.0
        parts.append(side * integrate(integrand, left, right))
    return math.fsum(parts)


def sign_correlation_exact(h, k, r, digits=40):
    """The defining formula of ``sign_correlation`` in many digits; slow, any |r| <= 1."""
    with mpmath.workdps(digits):
        h, k, r = mpmath.mpf(h), mpmath.mpf(k), mpmath.mpf(r)
        root = mpmath.sqrt(2)

        def integrand(t):
            cosine = mpmath.cos(t)
            if cosine <= 0:
                return mpmath.mpf(0)
            return mpmath.exp(-(h * h + k * k - 2 * h * k * mpmath.sin(t)) / (2 * cosine**2))

        pieces = mpmath.linspace(0, mpmath.asin(r), 7)
        integral = mpmath.quad(integrand, pieces)
        return mpmath.erf(h / root) * mpmath.erf(k / root) + 2 / mpmath.pi * integral


# --- smoothed cut -------------------------------------------------------------------------------


def smoothed_cut_value(indptr, indices, weights, W, b, tau, lam):
    """f(W, b) by one-dimensional quadrature over z_i of s(z_i) E[s(z_j) | z_i].

    Given z_i, z_j is normal, and the mean of erf over a normal is an erf again.
    """
    total = lam * float(np.sum(np.square(W)))
    for i, j, w in edges_of(indptr, indices, weights):
        length = math.sqrt(float(W[i] @ W[i]))
        along = float(W[i] @ W[j]) / length if length > 0 else 0.0
        rest = max(float(W[j] @ W[j]) - along * along, 0.0)

        def integrand(x, i=i, j=j, length=length, along=along, rest=rest):
            density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
            first = math.erf((b[i] + length * x) / (tau * math.sqrt(2)))
            second = math.erf((b[j] + along * x) / math.sqrt(2 * (rest + tau * tau)))
            return density * first * second

        ends = [-12.0, -6.0, -2.0, 0.0, 2.0, 6.0, 12.0]
        pieces = itertools.pairwise(ends)
        total += w / 2 * math.fsum(integrate(integrand, a, z) for a, z in pieces)
    return total


def smoothed_cut_gradient_exact(indptr, indices, weights, W, b, tau, lam):
    """(gradient_W, gradient_b, H_bb dense) by the textbook formulas in ``DIGITS`` digits.

    ``W`` is a list of lists, ``b`` a list, of anything mpmath takes. Returned as lists of mpf.
    """
    n = len(b)
    with mpmath.workdps(DIGITS):
        rows = [[mpmath.mpf(x) for x in row] for row in W]
        b = [mpmath.mpf(x) for x in b]
        tau, lam = mpmath.mpf(tau), mpmath.mpf(lam)
        A = [mpmath.fdot(row, row) + tau**2 for row in rows]
        g = [mpmath.mpf(0)] * n
        H = [[mpmath.mpf(0)] * n for _ in range(n)]
        for i in range(n):
            for e in range(indptr[i], indptr[i + 1]):
                j, w = int(indices[e]), mpmath.mpf(float(weights[e]))
                h, k = b[i] / mpmath.sqrt(A[i]), b[j] / mpmath.sqrt(A[j])
                r = mpmath.fdot(rows[i], rows[j]) / mpmath.sqrt(A[i] * A[j])
                s2 = 1 - r * r
                phi = mpmath.exp(-h * h / 2) / mpmath.sqrt(2 * mpmath.pi)
                phi2 = mpmath.exp(-(h * h - 2 * r * h * k + k * k) / (2 * s2))
                phi2 /= 2 * mpmath.pi * mpmath.sqrt(s2)
                error = mpmath.erf((k - r * h) / mpmath.sqrt(2 * s2))
                g[i] += w / 2 * 2 * phi * error / mpmath.sqrt(A[i])
                H[i][j] = w / 2 * 4 * phi2 / mpmath.sqrt(A[i] * A[j])
                H[i][i] += w / 2 * (-2 * h * phi * error - 4 * r * phi2) / A[i]
        p = len(rows[0]) if n else 0
        gradient_W = [
            [
                mpmath.fsum(H[i][j] * rows[j][q] for j in range(n)) + 2 * lam * rows[i][q]
                for q in range(p)
            ]
            for i in range(n)
        ]
        return gradient_W, g, H


def smoothed_cut_hessian_product_exact(
    indptr, indices, weights, W, b, tau, lam, direction_W, direction_b
):
    """Hessian times direction: central difference of the exact gradient with step 1e-20."""
    with mpmath.workdps(DIGITS):
        step = mpmath.mpf(10) ** -20
        W, direction_W = mpmath.matrix(W.tolist()), mpmath.matrix(direction_W.tolist())
        b, direction_b = mpmath.matrix(b.tolist()), mpmath.matrix(direction_b.tolist())

        def gradient(t):
            moved_W = (W + t * direction_W).tolist()
            moved_b = list(b + t * direction_b)
            parts = smoothed_cut_gradient_exact(
                indptr, indices, weights, moved_W, moved_b, tau, lam
            )
            return mpmath.matrix(parts[0]), mpmath.matrix(parts[1])

        (up_W, up_b), (down_W, down_b) = gradient(step), gradient(-step)
        product_W = (up_W - down_W) / (2 * step)
        product_b = (up_b - down_b) / (2 * step)
        return np.array(product_W.tolist(), float), np.array(list(product_b), float)


def expected_hyperplane_cut(indptr, indices, weights, rows):
    """Sum over edges of w * angle / pi; a zero row gives w / 2, two zero rows 0."""
    total = 0.0
    for i, j, w in edges_of(indptr, indices, weights):
        u, v = rows[i].astype(np.float64), rows[j].astype(np.float64)
        lengths = np.linalg.norm(u), np.linalg.norm(v)
        if min(lengths) > 0:
            cosine = float(u @ v / (lengths[0] * lengths[1]))
            total += w * math.acos(max(-1.0, min(1.0, cosine))) / math.pi
        elif max(lengths) > 0:
            total += w / 2
    return total


# --- maximum cut --------------------------------------------------------------------------------


def adjacency_from_csr(indptr, indices, weights):
    """The weight matrix as a full array."""
    return dense_from_csr(indptr, indices, weights, np.zeros(len(indptr) - 1))


def cut_value(indptr, indices, weights, signs):
    """Weight between the two sides, each edge once, correctly rounded."""
    return math.fsum(w for i, j, w in edges_of(indptr, indices, weights) if signs[i] != signs[j])


def largest_cut(indptr, indices, weights):
    """Largest cut value over all 2^(n-1) partitions."""
    n = len(indptr) - 1
    signs = 1.0 - 2.0 * ((np.arange(2 ** max(n - 1, 0))[:, None] >> np.arange(n)) & 1)
    A = adjacency_from_csr(indptr, indices, weights)
    return float(np.max(A.sum() / 4 - np.einsum("si,si->s", signs @ A, signs) / 4))


def flip_gains(indptr, indices, weights, signs):
    """For each vertex, the cut with this vertex on the other side, minus the cut."""
    before = cut_value(indptr, indices, weights, signs)
    gains = []
    for i in range(len(signs)):
        flipped = np.array(signs)
        flipped[i] = -flipped[i]
        gains.append(cut_value(indptr, indices, weights, flipped) - before)
    return np.array(gains)


def best_merge(indptr, indices, weights, signs, other):
    """Best cut that takes each component of the vertices where two cuts differ from either one."""
    n = len(signs)
    orientation = 1 if sum(int(s) * int(t) for s, t in zip(signs, other, strict=True)) >= 0 else -1
    part = [i if signs[i] != orientation * other[i] else -1 for i in range(n)]
    for _ in range(n):
        for i, j, _w in edges_of(indptr, indices, weights):
            if part[i] >= 0 and part[j] >= 0:
                part[i] = part[j] = min(part[i], part[j])
    names = sorted(set(part) - {-1})
    values = []
    for choice in itertools.product([1, -1], repeat=len(names)):
        flip = dict(zip(names, choice, strict=True)) | {-1: 1}
        merged = [s * flip[name] for s, name in zip(signs, part, strict=True)]
        values.append(cut_value(indptr, indices, weights, merged))
    return max(values)


def row_products(indptr, indices, weights, rows):
    """Sum over the edges, each once, of w_ij v_i . v_j."""
    return math.fsum(w * float(rows[i] @ rows[j]) for i, j, w in edges_of(indptr, indices, weights))


def mixing_sweep(indptr, indices, weights, rows):
    """One sweep v_i <- -g_i / ||g_i||, g_i = sum_j w_ij v_j, vertex after vertex."""
    A = adjacency_from_csr(indptr, indices, weights)
    for i in range(len(rows)):
        g = A[i] @ rows
        if np.linalg.norm(g) > 0:
            rows[i] = -g / np.linalg.norm(g)


def smoothed_expected_cut(indptr, indices, weights, rows, c):
    """Smoothed expected cut up to constants: -sum over the edges of w asin(c v_i . v_j)."""
    return -math.fsum(
        w * math.asin(c * float(rows[i] @ rows[j]))
        for i, j, w in edges_of(indptr, indices, weights)
    )


def anneal_sweep(indptr, indices, weights, rows, smoothing):
    """One sweep v_i <- normalised -sum_j w_ij v_j / sqrt(1 - (c r_ij)^2), even i before odd."""
    A = adjacency_from_csr(indptr, indices, weights)
    n = len(rows)
    for i in [*range(0, n, 2), *range(1, n, 2)]:
        r = rows @ rows[i]
        g = -(A[i] / np.sqrt(1 - ((1 - smoothing) * r) ** 2)) @ rows
        if np.linalg.norm(g) > 0:
            rows[i] = g / np.linalg.norm(g)


# --- eigenvalue certificate ---------------------------------------------------------------------


def chebyshev_of_matrix(degree, S, top, X):
    """T_degree(2 S / top - 1) X by diagonalising S."""
    values, vectors = np.linalg.eigh(S)
    t = 2 * values / top - 1
    inside = np.cos(degree * np.arccos(np.clip(t, -1, 1)))
    outside = np.sign(t) ** degree * np.cosh(degree * np.arccosh(np.maximum(np.abs(t), 1)))
    return (vectors * np.where(np.abs(t) <= 1, inside, outside)) @ (vectors.T @ X)


def chebyshev_contradiction(eps, norms, top, delta, error):
    """Whether the published inequality rules out the eigenvalue -eps, in many digits.

    norms[j] is the largest column norm of z_j; step j adds an error of at most ``error`` times the
    largest norm before it.
    """
    with mpmath.workdps(40):
        k = len(norms) - 1
        q = mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(delta) ** (mpmath.mpf(1) / 8))
        mu = 1 + 2 * mpmath.mpf(eps) / mpmath.mpf(top)
        angle = mpmath.acosh(mu)
        right = norms[k] / mpmath.cosh(k * angle)
        for j in range(1, k + 1):
            right += (k - j + 1) * error * max(norms[:j]) / mpmath.cosh(j * angle)
        return q > right


def spanning_forest_cut(indptr, indices, weights):
    """Satisfy the edges of a breadth-first forest that grows from the lowest vertices."""
    n = len(indptr) - 1
    signs = {}
    for root in range(n):
        if root in signs:
            continue
        signs[root] = 1
        level = [root]
        while level:
            following = []
            for i in level:
                for e in range(indptr[i], indptr[i + 1]):
                    j = int(indices[e])
                    if j not in signs:
                        signs[j] = signs[i] * (-1 if weights[e] > 0 else 1)
                        following.append(j)
            level = following
    return np.array([signs[i] for i in range(n)], dtype=np.int8)
