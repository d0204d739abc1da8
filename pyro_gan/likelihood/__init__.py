"""How likely a data point is under a generator: the joint model, couplings, and estimators of its log likelihood."""

from pyro_gan.likelihood.annealed import AnnealedImportance
from pyro_gan.likelihood.coupling import Coupling
from pyro_gan.likelihood.estimator import Estimator, LatentLikelihood, LikelihoodEstimate
from pyro_gan.likelihood.importance import ImportanceWeighted
from pyro_gan.likelihood.joint import EntropicModel
from pyro_gan.likelihood.laplace import Laplace
from pyro_gan.likelihood.linear import AffineGuide, LinearGaussian
from pyro_gan.likelihood.sandwich import Sandwich, SandwichEstimate
from pyro_gan.likelihood.surrogate import Surrogate

__all__ = [
    "AffineGuide",
    "AnnealedImportance",
    "Coupling",
    "EntropicModel",
    "Estimator",
    "ImportanceWeighted",
    "Laplace",
    "LatentLikelihood",
    "LikelihoodEstimate",
    "LinearGaussian",
    "Sandwich",
    "SandwichEstimate",
    "Surrogate",
]
