"""What is sampled: a batched potential, its gradient and, if it is known, its split into prior and weight."""

from pyro_gan.targets.base import Target, WeightedTarget
from pyro_gan.targets.make import make_target, make_weighted_target
from pyro_gan.targets.model import ModelTarget
from pyro_gan.targets.potential import PotentialTarget
from pyro_gan.targets.program import ProgramTarget
from pyro_gan.targets.state import Parts, State
from pyro_gan.targets.tempered import PowerTarget, TemperedTarget

__all__ = [
    "ModelTarget",
    "Parts",
    "PotentialTarget",
    "PowerTarget",
    "ProgramTarget",
    "State",
    "Target",
    "TemperedTarget",
    "WeightedTarget",
    "make_target",
    "make_weighted_target",
]
