"""The energy distance is the MMD of the kernel -|x - y|; of the Gaussian pair it is known (T-C8)."""

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


def test_energy_distance_of_one_law_is_zero() -> None:
    estimates = [MMD(energy_kernel)(Q.sample((200, 1)), Q.sample((200, 1))) for _ in range(200)]
    assert_mean(torch.stack(estimates), 0.0, "energy distance")
