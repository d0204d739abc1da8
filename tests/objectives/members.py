"""The objectives, penalties and two-sample losses that the package exports, as the laws construct them.

A member is constructed by `cls()`, so a new one is found and tested without a change here. Members that need arguments
stand here by name, and so do further settings of a member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_gan import objectives
from pyro_gan.objectives import (
    DRAGAN,
    KL,
    KLIEP,
    MMD,
    R1,
    Bernoulli,
    Exponential,
    GaussianKernel,
    GradientPenalty,
    LeastSquares,
    Minimax,
    MomentMatching,
    Normalised,
    Objective,
    Paired,
    Pearson,
    Penalty,
    RationalQuadraticKernel,
    ReverseKL,
    Spherical,
    TwoSampleLoss,
)
from tests.registry import concrete_members

SETTINGS: dict[str, dict[str, Callable[[], Any]]] = {
    "Bernoulli": {
        "Bernoulli": Bernoulli,
        "Bernoulli, prior": lambda: Bernoulli(0.2),
        "Bernoulli, smoothed": lambda: Bernoulli(real_label=0.9, generated_label=0.05),
        "Bernoulli, prior and smoothed": lambda: Bernoulli(0.3, real_label=0.9, generated_label=0.2),
    },
    "Exponential": {"Exponential": Exponential, "Exponential, prior": lambda: Exponential(0.2)},
    "LeastSquares": {
        "LeastSquares": LeastSquares,
        "LeastSquares, smoothed": lambda: LeastSquares(0.3, real_label=0.9, generated_label=0.1),
    },
    "Spherical": {
        "Spherical": Spherical,
        "Spherical, smoothed": lambda: Spherical(0.6, real_label=0.8, generated_label=0.1),
    },
    "Normalised": {"Normalised": lambda: Normalised(KLIEP(), 0.7)},
    "Minimax": {"Minimax": lambda: Minimax(Bernoulli(0.3)), "Minimax, KL": lambda: Minimax(KL())},
    "Paired": {
        "Paired": lambda: Paired(Bernoulli(0.3), Minimax(ReverseKL())),
        "Paired, Pearson": lambda: Paired(Bernoulli(), Pearson()),
    },
    "GradientPenalty": {
        "GradientPenalty": GradientPenalty,
        "GradientPenalty, probability": lambda: GradientPenalty(gradient_of="probability"),
    },
    "DRAGAN": {
        "DRAGAN": DRAGAN,
        "DRAGAN, probability": lambda: DRAGAN(gradient_of="probability"),
        "DRAGAN, Gaussian": lambda: DRAGAN(noise=torch.randn_like),
    },
    "R1": {"R1": R1, "R1, probability": lambda: R1(gradient_of="probability")},
    "MMD": {
        "MMD, Gaussian": lambda: MMD(GaussianKernel([0.5, 1.0, 2.0])),
        "MMD, rational quadratic": lambda: MMD(RationalQuadraticKernel([0.5, 2.0])),
        "MMD, features": lambda: MMD(GaussianKernel([1.0]), features=torch.tanh),
    },
    "MomentMatching": {"MomentMatching": lambda: MomentMatching(torch.square)},
}


def members(base: type) -> dict[str, Callable[[], Any]]:
    """Return constructors of all that `pyro_gan.objectives` exports of one family, by name."""
    found: dict[str, Callable[[], Any]] = {}
    for name, member in concrete_members(objectives, base).items():
        found |= SETTINGS.get(name, {name: member})
    return found


OBJECTIVES: dict[str, Callable[[], Objective]] = members(Objective)
PENALTIES: dict[str, Callable[[], Penalty]] = members(Penalty)
TWO_SAMPLE_LOSSES: dict[str, Callable[[], TwoSampleLoss]] = members(TwoSampleLoss)
