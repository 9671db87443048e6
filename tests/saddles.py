"""Problems with strict saddles: where to start, and what must come out.

Each has n_params, value, value_and_grad, hvp, ``saddle`` (a point with zero gradient and negative
curvature), ``minimum`` (the value of every second-order stationary point, or None where there are
several) and ``curvature`` (lambda_min at the saddle, or None).
"""

import numpy as np


class Problem:
    """Defaults; a problem fills in value_and_grad and hvp."""

    minimum = None
    curvature = None

    def value(self, x):
        return self.value_and_grad(x)[0]

    def hessian(self, x):
        return np.column_stack([self.hvp(x, e) for e in np.eye(self.n_params)])


class PlanarSaddle(Problem):
    """x^2 - y^2 + y^4/4: minima -1 at (0, +-sqrt 2), lambda_min -2 at 0."""

    n_params = 2
    minimum = -1.0
    curvature = -2.0
    saddle = np.zeros(2)

    def value_and_grad(self, z):
        x, y = z
        return x**2 - y**2 + y**4 / 4.0, np.array([2.0 * x, y**3 - 2.0 * y])

    def hvp(self, z, v):
        return np.array([2.0 * v[0], (3.0 * z[1] ** 2 - 2.0) * v[1]])


class Octopus(Problem):
    """A chain of d saddles, after the idea of Du et al. (2017), built anew.

    Coordinate k feels L x^2/2 while its predecessor is at 0, and the double well
    gamma (x^4/4 - x^2/2) once it is at +-1; a quintic in x_(k-1)^2 leads from one to the other,
    flat at both ends. So (+-1, ..., +-1, 0, ..., 0) are strict saddles with lambda_min = -gamma,
    one after the other, and (+-1, ..., +-1) are the minima. The Hessian is continuous and
    Lipschitz.
    """

    def __init__(self, d=5, gamma=1.0, L=2.0):
        self.n_params, self.gamma, self.L = d, gamma, L
        self.saddle = np.zeros(d)
        self.minimum = -0.25 * gamma * d
        self.curvature = -gamma

    def _blend(self, x):
        """Return the switch s(x) and two derivatives."""
        low, width = 0.25, 0.5
        t = np.clip((x**2 - low) / width, 0.0, 1.0)
        s = t**3 * (10.0 - 15.0 * t + 6.0 * t**2)
        ds = 30.0 * t**2 * (1.0 - t) ** 2 / width
        dds = 60.0 * t * (1.0 - t) * (1.0 - 2.0 * t) / width**2
        return s, 2.0 * x * ds, 2.0 * ds + 4.0 * x**2 * dds

    def _parts(self, x):
        s, ds, dds = self._blend(x)
        on = np.concatenate([[1.0], s[:-1]])
        well = self.gamma * (x**4 / 4.0 - x**2 / 2.0) - self.L * x**2 / 2.0
        dwell = self.gamma * (x**3 - x) - self.L * x
        ddwell = self.gamma * (3.0 * x**2 - 1.0) - self.L
        following = np.concatenate([well[1:], [0.0]])
        return on, ds, dds, well, dwell, ddwell, following

    def value_and_grad(self, x):
        on, ds, _, well, dwell, _, following = self._parts(x)
        fun = float(np.sum(self.L * x**2 / 2.0 + on * well))
        return fun, self.L * x + on * dwell + ds * following

    def hvp(self, x, v):
        on, ds, dds, _, dwell, ddwell, following = self._parts(x)
        product = (self.L + on * ddwell + dds * following) * v
        coupling = ds[:-1] * dwell[1:]
        product[:-1] += coupling * v[1:]
        product[1:] += coupling * v[:-1]
        return product


class MatrixFactorization(Problem):
    """||UU' - A||_F^2 with A = BB' of rank r: global minimum 0, saddle at U = 0."""

    minimum = 0.0

    def __init__(self, n=20, rank=3, seed=0):
        B = np.random.default_rng([seed, 1]).standard_normal((n, rank))
        self.A = B @ B.T
        self.shape = (n, rank)
        self.n_params = n * rank
        self.saddle = np.zeros(n * rank)
        self.curvature = -4.0 * np.linalg.eigvalsh(self.A)[-1]

    def value_and_grad(self, x):
        U = x.reshape(self.shape)
        residual = U @ U.T - self.A
        return float(np.sum(residual**2)), (4.0 * residual @ U).ravel()

    def hvp(self, x, v):
        U, V = x.reshape(self.shape), v.reshape(self.shape)
        # Products of (n, r) blocks only.
        residual = U @ (U.T @ V) - self.A @ V
        return (4.0 * (residual + U @ (V.T @ U) + V @ (U.T @ U))).ravel()


class PhaseRetrieval(Problem):
    """sum_i ((a_i'x)^2 - (a_i'z)^2)^2 / (4 m): global minimum 0, saddle at x = 0."""

    minimum = 0.0

    def __init__(self, n=20, m=200, seed=0):
        generator = np.random.default_rng([seed, 2])
        self.a = generator.standard_normal((m, n))
        self.y = (self.a @ generator.standard_normal(n)) ** 2
        self.n_params, self.m = n, m
        self.saddle = np.zeros(n)
        self.curvature = np.linalg.eigvalsh(self.hessian(self.saddle))[0]

    def value_and_grad(self, x):
        z = self.a @ x
        residual = z**2 - self.y
        return float(np.sum(residual**2)) / (4.0 * self.m), self.a.T @ (residual * z) / self.m

    def hvp(self, x, v):
        z = self.a @ x
        return self.a.T @ ((3.0 * z**2 - self.y) * (self.a @ v)) / self.m


