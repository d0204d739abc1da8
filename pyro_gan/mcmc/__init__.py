"""Sample with chains: kernels over a `Target`, chains as a batch, under Pyro's runner or ours."""

from pyro_gan.mcmc.chees import ChEES
from pyro_gan.mcmc.fitted import FittedProposal, fit_proposal
from pyro_gan.mcmc.hmc import BatchHMC
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.isir import ISIR
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.langevin import MALA, ULA
from pyro_gan.mcmc.local_global import LocalGlobal
from pyro_gan.mcmc.metropolis_hastings import MetropolisHastings, Proposal
from pyro_gan.mcmc.pcn import PCN, RandomWalk
from pyro_gan.mcmc.run import VectorizedMCMC

__all__ = [
    "ISIR",
    "MALA",
    "PCN",
    "ULA",
    "BatchHMC",
    "BatchKernel",
    "ChEES",
    "FittedProposal",
    "IndependenceMH",
    "LocalGlobal",
    "MetropolisHastings",
    "Proposal",
    "RandomWalk",
    "VectorizedMCMC",
    "fit_proposal",
]
