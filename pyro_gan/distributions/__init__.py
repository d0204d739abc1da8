"""Generators as Pyro distributions, and the distributions that come with them."""

from pyro_gan.distributions.entropic import EntropicGAN
from pyro_gan.distributions.implicit import Implicit
from pyro_gan.residuals.radial import RadialExponential

__all__ = ["EntropicGAN", "Implicit", "RadialExponential"]
