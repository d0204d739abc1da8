"""Losses between a data point and a generated one, with the constant that makes each a density."""

from pyro_gan.residuals.loss import ResidualLoss, residual_loss
from pyro_gan.residuals.radial import RadialExponential

__all__ = ["RadialExponential", "ResidualLoss", "residual_loss"]
