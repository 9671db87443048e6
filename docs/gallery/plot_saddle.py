"""
Saddles that call themselves success
====================================

x^2 - y^2 + y^4 / 4 has a saddle at 0 and minima at y = +-sqrt 2. Started at the saddle, where the
gradient is 0, most optimisers stay and report success. Second-order methods that look for negative
curvature do not.
"""

# %%
import numpy as np
from scipy.optimize import minimize

from derand_fast import hessian_descent, newton_cg, pgd


def saddle(x):
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


def gradient(x):
    return np.array([2 * x[0], -2 * x[1] + x[1] ** 3])


def hessian(x):
    return np.diag([2.0, -2.0 + 3 * x[1] ** 2])


for method in ("L-BFGS-B", "Newton-CG", "trust-krylov", newton_cg, hessian_descent, pgd):
    asks = {} if method == "L-BFGS-B" else {"hess": hessian}
    found = minimize(saddle, [0.0, 0.0], jac=gradient, method=method, **asks)
    name = method if isinstance(method, str) else method.__name__
    print(f"{name:16} success {found.success!s:5}  f = {found.fun:.3f}")

# %%
# The smoothed cut of a graph has such a saddle too: the relaxation's vectors with all biases 0.
# From there `newton_cg` finds a certified point where the vectors have collapsed and the signs of
# the biases are a cut.

from derand_fast import max_cut
from derand_fast.generators import random_graph

result = max_cut(random_graph(300, 1500, seed=2), method="newton-cg")
figure = result.certificate.plot()

# %%
print(result.certificate)
