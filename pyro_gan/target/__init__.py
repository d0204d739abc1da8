"""What is sampled: a batched potential, its gradient and, where it is known, its split into prior and weight."""

from pyro_gan.target.base import Target
from pyro_gan.target.batched import ModelTarget
from pyro_gan.target.make import make_target
from pyro_gan.target.potential import PotentialTarget
from pyro_gan.target.program import ProgramTarget
from pyro_gan.target.tempered import TemperedTarget

__all__ = ["ModelTarget", "PotentialTarget", "ProgramTarget", "Target", "TemperedTarget", "make_target"]
