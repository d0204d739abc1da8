"""Sample a target without a chain: prior draws weighed and resampled, or weighed and rejected."""

from pyro_gan.independent.rejection import RejectionReport, Rejections, RejectionSampler
from pyro_gan.independent.resampling import ImportanceResampler, Resamples, ResamplingReport

__all__ = [
    "ImportanceResampler",
    "RejectionReport",
    "RejectionSampler",
    "Rejections",
    "Resamples",
    "ResamplingReport",
]
