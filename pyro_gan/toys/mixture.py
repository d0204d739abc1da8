"""Grids of 25 Gaussians: the law that papers train on, and a flawed generator beside its data, with densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gan.toys.base import DensityRatio, Toy, draw

__all__ = ["GridMixture", "gaussians25", "grid"]


class GridMixture(TorchDistribution):
    """A mixture of narrow Gaussians on a square grid of means, with a broad Gaussian around the origin.

        p(x) = (1 - v) sum_ij w_ij N(x; (g_i, g_j), s^2 I) + v N(x; 0, t^2 I)

    A term's exponential is a product of one factor an axis, so a value costs 2 m exponentials and not m^2; the
    largest factor of each axis is taken out first, so that nothing underflows.

    Args:
        axis: g, the m means of an axis.
        weights: w, positive, with sum 1: rows follow the first axis.
        scale: s.
        broad_weight: v; 0 leaves the broad Gaussian out.
        broad_scale: t.
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
        if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-5:
            raise ValueError("Expected positive weights with sum 1; divide them by their sum.")
        self.axis, self.weights, self.scale = axis, weights, scale
        self.broad_weight, self.broad_scale = broad_weight, broad_scale
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)

    @property
    def means(self) -> Float[Tensor, "mode 2"]:
        """The narrow Gaussians' means, in the order of `weights.flatten()`."""
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
        # A constant as far as the gradient goes: it cancels.
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
    """Build the exact 5 x 5 grid: a flawed generator of 25 Gaussians with both densities known.

    The data are uniform over the means {-2, ..., 2}^2, sd .05. The generator is the identity; its prior is what a
    GAN might make of them: 90 % on the same means, with log-normal(.8) weights and sd .08, and 10 % N(0, 1.5^2 I).

    Args:
        seed: Of the local generator that draws the weights; torch's own is not moved.
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The toy; its `prior` and `posterior` (the data's law) are both a `GridMixture`.

    Example:
        >>> toy = grid()
        >>> toy.log_ratio(toy.posterior.means).shape
        torch.Size([25])
    """
    axis = torch.linspace(-2, 2, 5, dtype=dtype, device=device)
    # Drawn on the CPU in float64, so that every device and dtype gets the same weights.
    noise = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights = (0.8 * noise).exp()
    generated = GridMixture(
        axis, (weights / weights.sum()).to(axis), scale=0.08, broad_weight=0.1, broad_scale=1.5
    )
    data = GridMixture(axis, torch.full_like(generated.weights, 1 / 25), scale=0.05)
    return Toy(nn.Identity(), DensityRatio(data, generated), generated, partial(draw, data), data)


def gaussians25(*, dtype: torch.dtype | None = None, device: Any = None) -> GridMixture:
    """Return the law of the 25 Gaussians that papers train GANs on: means {-4, ..., 4}^2, sd .05, all over 2.828.

    That is how the authors of WGAN-GP published it; a mode is half as wide, for its distance from the next, as one of
    `grid`. It is data to train on, and has no generator: `law.sample((n,))` draws it, and
    `mode_report(x, law.means, sd=law.scale)` judges samples of it.

    Args:
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The law, with `event_shape (2,)`.

    References:
        Improved Training of Wasserstein GANs, I. Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028

    Example:
        >>> gaussians25().sample((5,)).shape
        torch.Size([5, 2])
    """
    axis = torch.linspace(-4, 4, 5, dtype=dtype, device=device) / 2.828
    return GridMixture(axis, torch.full((5, 5), 1 / 25).to(axis), scale=0.05 / 2.828)
