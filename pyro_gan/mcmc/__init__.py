"""Sample with chains: kernels over a `Target`, with chains as a batch, under Pyro's runner or ours."""

from pyro_gan.mcmc.accept import Info, metropolis
from pyro_gan.mcmc.chees import ChEES
from pyro_gan.mcmc.face import TransitionKernel
from pyro_gan.mcmc.fitted import FittedProposal, fit_proposal
from pyro_gan.mcmc.hmc import BatchHMC
from pyro_gan.mcmc.independence import IndependenceMH
from pyro_gan.mcmc.isir import ISIR
from pyro_gan.mcmc.kernel import BatchKernel
from pyro_gan.mcmc.langevin import MALA, ULA
from pyro_gan.mcmc.local_global import LocalGlobal
from pyro_gan.mcmc.metropolis_hastings import GuidedProposal, MetropolisHastings, Proposal
from pyro_gan.mcmc.pcn import PCN, RandomWalk
from pyro_gan.mcmc.proposal import IndependenceKernel
from pyro_gan.mcmc.run import VectorizedMCMC
from pyro_gan.mcmc.step_size import StepSize
from pyro_gan.mcmc.stepped import StepOptions, SteppedKernel
from pyro_gan.targets import State

__all__ = [
    "ISIR",
    "MALA",
    "PCN",
    "ULA",
    "BatchHMC",
    "BatchKernel",
    "ChEES",
    "FittedProposal",
    "GuidedProposal",
    "IndependenceKernel",
    "IndependenceMH",
    "Info",
    "LocalGlobal",
    "MetropolisHastings",
    "Proposal",
    "RandomWalk",
    "State",
    "StepOptions",
    "StepSize",
    "SteppedKernel",
    "TransitionKernel",
    "VectorizedMCMC",
    "fit_proposal",
    "metropolis",
]
