"""What is sampled: a batched potential, its gradient and, where it is known, its split into prior and weight."""

from pyro_gan.targets.base import Target
from pyro_gan.targets.make import make_target
from pyro_gan.targets.model import ModelTarget
from pyro_gan.targets.potential import PotentialTarget
from pyro_gan.targets.program import ProgramTarget
from pyro_gan.targets.tempered import TemperedTarget

__all__ = ["ModelTarget", "PotentialTarget", "ProgramTarget", "Target", "TemperedTarget", "make_target"]
