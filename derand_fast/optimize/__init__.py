"""Descent to second-order stationary points, each with a certificate of what it reached.

`newton_cg` is the fast default, `hessian_descent` the one whose every constant is elementary, `pgd`
the first-order method of the literature. All three return an `SOSPResult` and say success only
where `certify` would.
"""

from derand_fast.optimize.capped_newton import newton_cg
from derand_fast.optimize.certificate import certify
from derand_fast.optimize.hessian_steps import hessian_descent
from derand_fast.optimize.perturbed_gradient import (
    PGDParameters,
    jin2017_parameters,
    jin2021_parameters,
    pgd,
)
from derand_fast.optimize.result import OptimizationRow, SOSPResult, Status

__all__ = [
    "OptimizationRow",
    "PGDParameters",
    "SOSPResult",
    "Status",
    "certify",
    "hessian_descent",
    "jin2017_parameters",
    "jin2021_parameters",
    "newton_cg",
    "pgd",
]
