"""Sample with chains: kernels over a `Target`, chains as a batch, under Pyro's runner or ours."""

from pyro_gan.mcmc.hmc import BatchHMC
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.langevin import MALA, ULA
from pyro_gan.mcmc.metropolis_hastings import MetropolisHastings, Proposal
from pyro_gan.mcmc.pcn import PCN, RandomWalk
from pyro_gan.mcmc.run import VectorizedMCMC

__all__ = [
    "MALA",
    "PCN",
    "ULA",
    "BatchHMC",
    "BatchKernel",
    "IndependenceMH",
    "MetropolisHastings",
    "Proposal",
    "RandomWalk",
    "VectorizedMCMC",
]
