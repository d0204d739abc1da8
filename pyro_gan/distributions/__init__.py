"""Generators as Pyro distributions, and the laws that come with them."""

from pyro_gan.distributions.entropic import EntropicGAN
from pyro_gan.distributions.implicit import Implicit
from pyro_gan.distributions.linear import AffineGuide, LinearGaussian
from pyro_gan.distributions.model import EntropicModel
from pyro_gan.distributions.radial import RadialExponential

__all__ = ["AffineGuide", "EntropicGAN", "EntropicModel", "Implicit", "LinearGaussian", "RadialExponential"]
