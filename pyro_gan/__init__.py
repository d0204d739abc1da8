"""Trained GANs as citizens of probabilistic programming: a plugin for Pyro.

A generator and the log ratio of data to generated density become a Pyro model, `LatentPosterior`; `VectorizedMCMC`
samples it with thousands of chains in one batch, `ImportanceResampler` without any, and `to_arviz` hands the run to
ArviZ. `calibrate` and `fit_log_ratio` make the log ratio. `improve` does all of this in one call, with a certificate.
"""

from pyro_gan import (
    annealing,
    distributions,
    evaluate,
    export,
    importance,
    improved,
    latent,
    likelihood,
    mcmc,
    objectives,
    probes,
    ratio,
    resampling,
    residuals,
    targets,
    toys,
    training,
    vi,
)
from pyro_gan.export import to_arviz
from pyro_gan.improved import improve
from pyro_gan.latent import LatentPosterior
from pyro_gan.mcmc import VectorizedMCMC
from pyro_gan.ratio import LogRatio, calibrate, fit_log_ratio
from pyro_gan.resampling import ImportanceResampler

__version__ = "0.1.0.dev0"

__all__ = [
    "ImportanceResampler",
    "LatentPosterior",
    "LogRatio",
    "VectorizedMCMC",
    "annealing",
    "calibrate",
    "distributions",
    "evaluate",
    "export",
    "fit_log_ratio",
    "importance",
    "improve",
    "improved",
    "latent",
    "likelihood",
    "mcmc",
    "objectives",
    "probes",
    "ratio",
    "resampling",
    "residuals",
    "targets",
    "to_arviz",
    "toys",
    "training",
    "vi",
]