class DeadNetwork(Problem):
    """sum_i (a' tanh(W x_i + b) - y_i)^2 / (2 N) + lam (||W||^2 + ||a||^2), all parameters 0.

    There every unit is dead and all units are alike; only the mixed derivatives in a_j and W_j, and
    so a pair of curvatures +-, are not 0.
    """

    def __init__(self, d=3, hidden=6, samples=60, lam=1e-3, seed=0):
        generator = np.random.default_rng([seed, 3])
        self.inputs = generator.standard_normal((samples, d))
        targets = np.tanh(self.inputs @ generator.standard_normal(d)) + self.inputs[:, 0]
        self.targets = targets - targets.mean()
        self.d, self.hidden, self.weight_decay = d, hidden, lam
        self.n_params = hidden * (d + 2)
        self.saddle = np.zeros(self.n_params)
        self.curvature = np.linalg.eigvalsh(self.hessian(self.saddle))[0]

    def _split(self, x):
        h, d = self.hidden, self.d
        return x[: h * d].reshape(h, d), x[h * d : h * d + h], x[h * d + h :]

    def value_and_grad(self, x):
        W, b, a = self._split(x)
        t = np.tanh(self.inputs @ W.T + b)
        error = (t @ a - self.targets) / len(self.targets)
        fun = 0.5 * len(self.targets) * np.sum(error**2)
        fun += self.weight_decay * (np.sum(W**2) + np.sum(a**2))
        back = error[:, None] * (1.0 - t**2) * a
        grad_W = back.T @ self.inputs + 2.0 * self.weight_decay * W
        grad_a = t.T @ error + 2.0 * self.weight_decay * a
        return float(fun), np.concatenate([grad_W.ravel(), back.sum(axis=0), grad_a])

    def hvp(self, x, v):
        W, b, a = self._split(x)
        dW, db, da = self._split(v)
        t = np.tanh(self.inputs @ W.T + b)
        slope = 1.0 - t**2
        dz = self.inputs @ dW.T + db
        dt = slope * dz
        error = (t @ a - self.targets) / len(self.targets)
        derror = (dt @ a + t @ da) / len(self.targets)
        back = derror[:, None] * slope * a + error[:, None] * slope * (da - 2.0 * t * dz * a)
        out_W = back.T @ self.inputs + 2.0 * self.weight_decay * dW
        out_a = dt.T @ error + t.T @ derror + 2.0 * self.weight_decay * da
        return np.concatenate([out_W.ravel(), back.sum(axis=0), out_a])


class Part:
    """slice and shape, as the protocol's Block."""

    def __init__(self, start, stop, shape):
        self.slice, self.shape = slice(start, stop), shape


class SmoothedWells(Problem):
    """E_x[sum_i (z_i^2 - 1)^2 / 4] + lam ||W||_F^2, z = Wx + b, in closed form.

    With a_i = ||W_i||^2, E z^4 = b^4 + 6 b^2 a + 3 a^2 and E z^2 = b^2 + a; H_bb is diagonal with
    entries 3 b^2 + 3 a - 1 (Stein). W = 0, b = +-1 are the minima, the origin a strict saddle.
    """

    minimum = 0.0

    def __init__(self, rows=4, columns=3, lam=0.7):
        self.lam, self.rows, self.columns = lam, rows, columns
        self.n_params = rows * (columns + 1)
        split = rows * columns
        self.blocks = {
            "W": Part(0, split, (rows, columns)),
            "b": Part(split, self.n_params, (rows,)),
        }
        self.saddle = np.zeros(self.n_params)
        self.curvature = -1.0

    def _split(self, x):
        split = self.rows * self.columns
        return x[:split].reshape(self.rows, self.columns), x[split:]

    def value_and_grad(self, x):
        W, b = self._split(x)
        a = np.sum(W**2, axis=1)
        fun = np.sum(b**4 + 6.0 * b**2 * a + 3.0 * a**2 - 2.0 * (b**2 + a) + 1.0) / 4.0
        stein = 3.0 * b**2 + 3.0 * a - 1.0
        grad_W = (stein + 2.0 * self.lam)[:, None] * W
        return float(fun + self.lam * np.sum(a)), np.concatenate(
            [grad_W.ravel(), b**3 + 3.0 * a * b - b]
        )

    def hvp(self, x, v):
        W, b = self._split(x)
        dW, db = self._split(v)
        stein = 3.0 * b**2 + 3.0 * np.sum(W**2, axis=1) - 1.0
        dstein = 6.0 * b * db + 6.0 * np.sum(W * dW, axis=1)
        out_W = (stein + 2.0 * self.lam)[:, None] * dW + dstein[:, None] * W
        out_b = stein * db + 6.0 * b * np.sum(W * dW, axis=1)
        return np.concatenate([out_W.ravel(), out_b])

    def bias_hessian(self, x):
        W, b = self._split(x)
        return np.diag(3.0 * b**2 + 3.0 * np.sum(W**2, axis=1) - 1.0)


PROBLEMS = {
    "planar": PlanarSaddle,
    "octopus": Octopus,
    "matrix": MatrixFactorization,
    "phase": PhaseRetrieval,
    "network": DeadNetwork,
    "wells": SmoothedWells,
}
