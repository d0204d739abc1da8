"""What a toy is: a generator, its exact log ratio, its prior, its data and the posterior they imply."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

__all__ = ["DensityRatio", "Toy", "draw"]


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
    #: Draws that many data from torch's generator, `(draw, dim)`.
    sample_data: Callable[[int], Tensor]
    #: The latent posterior p0(z) r(G(z))^(1/temperature), normalised: its `sample`, `mean`, `variance` are exact.
    posterior: TorchDistribution


def draw(law: TorchDistribution, num_draws: int) -> Tensor:
    """Draw from a law; a plain function, so that a toy can be pickled."""
    return law.sample((num_draws,))


class DensityRatio(nn.Module):
    """The log ratio of two known densities."""

    def __init__(self, data: TorchDistribution, generated: TorchDistribution) -> None:
        super().__init__()
        self.data, self.generated = data, generated

    def forward(self, x: Tensor) -> Tensor:
        """Return log p_data - log p_G of data `(batch, dim)`, `(batch,)`."""
        return self.data.log_prob(x) - self.generated.log_prob(x)
