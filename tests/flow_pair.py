"""Two flows, one for the data and one for the generator: their log ratio is exact and far from quadratic."""

from __future__ import annotations

import copy
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_gan._random import rng_fork
from pyro_gan.toys import RealNVP, Toy
from pyro_gan.toys.base import DensityRatio

__all__ = ["flow_pair"]


def flow_pair(num_features: int, *, change: float, seed: int = 0) -> Toy:
    """Build the generator, a random flow, and the distribution of the data, the same flow with other parameters.

    Args:
        num_features: Size of latents and data.
        change: Standard deviation of the noise added to each parameter.
        seed: Seed of both flows; the global generator of torch does not move.

    Returns:
        The toy. Its posterior is not known in closed form; the prior stands in its place.
    """
    with rng_fork():
        torch.manual_seed(seed)
        generator = RealNVP(num_features, num_couplings=4, hidden=(16,)).requires_grad_(False).eval()
        data = copy.deepcopy(generator)
        for parameter in data.parameters():
            parameter += change * torch.randn_like(parameter)
    prior = dist.Normal(torch.zeros(num_features), torch.ones(num_features)).to_event(1)
    return Toy(generator, DensityRatio(data, generator), prior, partial(_draw, data, prior), prior)


def _draw(flow: RealNVP, prior: dist.TorchDistribution, num_draws: int) -> Tensor:
    return flow(prior.sample((num_draws,)))
