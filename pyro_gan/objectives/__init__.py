"""How a critic and a generator are trained, and which log density ratio that training leaves in the critic."""

from pyro_gan.objectives.base import Objective
from pyro_gan.objectives.ipm import Wasserstein
from pyro_gan.objectives.scoring import Bernoulli

__all__ = ["Bernoulli", "Objective", "Wasserstein"]
