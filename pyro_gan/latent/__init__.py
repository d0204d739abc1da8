"""A generator and the prior of its latents as a Pyro model, alone or weighted by a log ratio."""

from pyro_gan.latent.posterior import LatentPosterior
from pyro_gan.latent.prior import LatentPrior
from pyro_gan.latent.report import PosteriorReport

__all__ = ["LatentPosterior", "LatentPrior", "PosteriorReport"]
