"""Targets that are known exactly: sampler, potential, prior and weight, moments.

`TARGETS` maps a name to a constructor; all are float64 densities of unconstrained z. `uniform_latents` is a GAN with
bounded latents, to test Pyro's transforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_gan import toys

__all__ = [
    "TARGETS",
    "ExactTarget",
    "Quadrature",
    "UniformLatents",
    "affine_posterior",
    "affine_toy",
    "banana",
    "correlated_gaussian",
    "gumbel",
    "never_moved_probability",
    "quadrature",
    "uniform_latents",
]

Cdf = Callable[[np.ndarray], np.ndarray]


class ExactTarget(NamedTuple):
    """A distribution p0(z) w(z) / Z in `dim` dimensions of which everything is known."""

    dim: int
    prior: dist.TorchDistribution  # p0, batch_shape (), event_shape (dim,)
    log_weight: Callable[[Tensor], Tensor]  # log w up to a constant: (chain, dim) -> (chain,)
    sample: Callable[[int], Tensor]  # exact draws from torch's generator, (draw, dim)
    mean: Tensor  # (dim,)
    sd: Tensor  # (dim,)
    cdf: Cdf | None = None  # if dim is 1

    def potential(self, z: Tensor) -> Tensor:
        """Return -log p0 - log w, `(chain,)`."""
        return -self.prior.log_prob(z) - self.log_weight(z)


class Quadrature(NamedTuple):
    """A scalar distribution by numerical integration."""

    mean: float
    sd: float
    log_normaliser: float
    cdf: Cdf
    sample: Callable[[int], Tensor]  # by inversion, (draw, 1)


class UniformLatents(NamedTuple):
    """A GAN with bounded latents, `LatentPosterior(generator, log_ratio, prior)`, and its exact latent posterior."""

    generator: nn.Module
    log_ratio: nn.Module
    prior: dist.TorchDistribution
    law: Quadrature


def correlated_gaussian(dim: int = 2) -> ExactTarget:
    """Return N(m, C): correlation .6 between neighbours, standard deviations from .8 to 1.2; prior N(0, 4 I)."""
    mean = torch.linspace(-0.5, 0.5, dim, dtype=torch.float64)
    sd = torch.linspace(0.8, 1.2, dim, dtype=torch.float64)
    lag = (torch.arange(dim)[:, None] - torch.arange(dim)).abs()
    law = dist.MultivariateNormal(mean, covariance_matrix=0.6**lag * sd[:, None] * sd)
    return _from_density(law.log_prob, _normal(dim, 2.0), lambda n: law.sample((n,)), mean, sd)


def affine_posterior(dim: int = 3) -> ExactTarget:
    """Return the latent posterior of an affine generator, with the prior and weight of the GAN."""
    toy = affine_toy(dim)
    return ExactTarget(
        dim=dim,
        prior=toy.prior,
        log_weight=lambda z: toy.log_ratio(toy.generator(z)),
        sample=lambda n: toy.posterior.sample((n,)),
        mean=toy.posterior.mean,
        sd=toy.posterior.variance.sqrt(),
    )


def affine_toy(dim: int = 3, *, temperature: float = 1.0) -> toys.Toy:
    """Return an affine generator in float64 whose outputs are wider than the data, sheared and off centre."""
    matrix = 1.8 * torch.eye(dim, dtype=torch.float64) + 0.3 * torch.ones(dim, dim, dtype=torch.float64).tril(-1)
    bias = torch.linspace(-0.5, 1.0, dim, dtype=torch.float64)
    lag = (torch.arange(dim)[:, None] - torch.arange(dim)).abs()
    return toys.affine_gaussian(
        matrix,
        bias,
        mean=torch.full((dim,), 0.3, dtype=torch.float64),
        covariance=(0.5**lag).double(),
        temperature=temperature,
    )


def gumbel() -> ExactTarget:
    """Return the Gumbel distribution, skewness 1.14; its heavy-tailed prior keeps the weight bounded."""
    law = dist.Gumbel(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)).to_event(1)
    return _from_density(
        law.log_prob,
        _student(1),
        lambda n: law.sample((n,)),
        torch.tensor([0.5772156649015329], dtype=torch.float64),
        torch.tensor([math.pi / math.sqrt(6)], dtype=torch.float64),
        cdf=lambda z: np.exp(-np.exp(-z)),
    )


def banana() -> ExactTarget:
    """Return z1 ~ N(0, 1), z2 = (z1^2 - 1) / 2 + N(0, 0.4^2); its heavy-tailed prior keeps the weight bounded."""
    bend, width = 0.5, 0.4

    def log_prob(z: Tensor) -> Tensor:
        rest = z[..., 1] - bend * (z[..., 0].square() - 1)
        return -0.5 * (z[..., 0].square() + (rest / width).square())

    def sample(num_draws: int) -> Tensor:
        first, noise = torch.randn(2, num_draws, dtype=torch.float64)
        return torch.stack([first, bend * (first.square() - 1) + width * noise], dim=-1)

    sd = torch.tensor([1.0, math.sqrt(2 * bend**2 + width**2)], dtype=torch.float64)
    return _from_density(log_prob, _student(2), sample, torch.zeros(2, dtype=torch.float64), sd)


def uniform_latents() -> UniformLatents:
    """Return a generator with U(-1, 1) latents and its latent posterior by quadrature.

    x = 2 z, so p_G is uniform on (-2, 2). The data are N(1, 1) truncated to that interval, with most of their mass near
    the upper bound, so a sampler that mishandles the bound is wrong.
    """
    one = torch.ones(1, dtype=torch.float64)
    generator = nn.utils.skip_init(nn.Linear, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        generator.weight.fill_(2.0)
        generator.bias.zero_()
    log_ratio = _CutGaussianRatio(centre=1.0, half_width=2.0)
    # The density of the uniform prior is 1/2 on the interval of the quadrature.
    law = quadrature(lambda z: log_ratio(2.0 * z[:, None]) - math.log(2), -1.0, 1.0)
    return UniformLatents(generator, log_ratio, dist.Uniform(-one, one).to_event(1), law)


def quadrature(log_density: Callable[[Tensor], Tensor], low: float, high: float) -> Quadrature:
    """Integrate a log density `(point,) -> (point,)` over an interval by the midpoint rule."""
    num = 200_000
    edges = np.linspace(low, high, num + 1)
    middle = torch.as_tensor((edges[:-1] + edges[1:]) / 2)
    log_mass = log_density(middle).detach() + math.log((high - low) / num)
    log_normaliser = float(log_mass.logsumexp(0))
    mass = (log_mass - log_normaliser).exp()
    mean = float(mass @ middle)
    cumulative = np.concatenate([[0.0], mass.cumsum(0).numpy()])
    return Quadrature(
        mean=mean,
        sd=math.sqrt(float(mass @ (middle - mean).square())),
        log_normaliser=log_normaliser,
        cdf=lambda z: np.interp(z, edges, cumulative),
        sample=lambda n: torch.as_tensor(np.interp(torch.rand(n, 1, dtype=torch.float64).numpy(), cumulative, edges)),
    )


def never_moved_probability(auc: float, num_steps: int, *, start: str = "data") -> float:
    """Return the probability that an independence chain on the Gaussian shift has not moved after `num_steps`.

    The chain starts at a draw from the data (as MH-GAN does) or from the prior. At x it accepts with probability
    a(x) = P(x' > x) + E[r(x'); x' < x] / r(x) = Phi(-x) + Phi(x - delta) exp(delta^2 / 2 - delta x).
    """
    delta = math.sqrt(2) * float(torch.special.ndtri(torch.tensor(auc, dtype=torch.float64)))
    centre = {"data": delta, "prior": 0.0}[start]
    x = torch.linspace(centre - 12, centre + 12, 200_001, dtype=torch.float64)
    # Phi by its log: far out in the tail the product of a tiny Phi and a huge 1 / r is not 0.
    log_ndtr = torch.special.log_ndtr
    accept = log_ndtr(-x).exp() + (log_ndtr(x - delta) + delta**2 / 2 - delta * x).exp()
    density = torch.exp(-0.5 * (x - centre).square()) / math.sqrt(2 * math.pi)
    stuck = torch.log1p(-accept.clamp(max=1)).mul(num_steps).exp()
    return float(torch.trapezoid(density * stuck, x))


TARGETS: dict[str, Callable[[], ExactTarget]] = {
    "gaussian 2": lambda: correlated_gaussian(2),
    "gaussian 5": lambda: correlated_gaussian(5),
    "affine posterior": affine_posterior,
    "gumbel": gumbel,
    "banana": banana,
}


class _CutGaussianRatio(nn.Module):
    """The log ratio of N(centre, 1) truncated to (-w, w) over uniform on (-w, w)."""

    def __init__(self, *, centre: float, half_width: float) -> None:
        super().__init__()
        ends = torch.tensor([half_width - centre, -half_width - centre], dtype=torch.float64)
        upper, lower = torch.special.ndtr(ends).tolist()
        self.centre = centre
        self.constant = math.log(2 * half_width / math.sqrt(2 * math.pi)) - math.log(upper - lower)

    def forward(self, x: Tensor) -> Tensor:
        return self.constant - 0.5 * (x[..., 0] - self.centre).square()


def _normal(dim: int, scale: float) -> dist.TorchDistribution:
    zero = torch.zeros(dim, dtype=torch.float64)
    return dist.Normal(zero, zero + scale).to_event(1)


def _student(dim: int) -> dist.TorchDistribution:
    zero = torch.zeros(dim, dtype=torch.float64)
    return dist.StudentT(zero + 4, zero, zero + 1.5).to_event(1)


def _from_density(
    log_prob: Callable[[Tensor], Tensor],
    prior: dist.TorchDistribution,
    sample: Callable[[int], Tensor],
    mean: Tensor,
    sd: Tensor,
    *,
    cdf: Cdf | None = None,
) -> ExactTarget:
    return ExactTarget(
        dim=len(mean),
        prior=prior,
        log_weight=lambda z: log_prob(z) - prior.log_prob(z),
        sample=sample,
        mean=mean,
        sd=sd,
        cdf=cdf,
    )
