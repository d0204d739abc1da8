"""Gaussian data, a linear encoder and a linear generator: every ratio of alpha-GAN has a formula."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

DATA_MEAN, DATA_SD = 0.4, 1.5
A, B, S = 0.5, -0.2, 0.6  # q(z|x) = N(A x + B, S^2)
W, C = 1.2, 0.1  # G(z) = W z + C
DECODER_SD, WEIGHT = 0.8, 3.0

Q_MEAN, Q_SD = A * DATA_MEAN + B, math.sqrt(A**2 * DATA_SD**2 + S**2)
REC_MEAN, REC_SD = W * Q_MEAN + C, W * Q_SD
GEN_MEAN, GEN_SD = C, W


def log_normal(x: Tensor, mean: Tensor | float, sd: float) -> Tensor:
    return -0.5 * ((x - mean) / sd).square() - math.log(sd) - 0.5 * math.log(2 * math.pi)


def gauss_hermite(mean: float, sd: float, num_points: int = 200) -> tuple[Tensor, Tensor]:
    """Points `(num_points, 1)` and weights of an expectation under a normal; for smooth functions."""
    points, weights = np.polynomial.hermite_e.hermegauss(num_points)
    weights = torch.from_numpy(weights / math.sqrt(2 * math.pi))
    return mean + sd * torch.from_numpy(points)[:, None], weights


def f_discriminator(x: Tensor, *, balanced: bool = True) -> Tensor:
    """The optimal logit of real against the mixture of reconstructions and generated data, `(row,)`."""
    fakes = torch.stack([log_normal(x, REC_MEAN, REC_SD), log_normal(x, GEN_MEAN, GEN_SD)]).logsumexp(0)
    log_ratio = log_normal(x, DATA_MEAN, DATA_SD) - fakes + (math.log(2) if balanced else 0.0)
    return log_ratio.squeeze(-1)


def f_latent(z: Tensor) -> Tensor:
    """log p(z) - log q(z), `(row,)`, with the sign of the alpha-GAN paper."""
    return (log_normal(z, 0.0, 1.0) - log_normal(z, Q_MEAN, Q_SD)).squeeze(-1)


def exact_t(x: Tensor, z: Tensor) -> Tensor:
    """log q(z|x) - log p(z), `(row,)`."""
    return (log_normal(z, A * x + B, S) - log_normal(z, 0.0, 1.0)).squeeze(-1)


class Linear(nn.Module):
    """slope x + intercept, in double precision."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.intercept = nn.Parameter(torch.tensor(intercept, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x + self.intercept


class Gaussian(nn.Module):
    """Means and log standard deviations of the toy's encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = Linear(A, B)
        self.log_sd = nn.Parameter(torch.tensor(math.log(S), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x), self.log_sd.expand_as(x)], -1)


class Noisy(Gaussian):
    """The same distribution, from a network of data and noise."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.mean(x) + self.log_sd.exp() * noise


class Quadratic(nn.Module):
    """A logit that is quadratic in its inputs, as the log ratio of two Gaussians is."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        num = 1 + num_inputs + num_inputs * (num_inputs + 1) // 2
        self.linear = nn.Linear(num, 1, bias=False).double()
        nn.init.zeros_(self.linear.weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        rows = torch.cat(inputs, -1)
        pairs = [rows[:, i] * rows[:, j] for i in range(self.num_inputs) for j in range(i, self.num_inputs)]
        return self.linear(torch.stack([torch.ones_like(rows[:, 0]), *rows.T, *pairs], -1))


def prior() -> dist.TorchDistribution:
    return dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1)


def data(num_data: int) -> Tensor:
    return DATA_MEAN + DATA_SD * torch.randn(num_data, 1, dtype=torch.float64)
