"""A generator whose outputs are drawn from a latent posterior, and the resampling that draws them by default."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._random import rng_fork
from pyro_gan.improved.report import ImprovementReport
from pyro_gan.latent import LatentPosterior
from pyro_gan.resampling import ImportanceResampler

__all__ = ["ImprovedGenerator", "Sampler", "resample"]

#: Effective draws for each output of `resample`: about one output in twenty is then a copy of another.
DRAWS_PER_OUTPUT = 10
#: Draws for each output, at most: where fewer than one in a hundred is effective, more outputs are copies.
MAX_DRAWS_PER_OUTPUT = 1000
#: Latents that are held at once; more are drawn in rounds.
MAX_POOL = 1_000_000

Sampler = Callable[[LatentPosterior, int], Tensor]


@final
class ImprovedGenerator(nn.Module):
    """A generator whose outputs are drawn from a latent posterior: call it with a number of outputs.

    Args:
        posterior: The latent posterior, at an infinite temperature for the generator alone.
        sampler: Draws latents of the posterior, `(posterior, num_outputs) -> (output, *latent)`.
        report: How it came about; None if it was made by hand.

    Example:
        >>> from pyro_gan import toys
        >>> toy = toys.gaussian_shift(0.8)
        >>> better = ImprovedGenerator(LatentPosterior(toy.generator, toy.log_ratio, toy.prior))
        >>> better(5).shape
        torch.Size([5, 1])
    """

    def __init__(
        self, posterior: LatentPosterior, *, sampler: Sampler | None = None, report: ImprovementReport | None = None
    ) -> None:
        super().__init__()
        self.posterior = checks.instance("posterior", posterior, LatentPosterior)
        self.sampler = resample if sampler is None else checks.function("sampler", sampler)
        self.report = report

    @property
    def temperature(self) -> float:
        """The posterior's temperature; infinite if the generator is used alone."""
        return self.posterior.temperature

    def forward(self, num_outputs: int) -> Float[Tensor, "output *event"]:
        """Return that many outputs, without gradient."""
        num_outputs = checks.count("num_outputs", num_outputs)
        if math.isinf(self.temperature):
            z = self.posterior.prior.sample((num_outputs,))
        else:
            z = self.sampler(self.posterior, num_outputs)
        return self.posterior.decode(z)


def resample(posterior: LatentPosterior, num_outputs: int) -> Float[Tensor, "output *latent"]:
    """Draw latents by importance resampling, from enough prior draws that about one in twenty is a copy.

    An output takes 10 effective draws, and 1000 draws at most: with an ESS fraction below .01 more outputs are copies.

    Args:
        posterior: The latent posterior.
        num_outputs: Number of latents.

    Returns:
        Latents, in random order.
    """
    with rng_fork(), torch.no_grad():
        share = ImportanceResampler(posterior, min_ess=1)(1, 10_000).report.tail.ess_fraction
    num_draws = max(num_outputs, 100) * min(DRAWS_PER_OUTPUT / share, MAX_DRAWS_PER_OUTPUT)
    num_rounds = min(math.ceil(num_draws / MAX_POOL), num_outputs)
    rounds = torch.arange(num_outputs).tensor_split(num_rounds)
    resampler = ImportanceResampler(posterior, min_ess=1)
    drawn = [resampler(len(one), math.ceil(num_draws / num_rounds)).samples[posterior.site] for one in rounds]
    return torch.cat(drawn)
