"""The latent posterior of a GAN as a Pyro model and as a batched potential."""

from pyro_gan.latent.posterior import LatentPosterior

__all__ = ["LatentPosterior"]
