"""Grids of 25 Gaussians: the data that papers train on, and a toy whose flawed generator has a density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gan import checks
from pyro_gan.toys.base import DensityRatio, Toy, draw, seeded_noise, zeros

__all__ = ["GridMixture", "gaussians25", "grid"]


@final
class GridMixture(TorchDistribution):
    """A mixture of narrow Gaussians on a square grid of means, with a broad Gaussian around the origin.

        p(x) = (1 - v) sum_ij w_ij N(x; (g_i, g_j), s^2 I) + v N(x; 0, t^2 I)

    The exponential of a term is a product of one factor for each axis, so a value costs 2 m exponentials instead of
    m^2. The largest factor of each axis is taken out first, so that nothing underflows.

    Args:
        axis: g, the m means of an axis.
        weights: w, positive, with sum 1. Rows follow the first axis.
        scale: s, positive.
        broad_weight: v, in [0, 1); 0 leaves the broad Gaussian out.
        broad_scale: t, positive.

    Raises:
        ValueError: if an argument has another shape or range.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self,
        axis: Float[Tensor, " m"],
        weights: Float[Tensor, "m m"],
        *,
        scale: float,
        broad_weight: float = 0.0,
        broad_scale: float = 1.0,
    ) -> None:
        self.axis = checks.rows("axis", axis, event_shape=())
        self.weights = checks.rows("weights", weights, minimum=len(axis), event_shape=axis.shape)
        if len(weights) != len(axis) or not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
            raise ValueError(
                f"Expected {len(axis)} rows of positive weights with sum 1; got {len(weights)} rows with minimum "
                f"{float(weights.min()):g} and sum {float(weights.sum()):g}. Divide them by their sum."
            )
        self.scale = checks.real("scale", scale, above=0)
        self.broad_weight = checks.real("broad_weight", broad_weight, minimum=0, below=1)
        self.broad_scale = checks.real("broad_scale", broad_scale, above=0)
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)

    @property
    def means(self) -> Float[Tensor, "mode 2"]:
        """The means of the narrow Gaussians, in the order of `weights.flatten()`."""
        return torch.cartesian_prod(self.axis, self.axis)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw `(*sample_shape, 2)` values from torch's generator."""
        count = math.prod(sample_shape)
        index = torch.multinomial(self.weights.flatten(), max(count, 1), replacement=True)[:count]
        noise = torch.randn(count, 2, dtype=self.axis.dtype, device=self.axis.device)
        narrow = self.means[index] + self.scale * noise
        is_broad = torch.rand(count, 1, dtype=self.axis.dtype, device=self.axis.device) < self.broad_weight
        return torch.where(is_broad, self.broad_scale * noise, narrow).reshape(*sample_shape, 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density in nats of `(*batch, 2)` values, `(*batch,)`."""
        exponent = (value.unsqueeze(-1) - self.axis).square() * (-0.5 / self.scale**2)
        # It cancels, so the gradient needs no part of it.
        top = exponent.detach().amax(-1, keepdim=True)
        factor = (exponent - top).exp()
        total = ((factor[..., 0, :] @ self.weights) * factor[..., 1, :]).sum(-1)
        narrow = total.log() + top.sum((-1, -2)) - math.log(2 * math.pi * self.scale**2)
        if self.broad_weight == 0:
            return narrow
        broad = value.square().sum(-1) * (-0.5 / self.broad_scale**2)
        broad = broad + math.log(self.broad_weight / (2 * math.pi * self.broad_scale**2))
        return torch.logaddexp(narrow + math.log1p(-self.broad_weight), broad)


def grid(*, seed: int = 0, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build the exact 5 x 5 grid: 25 Gaussians, and a flawed generator of them. Both densities are known.

    The data are uniform over the means {-2, ..., 2}^2, with sd 0.05. The generator is the identity; its prior is what
    a GAN might make of the data: 90 % on the same means, with log-normal(0.8) weights and sd 0.08, and 10 %
    N(0, 1.5^2 I).

    Args:
        seed: Seed of the local generator that draws the weights. Torch's own generator does not move.
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The toy; its `prior` and `posterior` (the distribution of the data) are both a `GridMixture`.

    Raises:
        ValueError: if the seed is no count, or torch has no such dtype or device.

    Example:
        >>> toy = grid()
        >>> toy.log_ratio(toy.posterior.means).shape
        torch.Size([25])
    """
    axis = torch.arange(-2, 3).to(zeros(dtype=dtype, device=device))
    weights = (0.8 * seeded_noise(seed, 5, 5)).exp()
    generated = GridMixture(axis, (weights / weights.sum()).to(axis), scale=0.08, broad_weight=0.1, broad_scale=1.5)
    data = GridMixture(axis, torch.full_like(generated.weights, 1 / 25), scale=0.05)
    return Toy(nn.Identity(), DensityRatio(data, generated), generated, partial(draw, data), data)


def gaussians25(*, dtype: torch.dtype | None = None, device: Any = None) -> GridMixture:
    """Return the 25 Gaussians that papers train GANs on: means {-4, -2, 0, 2, 4}^2, sd 0.05, all divided by 2.828.

    The authors of WGAN-GP published the data in this form. Relative to the distance of the modes, a mode is half as
    wide as one of `grid`. These are data to train on, without a generator: `data.sample((n,))` draws them, and
    `mode_report(x, data.means, sd=data.scale)` judges samples.

    Args:
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The distribution, with `event_shape (2,)`.

    Raises:
        ValueError: if torch has no such dtype or device.

    References:
        Improved Training of Wasserstein GANs, I. Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028

    Example:
        >>> gaussians25().sample((5,)).shape
        torch.Size([5, 2])
    """
    axis = torch.arange(-4, 5, 2).to(zeros(dtype=dtype, device=device)) / 2.828
    return GridMixture(axis, torch.full((5, 5), 1 / 25).to(axis), scale=0.05 / 2.828)
