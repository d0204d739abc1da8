"""Importance weights: effective size, log mean weight and its error, Pareto smoothing, systematic resampling."""

from pyro_gan.importance.jackknife import jackknife_error
from pyro_gan.importance.mean import LogMeanWeight, effective_size, finite_weights, log_mean_weight
from pyro_gan.importance.resampling import systematic
from pyro_gan.importance.tail import WeightTail, has_enough_draws, smooth, weight_tail

__all__ = [
    "LogMeanWeight",
    "WeightTail",
    "effective_size",
    "finite_weights",
    "has_enough_draws",
    "jackknife_error",
    "log_mean_weight",
    "smooth",
    "systematic",
    "weight_tail",
]
