"""Results of a student's training made by hand, for the tests of command and picture."""

import numpy as np

from derand_fast.networks import random_network
from derand_fast.objectives.network import RuleError
from derand_fast.optimize import SOSPResult
from derand_fast.structure import StructureResult, StructureRow
from derand_fast.teachers import Teacher

NAN = float("nan")


def make_certificate(**changes):
    fields = {
        "x": np.zeros(2),
        "fun": 0.25,
        "jac": np.zeros(2),
        "success": True,
        "certified": True,
        "status": 0,
        "message": "certified",
        "nit": 4,
        "nfev": 6,
        "njev": 5,
        "nhev": 40,
        "rho": 1e-6,
        "curvature_tol": 1e-3,
        "delta": 1e-9,
        "grad_norm": 1e-8,
        "lambda_min": 2e-4,
        "lambda_min_lower": 1e-4,
        "negative_curvature_direction": None,
        "n_escapes": 1,
        "W_norm": 0.5,
        "collapse_bound": 0.75,
        "collapse_bound_apriori": None,
        "stein_residual": 1e-12,
        "history": (),
        "seconds": 0.5,
        "seed": 0,
        "method": "newton_cg",
    }
    return SOSPResult(fields | changes)


def make_structure_result(**changes):
    """Three inputs, two indices, layers of 4, 4 and 1 units; nothing here was computed."""
    fields = {
        "W_perp_norm": 0.5,
        "W_perp_norm_initial": 2.0,
        "W_par_norm": 1.5,
        "singular_values": np.array([1.5, 0.5, 0.0]),
        "angle": 0.125,
        "certificate": make_certificate(),
        "lemma_applies": True,
        "stein_violation": NAN,
        "rule": "Mehler series",
        "rule_error": RuleError(1e-12, 1e-11),
        "network": random_network(3, 4, depth=3, seed=2),
        "initial_network": random_network(3, 4, depth=3, seed=1),
        "teacher": Teacher("sum_of_tanh", d=3, n_indices=2, seed=3),
        "history": (
            StructureRow(0, 0.0, 1.0, 2.0, 1.0),
            StructureRow(1, 0.25, 0.25, 0.5, 1.5),
        ),
        "method": "newton_cg",
        "lam": 1e-4,
        "seed": 0,
        "seconds": 0.75,
    }
    return StructureResult(**(fields | changes))
