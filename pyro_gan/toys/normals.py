"""Mixtures of normals at given points, the ring of eight, and a toy whose generator misses one mode of four."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, final

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gan import checks
from pyro_gan.toys.base import DensityRatio, Toy, draw, zeros

__all__ = ["NormalMixture", "missing_mode", "normal_mixture", "ring"]


@final
class NormalMixture(dist.MixtureSameFamily):
    """A mixture of normals whose support is declared as real vectors, which Pyro's own kernels can transform."""

    support = constraints.real_vector

    @property
    def means(self) -> Float[Tensor, "mode dim"]:
        """The means of the normals."""
        return self.component_distribution.base_dist.loc


def normal_mixture(
    logits: Float[Tensor, " mode"], means: Float[Tensor, "mode dim"], sd: Float[Tensor, " mode"]
) -> NormalMixture:
    """Return a mixture of normals at given points, each with one standard deviation in all coordinates.

    Args:
        logits: Log weights, `(mode,)`, up to a constant.
        means: `(mode, dim)`. All tensors have their dtype and device.
        sd: Standard deviation of each, `(mode,)`.

    Returns:
        The mixture, with `event_shape (dim,)`.

    Example:
        >>> normal_mixture(torch.zeros(2), torch.tensor([[0.0], [4.0]]), torch.ones(2)).mean
        tensor([2.])
    """
    components = dist.Normal(means, sd.to(means)[:, None].expand_as(means), validate_args=False)
    weights = dist.Categorical(logits=logits.to(means), validate_args=False)
    return NormalMixture(weights, components.to_event(1), validate_args=False)


def ring(
    num_modes: int = 8,
    *,
    radius: float = 2 / 1.414,
    sd: float = 0.02 / 1.414,
    dtype: torch.dtype | None = None,
    device: Any = None,
) -> NormalMixture:
    """Return the ring: equal Gaussians in the plane, evenly spaced on a circle.

    The defaults are those of the data that the authors of WGAN-GP published. These are data to train on, without a
    generator: `data.sample((n,))` draws them, and `mode_report(x, data.means, sd=sd)` judges samples.

    Args:
        num_modes: Number of Gaussians.
        radius: Radius of the circle.
        sd: Standard deviation of each, in both coordinates.
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The distribution, with `event_shape (2,)`.

    Raises:
        ValueError: if an argument is not positive, or torch has no such dtype or device.

    References:
        Improved Training of Wasserstein GANs, I. Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028

    Example:
        >>> ring().sample((5,)).shape
        torch.Size([5, 2])
    """
    checks.count("num_modes", num_modes)
    radius, sd = checks.real("radius", radius, above=0), checks.real("sd", sd, above=0)
    angle = 2 * math.pi * torch.arange(num_modes, dtype=torch.float64) / num_modes
    means = (radius * torch.stack([angle.cos(), angle.sin()], -1)).to(zeros(dtype=dtype, device=device))
    return normal_mixture(means.new_zeros(num_modes), means, means.new_full((num_modes,), sd))


def missing_mode(share: float = 0.0, *, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build four Gaussians on a line, and a generator that makes the first three but hardly any of the fourth.

    The data are a quarter each at -3, -1, 1 and 3, with sd 0.25. The generator is the identity; its prior has weight
    `share` on the fourth mode, and equal weights on the others. The log ratio at 3 is therefore log(1 / (4 share)). A
    sampler that finds the mode restores its weight, at an ESS fraction near 16 share. With a share of 0 the ratio is
    still exact, but no sampler can use it: the generator makes one point in 10^15 near 3, and its draws have a mean
    ratio of 3 / 4 where the exact mean is 1. A sampler cannot restore what its generator never makes.

    Args:
        share: Weight of the fourth mode in the generator, in [0, 1).
        dtype: Dtype of all tensors; torch's default if None.
        device: Device of all tensors.

    Returns:
        The toy, with latents and data of shape `(batch, 1)`. Its `posterior` is the distribution of the data, which is
        prior times ratio for any share.

    Raises:
        ValueError: if the share is outside [0, 1), or torch has no such dtype or device.

    Example:
        >>> toy = missing_mode(share=0.01)
        >>> toy.log_ratio(torch.tensor([[3.0]])).exp()
        tensor([25.0000])
    """
    cure = "It is the weight of the fourth mode in the generator; in the data it is 0.25."
    share = checks.real("share", share, minimum=0, below=1, cure=cure)
    means = torch.arange(-3.0, 4.0, 2.0).unsqueeze(-1).to(zeros(dtype=dtype, device=device))
    sd = means.new_full((4,), 0.25)
    data = normal_mixture(means.new_zeros(4), means, sd)
    weights = means.new_tensor([(1 - share) / 3] * 3 + [share])
    made = weights > 0
    generated = normal_mixture(weights[made].log(), means[made], sd[made])
    return Toy(nn.Identity(), DensityRatio(data, generated), generated, partial(draw, data), data)
