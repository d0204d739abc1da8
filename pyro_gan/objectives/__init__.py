"""Losses that train a critic and a generator, and the log density ratio that the trained critic gives."""

from pyro_gan.objectives.base import Objective, Penalty, SeparableObjective, TwoSampleLoss, no_log_ratio
from pyro_gan.objectives.bregman import BKL, KLIEP, LSIF, UKL
from pyro_gan.objectives.divergences import (
    GAN,
    KL,
    JensenShannon,
    Neyman,
    Pearson,
    ReverseKL,
    SquaredHellinger,
    TotalVariation,
)
from pyro_gan.objectives.entropic import EntropicTransport
from pyro_gan.objectives.fit import FittedGAN, fit_gan
from pyro_gan.objectives.generators import Minimax, Paired
from pyro_gan.objectives.ipm import Wasserstein
from pyro_gan.objectives.margins import Hinge, Misclassification
from pyro_gan.objectives.penalties import DRAGAN, R1, GradientPenalty, batch_noise, clip_weights
from pyro_gan.objectives.scoring import Bernoulli, Brier, Exponential, LeastSquares, Spherical
from pyro_gan.objectives.scoring_rule import ScoringRule
from pyro_gan.objectives.tangent import exp_tangent
from pyro_gan.objectives.transport import FittedTransport, fit_transport
from pyro_gan.objectives.two_sample import MMD, GaussianKernel, MomentMatching, RationalQuadraticKernel
from pyro_gan.objectives.up_to_constant import DonskerVaradhan, Normalised
from pyro_gan.objectives.variational import Divergence

__all__ = [
    "BKL",
    "DRAGAN",
    "GAN",
    "KL",
    "KLIEP",
    "LSIF",
    "MMD",
    "R1",
    "UKL",
    "Bernoulli",
    "Brier",
    "Divergence",
    "DonskerVaradhan",
    "EntropicTransport",
    "Exponential",
    "FittedGAN",
    "FittedTransport",
    "GaussianKernel",
    "GradientPenalty",
    "Hinge",
    "JensenShannon",
    "LeastSquares",
    "Minimax",
    "Misclassification",
    "MomentMatching",
    "Neyman",
    "Normalised",
    "Objective",
    "Paired",
    "Pearson",
    "Penalty",
    "RationalQuadraticKernel",
    "ReverseKL",
    "ScoringRule",
    "SeparableObjective",
    "Spherical",
    "SquaredHellinger",
    "TotalVariation",
    "TwoSampleLoss",
    "Wasserstein",
    "batch_noise",
    "clip_weights",
    "exp_tangent",
    "fit_gan",
    "fit_transport",
    "no_log_ratio",
]
