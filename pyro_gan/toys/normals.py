"""Mixtures of normals at given points, the ring of eight, and a generator that misses one mode of four."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gan.toys.base import DensityRatio, Toy, draw

__all__ = ["NormalMixture", "missing_mode", "normal_mixture", "ring"]


class NormalMixture(dist.MixtureSameFamily):
    """A mixture of normals that says of its support what Pyro's own kernels can transform: all of space."""

    support = constraints.real_vector

    @property
    def means(self) -> Float[Tensor, "mode dim"]:
        """The normals' means."""
        return self.component_distribution.base_dist.loc


def normal_mixture(
    logits: Float[Tensor, " mode"], means: Float[Tensor, "mode dim"], sd: Float[Tensor, " mode"]
) -> NormalMixture:
    """Return a mixture of normals at given points, each with one standard deviation in all coordinates.

    Args:
        logits: Log weights, `(mode,)`, up to a constant.
        means: `(mode, dim)`; everything follows their dtype and device.
        sd: Of each, `(mode,)`.

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
    """Return the law of the ring: equal Gaussians in the plane, evenly around a circle.

    The defaults are those of the data that the authors of WGAN-GP published. It is data to train on, and has no
    generator: `law.sample((n,))` draws it, `mode_report(x, law.means, sd=sd)` judges samples of it.

    Args:
        num_modes: How many.
        radius: Of the circle.
        sd: Of each, in both coordinates.
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The law, with `event_shape (2,)`.

    Raises:
        ValueError: if an argument is not positive.

    References:
        Improved Training of Wasserstein GANs, I. Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028

    Example:
        >>> ring().sample((5,)).shape
        torch.Size([5, 2])
    """
    if num_modes < 1 or not radius > 0 or not sd > 0:
        raise ValueError(
            f"Expected at least one mode and a positive radius and sd; got {num_modes=}, {radius=}, {sd=}."
        )
    angle = 2 * math.pi * torch.arange(num_modes, dtype=torch.float64) / num_modes
    means = (radius * torch.stack([angle.cos(), angle.sin()], -1)).to(
        torch.zeros((), dtype=dtype, device=device)
    )
    return normal_mixture(means.new_zeros(num_modes), means, means.new_full((num_modes,), sd))


def missing_mode(share: float = 0.0, *, dtype: torch.dtype | None = None, device: Any = None) -> Toy:
    """Build four Gaussians on a line, and a generator that has the first three and all but misses the fourth.

    The data are a quarter each at -3, -1, 1 and 3, sd .25. The generator is the identity; its prior has a weight
    `share` on the fourth, and shares the rest among the others equally. So the log ratio at 3 is log(1 / (4 share)):
    whatever finds the mode can weigh it up again, to an ESS fraction near 16 share. With a share of 0 the ratio is
    still exact, and no sampler can use it: the generator makes one point in 10^15 near 3, and draws of it have a mean
    ratio of 3 / 4, where the ratio's own mean is 1. A sampler cannot bring back what its generator never makes.

    Args:
        share: Weight of the fourth mode in the generator, in [0, 1).
        dtype: Of all tensors; torch's default if None.
        device: Of all tensors.

    Returns:
        The toy, with latents and data of shape `(batch, 1)`; its `posterior` is the data's law, to which
        prior times ratio amounts at any share.

    Raises:
        ValueError: if the share is outside [0, 1).

    Example:
        >>> toy = missing_mode(share=0.01)
        >>> toy.log_ratio(torch.tensor([[3.0]])).exp()
        tensor([25.0000])
    """
    if not 0 <= share < 1:
        raise ValueError(
            f"Expected a share in [0, 1); got {share}. It is the fourth mode's weight in the generator; the data's "
            "own is 0.25."
        )
    means = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=dtype, device=device)
    sd = means.new_full((4,), 0.25)
    data = normal_mixture(means.new_zeros(4), means, sd)
    weights = means.new_tensor([(1 - share) / 3] * 3 + [share])
    made = weights > 0
    generated = normal_mixture(weights[made].log(), means[made], sd[made])
    return Toy(nn.Identity(), DensityRatio(data, generated), generated, partial(draw, data), data)
