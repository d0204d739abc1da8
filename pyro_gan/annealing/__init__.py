"""From the prior to the target on a ladder of temperatures: annealed importance sampling and sequential Monte Carlo."""

from pyro_gan.annealing.ais import AIS
from pyro_gan.annealing.climb import Annealed, anneal, tune
from pyro_gan.annealing.ladder import geometric, linear, next_beta, sigmoid
from pyro_gan.annealing.mover import Schedule
from pyro_gan.annealing.normaliser import LogNormaliser, log_normaliser
from pyro_gan.annealing.smc import SMC

__all__ = [
    "AIS",
    "SMC",
    "Annealed",
    "LogNormaliser",
    "Schedule",
    "anneal",
    "geometric",
    "linear",
    "log_normaliser",
    "next_beta",
    "sigmoid",
    "tune",
]
