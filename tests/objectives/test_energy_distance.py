"""The energy distance is the MMD with kernel -|x - y|; between the Gaussian pair it is known.

E = 2 E|X - Y| - E|X - X'| - E|Y - Y'|, and E|N(m, s^2)| = s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / s sqrt(2)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gan.objectives import MMD
from tests.objectives.gaussian_pair import P, Q
from tests.statistics import assert_mean

ENERGY_DISTANCE = 0.16631097


def energy_kernel(squared_distance: Tensor) -> Tensor:
    return -squared_distance.clamp(min=0).sqrt()


def test_energy_distance_of_the_gaussian_pair() -> None:
    estimates = [
        MMD(energy_kernel)(P.sample((200, 1)), Q.sample((200, 1))) for _ in range(200)
    ]  # unbiased, so their mean is right whatever the number of rows
    assert_mean(torch.stack(estimates), ENERGY_DISTANCE, "energy distance")


def test_energy_distance_of_one_distribution_is_zero() -> None:
    estimates = [MMD(energy_kernel)(Q.sample((200, 1)), Q.sample((200, 1))) for _ in range(200)]
    assert_mean(torch.stack(estimates), 0.0, "energy distance")
