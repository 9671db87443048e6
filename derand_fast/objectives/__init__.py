"""Objectives: f as an object with value, gradient and Hessian-vector product."""

from derand_fast.objectives.cut import MaxCutObjective
from derand_fast.objectives.distortion import JLObjective
from derand_fast.objectives.gaussian import GaussianExpectation, GaussianFunction
from derand_fast.objectives.mehler_risk import MehlerRisk
from derand_fast.objectives.network import NetworkRisk
from derand_fast.objectives.node_risk import NodeRisk
from derand_fast.objectives.protocol import Block, Objective, block_view, check_objective, pack

__all__ = [
    "Block",
    "GaussianExpectation",
    "GaussianFunction",
    "JLObjective",
    "MaxCutObjective",
    "MehlerRisk",
    "NetworkRisk",
    "NodeRisk",
    "Objective",
    "block_view",
    "check_objective",
    "pack",
]
