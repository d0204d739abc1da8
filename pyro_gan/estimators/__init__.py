"""Estimators of a latent variable model's log likelihood: value, standard error, ESS, and which bound it is if any."""

from pyro_gan.estimators.annealed import AnnealedImportance, Sandwich, SandwichEstimate
from pyro_gan.estimators.base import Estimator, LatentLikelihood, LikelihoodEstimate
from pyro_gan.estimators.coupling import Coupling
from pyro_gan.estimators.importance import ImportanceWeighted
from pyro_gan.estimators.laplace import Laplace
from pyro_gan.estimators.surrogate import Surrogate

__all__ = [
    "AnnealedImportance",
    "Coupling",
    "Estimator",
    "ImportanceWeighted",
    "Laplace",
    "LatentLikelihood",
    "LikelihoodEstimate",
    "Sandwich",
    "SandwichEstimate",
    "Surrogate",
]
