"""Linear generators with a known likelihood, in double precision."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_gan.distributions import EntropicGAN
from pyro_gan.likelihood import LinearGaussian

__all__ = ["GAP_LINEAR", "POINTS", "SWEEP", "THREE", "double", "gan_of", "random_linear", "standard_normal", "zigzag"]


def double(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


#: Two latents, three coordinates; the tests know its likelihoods to eight digits.
THREE = LinearGaussian(double([1, 0], [0.5, 1], [0, -2]), double(0.1, -0.2, 0.3), 0.5)
POINTS = double([0, 0, 0], [1, 1, 1], [0.1, -0.2, 0.3], [2, -1, 0.5])
GAP_LINEAR = 0.0056641
SWEEP = (5, 10, 20, 30, 64)


def standard_normal(dim: int) -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(dim, dtype=torch.float64), 1.0).to_event(1)


def zigzag() -> LinearGaussian:
    """Five latents, ten coordinates, lambda .5."""
    i, j = torch.meshgrid(torch.arange(10), torch.arange(5), indexing="ij")
    weight = (((3 * i + 5 * j) % 7) - 3).double() / 3
    return LinearGaussian(weight, torch.zeros(10, dtype=torch.float64), 0.5)


def random_linear(latent: int, dim: int) -> LinearGaussian:
    """Draw W, b and lambda; lambda spans a decade."""
    weight = torch.randn(dim, latent, dtype=torch.float64)
    regularization = float(10 ** (torch.rand(()) - 0.3))
    return LinearGaussian(weight, torch.randn(dim, dtype=torch.float64), regularization)


def gan_of(linear: LinearGaussian, **options: object) -> EntropicGAN:
    """The same model with a network as the generator."""
    dim, latent = linear.weight.shape
    generator = nn.Linear(latent, dim, dtype=torch.float64)
    with torch.no_grad():
        generator.weight.copy_(linear.weight)
        generator.bias.copy_(linear.bias)
    return EntropicGAN(generator, standard_normal(latent), regularization=linear.regularization, **options)
