"""What a toy is: a generator, its exact log ratio, its prior, its data, and the posterior that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_gan import checks

__all__ = ["DensityRatio", "Toy", "draw", "seeded_noise", "zeros"]


@final
class Toy(NamedTuple):
    """A generator, its exact log density ratio, its prior and its data.

    `LatentPosterior(toy.generator, toy.log_ratio, toy.prior)` samples it.
    """

    #: Maps latents `(batch, dim)` to data `(batch, dim)`.
    generator: nn.Module
    #: Maps data `(batch, dim)` to log p_data - log p_G, `(batch,)`, in nats and with every constant.
    log_ratio: nn.Module
    #: The latents' distribution: `batch_shape ()`, `event_shape (dim,)`.
    prior: TorchDistribution
    #: Draws so many data points from torch's generator, `(draw, dim)`.
    sample_data: Callable[[int], Tensor]
    #: The latent posterior p0(z) r(G(z))^(1/temperature), normalised: its `sample`, `mean`, `variance` are exact.
    posterior: TorchDistribution


def draw(distribution: TorchDistribution, num_draws: int) -> Tensor:
    """Draw from a distribution. This is a plain function, so that a toy can be pickled."""
    return distribution.sample((num_draws,))


def zeros(*shape: int, dtype: torch.dtype | None, device: Any) -> Tensor:
    """Return zeros of a dtype and on a device that a user gave.

    Raises:
        ValueError: if the dtype is not one of real numbers, or torch cannot use the device.
    """
    try:
        found = torch.zeros(shape, dtype=dtype, device=device)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"Expected a dtype and a device of torch; got {dtype!r} and {device!r}.") from error
    if not found.is_floating_point():
        raise ValueError(f"Expected a dtype of real numbers; got {dtype}.")
    return found


def seeded_noise(seed: int, *shape: int) -> Tensor:
    """Return normal numbers from a generator of their own, on the CPU in float64: equal for every device and dtype."""
    generator = torch.Generator().manual_seed(checks.random_seed(seed))
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@final
class DensityRatio(nn.Module):
    """The log ratio of two known densities."""

    def __init__(self, data: TorchDistribution, generated: TorchDistribution) -> None:
        super().__init__()
        self.data, self.generated = data, generated

    def forward(self, x: Tensor) -> Tensor:
        """Return log p_data - log p_G of data `(batch, dim)`, `(batch,)`."""
        return self.data.log_prob(x) - self.generated.log_prob(x)
