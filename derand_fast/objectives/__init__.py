"""Objectives: f as an object with value, gradient and Hessian-vector product."""

from derand_fast.objectives.cut import MaxCutObjective
from derand_fast.objectives.gaussian import GaussianExpectation, GaussianFunction
from derand_fast.objectives.protocol import Block, Objective, block_view, check_objective, pack

__all__ = [
    "Block",
    "GaussianExpectation",
    "GaussianFunction",
    "MaxCutObjective",
    "Objective",
    "block_view",
    "check_objective",
    "pack",
]
